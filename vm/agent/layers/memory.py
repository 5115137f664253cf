"""Devices that keep their data in the kernel's memory: zram, brd, null_blk."""

from __future__ import annotations

import contextlib
import os

from agent import cgroups, kernel
from agent.basics import Json, RigError, one_line, read_text
from agent.layers.base import Fact, Layer
from agent.layers.command import told

_CONFIG = "/sys/kernel/config"
_NULLB = f"{_CONFIG}/nullb/rig"
_ZRAM = "/sys/class/zram-control"
_MEBIBYTE = 1 << 20


class InMemory(Layer):
    """What they have in common: what they hold goes with them."""

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        return {"path": self.path, "size": kernel.device_size(self.path)}

    def left(self) -> list[str]:
        """What is still there of it."""
        return [self.path] if self.path and os.path.exists(self.path) else []


class Zram(InMemory):
    """One zram device."""

    number = -1

    @property
    def sysfs(self) -> str:
        """Where its attributes are."""
        return f"/sys/block/zram{self.number}"

    def up(self) -> None:
        """Make it."""
        self.site.must(["modprobe", "zram", "num_devices=0"])
        self.number = int(read_text(f"{_ZRAM}/hot_add"))
        self.path = f"/dev/zram{self.number}"
        try:
            cgroups.write(f"{self.sysfs}/disksize", str(self.spec["size"]))
        except OSError as error:
            raise RigError(f"{self.path}: {error}") from error

    def used(self) -> int:
        """Bytes of memory that it takes for what it holds. Raises OSError if it does not say."""
        with open(f"{self.sysfs}/mm_stat", encoding="ascii") as file:
            return int(file.read().split()[2])

    def limit(self, size: int) -> None:
        """Limit that; 0 is no limit. Raises RigError."""
        try:
            cgroups.write(f"{self.sysfs}/mem_limit", str(size))
        except OSError as error:
            raise RigError(f"{self.path} refuses a limit: {error}") from error

    def down(self) -> list[Json]:
        """Take it away."""
        if self.number < 0 or not os.path.exists(self.sysfs):
            return []
        problem = ""
        try:
            cgroups.write(f"{self.sysfs}/reset", "1")
            cgroups.write(f"{_ZRAM}/hot_remove", str(self.number))
        except OSError as error:
            problem = one_line(error)
        return [told(["zram", "remove", self.path], problem)]

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        return {**super().facts(), "algorithms": read_text(f"{self.sysfs}/comp_algorithm")}


class Brd(InMemory):
    """The one device of the driver, which comes and goes with its module."""

    def up(self) -> None:
        """Make it."""
        size = self.spec["size"] // 1024
        self.site.run(["modprobe", "-r", "brd"])
        self.site.must(["modprobe", "brd", "rd_nr=1", f"rd_size={size}", "max_part=0"])
        self.path = "/dev/ram0"

    def down(self) -> list[Json]:
        """Take it away."""
        return [self.site.run(["modprobe", "-r", "brd"])] if self.path else []


class NullBlk(InMemory):
    """A device that is made by configfs."""

    def up(self) -> None:
        """Make it."""
        self.site.run(["modprobe", "-r", "null_blk"])
        self.site.must(["modprobe", "null_blk", "nr_devices=0"])
        try:
            if not os.path.exists(f"{_CONFIG}/nullb"):
                kernel.mount("configfs", _CONFIG, "configfs", 0, "")
            os.mkdir(_NULLB)
            for name, value in (
                ("size", self.spec["size"] // _MEBIBYTE),
                ("blocksize", 4096),
                ("memory_backed", 1),
                ("discard", 1),
                ("power", 1),
            ):
                cgroups.write(f"{_NULLB}/{name}", str(value))
            index = read_text(f"{_NULLB}/index")
        except OSError as error:
            raise RigError(f"no null_blk device: {error}") from error
        # Since Linux 6.4 it has the name of its folder.
        names = ("/dev/rig", f"/dev/nullb{index}")
        self.path = next((name for name in names if os.path.exists(name)), "")
        if not self.path:
            raise RigError("the null_blk device has no node")

    def down(self) -> list[Json]:
        """Take it away."""
        with contextlib.suppress(OSError):
            os.rmdir(_NULLB)
        return [self.site.run(["modprobe", "-r", "null_blk"])]
