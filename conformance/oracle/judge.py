"""The verdict: every result starts as BROKEN, and is made better only by what was shown.

| status | when |
|---|---|
| BROKEN | the observation is of something else, the rig or the control failed, the shortage never arrived |
| FAIL | a ``must`` finding, unless nothing of the run can be trusted |
| BROKEN | the run was cut short, and no deviation had been proven by then |
| RECORDED | the case makes no claim |
| PASS | every clause held, and the shortage was shown to have arrived |
"""

from __future__ import annotations

from collections.abc import Iterator

from conformance.model import (
    BLOCK,
    STARRED,
    Calls,
    Clause,
    Finding,
    Level,
    Observation,
    Role,
    Status,
    Variant,
    Verdict,
)
from conformance.oracle.answer import Reason, failed_commands, rig_reasons, unanswered
from conformance.oracle.arrival import arrival_reasons
from conformance.oracle.calls import call_line, made
from conformance.oracle.clauses import CLAUSES
from conformance.oracle.clauses.integrity import early_fault
from conformance.oracle.clauses.telling import nothing_lost
from conformance.oracle.files import unlisted
from conformance.oracle.oom import killed_early
from conformance.oracle.scene import Phase
from conformance.oracle.text import span
from conformance.oracle.trial import Act, Trial, trial

WORKS_BY = {
    "reattach": Clause.REUSABLE,
    "mount": Clause.FILESYSTEM_CONSISTENT,
    "check": Clause.FILESYSTEM_CONSISTENT,
}
"""Steps on which the rest of a case rests, and the clause that says so when they fail."""


def judge(variant: Variant, observation: Observation) -> Verdict:
    """The verdict on what was observed of a variant. Never raises: a fault of its own is BROKEN."""
    try:
        return _judge(variant, observation)
    except Exception as error:  # noqa: BLE001 - total by contract: no record may stop a run
        return _verdict(
            variant,
            observation,
            reasons=(f"the judge itself failed: {type(error).__name__}: {error}",),
        )


def _verdict(
    variant: Variant,
    observation: Observation,
    *,
    status: Status = Status.BROKEN,
    findings: tuple[Finding, ...] = (),
    reasons: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> Verdict:
    return Verdict(
        case=variant.case,
        values=variant.values,
        kernel=observation.kernel,
        release=observation.release,
        status=status,
        findings=findings,
        reasons=reasons,
        notes=notes,
    )


def _judge(variant: Variant, observation: Observation) -> Verdict:
    wrong = unanswered(variant, observation)
    if wrong:
        return _verdict(variant, observation, reasons=tuple(wrong))
    joined = trial(variant, observation)
    reasons = list(dict.fromkeys(_reasons(joined)))
    findings = tuple(_findings(joined))
    return _verdict(
        variant,
        observation,
        status=_status(variant, reasons, findings),
        findings=findings,
        reasons=tuple(reason.text for reason in reasons),
        notes=tuple(_notes(joined, findings)),
    )


def judged_clauses(variant: Variant) -> frozenset[Clause]:
    """What is judged of a variant: its own claim, and what holds for every case."""
    return STARRED | frozenset(variant.expect.clauses)


def _findings(joined: Trial) -> Iterator[Finding]:
    """In the order of the vocabulary, and ``must`` before what is weaker."""
    judged = judged_clauses(joined.variant)
    found = [f for clause in Clause if clause in judged for f in CLAUSES[clause](joined)]
    yield from sorted(found, key=lambda finding: finding.level is not Level.MUST)


def _status(variant: Variant, reasons: list[Reason], findings: tuple[Finding, ...]) -> Status:
    if any(reason.fatal for reason in reasons):
        return Status.BROKEN
    if any(finding.level is Level.MUST for finding in findings):
        return Status.FAIL
    if reasons:
        return Status.BROKEN
    return Status.RECORDED if variant.level is Level.SURVEY else Status.PASS


def _reasons(joined: Trial) -> Iterator[Reason]:
    for act in joined.acts:
        yield from rig_reasons(act.scene)
        yield from arrival_reasons(act.scene)
        yield from _early(act)
        yield from (Reason(text=text) for text in unlisted(act.scene))
        if Clause.REPORTED_ONCE in judged_clauses(joined.variant):
            yield from (Reason(text=text) for text in nothing_lost(act.scene))
        yield from _rests_on(joined, act)


def _early(act: Act) -> Iterator[Reason]:
    """What was wrong before anything was short: then nothing can be said of the shortage."""
    of = f"arm {act.scene.name}: "
    before = {t.index for t in act.scene.taken if t.phase is Phase.BEFORE or t.must_work}
    for account in act.accounts:
        bad = [one for one in account.found if one.kind is not None and one.verify in before]
        alien = [one for one in account.alien if one.verify in before]
        for block, verify in [(b.block, b.verify) for b in bad] + [
            (a.block, a.verify) for a in alien
        ]:
            name = act.scene.taken[verify].name
            where = span((block * BLOCK, (block + 1) * BLOCK))
            yield Reason(text=f"{of}{name}: {where} did not verify without a shortage")
            break
    if killed_early(act.scene):
        yield Reason(text=f"{of}the OOM killer was at work before the shortage was in force")
    title = early_fault(act.scene)
    if title:
        yield Reason(text=f"{of}before the shortage was in force the kernel said: {title}")


def _rests_on(joined: Trial, act: Act) -> Iterator[Reason]:
    """A step that later steps rest on failed, and no clause of the case says anything about it."""
    judged = judged_clauses(joined.variant)
    for taken in act.scene.taken:
        clause = WORKS_BY.get(taken.step.verb)
        if (
            clause is None
            or taken.must_work
            or (taken.step.role is Role.RECOVER and clause in judged)
        ):
            continue
        for command in failed_commands(taken.seen.commands):
            if taken.phase is Phase.AFTER:
                text = f"arm {act.scene.name}: {taken.name}: {' '.join(command.argv)} failed"
                yield Reason(text=text, fatal=False)


def _notes(joined: Trial, findings: tuple[Finding, ...]) -> Iterator[str]:
    if joined.variant.level is not Level.SURVEY:
        return
    for act in joined.acts:
        for taken in act.scene.taken:
            if isinstance(taken.step, Calls) and taken.phase is Phase.SHORT:
                lines = [call_line(one) for one in made(taken.step, taken.seen.file_ops)]
                yield f"{taken.name}: {'; '.join(lines)}"
    for finding in findings:
        yield f"{finding.clause.value}: {finding.observed}"
