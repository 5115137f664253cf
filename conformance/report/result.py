"""What every report is made of: a variant, what was judged of it, and how the run was asked for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from conformance.model import Clause, Disposition, Finding, Status, Value, Variant, Verdict
from conformance.report.story import Story


class Outlook(StrEnum):
    """What a result means to whoever gates on it: one word for all reports and the exit status."""

    GOOD = "good"  # PASS and RECORDED
    BAD = "bad"  # a deviation that nobody expected, or an advisory under --should
    KNOWN = "known"  # a deviation that results/known/ tells of
    FIXED = "fixed"  # results/known/ tells of a deviation that is no longer there
    BROKEN = "broken"
    SKIPPED = "skipped"


class Asked(Value):
    """How the run was asked for, as far as it decides what a result means and how to repeat it."""

    strict: bool = False  # known deviations count like any other
    should: bool = False  # advisories count like deviations
    options: tuple[str, ...] = ()  # words that a command needs to run the same: --cases, --module
    folder: str = ""  # the run's folder, as a reader can open it
    many_kernels: bool = False  # the kernel is part of a result's name


class Result(Value):
    """A variant with the verdict on it."""

    variant: Variant
    verdict: Verdict
    consoles: tuple[str, ...] = ()  # paths, relative to the run's folder
    story: tuple[Story, ...] = ()  # how it went, arm by arm; empty if nothing was observed

    def name(self, asked: Asked) -> str:
        """``case[variant]``, with ``@kernel`` if the run has several; no blanks, no slashes."""
        return label(self.variant, self.verdict.kernel, many_kernels=asked.many_kernels)

    def outlook(self, asked: Asked) -> Outlook:
        """What the result means under the options of the run."""
        verdict = self.verdict
        if verdict.status is Status.BROKEN:
            return Outlook.BROKEN
        if verdict.status is Status.FAIL:
            as_known = verdict.disposition is Disposition.AS_KNOWN and not asked.strict
            return Outlook.KNOWN if as_known else Outlook.BAD
        if asked.should and verdict.advisories:
            return Outlook.BAD
        if verdict.disposition is Disposition.FIXED and not asked.strict:
            return Outlook.FIXED
        return Outlook.SKIPPED if verdict.status is Status.SKIP else Outlook.GOOD

    def offending(self, asked: Asked) -> tuple[Finding, ...]:
        """The findings that make the outlook what it is, most telling first."""
        return self.verdict.findings if asked.should else self.verdict.deviations


def label(variant: Variant, kernel: str, *, many_kernels: bool) -> str:
    """What a variant on a kernel is called by pytest and the reports."""
    return f"{variant.id}@{slug(kernel)}" if many_kernels else variant.id


def slug(text: str) -> str:
    """``text`` as a part of a name: readers of JUnit split names at dots, slashes and blanks."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_")


def first_clause(findings: Sequence[Finding]) -> Clause | None:
    """The clause that a result is filed under."""
    return findings[0].clause if findings else None


def again(result: Result, asked: Asked) -> str:
    """The command that runs the result's variant on its kernel again, and shows every deviation."""
    words = ["./conform", "run", "-k", result.variant.id, "--kernel", result.verdict.kernel]
    return shlex.join([*words, *asked.options, "--strict"])


def count(statuses: Iterable[Status]) -> Mapping[Status, int]:
    """How often each status occurs, in the order of the vocabulary; none is left out."""
    seen = list(statuses)
    return {status: seen.count(status) for status in Status}
