"""A variant and what was seen of it, side by side: each step as asked for with the step as seen.

Built only of an observation that answers the variant (``answer.unanswered`` is empty), so that
nothing here is cut to the shorter of two lists.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from conformance.model import (
    BY_FIO,
    MAY_BE_UNKNOWN,
    AnyLayer,
    AnyStep,
    Arm,
    ArmSeen,
    Calls,
    Files,
    KernelLine,
    Observation,
    Op,
    RangeOp,
    Reading,
    Role,
    Run,
    StepSeen,
    Submit,
    Submitter,
    Variant,
    Watch,
    Write,
)
from conformance.oracle.kernel_log import invocations

SIGKILL: Final = 9
SIGBUS: Final = 7
SHELLS: Final = frozenset({"sh", "bash", "dash", "busybox"})
KERNELS_OWN: Final = frozenset({"panicked", "hung"})
"""Ways to lose a guest that are the kernel's doing, once the shortage is in force."""
MMAP: Final = frozenset({Submit.MMAP})
FIO: Final = BY_FIO
TEARDOWN: Final = "teardown"
"""Where the look was that came before anything was taken down, and whatever befell tear-down."""
TORN_DOWN: Final = "torn-down"
"""Where the look was that came when all was taken down. No step has such a name."""
STATUS_128: Final = 128
"""A shell's exit status for a child that signal N ended is 128 + N (POSIX 2.8.2)."""


class Phase(StrEnum):
    """Where a step stands to the shortage."""

    BEFORE = "before"
    SHORT = "short"
    AFTER = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A step as it was asked for, and as it was taken."""

    index: int
    step: AnyStep
    seen: StepSeen
    phase: Phase

    @property
    def name(self) -> str:
        """The step's name."""
        return self.step.name

    @property
    def must_work(self) -> bool:
        """Whether a failure here is the rig's, and says nothing of the kernel under a shortage."""
        return self.step.role in (Role.SETUP, Role.CONTROL)

    @property
    def signal(self) -> int | None:
        """What ended the submitter that nobody had declared, or None."""
        return undeclared_signal(self.step, self.seen)

    @property
    def store_failed(self) -> bool:
        """Whether the SIGBUS ended the submitter that the norm allows: how a store into a mapping is told of
        an error.
        """
        submitter = self.seen.submitter
        return submitter is not None and submitter.ended.signal == SIGBUS and self.signal is None

    @property
    def ops(self) -> tuple[Op, ...]:
        """The submitter's operations."""
        return self.seen.submitter.ops if self.seen.submitter else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the watchers saw after a step, before the first (``build``), or after the last: ``TEARDOWN``
    and ``TORN_DOWN``.
    """

    where: str
    phase: Phase
    watch: Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One arm: what was asked for and what was seen."""

    arm: Arm
    seen: ArmSeen
    taken: tuple[Taken, ...]

    @property
    def name(self) -> str:
        """The arm's name."""
        return self.arm.name

    @property
    def imposed(self) -> bool:
        """Whether the shortage was put in force, or there is none to impose."""
        return self.arm.shortage.kind == "none" or any(
            t.step.verb == "impose" and not t.seen.problem for t in self.taken
        )

    @property
    def rig_failed(self) -> bool:
        """Whether the rig itself could not do something of the arm, its tear-down with it."""
        down = self.seen.torn_down
        return (
            bool(self.seen.problem)
            or (down is not None and bool(down.problem))
            or any(taken.seen.problem for taken in self.taken)
        )

    @property
    def lost_by_kernel(self) -> bool:
        """Whether the guest was lost by the kernel's doing, and not by the rig's."""
        return self.seen.lost is not None and self.seen.lost.how in KERNELS_OWN

    @property
    def looks(self) -> tuple[Look, ...]:
        """Every look of the watchers, in order."""
        looks = []
        if self.seen.built is not None:
            looks.append(Look(where="build", phase=Phase.BEFORE, watch=self.seen.built.watch))
        looks += [Look(where=t.name, phase=t.phase, watch=t.seen.watch) for t in self.taken]
        down = self.seen.torn_down
        if down is not None:
            last = next_phase(self.arm, self.taken)
            looks += [
                Look(where=where, phase=last, watch=watch)
                for where, watch in ((TEARDOWN, down.watch), (TORN_DOWN, down.after))
                if watch is not None
            ]
        return tuple(looks)

    @property
    def kernel_log(self) -> Iterator[tuple[Look, KernelLine]]:
        """Each line of the kernel log since the rig stood, with the look that brought it."""
        for look in self.looks:
            if look.where != "build":
                for line in look.watch.kernel_log:
                    yield look, line

    @property
    def plans_after_look(self) -> bool:
        """Whether the case reads blocks back after the shortage."""
        return any(
            step.verb == "verify" and phase is Phase.AFTER
            for step, phase in zip(self.arm.steps, phases(self.arm), strict=True)
        )

    def device_size(self, target: str) -> int | None:
        """Bytes of a layer, where the rig told them."""
        layers = self.seen.built.layers if self.seen.built else {}
        size = layers.get(target, {}).get("size")
        return size if isinstance(size, int) and not isinstance(size, bool) else None

    def starts_as_zeros(self, target: str) -> bool:
        """Whether a layer is known to hold nothing but zeros at first: a loop over a new file."""
        layers = {layer.name: layer for layer in self.arm.layers}
        found = layers.get(target)
        return found is not None and found.zeroed(layers)

    def carries_errno(self, target: str) -> bool:
        """Whether ENOSPC can come up through a layer and all that it stands on."""
        return all(layer.CARRIES_ERRNO for layer in self._stack(target).values())

    def stands_on(self, target: str, below: str) -> bool:
        """Whether a layer is another, or stands on it, directly or by others."""
        return below in self._stack(target)

    def _stack(self, target: str) -> dict[str, AnyLayer]:
        """A layer with all that it stands on, by name. Nothing if the arm has no such layer."""
        layers = {layer.name: layer for layer in self.arm.layers}
        stack: dict[str, AnyLayer] = {}
        waiting = [target]
        while waiting:
            name = waiting.pop()
            if name in layers and name not in stack:
                stack[name] = layers[name]
                waiting += [below for _, below in layers[name].supports()]
        return stack

    def limited(self, cgroup: str) -> bool:
        """Whether the shortage is a limit on this cgroup, its own or one above it."""
        binds = self.arm.shortage.binds
        return binds is None or within(cgroup, binds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch in which a shortage is in force: the step that imposes it, those in it, relief."""

    impose: Taken
    during: tuple[Taken, ...]
    relieve: Taken | None

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The gauge after each step within."""
        return tuple(t.seen.watch.reading for t in self.during)


def scenes(variant: Variant, observation: Observation) -> tuple[Scene, ...]:
    """One scene for each arm. The observation answers the variant: see ``answer``."""
    return tuple(
        Scene(
            arm=arm,
            seen=seen,
            taken=tuple(
                Taken(index=index, step=step, seen=one, phase=phase)
                for index, (step, one, phase) in enumerate(
                    # An arm that was cut short has fewer steps than were asked for, which
                    # ``answer`` has checked to be the first ones, and reported.
                    zip(arm.steps, seen.steps, phases(arm), strict=False)
                )
            ),
        )
        for arm, seen in zip(variant.arms, observation.arms, strict=True)
    )


def phases(arm: Arm) -> tuple[Phase, ...]:
    """Where each step of an arm stands to the shortage. The step that relieves it is still in it."""
    found = []
    phase = Phase.AFTER if arm.shortage.kind == "none" else Phase.BEFORE
    for step in arm.steps:
        found.append(phase)
        if step.verb == "impose":
            phase = Phase.SHORT
        elif step.verb == "relieve":
            phase = Phase.AFTER
    return tuple(found)


def next_phase(arm: Arm, taken: tuple[Taken, ...]) -> Phase:
    """Where whatever comes after the steps taken stands."""
    if not taken:
        return phases(arm)[0]
    last = taken[-1]
    return {"impose": Phase.SHORT, "relieve": Phase.AFTER}.get(last.step.verb, last.phase)


def windows(scene: Scene) -> tuple[Window, ...]:
    """Each stretch in which the shortage was in force, as far as the arm went."""
    found: list[Window] = []
    begin: Taken | None = None
    during: list[Taken] = []
    for taken in scene.taken:
        if taken.step.verb == "impose":
            begin, during = taken, []
        elif begin is not None and taken.step.verb == "relieve":
            found.append(Window(impose=begin, during=tuple(during), relieve=taken))
            begin = None
        elif begin is not None:
            during.append(taken)
    if begin is not None:
        found.append(Window(impose=begin, during=tuple(during), relieve=None))
    return tuple(found)


def within(cgroup: str, limited: str) -> bool:
    """Whether a cgroup is another, or below it."""
    return cgroup == limited or cgroup.startswith(f"{limited}/")


def undeclared_signal(step: AnyStep, seen: StepSeen) -> int | None:
    """The signal that ended a submitter, if neither the rig sent it nor the norm allows it.

    NORMS, ``submitter_survives``: a declared SIGBUS for mmap is excepted. What the rig had to end
    because it ran over its limit is for ``bounded``.
    """
    submitter = seen.submitter
    if submitter is None or submitter.ended.timed_out:
        return None
    if submitter.killed_by_rig and not _taken_first(submitter, seen):
        return None
    number = submitter.ended.signal
    code = submitter.ended.exit_code
    if number is None and isinstance(step, Run) and code is not None and code > STATUS_128:
        number = code - STATUS_128 if program(step.argv) in SHELLS else None
    if number == SIGBUS and isinstance(step, Write | Files) and step.submit in MMAP:
        return None
    if number == SIGBUS and isinstance(step, Calls) and any(c.do == "store" for c in step.script):
        return None
    return number


def _taken_first(submitter: Submitter, seen: StepSeen) -> bool:
    """Whether the OOM killer had taken whom the rig killed too. Who is dying already is not named as its
    victim again: task_will_free_mem() in mm/oom_kill.c.
    """
    told = invocations(line.text for line in seen.watch.kernel_log)
    return any(one.pid == submitter.pid for report in told for one in report.killed)


def program(argv: tuple[str, ...]) -> str:
    """The name of the program that a command runs, without its directory."""
    return argv[0].rpartition("/")[2] if argv else ""


def past_end(op: Op, size: int | None) -> bool:
    """Whether an operation reaches beyond the device: ENOSPC there is no shortage (NORMS)."""
    return size is not None and op.offset + op.length > size


def short_writes(ops: Iterable[Op]) -> tuple[Op, ...]:
    """The writes that took less than they were given, and had no error."""
    return tuple(op for op in ops if op.kind == "write" and 0 <= op.result < op.length)


def failed_ops(taken: Taken, scene: Scene) -> tuple[Op, ...]:
    """The operations that got an error, without those beyond the end of the device, and those that
    the device need not have.
    """
    size = scene.device_size(taken.step.target) if isinstance(taken.step, Write) else None
    return tuple(
        op
        for op in taken.ops
        if op.result < 0 and not past_end(op, size) and not _unknown(taken.step, op)
    )


def _unknown(step: AnyStep, op: Op) -> bool:
    """Whether a device says that it does not have an operation, of those that it need not have."""
    asked = isinstance(step, RangeOp) and step.op in MAY_BE_UNKNOWN and op.kind == step.op
    return asked and op.result == -errno.EOPNOTSUPP
