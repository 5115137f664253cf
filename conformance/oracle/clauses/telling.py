"""The clause on who is told of a lost write, and how often: ``reported_once``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from conformance.model import Calls, Clause, Finding, Level, Role
from conformance.oracle.calls import Misreport, Wrong, call_line, lost_writes, made, misreports
from conformance.oracle.scene import Phase, Scene, Taken
from conformance.oracle.trial import Act, Trial

_WORDS: Final[dict[Wrong, tuple[str, str]]] = {
    "not-told": (
        "a lost write is reported on every descriptor that was open at the time",
        "although a write was lost while the descriptor was open, and it had not been told",
    ),
    "late-opener-not-told": (
        "a lost write that nobody was told of is reported to who opens the file next",
        "although a write was lost, and nobody had been told when the file was opened",
    ),
    "told-again": (
        "a lost write is reported on a descriptor once, and not again",
        "although the descriptor had been told before, and nothing was lost since",
    ),
    "told-stranger": (
        "a lost write is not reported on a descriptor that was opened after the report",
        "although others had been told when the file was opened, and nothing was lost since",
    ),
}


def reported_once(trial: Trial) -> Iterator[Finding]:
    """A lost write is reported on every descriptor that was open at the time, once, and not again
    (fsync(2), errseq).

    ``should`` where the norm only expects it: of sync_file_range(2), whose manual page promises no
    data, and of a descriptor that was opened after the loss.
    """
    for act in trial.acts:
        for taken in _judged(act.scene):
            told: dict[str, list[Misreport]] = {}
            for one in misreports(act.scene, taken):
                told.setdefault(f"{one.wrong}:{one.made.call.do}", []).append(one)
            for signature, members in told.items():
                yield _finding(trial, act, taken, signature, members[0])


def _judged(scene: Scene) -> Iterator[Taken]:
    for taken in scene.taken:
        if isinstance(taken.step, Calls) and taken.phase is Phase.SHORT and not taken.must_work:
            yield taken


def _finding(trial: Trial, act: Act, taken: Taken, signature: str, one: Misreport) -> Finding:
    expected, why = _WORDS[one.wrong]
    weak = one.wrong == "late-opener-not-told" or (
        one.wrong == "not-told" and one.made.call.do == "sync_file_range"
    )
    assert isinstance(taken.step, Calls)
    calls = made(taken.step, taken.seen.file_ops)
    return trial.finding(
        Clause.REPORTED_ONCE,
        act.scene,
        level=Level.SHOULD if weak else Level.MUST,
        signature=signature,
        expected=expected,
        observed=f"{call_line(one.made)}, call {one.made.place + 1} of {taken.name}, {why}",
        step=taken.name,
        evidence=["; ".join(call_line(call) for call in calls)],
    )


def nothing_lost(scene: Scene) -> Iterator[str]:
    """Steps that were to lose a write and did not: then nobody is owed a report."""
    for taken in _judged(scene):
        if taken.step.role is not Role.PROVOKE or taken.seen.problem or taken.signal is not None:
            continue
        failed = any(op.result < 0 for op in taken.seen.file_ops)
        if not lost_writes(scene, taken) and not failed:
            yield f"arm {scene.name}: {taken.name} lost nothing, so that nobody was owed a report"
