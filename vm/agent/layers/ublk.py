"""A ublk device over the suite's own server."""

from __future__ import annotations

import os
from collections.abc import Mapping

from agent.basics import Json, RigError, read_text
from agent.layers.base import Attachable, Fact, Layer, Site, said, succeeded
from agent.layers.command import in_child, told
from agent.processes import Child
from agent.servers import ublk as server
from agent.servers.conduct import Conduct
from agent.servers.store import Store

LIMIT = 30.0
"""Seconds to attach or to detach."""
_FIRST, _LAST = 0, 16


class Ublk(Attachable):
    """The driver takes the disk away when its server ends; to attach it anew makes another, of the
    same number and over the same store.
    """

    number = -1

    def __init__(self, spec: Json, rig: Mapping[str, Layer], site: Site) -> None:
        super().__init__(spec, rig, site)
        self.store = Store(spec["size"])
        self._server: Child | None = None

    def up(self) -> None:
        """Make it."""
        self.site.must(["modprobe", "ublk_drv"])
        taken = set(os.listdir("/dev"))
        free = [n for n in range(_FIRST, _LAST) if f"ublkc{n}" not in taken]
        if not free:
            raise RigError("no ublk device is free")
        self.number = free[0]
        self.path = f"/dev/ublkb{self.number}"
        command = self.attach()
        if not succeeded(command):
            raise RigError(f"{self.path}: {said(command)}")

    def attach(self) -> Json:
        """Start a server over the same store."""
        argv = ["ublk", "start", self.path]
        pid = os.fork()
        if pid == 0:
            server.run(self.number, self.store, Conduct.of(self.spec))
        self._server = served = Child.adopt(pid)

        def ready() -> bool:
            return self.attached() and self.size() == self.spec["size"]

        def settled() -> bool:
            self.site.tick()
            return served.look() or ready()

        self.site.poll(settled, LIMIT)
        if ready():
            return told(argv)
        problem = self.store.complaint() or f"not in use after {LIMIT:.0f} s"
        self.detach()
        return told(argv, problem)

    def detach(self) -> Json:
        """Stop the disk, see the server end, and delete the device."""

        def away() -> None:
            server.stop(self.number)
            server.delete(self.number)

        command = in_child(["ublk", "stop", self.path], away, LIMIT, self.site)
        if self._server is not None:
            self._server.wait(1.0, tick=self.site.tick)
            self._server.kill(tick=self.site.tick)
            self._server = None
        self.site.poll(lambda: not self._there(), LIMIT)
        return command

    def _there(self) -> bool:
        return os.path.exists(f"/sys/class/ublk-char/ublkc{self.number}")

    def attached(self) -> bool:
        """Whether there is a disk, by sysfs."""
        return os.path.exists(f"/sys/block/ublkb{self.number}")

    def size(self) -> int:
        """Bytes of the device. Asked of sysfs: to open it would read from its server."""
        return int(read_text(f"/sys/block/ublkb{self.number}/size", "0")) * 512

    def down(self) -> list[Json]:
        """Take it away."""
        there = self.number >= 0 and (self._there() or self._server is not None)
        commands = [self.detach()] if there else []
        self.store.close()
        return commands

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        return {
            "path": self.path,
            "size": self.size(),
            "at_limit": str(self.spec.get("at_limit", "refuse")),
            "behaviour": str(self.spec.get("behaviour", "honest")),
        }

    def left(self) -> list[str]:
        """What is still there of it."""
        there = self.number >= 0 and (self.attached() or self._there())
        return [self.path] if there else []
