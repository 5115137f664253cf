"""Arrays of the md driver, by mdadm."""

from __future__ import annotations

import os
from collections.abc import Mapping

from agent import kernel
from agent.basics import Json, RigError, one_line, read_text
from agent.layers.base import Attachable, Fact, Layer, Site, succeeded

ENV = {"MDADM_NO_UDEV": "1"}
LIMIT = 30.0
_DETACH_LIMIT = 5.0
_REBUILD_LIMIT = 60.0
_CHUNK, _OFFSET = 64, 1024
"""KiB of a chunk, and of what comes before the data under metadata 1.2."""
_FIRST, _LAST = 100, 116


class MdRaid(Attachable):
    """An array of one number, which it keeps when it is assembled anew."""

    def __init__(self, spec: Json, rig: Mapping[str, Layer], site: Site) -> None:
        super().__init__(spec, rig, site)
        self._number = -1

    def legs(self) -> list[Layer]:
        """The legs, in order."""
        return [self.rig[name] for name in self.spec["legs"]]

    def _paths(self) -> list[str]:
        return [leg.path for leg in self.legs()]

    def up(self) -> None:
        """Make it."""
        level = self.spec["personality"]
        self.site.must(["modprobe", "raid456" if level == "raid5" else level])
        taken = set(os.listdir("/sys/block"))
        self._number = next(n for n in range(_FIRST, _LAST) if f"md{n}" not in taken)
        self.path = f"/dev/md{self._number}"
        legs = self._paths()
        share = self.spec["size"] // 1024 // (len(legs) - 1 if level == "raid5" else 1)
        words = [f"--level={level}", f"--raid-devices={len(legs)}", f"--size={share}"]
        words += [f"--metadata={self.spec['metadata']}", "--assume-clean", "--run"]
        words += [f"--chunk={_CHUNK}"] if level == "raid5" else []
        words += [f"--data-offset={_OFFSET}"] if self.spec["metadata"] == "1.2" else []
        words += ["--bitmap=none"]
        self.site.must(["mdadm", "--create", self.path, *words, *legs], LIMIT, ENV)
        found = kernel.device_size(self.path)
        if found != self.spec["size"]:
            raise RigError(f"{self.path} has {found} bytes, not {self.spec['size']}")

    def attach(self) -> Json:
        """Assemble it from whatever legs are good, then give it back those that it has lost.

        An array that lost more than it can spare is assembled by force, as mdadm(8) has it.
        """
        words = ["mdadm", "--assemble", "--run", self.path, *self._paths()]
        command = self.site.run(words, LIMIT, ENV)
        if not succeeded(command) or not self.attached():
            self._stop()
            command = self.site.run([*words[:2], "--force", *words[2:]], LIMIT, ENV)
        if not succeeded(command):
            return command
        lost = [path for path in self._paths() if not self._has(path)]
        for path in lost:
            added = self.site.run(["mdadm", "--manage", self.path, "--add", path], LIMIT, ENV)
            if not succeeded(added):
                return added
        if lost and not self.site.poll(self._whole, _REBUILD_LIMIT):
            return {**command, "output": one_line("the array is not rebuilt")}
        return command

    def _sysfs(self, name: str) -> str:
        return read_text(f"/sys/block/md{self._number}/md/{name}")

    def _has(self, path: str) -> bool:
        # Without udev the nodes of the device mapper are no links to dm-N.
        number = os.stat(path).st_rdev
        place = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
        name = os.path.basename(os.path.realpath(place))
        return os.path.exists(f"/sys/block/md{self._number}/md/dev-{name}")

    def _whole(self) -> bool:
        self.site.tick()
        return self._sysfs("degraded") == "0" and self._sysfs("sync_action") == "idle"

    def _stop(self) -> Json:
        return self.site.run(["mdadm", "--stop", self.path], LIMIT, ENV)

    def detach(self) -> Json:
        """Stop it."""
        command = self._stop()
        self.site.poll(lambda: not self.attached(), _DETACH_LIMIT)
        return command

    def attached(self) -> bool:
        """Whether it is in use, by the kernel's own word."""
        return self._number >= 0 and self._sysfs("array_state") not in ("", "clear", "inactive")

    def down(self) -> list[Json]:
        """Take it away."""
        there = self._number >= 0 and self._sysfs("array_state") not in ("", "clear")
        return [self.detach()] if there else []

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        return {
            "path": self.path,
            "size": kernel.device_size(self.path),
            "metadata": self._sysfs("metadata_version"),
            "bad_blocks": os.path.exists(f"/sys/block/md{self._number}/md/rd0/bad_blocks"),
        }

    def left(self) -> list[str]:
        """What is still there of it."""
        return [self.path] if self.attached() else []

    def files_below(self) -> list[str]:
        """See ``Layer``."""
        return [path for leg in self.legs() for path in leg.files_below()]
