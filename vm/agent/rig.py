"""A rig in the guest: the layers, the cgroups, the shortage, the bystanders, and what watches them.

Built once, torn down once; steps happen in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agent.basics import Clock, Json, RigError, one_line
from agent.cgroups import Tree, TreeV1
from agent.facts import facts
from agent.layers import KINDS as LAYERS
from agent.layers import Layer, Site
from agent.processes import KILL_LIMIT, UNKILLABLE, Child, last_started
from agent.shortages import KINDS as SHORTAGES
from agent.shortages import Shortage
from agent.watchers import blocked, oom
from agent.watchers.kmsg import KernelLog
from agent.workloads import fio
from agent.workloads.crew import Crew
from agent.workloads.files import Synced
from agent.workloads.pattern import Pattern

SHMEM_LIMIT = 3.0
"""Seconds, on the reference machine, that the tmpfs pages of a rig get to be freed after tear-down."""
SHMEM_SLACK = 64 * 1024
CGROUP_LIMIT = 3.0
LAST_SETTLE = 5.0
"""Seconds, on the reference machine, that a task gets to leave D when all is down: no look comes after."""


@dataclass(kw_only=True)
class Rig:
    """What stands in the guest, and what is remembered of it between steps."""

    clock: Clock
    pattern: Pattern
    log: KernelLog
    site: Site
    layers: dict[str, Layer] = field(default_factory=dict)
    cgroups: Tree = field(default_factory=Tree)
    shortage: Shortage | None = None
    crew: Crew = field(default_factory=Crew)
    reading: Json = field(default_factory=dict)
    synced: dict[str, list[Synced]] = field(default_factory=dict)
    """Of each filesystem: the files that were synced with success, for ``verify_files``."""
    files_begun: int = 1
    by_fio: list[fio.Order] = field(default_factory=list)
    """What fio was ordered to write: its blocks are recognised by that."""
    shmem_before: int = 0
    started_before: int = 0

    @classmethod
    def build(cls, args: Json, log: KernelLog) -> Rig:
        """Build what the arguments of ``build`` ask for. Raises RigError."""
        before = oom.shmem()
        Child.kill_limit = KILL_LIMIT * args["speed"]
        clock = Clock.start()
        log.begin(clock)
        rig = cls(
            clock=clock,
            pattern=Pattern(bytes.fromhex(args["run"])),
            log=log,
            site=Site(tick=log.drain, pace=args["speed"]),
            crew=Crew(args["speed"]),
            shmem_before=before,
            started_before=last_started(),
        )
        # Once here, and not in every child.
        rig.pattern.warm()
        shortage = args["shortage"]
        paths = list(args["cgroups"])
        paths += [shortage["cgroup"]] if "cgroup" in shortage else []
        if shortage["kind"] == "memcg_v1":
            rig.cgroups = TreeV1(shortage["hierarchy"])
        rig.cgroups.up(paths)
        rig.site = replace(rig.site, procs=rig.cgroups.procs)
        for spec in args["layers"]:
            make = LAYERS.get(spec["layer"])
            if make is None:
                raise RigError(f"the guest's program knows no layer {spec['layer']}")
            layer = make(spec, rig.layers, rig.site)
            rig.layers[layer.name] = layer
            layer.up()
        kind = SHORTAGES.get(shortage["kind"])
        if kind is None:
            raise RigError(f"the guest's program knows no shortage {shortage['kind']}")
        rig.shortage = kind(shortage, rig.layers, rig.cgroups)
        rig.crew.start(
            args["bystanders"], lambda name: rig.layer(name).path, rig.cgroups, rig.pattern, clock
        )
        return rig

    def layer(self, name: str) -> Layer:
        """A layer by its name. Raises RigError."""
        if name not in self.layers:
            raise RigError(f"the rig has no layer {name}")
        return self.layers[name]

    def built(self) -> Json:
        """The host's ``Built``. Raises RigError if the shortage's gauge cannot be read."""
        watch, problem = self.watch()
        if problem:
            raise RigError(problem)
        return {
            "layers": {name: layer.facts() for name, layer in self.layers.items()},
            "facts": facts(),
            "watch": watch,
        }

    def watch(self) -> tuple[Json, str]:
        """The host's ``Watch`` of what is to be seen now, and a problem (nothing, as a rule)."""
        self.log.drain()
        problem = ""
        try:
            assert self.shortage is not None
            self.reading = self.shortage.reading()
        except (OSError, RigError, ValueError, LookupError) as error:
            # Without its gauge nothing is known of the shortage; the last reading is no proof.
            what = "" if isinstance(error, OSError | RigError) else f"{type(error).__name__}: "
            problem = f"the shortage's gauge cannot be read: {what}{one_line(error)}"
        return self._seen(), problem

    def check_shortage(self) -> None:
        """Raises RigError if the shortage is not what the case asked for any more."""
        assert self.shortage is not None
        self.shortage.check()

    def _end_shortage(self) -> str:
        """End the shortage's processes: its memory and its helpers are not to weigh on what is timed
        now. A problem, or nothing.
        """
        assert self.shortage is not None
        try:
            self.shortage.end()
        except (OSError, RigError) as error:
            return one_line(error)
        return ""

    def _seen(self, settle: float = blocked.SETTLE) -> Json:
        """What is to be seen now, with the last reading of the gauge."""
        cgroups = self.cgroups.watch()
        bystanders = self.crew.seen()
        tasks = blocked.blocked(settle)
        return {
            "t_us": self.clock.us(),
            "reading": self.reading,
            "oom_kill": oom.kills(),
            "cgroups": cgroups,
            "bystanders": bystanders,
            "blocked": tasks,
            "taint": oom.taint(),
            "kernel_log": self.log.take(),
        }

    def tear_down(self) -> Json:
        """Take it all down, each part in bounded time: the host's ``TornDown``."""
        watch, problem = self.watch()
        problem = "; ".join(text for text in (problem, self._end_shortage()) if text)
        earlier = len(UNKILLABLE)
        left = self.crew.end()
        bystanders = [child.pid for child in UNKILLABLE[earlier:]]  # told by their names
        outlived = _outlived(bystanders)
        commands: list[Json] = []
        for layer in reversed(self.layers.values()):
            # What runs over its limit here is held against the kernel.
            commands += [command for command in layer.down() if _ran_over(command)]
        # What taking down left, and what it has freed: each is told once.
        left += dict.fromkeys([*outlived, *_outlived(bystanders)])
        left += [f"cgroup {path}" for path in self.cgroups.down(CGROUP_LIMIT * self.site.pace)]
        for layer in self.layers.values():
            left += layer.left()
        self.site.poll(lambda: oom.shmem() <= self.shmem_before + SHMEM_SLACK, SHMEM_LIMIT)
        return {
            "problem": problem,
            "left": left,
            "shmem_before": self.shmem_before,
            "shmem_after": oom.shmem(),
            "processes": max(0, last_started() - self.started_before),
            "watch": watch,
            "commands": commands,
            # The gauge may be gone with the layers: the last reading stands.
            "after": self._seen(LAST_SETTLE * self.site.pace),
        }


def _outlived(but: list[int]) -> list[str]:
    """The children that outlived SIGKILL and live still, without some."""
    return [
        f"process {child.pid}" for child in UNKILLABLE if child.pid not in but and not child.look()
    ]


def _ran_over(command: Json) -> bool:
    """Whether a command had to be ended."""
    how = command["ended"]
    return bool(how.get("timed_out")) or not how.get("killable", True)
