"""A tmpfs of its own."""

from __future__ import annotations

import os

from agent import cgroups, kernel
from agent.basics import Json, RigError, chosen, read_text
from agent.layers.base import Fact, Layer, mounts_at

SHMEM_ENABLED = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

QUOTA_OPTIONS = {"user": "usrquota", "group": "grpquota"}


class Tmpfs(Layer):
    """A mounted tmpfs with a size= of its own. mount(2) on a tmpfs does not block."""

    _before = ""

    def up(self) -> None:
        """Make it."""
        self.path = self.site.directory(self.name)
        huge = self.spec.get("huge", "never")
        options = f"size={self.spec['size']}"
        if huge == "force":
            self._set_for_all("force")
        elif huge != "never":
            options += f",huge={huge}"
        if self.spec.get("inodes", 0):
            options += f",nr_inodes={self.spec['inodes']}"
        if self.spec.get("quota"):
            options += "".join(f",{QUOTA_OPTIONS[kind]}" for kind in self.spec["quota"])
        try:
            kernel.mount("rig", self.path, "tmpfs", 0, options)
        except OSError as error:
            raise RigError(str(error)) from error
        self.mounted = True

    def _set_for_all(self, choice: str) -> None:
        """What shmem_enabled says holds for every tmpfs; what it said is kept for tear-down."""
        self._before = chosen(read_text(SHMEM_ENABLED))
        try:
            cgroups.write(SHMEM_ENABLED, choice)
        except OSError as error:
            raise RigError(f"cannot set {SHMEM_ENABLED}: {error}") from error

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
        if self._before:
            cgroups.write(SHMEM_ENABLED, self._before)
        self.mounted = mounts_at(self.path)
        return [command]

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        room = os.statvfs(self.path)
        return {
            "path": self.path,
            "size": room.f_blocks * room.f_frsize,
            "huge": self.spec.get("huge", "never"),
        }

    def left(self) -> list[str]:
        """What is still there of it."""
        return [f"mount {self.path}"] if self.path and mounts_at(self.path) else []
