"""A swap area on a block layer."""

from __future__ import annotations

from agent import kernel
from agent.basics import Json, read_text
from agent.layers.base import Fact, Layer


class Swap(Layer):
    """In use while the rig stands."""

    def up(self) -> None:
        """Make it."""
        self.path = self.base().path
        self.site.must(["mkswap", self.path])
        self.site.must(["swapon", self.path])

    def down(self) -> list[Json]:
        """Take it away."""
        return [self.site.run(["swapoff", self.path])] if self.left() else []

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        return {"path": self.path, "size": kernel.device_size(self.path)}

    def left(self) -> list[str]:
        """What is still there of it."""
        areas = [line.split()[0] for line in read_text("/proc/swaps").splitlines()[1:]]
        return [f"swap {self.path}"] if self.path in areas else []
