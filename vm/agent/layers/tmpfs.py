"""A tmpfs of its own."""

from __future__ import annotations

import os

from agent import kernel
from agent.basics import Json, RigError
from agent.layers.base import Fact, Layer, mounts_at


class Tmpfs(Layer):
    """A mounted tmpfs with a size= of its own. mount(2) on a tmpfs does not block."""

    def up(self) -> None:
        """Make it."""
        self.path = self.site.directory(self.name)
        try:
            kernel.mount("rig", self.path, "tmpfs", 0, f"size={self.spec['size']}")
        except OSError as error:
            raise RigError(str(error)) from error
        self.mounted = True

    def resize(self, size: int) -> None:
        """Give it another size, in bytes. Raises RigError: below what is used it cannot be."""
        try:
            kernel.mount("rig", self.path, "tmpfs", kernel.MS_REMOUNT, f"size={size}")
        except OSError as error:
            raise RigError(f"the tmpfs {self.name} refuses size={size}: {error}") from error

    def down(self) -> list[Json]:
        """Take it away."""
        if not self.mounted:
            return []
        command = self.site.run(["umount", self.path])
        self.mounted = mounts_at(self.path)
        return [command]

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        room = os.statvfs(self.path)
        return {"path": self.path, "size": room.f_blocks * room.f_frsize}

    def left(self) -> list[str]:
        """What is still there of it."""
        return [f"mount {self.path}"] if self.path and mounts_at(self.path) else []
