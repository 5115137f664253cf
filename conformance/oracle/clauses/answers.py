"""Clauses on the answer itself: ``errno_precise``, ``limit_enforced``, ``attributed``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from conformance.model import (
    CARRIES_STATUS,
    Calls,
    Clause,
    Files,
    Finding,
    Metadata,
    Op,
    RangeOp,
    Reading,
    Role,
    Run,
    Submitter,
    Write,
)
from conformance.oracle.arrival import request_of
from conformance.oracle.later import untold_before
from conformance.oracle.scene import (
    Phase,
    Scene,
    Taken,
    Window,
    failed_ops,
    short_writes,
    windows,
)
from conformance.oracle.text import (
    amount,
    errno_name,
    file_op_line,
    op_line,
    plural,
    printed_errno,
    quantity,
    span,
)
from conformance.oracle.trial import Act, Trial

COUNTERS: Final = 65536
"""Bytes by which any gauge may pass its limit: counters that are kept for each processor. In no published
record did one of space, of a quota or of a pool pass it by a byte that was not a deviation.
"""
WRITES: Final = (Write, Files, Metadata, Calls, RangeOp)
"""Steps that write themselves; what a command of a case does is not known."""
SLACK: Final = 1 << 20
"""Where charges that cannot be refused go past the limit (memory): by so much, and by one request."""
SLACK_SHARE: Final = 8
"""Or this part of the limit (12.5%), whichever is more."""

IN_SHORTAGE: Final = frozenset({Role.PROVOKE, Role.OVERWRITE, Role.REUSE})


def errno_precise(trial: Trial) -> Iterator[Finding]:
    """The errno is one that the case names, where the path can carry it (NORMS, S2 S3 S9; ``should``).

    Writes beyond the end of the device are no shortage and are left out.
    """
    wanted = trial.variant.expect.errno
    for act in trial.acts:
        wrong: dict[str, list[tuple[Taken, Op]]] = {}
        for taken in act.scene.taken:
            if taken.phase is not Phase.SHORT or taken.step.role not in IN_SHORTAGE:
                continue
            if isinstance(taken.step, Files):
                yield from _of_files(trial, act.scene, taken, taken.step)
            if not isinstance(taken.step, Write | RangeOp) or not _carried(act.scene, taken.step):
                continue
            for op in failed_ops(taken, act.scene):
                name = errno_name(op.result)
                if op.placed and name not in wanted:
                    wrong.setdefault(name, []).append((taken, op))
        for name, members in sorted(wrong.items()):
            first, op = members[0]
            yield trial.finding(
                Clause.ERRNO_PRECISE,
                act.scene,
                signature=name,
                expected=" or ".join(wanted),
                observed=f"{name}, for {plural(len(members), op.kind)}, the first of them "
                f"{span((op.offset, op.offset + op.length))}",
                step=first.name,
                evidence=[f"{t.name}: {op_line(o)}" for t, o in members],
            )


def _carried(scene: Scene, step: Write | RangeOp) -> bool:
    """Whether the device's status can reach the submitter as it is."""
    way = isinstance(step, RangeOp) or step.submit in CARRIES_STATUS
    return way and scene.carries_errno(step.target)


def _of_files(trial: Trial, scene: Scene, taken: Taken, step: Files) -> Iterator[Finding]:
    """Where the filesystem that files are written to is itself what runs short, it says so."""
    if getattr(scene.arm.shortage, "layer", None) != step.target:
        return
    bad = next((op for op in taken.seen.file_ops if op.result < 0), None)
    wanted = trial.variant.expect.errno
    if bad is not None and errno_name(bad.result) not in wanted:
        yield trial.finding(
            Clause.ERRNO_PRECISE,
            scene,
            signature=errno_name(bad.result),
            expected=" or ".join(wanted),
            observed=file_op_line(bad),
            step=taken.name,
        )


def limit_enforced(trial: Trial) -> Iterator[Finding]:
    """No more space is taken than the limit gives; past it there is an error (NORMS, S2 S3).

    Judged by the shortage's own gauge after each step that writes, and by what a writer that saw no error is
    found to have stored.
    """
    for act in trial.acts:
        for window in windows(act.scene):
            for taken in window.during:
                observed = _beyond(act, window, taken) if _takes_space(taken) else ""
                if observed:
                    yield trial.finding(
                        Clause.LIMIT_ENFORCED,
                        act.scene,
                        signature="limit-not-enforced",
                        expected="the space taken stays within the limit; past it, an error",
                        observed=observed,
                        step=taken.name,
                        evidence=[_told(taken.seen.watch.reading)],
                    )
                    break


def _takes_space(taken: Taken) -> bool:
    """Whether a step is to use the limit up, or writes at it."""
    role = taken.step.role
    return role is Role.PROVOKE or (role in IN_SHORTAGE and isinstance(taken.step, WRITES))


def _told(reading: Reading) -> str:
    return f"{reading.kind}: used {reading.used}, limit {reading.limit}, hits {reading.hits}"


def _beyond(act: Act, window: Window, taken: Taken) -> str:
    """How a step went past the limit, or nothing. A limit below what is in use takes nothing away."""
    reading = taken.seen.watch.reading
    if reading.limit is None:
        return ""
    shortage = act.scene.arm.shortage
    if not shortage.EXACT:
        slack = request_of(taken.step) + max(SLACK, reading.limit // SLACK_SHARE)
    else:
        slack = COUNTERS if shortage.OF_SPACE else 0
    most = max(reading.limit, window.impose.seen.watch.reading.used) + slack
    told = partial(quantity, of_space=shortage.OF_SPACE)
    limit = f"the limit of {told(reading.limit)}"
    if reading.used > most:
        return f"{told(reading.used)} were in use after {taken.name}, against {limit}"
    if not shortage.OF_SPACE or taken.step.role is not Role.PROVOKE:
        # What a writer stored is told in bytes; and who goes on may be one that the limit does not bind.
        return ""
    stored = [a.stored[taken.index] for a in act.accounts if taken.index in a.stored]
    if any(count > most for count in stored) and answer_of(taken) == "none":
        return (
            f"{amount(max(stored))} were stored by {taken.name} without an error, against {limit}"
        )
    return ""


def answer_of(taken: Taken) -> str:
    """What a step's submitter was told: ``kill``, ``blocked``, ``error`` or ``none``."""
    submitter = taken.seen.submitter
    if taken.signal is not None:
        return "kill"
    if submitter is not None and (submitter.ended.timed_out or not submitter.ended.killable):
        return "blocked"
    results = [op.result for op in taken.ops] + [op.result for op in taken.seen.file_ops]
    # A tool's status, or a SIGBUS that the norm allows, is an answer too.
    failed = (
        submitter is not None
        and isinstance(taken.step, Run | Write | RangeOp | Files)
        and not submitter.killed_by_rig
        and bool(submitter.ended.exit_code or submitter.ended.signal)
    )
    return "error" if short_writes(taken.ops) or failed or any(r < 0 for r in results) else "none"


def attributed(trial: Trial) -> Iterator[Finding]:
    """The error goes to whose I/O failed, and to nobody else (NORMS, S11 S14).

    A limit on a cgroup is nobody else's: whoever submits from another cgroup has space, and an error
    told there is another's. That holds for an error of the page cache that the next to sync the
    device is told (errseq, documented) as well; the finding says so. Shortages that are not a
    cgroup's (a full tmpfs, a quota on the file) are everybody's.
    """
    for act in trial.acts:
        if act.scene.arm.shortage.binds is None:
            continue
        for taken in act.scene.taken:
            if taken.phase is Phase.SHORT and taken.step.role in IN_SHORTAGE:
                yield from _another_s(trial, act.scene, taken)
        yield from _bystanders(trial, act.scene)


def _another_s(trial: Trial, scene: Scene, taken: Taken) -> Iterator[Finding]:
    step, submitter = taken.step, taken.seen.submitter
    cgroup = getattr(step, "cgroup", None)
    if submitter is None or cgroup is None or scene.limited(cgroup):
        return
    name, what = _error(scene, taken, submitter)
    if not name:
        return
    late = untold_before(scene, taken)
    yield trial.finding(
        Clause.ATTRIBUTED,
        scene,
        signature=f"{'late-' if late else ''}error-of-another:{name}",
        expected="no error for a submitter whose cgroup is not at its limit",
        observed=f"{what} in step {taken.name}, from {cgroup or 'the root cgroup'}"
        + (f": an error of {late.name}, of which nobody had been told" if late else ""),
        step=taken.name,
        evidence=[*(op_line(op) for op in failed_ops(taken, scene)), submitter.output[-300:]],
    )


def _error(scene: Scene, taken: Taken, submitter: Submitter) -> tuple[str, str]:
    """The first error that a step's submitter was told: its errno, and in words."""
    failed = failed_ops(taken, scene)
    if failed:
        return errno_name(failed[0].result), op_line(failed[0])
    bad = [op for op in taken.seen.file_ops if op.result < 0]
    if bad:
        return errno_name(bad[0].result), f"{bad[0].kind} of {bad[0].path} failed"
    if isinstance(taken.step, Run) and submitter.ended.exit_code:
        name = printed_errno(submitter.output) or "unknown"
        last = submitter.output.strip().splitlines()
        told = next((line for line in last if printed_errno(line)), "")
        return name, told or f"exit status {submitter.ended.exit_code}"
    return "", ""


def _bystanders(trial: Trial, scene: Scene) -> Iterator[Finding]:
    told: dict[tuple[str, str], str] = {}
    for look in scene.looks:
        for one in look.watch.bystanders:
            if not scene.limited(one.cgroup):
                for error in one.io_errors:
                    told.setdefault((one.name, errno_name(error.errno)), look.where)
    for (name, code), where in told.items():
        yield trial.finding(
            Clause.ATTRIBUTED,
            scene,
            signature=f"bystander:{name}:{code}",
            expected="no error for a submitter whose cgroup is not at its limit",
            observed=f"{code} for bystander {name}, whose cgroup has no limit",
            step=where,
        )
