"""A tmpfs that is remounted smaller."""

from __future__ import annotations

import os

from agent.basics import Json, RigError
from agent.layers.tmpfs import Tmpfs
from agent.shortages.base import Shortage


class TmpfsSize(Shortage):
    """The gauge is statfs: pages of the mount in use, of the pages that it may have."""

    def _tmpfs(self) -> Tmpfs:
        layer = self.layer()
        if not isinstance(layer, Tmpfs):
            raise RigError(f"{layer.name} is not a tmpfs")
        return layer

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        self._tmpfs().resize(self.spec["size"])

    def relieve(self) -> None:
        """Take it away again. Raises RigError."""
        tmpfs = self._tmpfs()
        tmpfs.resize(tmpfs.spec["size"])

    def reading(self) -> Json:
        """The gauge. Bytes."""
        room = os.statvfs(self.layer().path)
        total = room.f_blocks * room.f_frsize
        return self.gauge(total - room.f_bfree * room.f_frsize, total)
