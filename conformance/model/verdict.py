"""What was made of an observation: a status, and one finding for each clause that does not hold."""

from __future__ import annotations

from pydantic import Field

from conformance.model.base import Value, variant_id
from conformance.model.vocabulary import Clause, Disposition, Level, Status


class Finding(Value):
    """A clause that does not hold: what the norm expects, what was observed, on what evidence."""

    clause: Clause
    level: Level
    expected: str
    observed: str
    claims: tuple[str, ...] = ()
    signature: str  # stable over runs: known deviations are matched by it
    step: str = ""
    arm: str = "main"
    evidence: tuple[str, ...] = ()
    documented_by: str = ""


class Verdict(Value):
    """The judge's word on one variant on one kernel."""

    case: str
    values: dict[str, str] = {}
    kernel: str
    release: str
    status: Status = Status.BROKEN
    findings: tuple[Finding, ...] = ()
    reasons: tuple[str, ...] = ()  # why BROKEN or SKIP
    disposition: Disposition = Disposition.NONE
    known: tuple[str, ...] = ()  # the rows of results/known/ that tell of it, file:line
    notes: tuple[str, ...] = ()  # behaviour recorded without a claim, by surveys
    seconds: dict[str, float] = Field(default={})
    work: dict[str, int] = Field(default={})  # of all its guests; ``private`` of the largest

    @property
    def variant(self) -> str:
        """What the variant is called: see ``variant_id``."""
        return variant_id(self.case, self.values)

    @property
    def deviations(self) -> tuple[Finding, ...]:
        """The findings that make a FAIL."""
        return tuple(f for f in self.findings if f.level is Level.MUST)

    @property
    def advisories(self) -> tuple[Finding, ...]:
        """The findings that are told and counted, and make no FAIL."""
        return tuple(f for f in self.findings if f.level is not Level.MUST)
