"""Clauses on going on with the device: ``overwrite_in_place``, ``reusable``."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.model import BLOCK, Clause, Finding, Level, Op, Role, Run, Trim, Write
from conformance.oracle.answer import failed_commands
from conformance.oracle.clauses.killing import death_level
from conformance.oracle.later import excused, may_be_told_late
from conformance.oracle.scene import Phase, Scene, Taken, failed_ops, program
from conformance.oracle.text import (
    amount,
    errno_name,
    file_op_line,
    op_line,
    plural,
    printed_errno,
    signal_name,
    spans,
)
from conformance.oracle.trial import Act, Trial


def overwrite_in_place(trial: Trial) -> Iterator[Finding]:
    """Rewriting blocks that have physical space succeeds during the shortage, and holds (S12).

    Only blocks that were there before are judged: a block that no verification found, and no sync
    acknowledged, may need new space. An error of a step before, told late, is not this step's.
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
        yield found("timed-out", f"{taken.name} did not end within its limit")
    failed = [op for op in _own_failures(act.scene, taken) if _had_space(act, taken, op)]
    for name in sorted({f"{op.kind}-failed:{errno_name(op.result)}" for op in failed}):
        mine = [op for op in failed if f"{op.kind}-failed:{errno_name(op.result)}" == name]
        text = f"{plural(len(mine), mine[0].kind)} failed, the first: {op_line(mine[0])}"
        yield found(name, text)
    lost = [loss for loss in act.losses if loss.lasting]
    mine_lost = [one for loss in lost for one in loss.found if one.ack.step == taken.index]
    if mine_lost:
        ranges = [(one.block * BLOCK, (one.block + 1) * BLOCK) for one in mine_lost]
        yield found("not-stored", f"{spans(ranges)} were rewritten, and do not read back")


def _own_failures(scene: Scene, taken: Taken) -> tuple[Op, ...]:
    late = excused(scene, taken)
    return tuple(op for op in failed_ops(taken, scene) if op is not late)


def _had_space(act: Act, taken: Taken, op: Op) -> bool:
    """Whether every block of an operation had space before the step. A sync speaks for all."""
    step = taken.step
    if not isinstance(step, Write):
        return True
    before = next(
        (a.before.get(taken.index) for a in act.accounts if a.target == step.target), None
    )
    if before is None:
        return False
    ops = [op] if op.kind == "write" else [o for o in taken.ops if o.kind == "write"]
    return all(
        block in before
        for one in ops
        for block in range(one.offset // BLOCK, -(-(one.offset + one.length) // BLOCK))
    )


def ran_over(taken: Taken) -> bool:
    """Whether a step's submitter had to be ended by the rig for running over its limit."""
    submitter = taken.seen.submitter
    return submitter is not None and (submitter.ended.timed_out or not submitter.ended.killable)


def reusable(trial: Trial) -> Iterator[Finding]:
    """After the shortage, or after a kill, I/O gets data or errors, never a kill; after relief
    writes and fsync succeed (NORMS, S4 S12).

    ``reuse`` steps may fail; ``recover`` steps must work wholly, but for an error of a step before
    that is told late (see ``later``). A trim that succeeds has given the space back.
    """
    for act in trial.acts:
        for taken in act.scene.taken:
            yield from _given_back(trial, act, taken)
            if taken.step.role in (Role.REUSE, Role.RECOVER):
                yield from _lived(trial, act, taken)
            # To remove a cgroup takes no space.
            if taken.step.role is Role.RECOVER or taken.step.verb == "remove_cgroup":
                yield from _recovered(trial, act, taken)


def _given_back(trial: Trial, act: Act, taken: Taken) -> Iterator[Finding]:
    """By the shortage's own gauge, before and after."""
    step = taken.step
    if not isinstance(step, Trim) or failed_commands(taken.seen.commands):
        return
    before = act.scene.taken[taken.index - 1].seen.watch.reading.used
    freed = before - taken.seen.watch.reading.used
    if freed < step.frees:
        yield trial.finding(
            Clause.REUSABLE,
            act.scene,
            signature="space-not-given-back",
            expected=f"removing and trimming gives back {amount(step.frees)} or more",
            observed=f"{amount(max(freed, 0))} came back, and no command of {taken.name} failed",
            step=taken.name,
            evidence=[f"{program(c.argv)}: {c.output[-200:].strip()}" for c in taken.seen.commands],
        )


def _lived(trial: Trial, act: Act, taken: Taken) -> Iterator[Finding]:
    role = taken.step.role.value
    how, level = "", Level.MUST
    if taken.signal is not None:
        how, level = f"was ended by {signal_name(taken.signal)}", death_level(act, taken)
    elif ran_over(taken):
        how = "did not end within its limit"
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
    for signature, observed in _failures(act.scene, taken):
        yield trial.finding(
            Clause.REUSABLE,
            act.scene,
            signature=signature,
            expected="after relief, writes and fsync succeed",
            observed=observed,
            step=taken.name,
        )


def _failures(scene: Scene, taken: Taken) -> Iterator[tuple[str, str]]:
    told: dict[str, str] = {}
    for op in _own_failures(scene, taken):
        told.setdefault(f"recover-{op.kind}-failed:{errno_name(op.result)}", op_line(op))
    for one in taken.seen.file_ops:
        if one.result < 0:
            told.setdefault(
                f"recover-{one.kind}-failed:{errno_name(one.result)}", file_op_line(one)
            )
    short = [op for op in taken.ops if op.kind == "write" and 0 <= op.result < op.length]
    if short:
        told.setdefault("recover-write-short", op_line(short[0]))
    if isinstance(taken.step, Run):
        told.update(_command_failure(scene, taken, taken.step))
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
