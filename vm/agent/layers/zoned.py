"""A zloop device, by the words that /dev/zloop-control takes."""

from __future__ import annotations

import os
import shutil

from agent import cgroups, kernel
from agent.basics import Json, RigError, one_line
from agent.layers.base import Attachable, Fact, said, succeeded
from agent.layers.command import in_child

CONTROL = "/dev/zloop-control"
LIMIT = 30.0
"""Seconds to add or to remove a device."""
_NUMBER = 0
_MEBIBYTE = 1 << 20


class Zloop(Attachable):
    """One device. Removed, its zones stay in their files; added anew with the same words, it has them."""

    def _folder(self) -> str:
        return f"{self.base().path}/{self.name}"

    def words(self) -> str:
        """What it is added by. linux:Documentation/admin-guide/blockdev/zoned_loop.rst."""
        options = [
            f"id={_NUMBER}",
            f"capacity_mb={self.spec['size'] // _MEBIBYTE}",
            f"zone_size_mb={self.spec['zone'] // _MEBIBYTE}",
            "conv_zones=0",
            f"base_dir={self._folder()}",
        ]
        if self.spec.get("buffered_io", "off") == "on":
            options.append("buffered_io")
        return f"add {','.join(options)}"

    def up(self) -> None:
        """Make it."""
        self.site.must(["modprobe", "zloop"])
        try:
            os.makedirs(f"{self._folder()}/{_NUMBER}")
        except OSError as error:
            raise RigError(f"no folder for zones: {one_line(error)}") from error
        self.path = f"/dev/zloop{_NUMBER}"
        command = self.attach()
        if not succeeded(command) or not self.attached():
            raise RigError(f"no zloop device: {said(command)}")

    def attach(self) -> Json:
        """Add it over the same files."""
        command = self._tell(self.words())
        self.site.poll(lambda: os.path.exists(self.path), LIMIT)
        return command

    def detach(self) -> Json:
        """Remove it; the files stay."""
        command = self._tell(f"remove id={_NUMBER}")
        self.site.poll(lambda: not self.attached(), LIMIT)
        return command

    def _tell(self, words: str) -> Json:
        return in_child(["zloop", words], lambda: cgroups.write(CONTROL, words), LIMIT, self.site)

    def attached(self) -> bool:
        """Whether the device is there, by sysfs."""
        return os.path.exists(f"/sys/block/zloop{_NUMBER}")

    def down(self) -> list[Json]:
        """Take it away."""
        commands = [self.detach()] if self.attached() else []
        # A file that stays is told of by the space that it takes.
        shutil.rmtree(self._folder(), ignore_errors=True)
        return commands

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        return {
            "path": self.path,
            "size": kernel.device_size(self.path),
            "zone": self.spec["zone"],
            "buffered_io": self.spec.get("buffered_io", "off"),
        }

    def left(self) -> list[str]:
        """What is still there of it."""
        return [self.path] if self.attached() else []

    def files_below(self) -> list[str]:
        """The files of its zones, and what is below."""
        folder = f"{self._folder()}/{_NUMBER}"
        zones = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        return [*(f"{folder}/{zone}" for zone in zones), *super().files_below()]
