"""What happened, arm by arm, small enough to keep: the shortage's gauge, the operations, the kernel log.

Pure: a variant and what was observed of it in, values out. An observation has every system call; a
story has what one draws of it and reads beside the plot. Times are microseconds since the rig was built.
"""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from conformance.model import (
    ArmSeen,
    Command,
    Ended,
    Observation,
    Op,
    StepSeen,
    Submitter,
    Value,
    Variant,
    Watch,
)

POINTS = 24
"""Points of a step's line of bytes written."""
MARKS = 40
"""Marks of an arm. What is alike and follows each other in a step is one mark, with its count."""

_KILLED = re.compile(r"[Oo]ut of memory[^:]*: Kill(?:ed)? process (\d+),? \((.*?)\)")


class Line(NamedTuple):
    """A line of the kernel log."""

    t_us: int
    level: int
    text: str


class Gauge(NamedTuple):
    """A reading of the shortage's own gauge, in bytes. ``limit`` is None while none is in force."""

    t_us: int
    used: int
    limit: int | None
    hits: int | None


class Mark(NamedTuple):
    """Something that happened at a time."""

    t_us: int
    kind: Literal["error", "kill", "impose", "relief", "lost"]
    text: str
    step: str


class Written(NamedTuple):
    """How many bytes the submitter of a step had been told were written, at a time."""

    t_us: int
    bytes: int


class StepTold(NamedTuple):
    """A step, and what came of it in one line."""

    name: str
    verb: str
    role: str
    start_us: int
    end_us: int
    told: str
    written: tuple[Written, ...]


class Story(Value):
    """One arm of a variant, as it went."""

    arm: str
    gauge_of: str = ""  # the kind of shortage that the gauge reads
    facts: dict[str, str] = {}
    steps: tuple[StepTold, ...] = ()
    gauge: tuple[Gauge, ...] = ()
    marks: tuple[Mark, ...] = ()
    log: tuple[Line, ...] = ()
    console: str = ""


def stories(variant: Variant, observation: Observation) -> tuple[Story, ...]:
    """The story of each arm."""
    roles = {(arm.name, step.name): step.role.value for arm in variant.arms for step in arm.steps}
    return tuple(_story(arm, roles) for arm in observation.arms)


def log_of(arms: Sequence[Story]) -> str:
    """The kernel log of all arms as a text, with times in seconds."""
    lines: list[str] = []
    for arm in arms:
        if len(arms) > 1 and arm.log:
            lines.append(f"# arm {arm.arm}")
        lines += [f"[{line.t_us / 1e6:12.6f}] {line.text}" for line in arm.log]
    return "\n".join(lines)


def size(count: int) -> str:
    """Bytes as one reads them: ``4 KiB``, ``1.5 MiB``."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(value) >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.4g} {units[0]}"


def _story(arm: ArmSeen, roles: dict[tuple[str, str], str]) -> Story:
    watches = list(_watches(arm))
    logged = [*watches, *_after(arm)]
    marks = sorted([*_marks(arm), *_killed(logged)], key=lambda mark: mark.t_us)
    return Story(
        arm=arm.name,
        gauge_of=watches[0].reading.kind if watches else "",
        facts=arm.built.facts if arm.built else {},
        steps=tuple(_told(step, roles.get((arm.name, step.name), "")) for step in arm.steps),
        gauge=tuple(
            Gauge(w.t_us, w.reading.used, w.reading.limit, w.reading.hits) for w in watches
        ),
        marks=tuple(marks[:MARKS]),
        log=tuple(
            Line(line.t_us, line.level, line.text) for watch in logged for line in watch.kernel_log
        ),
        console=arm.console,
    )


def _watches(arm: ArmSeen) -> Iterator[Watch]:
    if arm.built:
        yield arm.built.watch
    for step in arm.steps:
        yield step.watch
    if arm.torn_down and arm.torn_down.watch:
        yield arm.torn_down.watch


def _after(arm: ArmSeen) -> Iterator[Watch]:
    """The look when all was taken down, at which no gauge was read."""
    if arm.torn_down and arm.torn_down.after:
        yield arm.torn_down.after


def _marks(arm: ArmSeen) -> Iterator[Mark]:
    for step in arm.steps:
        if step.verb == "impose":
            yield Mark(step.end_us, "impose", "the shortage begins", step.name)
        elif step.verb == "relieve":
            yield Mark(step.end_us, "relief", "relief", step.name)
        yield from _errors(step)
        sent = step.submitter
        # The OOM killer's victims are in the kernel log, with their time.
        if sent and sent.ended.signal not in (None, signal.SIGKILL) and not sent.killed_by_rig:
            yield Mark(step.end_us, "kill", f"{step.name} died: {_ended(sent.ended)}", step.name)
    if arm.lost:
        at = arm.steps[-1].end_us if arm.steps else 0
        yield Mark(at, "lost", f"the guest was lost: {arm.lost.how}", arm.lost.step)


def _errors(step: StepSeen) -> Iterator[Mark]:
    """Errors that were told to the step's submitter; those that are alike in a row are one."""
    told: list[tuple[int, str, int]] = []
    failed = [
        *((op.end_us, f"{op.kind}: {errno_name(op.result)}", 1) for op in _failed(step.submitter)),
        *(
            (op.end_us, f"{op.kind} {op.path}: {errno_name(op.result)}", op.times)
            for op in step.file_ops
            if op.result < 0
        ),
    ]
    for at, text, times in sorted(failed):
        if told and told[-1][1] == text:
            told[-1] = (told[-1][0], text, told[-1][2] + times)
        else:
            told.append((at, text, times))
    for at, text, times in told:
        many = f", {times} times" if times > 1 else ""
        yield Mark(at, "error", f"{text}{many}", step.name)


def _failed(sent: Submitter | None) -> Iterable[Op]:
    return [op for op in sent.ops if op.result < 0] if sent else []


def _killed(watches: Iterable[Watch]) -> Iterator[Mark]:
    for watch in watches:
        for line in watch.kernel_log:
            if found := _KILLED.search(line.text):
                yield Mark(line.t_us, "kill", f"OOM killer: {found[2]} (pid {found[1]})", "")


def errno_name(result: int) -> str:
    """``ENOSPC`` for -28."""
    return errno.errorcode.get(-result, f"errno {-result}")


def _told(step: StepSeen, role: str) -> StepTold:
    parts = [step.problem] if step.problem else []
    if step.submitter:
        parts.append(_sent(step.submitter))
    if step.extents:
        found: dict[str, int] = {}
        for extent in step.extents:
            content = "as written" if extent.content == "generation" else extent.content
            found[content] = found.get(content, 0) + extent.length
        parts.append("reads " + ", ".join(f"{size(n)} {what}" for what, n in found.items()))
    if step.files:
        states = [file.state for file in step.files]
        counted = {state: states.count(state) for state in dict.fromkeys(states)}
        parts.append("files: " + ", ".join(f"{n} {state}" for state, n in counted.items()))
    if step.file_ops:
        done = sum(op.times for op in step.file_ops if op.result >= 0)
        failed = sum(op.times for op in step.file_ops if op.result < 0)
        parts.append(f"{done} operations on files succeeded, {failed} failed")
    parts += [_ran(command) for command in step.commands if command.ended.exit_code != 0]
    return StepTold(
        name=step.name,
        verb=step.verb,
        role=role,
        start_us=step.start_us,
        end_us=step.end_us,
        told="; ".join(part for part in parts if part),
        written=_written(step.submitter),
    )


def _sent(sent: Submitter) -> str:
    done = sum(max(op.result, 0) for op in sent.ops if op.kind == "write")
    wrong: dict[str, int] = {}
    for op in sent.ops:
        if op.result < 0:
            name = f"{op.kind} {errno_name(op.result)}"
            wrong[name] = wrong.get(name, 0) + 1
    told = [f"{size(done)} written"] if any(op.kind == "write" for op in sent.ops) else []
    told += [f"{name}{f' ({times} times)' if times > 1 else ''}" for name, times in wrong.items()]
    if sent.killed_by_rig:
        told.append("killed by the case itself")
    elif ended := _ended(sent.ended):
        told.append(ended)
    return ", ".join(told)


def _ended(ended: Ended) -> str:
    if ended.timed_out:
        return "did not end by itself" + ("" if ended.killable else ", and cannot be killed")
    if ended.signal is not None:
        try:
            return f"killed by {signal.Signals(ended.signal).name}"
        except ValueError:
            return f"killed by signal {ended.signal}"
    return f"exit status {ended.exit_code}" if ended.exit_code else ""


def _ran(command: Command) -> str:
    return f"{command.argv[0] if command.argv else 'a command'}: {_ended(command.ended)}"


def _written(sent: Submitter | None) -> tuple[Written, ...]:
    """The line of bytes written over the step, thinned out evenly; its ends are always there."""
    line: list[Written] = []
    total = 0
    for op in sorted(sent.ops, key=lambda op: op.end_us) if sent else ():
        if op.kind == "write" and op.result > 0:
            if not line:
                line.append(Written(op.start_us, 0))
            total += op.result
            line.append(Written(op.end_us, total))
    if len(line) <= POINTS:
        return tuple(line)
    picked = [round(n * (len(line) - 1) / (POINTS - 1)) for n in range(POINTS)]
    return tuple(line[index] for index in picked)
