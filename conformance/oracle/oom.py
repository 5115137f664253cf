"""The OOM kills of one arm: what the counters say, what the log says, and who invoked them.

A kernel worker that invoked the OOM killer counts whether or not there was anybody left to kill: S1 says
that such I/O "does not trigger the OOM killer". A buffered writer and the worker that writes its pages
run into the same limit, and which of them comes first is chance: that the worker does is not.

Kills that no report of the log is about are taken for those of the invokers that it names only where the
kernel leaves reports out: ``oom_kill_process()`` in mm/oom_kill.c prints ten of them in five seconds.
"""

from __future__ import annotations

import re
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
REPORTS = 10
"""So many reports in a row are printed, and then none for a while: DEFAULT_RATELIMIT_BURST."""
ENGINE = re.compile(r"iou-(?:wrk|sqp)-(\d+)$")
"""Workers that the kernel makes for a thread that uses io_uring, and that are threads of its process:
``io_wq_worker()`` in io_uring/io-wq.c, ``io_sq_thread()`` in io_uring/sqpoll.c.
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
    reports: int  # that the log holds, with a kill or without

    @property
    def any(self) -> bool:
        """Whether there was one."""
        return bool(self.counted or self.logged)

    @property
    def victims(self) -> frozenset[int]:
        """The process ids that the log names as killed."""
        return frozenset(one.pid for kill in self.logged for one in kill.report.killed)

    @property
    def named(self) -> frozenset[Invoker]:
        """Who invoked the OOM killer, as far as the log says."""
        kinds = {kill.invoker for kill in (*self.logged, *self.vain)}
        return frozenset(kinds - {Invoker.UNKNOWN})

    @property
    def untold(self) -> int:
        """Kills that no report is about, where those that there are do not stand for all."""
        if Invoker.WORKER in self.named or (self.named and self.reports >= REPORTS):
            return 0
        told = [len(k.report.killed) for k in self.logged if k.invoker is not Invoker.UNKNOWN]
        in_log = sum(len(kill.report.killed) for kill in self.logged)
        return max(self.counted, in_log) - sum(told)

    @property
    def by_worker(self) -> bool:
        """Whether one was invoked by a kernel worker, or nobody can say by whom."""
        return Invoker.WORKER in self.named or self.untold > 0

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
    found = invocations(text for _, text in lines)
    told = tuple(
        Kill(look=lines[one.at][0], invoker=_invoker(scene, one), report=one) for one in found
    )
    return Kills(
        counted=sum(count for _, count in grown),
        logged=tuple(one for one in told if one.report.killed),
        vain=tuple(one for one in told if not one.report.killed and one.invoker is Invoker.WORKER),
        grew_at=tuple(look for look, count in grown if count),
        reports=sum(bool(one.invoker) for one in found),
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
        return Invoker.WORKER if _for_a_device(report) else Invoker.OTHER
    if report.pid in {one.pid for look in scene.looks for one in look.watch.bystanders}:
        return Invoker.OTHER
    seen = [taken.seen.submitter for taken in scene.taken if taken.seen.submitter is not None]
    submitters = {pid for submitter in seen for pid in (submitter.pid, *submitter.threads)}
    engine = ENGINE.match(report.invoker)
    if report.pid in submitters or (engine and int(engine[1]) in submitters):
        return Invoker.SUBMITTER
    return Invoker.SUBMITTER if report.invoker in submitter_names(scene) else Invoker.OTHER


def _for_a_device(report: Invocation) -> bool:
    """Whether a kernel thread worked for a device of the case, or a filesystem on it.

    What is charged to a cgroup, it does in that cgroup's name. Where the guest as a whole is short, any
    kernel thread may be the one that asks next, and it has to be seen that this one writes.
    """
    if report.workqueue.startswith(OWN_QUEUES):
        return False
    return report.constraint != "CONSTRAINT_NONE" or report.writes


def submitter_names(scene: Scene) -> frozenset[str]:
    """What submitters, and the children of commands, are called."""
    names = set(TOOLS)
    for taken in scene.taken:
        if isinstance(taken.step, Run):
            names.update(word.rpartition("/")[2][:COMM_LENGTH] for word in taken.step.argv)
        elif isinstance(taken.step, Write | Files | Metadata) and taken.seen.submitter:
            names.update(taken.seen.submitter.tool.split()[:1])
    return frozenset(names - {""})
