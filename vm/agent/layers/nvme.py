"""An NVMe namespace of the kernel's own target, which stores in a file, over its loop transport."""

from __future__ import annotations

import os
import re
from glob import glob

from agent import cgroups, kernel
from agent.basics import Json, RigError, one_line, read_text
from agent.layers.base import Attachable, Fact, said, succeeded
from agent.layers.command import in_child
from agent.processes import ended

LIMIT = 30.0
"""Seconds to connect or to disconnect."""
_CONFIG = "/sys/kernel/config"
_TARGET = f"{_CONFIG}/nvmet"
_PORT = f"{_TARGET}/ports/1"
_FABRICS = "/dev/nvme-fabrics"


class NvmeLoop(Attachable):
    """One controller with one namespace. Detached, the controller is deleted and the target stays."""

    def up(self) -> None:
        """Make it."""
        for module in ("nvmet", "nvme-loop"):
            self.site.must(["modprobe", module])
        self._nqn = f"rig-{self.name}"
        self._subsystem = f"{_TARGET}/subsystems/{self._nqn}"
        try:
            if not os.path.exists(_TARGET):
                kernel.mount("configfs", _CONFIG, "configfs", 0, "")
            self._make_target()
        except OSError as error:
            raise RigError(f"no NVMe target: {one_line(error)}") from error
        command = self.attach()
        if not succeeded(command) or not self.attached():
            raise RigError(f"no NVMe controller: {said(command)}")

    def _make_target(self) -> None:
        namespace = f"{self._subsystem}/namespaces/1"
        os.mkdir(self._subsystem)
        cgroups.write(f"{self._subsystem}/attr_allow_any_host", "1")
        os.mkdir(namespace)
        cgroups.write(f"{namespace}/device_path", self.base().path)
        buffered = self.spec.get("buffered_io", "on") == "on"
        cgroups.write(f"{namespace}/buffered_io", "1" if buffered else "0")
        cgroups.write(f"{namespace}/enable", "1")
        os.mkdir(_PORT)
        cgroups.write(f"{_PORT}/addr_trtype", "loop")
        os.symlink(self._subsystem, f"{_PORT}/subsystems/{self._nqn}")

    def _disks(self) -> list[str]:
        """Block devices of the subsystem, by sysfs: with multipath they are its own."""
        for path in glob("/sys/class/nvme-subsystem/*"):
            if read_text(f"{path}/subsysnqn") == self._nqn:
                names = os.listdir(path)
                names += [name for one in self._controllers() for name in os.listdir(one)]
                return sorted(name for name in names if re.fullmatch(r"nvme\d+n\d+", name))
        return []

    def _controllers(self) -> list[str]:
        return [
            path
            for path in glob("/sys/class/nvme/nvme*")
            if read_text(f"{path}/subsysnqn") == self._nqn
        ]

    def attach(self) -> Json:
        """Connect a controller, as nvme-cli does it."""

        def connect() -> None:
            cgroups.write(_FABRICS, f"transport=loop,nqn={self._nqn}")

        command = in_child(["nvme", "connect", self._nqn], connect, LIMIT, self.site)

        def found() -> bool:
            self.site.tick()
            return any(os.path.exists(f"/dev/{name}") for name in self._disks())

        if succeeded(command) and self.site.poll(found, LIMIT):
            self.path = f"/dev/{self._disks()[0]}"
        return command

    def detach(self) -> Json:
        """Delete its controller."""
        doors = [f"{path}/delete_controller" for path in self._controllers()]
        argv = ["nvme", "disconnect", self._nqn]
        if not doors:
            return {"argv": argv, "ended": ended(0), "output": ""}
        command = in_child(argv, lambda: cgroups.write(doors[0], "1"), LIMIT, self.site)
        self.site.poll(lambda: not self.attached(), LIMIT)
        return command

    def attached(self) -> bool:
        """Whether the subsystem has a disk, by sysfs."""
        return bool(self._disks())

    def down(self) -> list[Json]:
        """Take it away."""
        if not os.path.isdir(self._subsystem):
            return []
        commands = [self.detach()]
        namespace = f"{self._subsystem}/namespaces/1"

        def away() -> None:
            if os.path.islink(f"{_PORT}/subsystems/{self._nqn}"):
                os.unlink(f"{_PORT}/subsystems/{self._nqn}")
            if os.path.isdir(namespace):
                cgroups.write(f"{namespace}/enable", "0")
                os.rmdir(namespace)
            for path in (self._subsystem, _PORT):
                if os.path.isdir(path):
                    os.rmdir(path)

        commands.append(in_child(["nvmet", "remove", self._nqn], away, LIMIT, self.site))
        return commands

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        return {
            "path": self.path,
            "size": kernel.device_size(self.path),
            "buffered_io": read_text(f"{self._subsystem}/namespaces/1/buffered_io"),
        }

    def left(self) -> list[str]:
        """What is still there of it."""
        found = [f"/dev/{name}" for name in self._disks()] if self.path else []
        return found + ([self._subsystem] if os.path.isdir(self._subsystem) else [])
