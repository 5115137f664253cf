"""A file on a mounted layer: what a loop device stands on, or a pad that takes space."""

from __future__ import annotations

import contextlib
import os

from agent import kernel
from agent.basics import Json, RigError
from agent.layers.base import Fact, Layer


class File(Layer):
    """Sparse unless ``allocate``; with an owner and a project id where quotas want them."""

    def up(self) -> None:
        """Make it."""
        self.path = f"{self.base().path}/{self.name}"
        size: int = self.spec["size"]
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                # Ids come first, so that every block is accounted to them.
                os.fchown(fd, self.spec.get("owner", 0), self.spec.get("group", 0))
                if self.spec.get("project", 0):
                    kernel.set_project(self.path, self.spec["project"])
                if self.spec.get("allocate", False):
                    os.posix_fallocate(fd, 0, size)
                else:
                    os.ftruncate(fd, size)
            finally:
                os.close(fd)
        except OSError as error:
            raise RigError(f"cannot make the file {self.name}: {error}") from error

    def down(self) -> list[Json]:
        """Take it away."""
        # A filesystem that shut itself down may refuse; it is unmounted next, and told if not.
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        return []

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        found = os.stat(self.path)
        return {
            "path": self.path,
            "size": found.st_size,
            "allocated": found.st_blocks * 512,
            "owner": found.st_uid,
            "project": int(self.spec.get("project", 0)),
        }

    def left(self) -> list[str]:
        """What is still there of it."""
        return []

    def files_below(self) -> list[str]:
        """Its own file, and what is below."""
        return [self.path, *super().files_below()]
