"""Clauses on what was stored: ``acknowledged_readable``, ``error_surfaced``, ``no_foreign_data``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from conformance.model import Clause, Finding, Level, Op, Write
from conformance.oracle.account import Found
from conformance.oracle.losses import Loss, block_ranges, unsurfaced
from conformance.oracle.scene import Scene
from conformance.oracle.text import errno_name, listed, op_line, plural, span, spans
from conformance.oracle.trial import Act, Trial

READS_AS = {
    "zeros": "read back as zeros",
    "older": "read back as an older generation",
    "foreign": "read back as data that nobody wrote there",
    "unreadable": "could not be read back",
}
FILE_SIGNATURE = {
    "missing": "fsynced-file-lost",
    "wrong": "fsynced-file-wrong",
    "unreadable": "fsynced-file-unreadable",
}
SUFFIX = "-during-shortage"
KEPT = "-once-stored"
"""Of blocks that had been read back whole before: not to store a block is one thing, to lose it another. What
cannot be read may be there still.
"""


def acknowledged_readable(trial: Trial) -> Iterator[Finding]:
    """Every acknowledged byte reads back, also after relief and re-attachment (NORMS, S5).

    What does not read back only while the shortage lasts is a finding of its own, ``should``: a
    filesystem may shut down until it is mounted again. Where a case never mounts it again, the first
    reading after relief counts.
    """
    for act in trial.acts:
        for loss in act.losses:
            yield _lost_blocks(trial, act, loss)
        yield from _lost_files(trial, act)


def _lost_blocks(trial: Trial, act: Act, loss: Loss) -> Finding:
    how = READS_AS[loss.kind]
    codes = sorted({one.errno for one in loss.found if one.errno is not None})
    if loss.kind == "unreadable" and codes:
        how += f" ({', '.join(errno_name(code) for code in codes)})"
    when = "" if loss.lasting else " while the shortage lasted"
    gone = loss.kept and loss.kind != "unreadable"
    return trial.finding(
        Clause.ACKNOWLEDGED_READABLE,
        act.scene,
        level=Level.MUST if loss.lasting else Level.SHOULD,
        signature=loss.kind + (KEPT if gone else "") + ("" if loss.lasting else SUFFIX),
        expected="every acknowledged byte reads back"
        + ("" if loss.lasting else " during the shortage too"),
        observed=f"{spans(loss.ranges)} were acknowledged by {_by(loss.found)}"
        f"{', had been read back,' if gone else ''} and {how}{when}",
        step=act.scene.taken[loss.verify].name,
        evidence=_ops_on(act.scene, loss.found),
    )


def _by(found: Sequence[Found]) -> str:
    return " and ".join(dict.fromkeys(one.ack.by for one in found))


def _ops_on(scene: Scene, found: Sequence[Found]) -> list[str]:
    """The operations that touched what was lost, and the sync that acknowledged it."""
    ranges = block_ranges(one.block for one in found)
    lines = []
    for index in sorted({one.ack.step for one in found}):
        taken = scene.taken[index]
        told = [op for op in taken.ops if op.placed and _meets(op, ranges)]
        later = [
            op for op in taken.ops if op.kind == "sync" and told and op.start_us >= told[-1].end_us
        ]
        lines += [f"{taken.name}: {op_line(op)}" for op in (*told[-4:], *later[:1])]
    return lines


def _meets(op: Op, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(start < op.offset + op.length and op.offset < end for start, end in ranges)


def _lost_files(trial: Trial, act: Act) -> Iterator[Finding]:
    groups = sorted({(damage.state.state, damage.lasting) for damage in act.damages})
    for state, lasting in groups:
        members = [d for d in act.damages if (d.state.state, d.lasting) == (state, lasting)]
        paths = [damage.state.path for damage in members]
        first = members[0].state
        told = "" if first.errno is None else f" ({errno_name(first.errno)})"
        where = ", ".join(span((e.offset, e.offset + e.length)) for e in first.wrong[:2])
        what = f"{state}{told}" + (f", {first.path} in {where}" if where else "")
        when = "after relief" if lasting else "while the shortage lasted, or until a mount"
        yield trial.finding(
            Clause.ACKNOWLEDGED_READABLE,
            act.scene,
            level=Level.MUST if lasting else Level.SHOULD,
            signature=FILE_SIGNATURE[state] + ("" if lasting else SUFFIX),
            expected="every file whose fsync succeeded is there and whole"
            + ("" if lasting else " during the shortage too"),
            observed=f"{plural(len(paths), 'file')} ({listed(paths)}) whose fsync returned 0: "
            f"{what} {when}",
            step=act.scene.taken[min(d.verify for d in members)].name,
            evidence=[f"{d.state.path}: {d.state.state}, {d.state.size} bytes" for d in members],
        )


def error_surfaced(trial: Trial) -> Iterator[Finding]:
    """Every write that was not stored was told to its submitter as an error (NORMS, S1 S7).

    Judged for the ledger's blocks. A write is told of by its own result, or by a sync after it that
    failed; a submitter that did not live to the end was told nothing and promised nothing. What
    was stored at first and lost later is no matter of this clause. What lies beyond the end of a
    device cannot be stored at all.
    """
    for act in trial.acts:
        yield from _impossible(trial, act)
        found = [one for account in act.accounts for one in unsurfaced(act.scene, account)]
        for index in sorted({one.ack.step for one in found}):
            mine = [one for one in found if one.ack.step == index]
            ranges = block_ranges(one.block for one in mine)
            taken = act.scene.taken[index]
            errors = sum(op.result < 0 for op in taken.ops)
            others = f", which told of {plural(errors, 'error')} elsewhere" if errors else ""
            yield trial.finding(
                Clause.ERROR_SURFACED,
                act.scene,
                signature="lost-in-silence",
                expected="an error for every write that was not stored, at write, fsync or msync",
                observed=f"{spans(ranges)} were not stored, and {_by(mine)} succeeded "
                f"for them in step {taken.name}{others}",
                step=taken.name,
                evidence=_ops_on(act.scene, mine),
            )


def _impossible(trial: Trial, act: Act) -> Iterator[Finding]:
    """What no write can have done."""
    for taken in act.scene.taken:
        if not isinstance(taken.step, Write):
            continue
        size = act.scene.device_size(taken.step.target)
        told = [op for op in taken.ops if op.kind == "write" and op.result > 0]
        if more := [op for op in told if op.result > op.length]:
            yield trial.finding(
                Clause.ERROR_SURFACED,
                act.scene,
                signature="more-than-asked",
                expected="no more bytes are told to be written than were given",
                observed=op_line(more[0]),
                step=taken.name,
            )
        beyond = [op for op in told if size is not None and op.offset + op.result > size]
        if beyond:
            yield trial.finding(
                Clause.ERROR_SURFACED,
                act.scene,
                signature="past-end-acknowledged",
                expected="a short count or an error for a write that reaches past the device's end",
                observed=f"{op_line(beyond[0])}, on a device of {size} bytes",
                step=taken.name,
            )


def no_foreign_data(trial: Trial) -> Iterator[Finding]:
    """A block holds its old content or what was submitted for it, and nothing else (NORMS, S5).

    The range of a failed O_DIRECT write, what a command wrote, and the regions of bystanders are not
    judged: nothing is known of what may stand there.
    """
    for act in trial.acts:
        for account in act.accounts:
            for content in sorted({alien.content for alien in account.alien}):
                members = [alien for alien in account.alien if alien.content == content]
                ranges = block_ranges(alien.block for alien in members)
                known = content == "generation"
                generations = sorted({a.generation for a in members if a.generation is not None})
                what = (
                    f"hold generation {', '.join(map(str, generations))}, never submitted for them"
                    if known
                    else "hold data that is no ledger's"
                )
                yield trial.finding(
                    Clause.NO_FOREIGN_DATA,
                    act.scene,
                    signature="never-submitted-generation" if known else "foreign",
                    expected="old content, or what was submitted for the block",
                    observed=f"{spans(ranges)} of {account.target} {what}",
                    step=act.scene.taken[min(alien.verify for alien in members)].name,
                )
