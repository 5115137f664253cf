"""What every report is made of: a variant, what was judged of it, and how the run was asked for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from conformance.known import Known
from conformance.model import (
    HERE,
    ROLL_UP,
    Clause,
    Disposition,
    Finding,
    Status,
    Value,
    Variant,
    Verdict,
    spread,
)
from conformance.report.story import Story


class Outlook(StrEnum):
    """What a result means to whoever gates on it: one word for all reports and the exit status."""

    GOOD = "good"  # PASS and RECORDED
    BAD = "bad"  # a deviation that nobody expected, or an advisory under --should
    KNOWN = "known"  # a deviation that results/known/ tells of
    FIXED = "fixed"  # results/known/ tells of a deviation that is no longer there
    BROKEN = "broken"
    SKIPPED = "skipped"


WORST = (
    Outlook.BAD,
    Outlook.BROKEN,
    Outlook.FIXED,
    Outlook.KNOWN,
    Outlook.GOOD,
    Outlook.SKIPPED,
)
"""What a gate looks at first: of several attempts that one is shown."""

INCOMPLETE = "conform/incomplete"
"""The entry beside the variants' that says of a report that it is not whole: readers go by entries."""


class NotRun(NamedTuple):
    """A variant that was planned and has no verdict: the run was cut short, or still goes on."""

    variant: Variant
    kernel: str
    why: str = "planned, and not run: the run was cut short"


class Asked(Value):
    """How the run was asked for, as far as it decides what a result means and how to repeat it."""

    strict: bool = False  # known deviations count like any other
    should: bool = False  # advisories count like deviations
    options: tuple[str, ...] = ()  # words that a command needs to run the same: --cases, --module
    folder: str = ""  # the run's folder, as a reader can open it
    many_kernels: bool = False  # the kernel is part of a result's name
    not_run: tuple[NotRun, ...] = ()  # what was asked for and is not among the results
    lacks: tuple[
        str, ...
    ] = ()  # lines on what is not whole of the record that results are read from


class Result(Value):
    """A variant with the verdict on it; of one that was run several times, with the worst.

    ``attempts`` then has each of them, in order; it is empty for a variant that was run once.
    """

    variant: Variant
    verdict: Verdict
    attempts: tuple[Result, ...] = ()
    attempt: int = 1
    planned: int = 1  # attempts that are to be made
    started: str = (
        ""  # when its run began, ISO 8601 in UTC without a zone; if empty, as the report's
    )
    record: str = ""  # the file that it was read from, as a reader can open it
    options: tuple[str, ...] = ()  # words that its run's command had besides those of ``Asked``
    rows: tuple[Known, ...] = ()  # those that ``verdict.known`` names, if they were at hand
    consoles: tuple[str, ...] = ()  # paths, relative to the run's folder
    story: tuple[Story, ...] = ()  # how it went, arm by arm; empty if nothing was observed

    @property
    def each(self) -> tuple[Result, ...]:
        """Every attempt; the result itself if it is the only one."""
        return self.attempts or (self,)

    @property
    def spread(self) -> Mapping[Status, int]:
        """How many attempts had which status, worst first; only those that were seen."""
        counted = count(attempt.verdict.status for attempt in self.each)
        return {status: counted[status] for status in ROLL_UP if counted[status]}

    @property
    def wavers(self) -> bool:
        """Whether attempts differ in their status: the kernel's answer, or the rig, is chance."""
        return len(self.spread) > 1

    def told_spread(self) -> str:
        """``FAIL 1 of 5, PASS 4 of 5``; nothing for a variant that was to be run once."""
        made = len(self.each)
        if max(made, self.planned) == 1:
            return ""
        told = spread([attempt.verdict.status for attempt in self.each])
        missing = self.planned - made
        return f"{told}; {missing} not made" if missing > 0 else told

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


def gathered(
    results: Iterable[Result], asked: Asked, *, planned: Mapping[tuple[str, str], int] | None = None
) -> tuple[Result, ...]:
    """One result for each variant and kernel, in the order in which they first occur.

    Of several attempts the worst is shown, by its outlook, and the first of those that are alike.
    ``planned`` says how many were to be made, by variant's id and kernel.
    """
    grouped: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        grouped.setdefault((result.variant.id, result.verdict.kernel), []).extend(result.each)
    told = []
    for key, attempts in grouped.items():
        attempts.sort(key=lambda attempt: attempt.attempt)
        number = max(len(attempts), (planned or {}).get(key, 1))
        worst = min(attempts, key=lambda attempt: WORST.index(attempt.outlook(asked)))
        many = tuple(attempts) if len(attempts) > 1 else ()
        told.append(worst.model_copy(update={"attempts": many, "planned": number}))
    return tuple(told)


def label(variant: Variant, kernel: str, *, many_kernels: bool) -> str:
    """What a variant on a kernel is called by pytest and the reports."""
    return f"{variant.id}@{slug(kernel)}" if many_kernels else variant.id


def starts(results: Iterable[Result], started: str) -> tuple[str, ...]:
    """When the runs began that the results are of, the earliest first; else when the report's did."""
    found = sorted({result.started or started for result in results} - {""})
    return tuple(found) or ((started,) if started else ())


def releases(results: Iterable[Result]) -> Mapping[str, str]:
    """Each kernel's release, by the first result that has one: what lost its machine has none."""
    found: dict[str, str] = {}
    for result in results:
        verdict = result.verdict
        found[verdict.kernel] = found.get(verdict.kernel) or verdict.release
    return found


def unseen(result: Result, asked: Asked) -> str:
    """A line on the rows whose deviation is not there any more; empty if that is not the outlook."""
    if result.outlook(asked) is not Outlook.FIXED:
        return ""
    return f"known deviation no longer seen: {', '.join(result.verdict.known) or 'results/known/'}"


def lacking(asked: Asked) -> tuple[str, ...]:
    """A line for each thing that a report does not tell and should: none if it is whole."""
    untold = (
        f"{label(missing.variant, missing.kernel, many_kernels=True)}: {missing.why}"
        for missing in asked.not_run
    )
    return (*asked.lacks, *untold)


def slug(text: str) -> str:
    """``text`` as a part of a name: readers of JUnit split names at dots, slashes and blanks."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_")


def first_clause(findings: Sequence[Finding]) -> Clause | None:
    """The clause that a result is filed under."""
    return findings[0].clause if findings else None


def again(result: Result, asked: Asked) -> str:
    """The command that runs the result's variant on its kernel again, and shows every deviation."""
    kernel = result.verdict.kernel
    where = ["--here"] if kernel == HERE else ["--kernel", kernel]
    words = ["./conform", "run", "-k", result.variant.id, *where]
    return shlex.join([*words, *asked.options, *result.options, "--strict"])


def count(statuses: Iterable[Status]) -> Mapping[Status, int]:
    """How often each status occurs, in the order of the vocabulary; none is left out."""
    seen = list(statuses)
    return {status: seen.count(status) for status in Status}
