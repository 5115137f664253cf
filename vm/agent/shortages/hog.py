"""Somebody else's file that takes all the space of a filesystem but a little."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from agent.basics import Json, RigError, poll_until
from agent.cgroups import Tree
from agent.layers.base import Layer
from agent.shortages.base import Shortage
from agent.shortages.watched import Helper, Tally, watch

NAME = ".hog"
_TRIES = 32
_RELIEF_LIMIT = 3.0
_OFTEN = 0.001
"""Seconds between two looks of who gives space back: he is to come in the middle of a request."""


class Hog(Shortage):
    """The gauge is statfs of the layer: what ordinary data can no longer have, of all there is.

    f_bavail and not f_bfree: filesystems keep blocks back that no data gets (ext4's reserved
    clusters, xfs's set-aside).
    """

    def __init__(self, spec: Json, layers: Mapping[str, Layer], cgroups: Tree) -> None:
        super().__init__(spec, layers, cgroups)
        self._last: Json | None = None
        self._giver: Helper | None = None

    def _available(self) -> int:
        room = os.statvfs(self.layer().path)
        return room.f_bavail * room.f_frsize

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        leave: int = self.spec["leave"]
        path = f"{self.layer().path}/{NAME}"
        grain = os.statvfs(self.layer().path).f_frsize
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                size, most = 0, 1 << 62
                for _ in range(_TRIES):
                    # Space is booked as the file grows (metadata, extents), so it takes a few
                    # rounds to come down to exactly what is to be left.
                    excess = min(most, self._available() - leave) // grain * grain
                    if excess == 0:
                        break
                    if excess < 0:
                        # The last booking took more than it asked for: give that back.
                        size += excess
                        os.ftruncate(fd, size)
                        self._settle()
                        continue
                    most = _allocate(fd, size, excess)
                    size += excess if most >= excess else 0
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise RigError(f"cannot fill {self.layer().name}: {error}") from error
        found = self._available()
        slack = max(16 * grain, leave // 8)
        if not leave - slack <= found <= leave + slack:
            raise RigError(f"{self.layer().name} has {found} bytes left, not {leave}")
        if self.spec.get("grows"):
            self._give(path, int(self.spec["grows"]))

    def _give(self, path: str, by: int) -> None:
        least = os.stat(path).st_size // 2

        def short() -> bool:
            return self._available() == 0 and os.stat(path).st_size - by >= least

        def cut() -> None:
            os.truncate(path, os.stat(path).st_size - by)

        who = "who gives space back"
        self._giver = watch(who, short, cut, Tally(), pause=_OFTEN, wait=_OFTEN, urgent=True)

    def check(self) -> None:
        """Raises RigError if whoever gives space back has ended by himself."""
        if self._giver is not None:
            self._giver.check()

    def end(self) -> None:
        """End whoever gives space back. Raises RigError."""
        giver, self._giver = self._giver, None
        if giver is not None:
            giver.end(tick=self.layer().site.tick)

    def relieve(self) -> None:
        """Take it away again. Raises RigError."""
        self.check()
        self.end()
        path = f"{self.layer().path}/{NAME}"
        try:
            wanted = self._available() + os.stat(path).st_blocks * 512 * 9 // 10
            os.unlink(path)
        except OSError as error:
            raise RigError(f"cannot remove the hog: {error}") from error

        # Filesystems may free an unlinked file's space in the background.
        def freed() -> bool:
            return self._available() >= wanted

        if poll_until(freed, _RELIEF_LIMIT):
            return
        self._settle()
        if not poll_until(freed, _RELIEF_LIMIT):
            raise RigError(f"removing the hog freed too little on {self.layer().name}")

    def _settle(self) -> None:
        """Have the filesystem carry out what it has put off: btrfs frees space when it commits."""
        self.layer().site.must(["sync", "-f", self.layer().path], limit=20)

    def reading(self) -> Json:
        """The gauge. Bytes. Of a filesystem that is not mounted, the last that was read."""
        if not self.layer().mounted and self._last:
            return self._last
        room = os.statvfs(self.layer().path)
        total = room.f_blocks * room.f_frsize
        self._last = self.gauge(total - room.f_bavail * room.f_frsize, total)
        return self._last


def _allocate(fd: int, offset: int, length: int) -> int:
    """Give a range of a file its blocks. The most bytes to ask for next: no more than half of what
    could not be had, since btrfs tells of space as available that one request cannot get.

    Raises OSError for anything but want of space.
    """
    try:
        os.posix_fallocate(fd, offset, length)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return length // 2
    return 1 << 62
