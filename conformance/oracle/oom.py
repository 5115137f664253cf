"""The OOM kills of one arm: what the counters say, what the log says, and who invoked them.

A kernel worker that invoked the OOM killer counts whether or not there was anybody left to kill: S1 says
that such I/O "does not trigger the OOM killer". A buffered writer and the worker that writes its pages
run into the same limit, and which of them comes first is chance: that the worker does is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from conformance.model import Files, MemoryEvents, Metadata, Run, Write
from conformance.oracle.kernel_log import Invocation, invocations
from conformance.oracle.scene import Look, Phase, Scene

TOOLS = frozenset({"dd", "fio", "python3", "python", "ledger"})
"""Names that a submitter or a child of one goes by."""
OWN_QUEUES = ("erofs_",)
"""Workqueues of the guest's own root filesystem, which no device of a case is below: who reads a program of
it again, when memory is short, is nobody's answer to the submitter.
"""
COMM_LENGTH = 15
"""A task's name is cut to this: TASK_COMM_LEN - 1."""


class Invoker(StrEnum):
    """Who invoked the OOM killer; the value is the finding's signature."""

    WORKER = "invoked-by-kworker"
    SUBMITTER = "invoked-by-submitter"
    OTHER = "invoked-by-other"
    UNKNOWN = "invoked-by-unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """A report of the OOM killer, and who invoked it."""

    look: Look
    invoker: Invoker
    report: Invocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Kills:
    """All OOM kills of an arm since the shortage was imposed."""

    counted: int  # by the kernel's counters
    logged: tuple[Kill, ...]  # those that name a process killed
    vain: tuple[Kill, ...]  # invoked by a kernel worker when there was nobody left to kill
    grew_at: tuple[Look, ...]  # the looks that found a counter grown

    @property
    def any(self) -> bool:
        """Whether there was one."""
        return bool(self.counted or self.logged)

    @property
    def victims(self) -> frozenset[int]:
        """The process ids that the log names as killed."""
        return frozenset(one.pid for kill in self.logged for one in kill.report.killed)

    @property
    def by_worker(self) -> bool:
        """Whether one was invoked by a kernel worker, or nobody can say by whom."""
        kinds = {kill.invoker for kill in (*self.logged, *self.vain)}
        named = kinds - {Invoker.UNKNOWN}
        return Invoker.WORKER in named or (self.any and not named)

    def of(self, pid: int) -> Kill | None:
        """The kill of a process."""
        return next((k for k in self.logged if any(v.pid == pid for v in k.report.killed)), None)


def kills(scene: Scene) -> Kills:
    """The OOM kills of an arm, without those before the shortage was in force."""
    looks = scene.looks
    before = [look for look in looks if look.phase is Phase.BEFORE]
    short = [look for look in looks if look.phase is not Phase.BEFORE]
    grown = [(look, _grown(last, look)) for last, look in pairwise((*before[-1:], *short))]
    lines = [(look, line.text) for look, line in scene.kernel_log if look.phase is not Phase.BEFORE]
    told = tuple(
        Kill(look=lines[one.at][0], invoker=_invoker(scene, one), report=one)
        for one in invocations(text for _, text in lines)
    )
    return Kills(
        counted=sum(count for _, count in grown),
        logged=tuple(one for one in told if one.report.killed),
        vain=tuple(one for one in told if not one.report.killed and one.invoker is Invoker.WORKER),
        grew_at=tuple(look for look, count in grown if count),
    )


def killed_early(scene: Scene) -> bool:
    """Whether there was an OOM kill between the rig's building and the shortage's imposition."""
    before = [look for look in scene.looks if look.phase is Phase.BEFORE]
    return any(_grown(last, look) for last, look in pairwise(before))


def _grown(before: Look, now: Look) -> int:
    """By how many kills a counter grew. A cgroup's events count those of its children too."""
    grown = [now.watch.oom_kill - before.watch.oom_kill]
    for path, events in now.watch.cgroups.items():
        old = before.watch.cgroups.get(path, MemoryEvents())
        grown.append(events.oom_kill - old.oom_kill)
    return max(0, *grown)


def _invoker(scene: Scene, report: Invocation) -> Invoker:
    if not report.invoker:
        return Invoker.UNKNOWN
    if report.by_kernel_worker:
        return Invoker.OTHER if report.workqueue.startswith(OWN_QUEUES) else Invoker.WORKER
    if report.pid in {one.pid for look in scene.looks for one in look.watch.bystanders}:
        return Invoker.OTHER
    submitters = {t.seen.submitter.pid for t in scene.taken if t.seen.submitter is not None}
    engine = report.invoker.removeprefix("iou-wrk-")
    if report.pid in submitters or (engine.isdigit() and int(engine) in submitters):
        return Invoker.SUBMITTER
    return Invoker.SUBMITTER if report.invoker in submitter_names(scene) else Invoker.OTHER


def submitter_names(scene: Scene) -> frozenset[str]:
    """What submitters, and the children of commands, are called."""
    names = set(TOOLS)
    for taken in scene.taken:
        if isinstance(taken.step, Run):
            names.update(word.rpartition("/")[2][:COMM_LENGTH] for word in taken.step.argv)
        elif isinstance(taken.step, Write | Files | Metadata) and taken.seen.submitter:
            names.update(taken.seen.submitter.tool.split()[:1])
    return frozenset(names - {""})
