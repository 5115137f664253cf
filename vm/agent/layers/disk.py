"""The guest's scratch disk."""

from __future__ import annotations

import os

from agent import kernel
from agent.basics import Json, RigError, read_text
from agent.layers.base import Fact, Layer

SERIAL = "scratch"


class Disk(Layer):
    """The virtio-blk disk with the serial ``scratch``: names of disks depend on probing order."""

    def up(self) -> None:
        """Make it."""
        for name in sorted(os.listdir("/sys/block")):
            if name.startswith("vd") and read_text(f"/sys/block/{name}/serial") == SERIAL:
                self.path = f"/dev/{name}"
                return
        raise RigError(f"there is no virtio disk with the serial {SERIAL}")

    def down(self) -> list[Json]:
        """Take it away."""
        return []

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        return {"path": self.path, "size": kernel.device_size(self.path)}

    def left(self) -> list[str]:
        """What is still there of it."""
        return []
