"""A loop device over a file or a block device, by util-linux's losetup."""

from __future__ import annotations

import os

from agent import kernel
from agent.basics import Json, RigError, one_line, read_text
from agent.layers.base import Attachable, Fact, said, succeeded
from agent.processes import Child, Output, ended, fork_exec

KEEPER_LIMIT = 30.0
"""Seconds for the process that keeps a device open to have set it up."""
DETACH_LIMIT = 5.0
"""Seconds for a device to let go after losetup -d: while anybody has it open, it only will."""


class Loop(Attachable):
    """One loop device; a re-attachment gets the same number, so its path stays."""

    number = -1
    _keeper: Child | None = None

    def renew(self) -> Json:
        """Remove the detached device and make it again under its number; the first's outcome."""
        argv = ["LOOP_CTL_REMOVE", self.path]
        try:
            kernel.remove_loop(self.number)
        except OSError as error:
            return {"argv": argv, "ended": ended(1), "output": one_line(error)}
        kernel.add_loop(self.number)
        return {"argv": argv, "ended": ended(0), "output": ""}

    def up(self) -> None:
        """Make it."""
        if not os.path.exists("/dev/loop-control"):
            self.site.must(["modprobe", "loop"])
        try:
            self.number = kernel.free_loop()
        except OSError as error:
            raise RigError(f"no loop device to be had: {error}") from error
        self.path = f"/dev/loop{self.number}"
        command = self.attach()
        if not succeeded(command):
            raise RigError(f"losetup: {said(command)}")
        asked, found = self.spec.get("direct_io", "off"), self.direct_io()
        if asked != found:
            raise RigError(f"{self.path} has direct I/O {found}, not {asked}")

    def attach(self) -> Json:
        """Run losetup over the layer below, with direct I/O as the rig asks."""
        switch = f"--direct-io={self.spec.get('direct_io', 'off')}"
        words = ["losetup", switch, self.path, self.base().path]
        cgroup = self.spec.get("cgroup", "")
        if self.spec.get("keeper") != "on":
            return self.site.run(words, cgroup=cgroup)
        output = Output()
        script = f'exec 3<>{self.path} && "$@" && exec sleep infinity'
        self._keeper = fork_exec(
            ["sh", "-c", script, "sh", *words], output.fd, procs=self.site.procs(cgroup)
        )
        self.site.poll(lambda: self.attached() or self._keeper_gone(), KEEPER_LIMIT)
        failed = not self.attached()
        how = self._keeper.finish(0) if failed else ended(0)
        printed = output.take()
        if failed and self._keeper.complaint():
            raise RigError(self._keeper.complaint())
        return {"argv": words, "ended": how, "output": printed}

    def _keeper_gone(self) -> bool:
        return self._keeper is None or self._keeper.look()

    def kill_keeper(self) -> None:
        """End the process that set the device up and keeps it open. Raises RigError."""
        if self._keeper is None or self._keeper.look():
            raise RigError(f"nobody keeps {self.path} open")
        if not self._keeper.kill(tick=self.site.tick):
            raise RigError(f"who keeps {self.path} open does not die of SIGKILL")
        self._keeper = None

    def detach(self) -> Json:
        """Run losetup -d; a device that is open may hold on to its file (see ``attached``)."""
        if self._keeper is not None and not self._keeper.look():
            self.kill_keeper()
        command = self.site.run(["losetup", "-d", self.path])
        self.site.poll(lambda: not self.attached(), DETACH_LIMIT)
        return command

    def attached(self) -> bool:
        """Whether the device has a backing file, by sysfs."""
        return os.path.exists(f"/sys/block/loop{self.number}/loop/backing_file")

    def direct_io(self) -> str:
        """``on`` or ``off``, by sysfs: losetup's request may be dropped in silence."""
        return "on" if read_text(f"/sys/block/loop{self.number}/loop/dio") == "1" else "off"

    def down(self) -> list[Json]:
        """Take it away."""
        return [self.detach()] if self.number >= 0 and self.attached() else []

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        return {
            "path": self.path,
            "size": kernel.device_size(self.path),
            "direct_io": self.direct_io(),
            "logical_block": int(
                read_text(f"/sys/block/loop{self.number}/queue/logical_block_size", "0")
            ),
        }

    def left(self) -> list[str]:
        """What is still there of it."""
        return [self.path] if self.number >= 0 and self.attached() else []

    def files_below(self) -> list[str]:
        """Its own device, whose page cache another loop device over it reads, and what is below."""
        return [self.path, *super().files_below()]
