"""What a layer of a rig is: it comes up over the layers below it, and goes down again."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.basics import Json, RigError, one_line, poll_until
from agent.processes import Tick, no_tick, run

Fact = str | int | bool


def _root_only(cgroup: str) -> str:
    if cgroup:
        raise RigError(f"there is no cgroup {cgroup} here")
    return ""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a rig is built and how its commands are run."""

    root: str = "/run/rig"
    tick: Tick = no_tick
    procs: Callable[[str], str] = _root_only
    """The file through which a process enters a cgroup of the case."""
    pace: float = 1.0
    """How many times slower the machine is than the reference machine: limits are multiplied by it."""

    def run(
        self,
        argv: list[str],
        limit: float = 60.0,
        env: Mapping[str, str] | None = None,
        cgroup: str = "",
    ) -> Json:
        """A command of the rig, bounded, as the host's ``Command``. ``limit`` is in seconds of the
        reference machine.
        """
        return run(argv, limit=limit * self.pace, env=env, tick=self.tick, procs=self.procs(cgroup))

    def must(
        self,
        argv: list[str],
        limit: float = 60.0,
        env: Mapping[str, str] | None = None,
    ) -> Json:
        """A command without which the rig does not stand. Raises RigError."""
        command = self.run(argv, limit, env)
        if not succeeded(command):
            raise RigError(f"{' '.join(argv)}: {said(command)}")
        return command

    def poll(self, condition: Callable[[], bool], limit: float) -> bool:
        """Wait until ``condition`` holds, for ``limit`` seconds of the reference machine; whether it did."""
        return poll_until(condition, limit * self.pace)

    def directory(self, name: str) -> str:
        """A directory of the rig's own, outside every layer: mount points."""
        path = f"{self.root}/{name}"
        os.makedirs(path, exist_ok=True)
        return path


def succeeded(command: Json) -> bool:
    """Whether a command ended with exit status 0."""
    how = command["ended"]
    return how["exit_code"] == 0 and not how["timed_out"]


def said(command: Json) -> str:
    """What a command said, as one line; how it ended, where it said nothing."""
    return one_line(command["output"] or command["ended"])


class Layer(ABC):
    """One layer. ``path`` is what steps use: a mount point, a file or a device node."""

    mounted = False

    def __init__(self, spec: Json, rig: Mapping[str, Layer], site: Site) -> None:
        self.name: str = spec["name"]
        self.spec = spec
        self.site = site
        self.path = ""
        self.rig = rig
        """The layers that stand already, by name."""
        self.below = rig[spec["on"]] if "on" in spec else None
        """The layer that this one stands on; None at the bottom."""

    @abstractmethod
    def up(self) -> None:
        """Make it and bring it into use. Raises RigError."""

    @abstractmethod
    def down(self) -> list[Json]:
        """Take it out of use; the commands that this took. Never raises for their failure."""

    @abstractmethod
    def facts(self) -> dict[str, Fact]:
        """Its path, its size in bytes, and the settings that are in force."""

    @abstractmethod
    def left(self) -> list[str]:
        """What is still there of it, by the kernel's own word."""

    def base(self) -> Layer:
        """The layer below. Raises RigError at the bottom."""
        if self.below is None:
            raise RigError(f"the layer {self.name} stands on nothing")
        return self.below

    def files_below(self) -> list[str]:
        """Files under this layer whose page cache stands between it and the medium."""
        return self.below.files_below() if self.below is not None else []


class Attachable(Layer):
    """A device that can be let go of and had again, with what was stored on it."""

    @abstractmethod
    def attach(self) -> Json:
        """Bring it into use over the same storage, under the same path; the command."""

    @abstractmethod
    def detach(self) -> Json:
        """Let it go, in bounded time; the command. ``attached`` tells whether it went."""

    @abstractmethod
    def attached(self) -> bool:
        """Whether it is in use, by the kernel's own word."""


Maker = Callable[[Json, Mapping[str, Layer], Site], Layer]


def mounts_at(path: str) -> bool:
    """Whether something is mounted at ``path``."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        return any(line.split(" ", 5)[4] == path for line in file)
