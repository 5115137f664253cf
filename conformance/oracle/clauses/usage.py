"""Clauses on going on with the device: ``overwrite_in_place``, ``reusable``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from conformance.model import (
    BLOCK,
    Clause,
    Finding,
    Level,
    Op,
    RangeOp,
    Relieve,
    Role,
    Run,
    Trim,
    Verify,
    Write,
)
from conformance.oracle.answer import failed_commands
from conformance.oracle.clauses.killing import death_level
from conformance.oracle.later import excused, may_be_told_late
from conformance.oracle.losses import UNSTORED, block_ranges
from conformance.oracle.scene import (
    SIGBUS,
    Phase,
    Scene,
    Taken,
    failed_ops,
    program,
    short_writes,
)
from conformance.oracle.text import (
    amount,
    errno_name,
    file_op_line,
    op_line,
    plural,
    printed_errno,
    signal_name,
    spans,
    unreturned,
)
from conformance.oracle.trial import Act, Trial

STORE_FAILED: Final = "a store into the mapping was answered with SIGBUS"
SIGBUS_NAME: Final = signal_name(SIGBUS)

Ranges = list[tuple[int, int]]


def overwrite_in_place(trial: Trial) -> Iterator[Finding]:
    """Rewriting blocks that have physical space succeeds during the shortage, and holds (S12).

    Only blocks that were there before are judged: a block that no verification found, and no sync
    acknowledged, may need new space. An error of a step before, told late, is not this step's. A SIGBUS for
    a store into a mapping is an error like any other.
    """
    for act in trial.acts:
        for taken in act.scene.taken:
            if taken.step.role is Role.OVERWRITE and taken.phase is Phase.SHORT:
                yield from _overwritten(trial, act, taken)


def _overwritten(trial: Trial, act: Act, taken: Taken) -> Iterator[Finding]:
    def found(signature: str, observed: str, level: Level = Level.MUST) -> Finding:
        return trial.finding(
            Clause.OVERWRITE_IN_PLACE,
            act.scene,
            level=level,
            signature=signature,
            expected="rewriting blocks that have space already succeeds during the shortage",
            observed=observed,
            step=taken.name,
            evidence=[op_line(op) for op in taken.ops if op.result < 0],
        )

    if taken.signal is not None:
        text = f"{taken.name} was ended by {signal_name(taken.signal)}"
        yield found("killed", text, death_level(act, taken))
    elif ran_over(taken):
        yield found("timed-out", f"{taken.name} {_no_end(taken)}")
    elif taken.store_failed and _had_space(act, taken, _whole(taken)):
        yield found(f"write-failed:{SIGBUS_NAME}", STORE_FAILED)
    failed: dict[str, list[Op]] = {}
    for op in _own_failures(act, taken):
        if _had_space(act, taken, _meant(taken, op)):
            failed.setdefault(f"{op.kind}-failed:{errno_name(op.result)}", []).append(op)
    for name, (first, *more) in sorted(failed.items()):
        text = f"{plural(1 + len(more), first.kind)} failed, the first: {op_line(first)}"
        yield found(name, text)
    short = [op for op in short_writes(taken.ops) if _had_space(act, taken, _meant(taken, op))]
    if short and not failed:  # an error that follows a short count says why
        yield found("write-short", op_line(short[0]))
    lost = [
        one.block
        for loss in act.losses
        if loss.lasting
        for one in loss.found
        if one.ack.step == taken.index and one.kind in UNSTORED
    ]
    if lost:
        text = f"{spans(block_ranges(lost))} were rewritten, and do not read back"
        yield found("not-stored", text)


def _own_failures(act: Act, taken: Taken) -> tuple[Op, ...]:
    """The errors of a step that are no other's, told late. Whose own writes are not there has an error of
    its own.
    """
    late = excused(act.scene, taken) if _stored(act, taken) else None
    return tuple(op for op in failed_ops(taken, act.scene) if op is not late)


def _stored(act: Act, taken: Taken) -> bool:
    """Whether all whole blocks that a step wrote were found by the next verification, if there was one."""
    written = {
        block
        for op in taken.ops
        if op.kind == "write"
        for block in range(-(-op.offset // BLOCK), (op.offset + min(op.result, op.length)) // BLOCK)
    }
    whole = BLOCK * len(written)
    return all(a.stored.get(taken.index, whole) >= whole for a in act.accounts)


def _meant(taken: Taken, op: Op) -> Ranges:
    """Offsets and lengths that an operation is about. A sync speaks for all."""
    ops = [op] if op.placed else [one for one in taken.ops if one.placed]
    return [(one.offset, one.length) for one in ops]


def _whole(taken: Taken) -> Ranges:
    """All that a step was to write: which store of it failed is not known."""
    return [(taken.step.offset, taken.step.length)] if isinstance(taken.step, Write) else []


def _had_space(act: Act, taken: Taken, ranges: Ranges) -> bool:
    """Whether every block had space before the step."""
    step = taken.step
    if not isinstance(step, Write | RangeOp):
        return True
    before = next(a.before[taken.index] for a in act.accounts if a.target == step.target)
    return all(
        block in before
        for offset, length in ranges
        for block in range(offset // BLOCK, -(-(offset + length) // BLOCK))
    )


def ran_over(taken: Taken) -> bool:
    """Whether a step's submitter had to be ended by the rig for running over its limit."""
    submitter = taken.seen.submitter
    return submitter is not None and (submitter.ended.timed_out or not submitter.ended.killable)


def _no_end(taken: Taken) -> str:
    submitter = taken.seen.submitter
    assert submitter is not None
    return f"did not end within its limit{unreturned(submitter)}"


def reusable(trial: Trial) -> Iterator[Finding]:
    """After the shortage, or after a kill, I/O gets data or errors, never a kill; after relief
    writes and fsync succeed (NORMS, S4 S12).

    ``reuse`` steps may fail; ``recover`` steps must work wholly, but for an error of a step before
    that is told late (see ``later``); a SIGBUS for a store into a mapping is an error. A trim or a
    discard that succeeds has given the space back, and what is written right after has it. Reading
    needs no space, and takes none.
    """
    for act in trial.acts:
        for taken in act.scene.taken:
            yield from _given_back(trial, act, taken)
            yield from _refused(trial, act, taken)
            yield from _read_anyway(trial, act, taken)
            if taken.step.role in (Role.REUSE, Role.RECOVER):
                yield from _lived(trial, act, taken)
            # To remove a cgroup takes no space.
            if taken.step.role is Role.RECOVER or taken.step.verb == "remove_cgroup":
                yield from _recovered(trial, act, taken)


def _given_back(trial: Trial, act: Act, taken: Taken) -> Iterator[Finding]:
    """By the shortage's own gauge, before and after."""
    step = taken.step
    if not isinstance(step, Trim | RangeOp) or not step.frees:
        return
    if failed_commands(taken.seen.commands) or any(op.result < 0 for op in taken.ops):
        return
    before = act.scene.taken[taken.index - 1].seen.watch.reading.used
    freed = before - _used_after(act, taken)
    if freed < step.frees:
        what = "removing and trimming" if isinstance(step, Trim) else step.op.value
        yield trial.finding(
            Clause.REUSABLE,
            act.scene,
            signature="space-not-given-back",
            expected=f"{what} gives back {amount(step.frees)} or more",
            observed=f"{amount(max(freed, 0))} came back, and nothing of {taken.name} failed",
            step=taken.name,
            evidence=[f"{program(c.argv)}: {c.output[-200:].strip()}" for c in taken.seen.commands],
        )


def _used_after(act: Act, taken: Taken) -> int:
    """By the gauge, or by a late one's word of a step later, if that step gave nothing back itself."""
    used = taken.seen.watch.reading.used
    following = act.scene.taken[taken.index + 1 :]
    if not act.scene.arm.shortage.LATE_GAUGE or not following:
        return used
    if isinstance(following[0].step, Relieve | Trim | RangeOp):
        return used
    return min(used, following[0].seen.watch.reading.used)


def _refused(trial: Trial, act: Act, taken: Taken) -> Iterator[Finding]:
    """A write for reuse that was refused although there was space for it."""
    step = taken.step
    if not isinstance(step, Write) or step.role is not Role.REUSE or taken.phase is not Phase.SHORT:
        return
    if not act.scene.arm.shortage.OF_SPACE:
        why = "what runs short is not space for data"
    elif _freed_for(act, taken, step):
        why = f"{act.scene.taken[taken.index - 1].name} gave space back"
    else:
        return
    for op in _own_failures(act, taken)[:1]:
        yield trial.finding(
            Clause.REUSABLE,
            act.scene,
            signature=f"refused-for-nothing:{errno_name(op.result)}",
            expected=f"a write of {amount(step.length)} succeeds: {why}",
            observed=op_line(op),
            step=taken.name,
        )


def _freed_for(act: Act, taken: Taken, step: Write) -> bool:
    """Whether the step just before gave back, by its success, what this one needs."""
    before = act.scene.taken[taken.index - 1]
    return (
        isinstance(before.step, RangeOp)
        and before.step.frees >= step.length
        and not any(op.result < 0 for op in before.ops)
    )


READING_SLACK: Final = 65536
"""Bytes by which a gauge may move while nothing is written: what was put off is carried out."""


def _read_anyway(trial: Trial, act: Act, taken: Taken) -> Iterator[Finding]:
    """A reading for reuse: each block that nobody may have changed is readable, written or not."""
    step = taken.step
    if (
        not isinstance(step, Verify)
        or step.role is not Role.REUSE
        or taken.phase is not Phase.SHORT
    ):
        return
    bad = [extent for extent in taken.seen.extents if extent.content == "unreadable"]
    if bad:
        yield trial.finding(
            Clause.REUSABLE,
            act.scene,
            signature=f"unreadable:{errno_name(bad[0].errno or 0)}",
            expected="reading succeeds while nothing can be written, where nothing was written too",
            observed=f"{spans([(e.offset, e.offset + e.length) for e in bad])} could not be read",
            step=taken.name,
        )
    before = act.scene.taken[taken.index - 1].seen.watch.reading.used
    grown = taken.seen.watch.reading.used - before
    if grown > READING_SLACK:
        yield trial.finding(
            Clause.REUSABLE,
            act.scene,
            level=Level.SHOULD,
            signature="reading-takes-space",
            expected="reading takes no space",
            observed=f"{amount(grown)} more were in use after {taken.name}",
            step=taken.name,
        )


def _lived(trial: Trial, act: Act, taken: Taken) -> Iterator[Finding]:
    role = taken.step.role.value
    how, level = "", Level.MUST
    if taken.signal is not None:
        how, level = f"was ended by {signal_name(taken.signal)}", death_level(act, taken)
    elif ran_over(taken):
        how = _no_end(taken)
    if how:
        yield trial.finding(
            Clause.REUSABLE,
            act.scene,
            level=level,
            signature=f"{role}-{'killed' if taken.signal is not None else 'timed-out'}",
            expected="data or errors for whoever uses the device next",
            observed=f"{taken.name} {how}",
            step=taken.name,
        )


def _recovered(trial: Trial, act: Act, taken: Taken) -> Iterator[Finding]:
    for signature, observed in _failures(act, taken):
        yield trial.finding(
            Clause.REUSABLE,
            act.scene,
            signature=signature,
            expected="after relief, writes and fsync succeed",
            observed=observed,
            step=taken.name,
        )


def _failures(act: Act, taken: Taken) -> Iterator[tuple[str, str]]:
    told: dict[str, str] = {}
    if taken.store_failed:
        told[f"recover-write-failed:{SIGBUS_NAME}"] = STORE_FAILED
    for op in _own_failures(act, taken):
        told.setdefault(f"recover-{op.kind}-failed:{errno_name(op.result)}", op_line(op))
    for one in taken.seen.file_ops:
        if one.result < 0:
            told.setdefault(
                f"recover-{one.kind}-failed:{errno_name(one.result)}", file_op_line(one)
            )
    for op in short_writes(taken.ops):
        told.setdefault("recover-write-short", op_line(op))
    if isinstance(taken.step, Run):
        told.update(_command_failure(act.scene, taken, taken.step))
    if taken.step.verb in ("reattach", "trim", "mkfs", "remove_cgroup"):
        for command in failed_commands(taken.seen.commands):
            name = program(command.argv)
            text = f"{name} ended with {command.ended.exit_code}: {command.output[-200:].strip()}"
            told.setdefault(f"recover-command-failed:{name}", text)
    yield from told.items()


def _command_failure(scene: Scene, taken: Taken, step: Run) -> dict[str, str]:
    submitter = taken.seen.submitter
    if submitter is None or not submitter.ended.exit_code or taken.signal is not None:
        return {}
    late = "sync" in submitter.output and may_be_told_late(scene, taken)
    if late:
        return {}
    name = printed_errno(submitter.output) or f"status-{submitter.ended.exit_code}"
    text = f"{program(step.argv)} ended with {submitter.ended.exit_code}: {submitter.output[-200:]}"
    return {f"recover-command-failed:{name}": text.strip()}
