"""A dm-vdo volume whose space somebody else has taken."""

from __future__ import annotations

import mmap
import os

from agent.basics import Json, RigError
from agent.layers import dm
from agent.layers.base import said, succeeded
from agent.layers.command import in_child
from agent.layers.vdo import BLOCK, LIMIT, Vdo
from agent.shortages.base import Shortage

_STEP = 1 << 20
_FEW = 16 * BLOCK


class VdoSpace(Shortage):
    """Somebody else writes behind the device, and discards it all again. The gauge is the volume's
    own status, which is asked by ioctl(2).
    """

    _last: Json | None = None
    _taken = 0

    def _volume(self) -> Vdo:
        layer = self.layer()
        if not isinstance(layer, Vdo):
            raise RigError(f"{layer.name} is no dm-vdo volume")
        return layer

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        volume = self._volume()
        leave, begin = int(self.spec["leave"]), int(volume.spec["size"])
        path = dm.device(volume.volume)
        while (excess := self._left(volume) - leave) > 0:
            # The block map takes a block now and then too: come down to what is to be left in steps.
            length = _STEP if excess > 2 * _STEP else min(_FEW, excess)
            at = begin + self._taken

            def fill(at: int = at, length: int = length) -> None:
                _write(path, at, length)

            command = in_child(["fill", path], fill, LIMIT, volume.site)
            if not succeeded(command):
                raise RigError(f"cannot fill {volume.name}: {said(command)}")
            self._taken += length

    def _left(self, volume: Vdo) -> int:
        used, total = volume.blocks()
        return (total - used) * BLOCK

    def relieve(self) -> None:
        """Take the shortage away. Raises RigError."""
        volume = self._volume()
        begin = str(volume.spec["size"])
        path = dm.device(volume.volume)
        volume.site.must(["blkdiscard", "-f", "-o", begin, "-l", str(self._taken), path], LIMIT)

    def reading(self) -> Json:
        """The gauge. Bytes. Of a volume that is stopped the last that was read."""
        volume = self._volume()
        if self._last is None or volume.attached():
            used, total = volume.blocks()
            self._last = self.gauge(used * BLOCK, total * BLOCK)
        return self._last


def _write(path: str, offset: int, length: int) -> None:
    """Blocks that are no zeros, which would take no space. Raises OSError."""
    buffer = mmap.mmap(-1, length)
    for at in range(0, length, BLOCK):
        buffer[at : at + 16] = f"{offset + at:016d}".encode()
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    os.pwrite(fd, buffer, offset)
    os.fsync(fd)
    os.close(fd)
