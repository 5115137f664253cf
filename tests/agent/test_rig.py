"""A rig's looks, and tear-down: what is looked at, what ran over its limit, and what is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from agent import rig as rig_module
from agent.basics import Clock, Json, RigError
from agent.cgroups import Tree
from agent.layers import Layer, Site
from agent.layers import base as base_module
from agent.layers.base import Fact
from agent.layers.command import in_child
from agent.processes import KILL_LIMIT, Child, ended
from agent.rig import Rig
from agent.session import Session
from agent.shortages import Shortage
from agent.steps import VERBS
from agent.watchers import blocked, oom
from agent.watchers.kmsg import KernelLog
from agent.workloads.crew import Crew
from agent.workloads.pattern import Pattern

from conformance.model import StepSeen, TornDown

ENOUGH = 1 << 60
"""Bytes of shared memory that were there before: nothing is waited for."""


class Log(KernelLog):
    """A kernel log into which tests write."""

    def __init__(self) -> None:
        self.lines: list[list[object]] = []

    def begin(self, clock: Clock) -> None:
        """See ``KernelLog``."""

    def drain(self) -> None:
        """See ``KernelLog``."""

    def take(self) -> list[list[object]]:
        """See ``KernelLog``."""
        taken, self.lines = self.lines, []
        return taken

    def say(self, text: str) -> None:
        """A line of the kernel's."""
        self.lines.append([1, 4, 1, text])


class Gauge:
    """A shortage's gauge, which can be taken away; and its processes, which do as they are told."""

    gone = False
    fails: Exception = OSError("no such device")

    def __init__(self, end: Callable[[], None] = lambda: None) -> None:
        self.end = end
        self.broken = ""

    def reading(self) -> Json:
        """See ``Shortage``."""
        if self.gone:
            raise self.fails
        return {"kind": "tmpfs_size", "used": 7}

    def check(self) -> None:
        """See ``Shortage``."""
        if self.broken:
            raise RigError(self.broken)


class Standing(Layer):
    """A layer that stands, and does as it is told when it is taken down."""

    def __init__(self, name: str, down: Callable[[Standing], list[Json]], site: Site) -> None:
        super().__init__({"name": name}, {}, site)
        self._down = down

    def up(self) -> None:
        """See ``Layer``."""

    def down(self) -> list[Json]:
        """See ``Layer``."""
        return self._down(self)

    def facts(self) -> dict[str, Fact]:
        """See ``Layer``."""
        return {}

    def left(self) -> list[str]:
        """See ``Layer``."""
        return []


class Neighbours(Crew):
    """One bystander, which lives until it is ended."""

    def __init__(self, end: Callable[[], list[str]]) -> None:
        super().__init__()
        self._end = end
        self._there = True

    def seen(self) -> list[Json]:
        """See ``Crew``."""
        one = {"name": "neighbour", "pid": 300, "cgroup": "", "alive": True}
        return [one] if self._there else []

    def end(self) -> list[str]:
        """See ``Crew``."""
        self._there = False
        return self._end()


@dataclass
class Machine:
    """What the watchers see of the machine."""

    kills: int = 0
    taint: int = 0
    blocked: list[Json] = field(default_factory=list)
    settles: list[float] = field(default_factory=list)

    def look(self, settle: float) -> list[Json]:
        """The tasks in D, and how long they were given."""
        self.settles.append(settle)
        return self.blocked


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine of the test's own."""
    made = Machine()
    monkeypatch.setattr(oom, "kills", lambda: made.kills)
    monkeypatch.setattr(oom, "taint", lambda: made.taint)
    monkeypatch.setattr(blocked, "blocked", made.look)
    return made


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The children that outlived SIGKILL; nobody's at first."""
    made: list[Any] = []
    monkeypatch.setattr(rig_module, "UNKILLABLE", made)
    return made


def nothing(_layer: Standing) -> list[Json]:
    return []


def standing(
    *downs: Callable[[Standing], list[Json]],
    log: Log | None = None,
    gauge: Gauge | None = None,
    end: Callable[[], list[str]] = list,
    pace: float = 1.0,
) -> Rig:
    """A rig of layers that are taken down so, the last of them first."""
    site = Site(pace=pace)
    return Rig(
        clock=Clock.start(),
        pattern=Pattern(bytes(8)),
        log=log or Log(),
        site=site,
        layers={str(n): Standing(str(n), down, site) for n, down in enumerate(downs)},
        shortage=cast("Shortage", gauge or Gauge()),
        crew=Neighbours(end),
        shmem_before=ENOUGH,
    )


def torn_down(rig: Rig) -> TornDown:
    """What the host makes of the answer."""
    return TornDown.model_validate(rig.tear_down())


def test_what_the_kernel_does_as_the_layers_go_down_is_seen_after(machine: Machine) -> None:
    log, gauge = Log(), Gauge()
    log.say("before")

    def down(_layer: Standing) -> list[Json]:
        log.say("WARNING: as it went down")
        machine.kills, machine.taint = 2, 512
        machine.blocked = [{"pid": 50, "comm": "kworker/u2:1", "stack": "f"}]
        gauge.gone = True
        return []

    seen = torn_down(standing(down, log=log, gauge=gauge))
    assert seen.watch is not None
    assert seen.after is not None
    for look, wanted in (
        (seen.watch, (["before"], 0, 0, [], ["neighbour"])),
        (seen.after, (["WARNING: as it went down"], 2, 512, [50], [])),
    ):
        lines = [line.text for line in look.kernel_log]
        tasks = [task.pid for task in look.blocked]
        names = [one.name for one in look.bystanders]
        assert (lines, look.oom_kill, look.taint, tasks, names) == wanted
    # A gauge that has gone is no trouble then, and what it read last stands.
    assert seen.after.reading == seen.watch.reading
    assert (seen.watch.reading.used, seen.problem) == (7, "")
    assert seen.after.t_us >= seen.watch.t_us


@pytest.mark.usefixtures("machine")
def test_a_gauge_that_has_gone_before_is_told() -> None:
    gauge = Gauge()
    gauge.gone = True
    rig = standing(gauge=gauge)
    rig.reading = {"kind": "tmpfs_size", "used": 3}
    seen = torn_down(rig)
    assert seen.problem == "the shortage's gauge cannot be read: no such device"


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("fails", "told"),
    [
        (RigError("/proc/meminfo has no MemTotal"), "/proc/meminfo has no MemTotal"),
        (IndexError("list index out of range"), "IndexError: list index out of range"),
        (ValueError("invalid literal"), "ValueError: invalid literal"),
    ],
)
def test_a_step_whose_gauge_fails_in_any_way_is_told_with_its_problem(
    monkeypatch: pytest.MonkeyPatch, fails: Exception, told: str
) -> None:
    gauge, log = Gauge(), Log()
    gauge.gone, gauge.fails = True, fails
    rig = standing(gauge=gauge, log=log)
    rig.reading = {"kind": "tmpfs_size", "used": 3}
    log.say("the writer was killed")
    seen = stepped(monkeypatch, rig, {"extents": [[0, 4096, "zero", None, None]]})
    assert seen.problem == f"the shortage's gauge cannot be read: {told}"
    assert len(seen.extents) == 1
    assert [line.text for line in seen.watch.kernel_log] == ["the writer was killed"]
    assert seen.watch.reading.used == 3


@pytest.mark.usefixtures("machine")
def test_what_is_answered_while_the_shortage_is_not_the_case_s_is_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gauge, log = Gauge(), Log()
    log.say("a warning")
    rig = standing(gauge=gauge, log=log)
    answer = {"extents": [[0, 4096, "zero", None, None]]}
    gauge.broken = "who extends the pool has ended"
    seen = stepped(monkeypatch, rig, answer)
    assert (seen.problem, seen.extents) == ("who extends the pool has ended", ())
    # What the kernel did of its own stands.
    assert [line.text for line in seen.watch.kernel_log] == ["a warning"]
    gauge.broken = ""
    seen = stepped(monkeypatch, rig, answer)
    assert (seen.problem, len(seen.extents)) == ("", 1)


def stepped(monkeypatch: pytest.MonkeyPatch, rig: Rig, answer: Json) -> StepSeen:
    """What the host makes of a step of a session on this rig, which answers so."""
    session = object.__new__(Session)  # which reads no kernel log
    session._rig = rig
    monkeypatch.setitem(VERBS, "verify", lambda *_: answer)
    return StepSeen.model_validate(session.step({"step": {"name": "read", "verb": "verify"}}))


@pytest.mark.usefixtures("machine")
def test_the_shortage_s_processes_end_before_anything_is_taken_down() -> None:
    order: list[str] = []

    def down(_layer: Standing) -> list[Json]:
        order.append("layer")
        return []

    def crew() -> list[str]:
        order.append("crew")
        return []

    gauge = Gauge(end=lambda: order.append("shortage"))
    torn_down(standing(down, gauge=gauge, end=crew))
    assert order == ["shortage", "crew", "layer"]


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("gone", [False, True])
def test_a_process_of_the_shortage_s_that_does_not_end_is_told(*, gone: bool) -> None:
    def end() -> None:
        raise RigError("who helps does not die of SIGKILL")

    down: list[str] = []

    def went(layer: Standing) -> list[Json]:
        down.append(layer.name)
        return []

    gauge = Gauge(end=end)
    rig = standing(went, gauge=gauge)
    gauge.gone, rig.reading = gone, {"kind": "tmpfs_size", "used": 3}
    before = "the shortage's gauge cannot be read: no such device; " if gone else ""
    assert torn_down(rig).problem == f"{before}who helps does not die of SIGKILL"
    assert down == ["0"]


def test_after_the_last_look_nobody_looks_again_so_that_it_waits_longer(machine: Machine) -> None:
    torn_down(standing(pace=3.0))
    assert machine.settles == [0.5, 15.0]


@pytest.mark.usefixtures("machine")
def test_the_commands_that_had_to_be_ended_are_told() -> None:
    def command(name: str, how: Json) -> Json:
        return {"argv": [name], "ended": how, "output": ""}

    rig = standing(
        lambda _: [command("losetup", ended(0)), command("remove", {"exit_code": 1})],
        lambda _: [
            command("umount", ended(signal=9, timed_out=True)),
            command("mdadm", ended(timed_out=True, killable=False)),
            command("dmsetup", ended(killable=False)),
            command("killed", ended(signal=9)),
        ],
        lambda _: [command("swapoff", ended(signal=9, timed_out=True))],
    )
    told = torn_down(rig).commands
    assert [one.argv for one in told] == [("swapoff",), ("umount",), ("mdadm",), ("dmsetup",)]


@pytest.mark.usefixtures("machine")
def test_what_takes_a_layer_down_may_take_longer_on_a_slow_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[float] = []

    def run(argv: list[str], *, limit: float, **_: object) -> Json:
        limits.append(limit)
        return {"argv": argv, "ended": ended(0), "output": ""}

    monkeypatch.setattr(base_module, "run", run)

    def down(layer: Standing) -> list[Json]:
        return [layer.site.run(["umount"], 60), layer.site.run(["losetup"], 10)]

    def remove(_tree: Tree, limit: float) -> list[str]:
        limits.append(limit)
        return []

    monkeypatch.setattr(Tree, "down", remove)
    torn_down(standing(down, pace=2.5))
    assert limits == [150, 25, rig_module.CGROUP_LIMIT * 2.5]


def test_a_rig_is_as_slow_as_its_machine_from_the_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Child, "kill_limit", KILL_LIMIT)
    monkeypatch.setattr(Tree, "up", lambda *_: None)
    wanted = {"layers": [], "cgroups": [], "bystanders": [], "shortage": {"kind": "none"}}
    made = Rig.build({**wanted, "run": "00" * 8, "speed": 2.5}, Log())
    assert (made.site.pace, made.crew.pace, Child.kill_limit) == (2.5, 2.5, KILL_LIMIT * 2.5)


def test_what_the_agent_does_itself_may_take_longer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    finish = Child.finish

    def told(child: Child, limit: float, **how: Any) -> Json:
        limits.append(limit)
        return finish(child, 60, **how)

    monkeypatch.setattr(Child, "finish", told)
    in_child(["nothing"], lambda: None, 10, Site())
    in_child(["nothing"], lambda: None, 10, Site(pace=2.5))
    assert limits == [10, 25]


@dataclass
class Outliving:
    """A child that outlived SIGKILL."""

    pid: int
    gone: bool = False

    def look(self) -> bool:
        """See ``Child``."""
        return self.gone


@pytest.mark.usefixtures("machine")
def test_a_child_that_cannot_be_killed_is_told_once(children: list[Any]) -> None:
    writer, gone, freed, umount = (Outliving(pid) for pid in (10, 11, 12, 14))
    gone.gone = True
    children += [writer, gone, freed, writer]

    def end() -> list[str]:
        children.append(Outliving(13))
        return ["bystander neighbour (pid 13)"]

    def down(_layer: Standing) -> list[Json]:
        freed.gone = True
        children.extend([umount, writer])
        return []

    assert torn_down(standing(down, end=end)).left == (
        "bystander neighbour (pid 13)",
        "process 10",
        "process 12",
        "process 14",
    )


@pytest.mark.usefixtures("machine", "children")
def test_nothing_is_left_of_a_rig_that_goes_down() -> None:
    seen = torn_down(standing(nothing, nothing))
    assert (seen.left, seen.commands, seen.problem) == ((), (), "")
