"""A SCSI device that says of its writes that it has no space, or that there is little left."""

from __future__ import annotations

from agent import cgroups, kernel
from agent.basics import Json, RigError, one_line, read_text
from agent.layers.scsi import ScsiDebug
from agent.shortages.base import Shortage

WRITES = (0x2A, 0x8A)
"""WRITE(10) and WRITE(16)."""
SENSE = {
    "space_allocation_failed": (0x7, 0x27, 0x7),  # DATA PROTECT
    "soft_threshold": (0x6, 0x38, 0x7),  # UNIT ATTENTION
}
_MANY = 1_000_000
_CHECK_CONDITION = 0x2
_FAIL_COMMAND = 2


class ScsiSense(Shortage):
    """The gauge is the driver's own count of the commands that it answered so: its rule holds a
    negative number that comes nearer to 0 with each. There is no space to count: nothing is in use.
    """

    def _disk(self) -> ScsiDebug:
        layer = self.layer()
        if not isinstance(layer, ScsiDebug):
            raise RigError(f"{layer.name} is no disk of scsi_debug")
        return layer

    def _times(self) -> int:
        return int(self.spec.get("times") or _MANY)

    def _write(self, text: str) -> None:
        try:
            cgroups.write(self._disk().rules, text)
        except OSError as error:
            raise RigError(f"scsi_debug refuses the rule {text!r}: {one_line(error)}") from error

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        key, code, qualifier = SENSE[self.spec["sense"]]
        for operation in WRITES:
            words = (_FAIL_COMMAND, -self._times(), hex(operation), 0, 0, hex(_CHECK_CONDITION))
            self._write(" ".join(map(str, (*words, hex(key), hex(code), hex(qualifier)))))

    def relieve(self) -> None:
        """Take it away again. Raises RigError."""
        for operation in WRITES:
            self._write(f"- {_FAIL_COMMAND} {operation:#x}")

    def reading(self) -> Json:
        """The gauge. Bytes, and the commands that were answered so since the rule was made."""
        rules = [
            line.split()
            for line in read_text(self._disk().rules).splitlines()
            if line.startswith(f"{_FAIL_COMMAND}\t")
        ]
        if not rules:
            return self.gauge(0)
        fired = sum(self._times() + int(words[1]) for words in rules)
        size = kernel.device_size(self._disk().path)
        return self.gauge(0, size, fired)
