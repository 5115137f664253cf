"""A device of which the block layer itself fails writes, with a status that it is told."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from agent import cgroups, kernel
from agent.basics import Json, RigError, one_line
from agent.cgroups import Tree
from agent.layers.base import Layer
from agent.shortages.base import Shortage

DEBUGFS = "/sys/kernel/debug/block"
KMSG = "/dev/kmsg"
_SECTOR = 512
_RECORD = 8192
_TOLD = b"injecting "
"""What the kernel says of each write that it fails so, or of some where there are many
(pr_info_ratelimited() in __blk_error_inject(), block/error-injection.c)."""


def rules(path: str) -> str:
    """The file of the rules for a device, by its node."""
    return f"{DEBUGFS}/{os.path.basename(path)}/error_injection"


class BlockStatus(Shortage):
    """The gauge is the kernel's own log: the rules have no count. There is no space to count."""

    def __init__(self, spec: Json, layers: Mapping[str, Layer], cgroups: Tree) -> None:
        super().__init__(spec, layers, cgroups)
        self._log = os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._log, 0, os.SEEK_END)
        self._hits = 0
        self._size: int | None = None

    def _write(self, text: str) -> None:
        path = rules(self.layer().path)
        try:
            cgroups.write(path, text)
        except OSError as error:
            raise RigError(f"{path} refuses {text!r}: {one_line(error)}") from error

    def impose(self) -> None:
        """Put the rule in force. Raises RigError."""
        start, sectors = self.spec["start"] // _SECTOR, self.spec["length"] // _SECTOR
        where = f"start={start},nr_sectors={sectors}"
        self._write(f"add,op=WRITE,status={self.spec['status']},{where}")
        self._size = kernel.device_size(self.layer().path)

    def relieve(self) -> None:
        """Take it away again. Raises RigError."""
        self._write("removeall")
        self._size = None

    def reading(self) -> Json:
        """The gauge. Bytes, and the writes that the kernel has told of."""
        name = f"{os.path.basename(self.layer().path)}: ".encode()
        while record := self._record():
            self._hits += sum(name + _TOLD in line for line in record.splitlines())
        return self.gauge(0, self._size, self._hits)

    def _record(self) -> bytes:
        """The next record of the log, or nothing. Where the ring ran over, it goes on with what is left."""
        while True:
            try:
                return os.read(self._log, _RECORD)
            except BlockingIOError:
                return b""
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise
