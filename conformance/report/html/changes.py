"""What the page on two runs shows of each pair, by what changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from conformance.compare import ORDER, Change, Pair, ways
from conformance.model import Finding, Verdict
from conformance.report.text import clean

MEANS = {
    Change.REGRESSED: "fails now, and did not before",
    Change.BROKE: "nothing is known of it any more",
    Change.CHANGED: "fails before and after, in another way",
    Change.FIXED: "failed before, and does not now",
    Change.CHANCE: "depends on chance by the known deviations, and came out otherwise",
    Change.NEW: "is in the second run only",
    Change.GONE: "is in the first run only",
    Change.SKIPPED: "ran before, and is skipped now",
    Change.RUNS: "was skipped or broken, and runs now",
    Change.ADVISED: "has other advisories",
    Change.SAME: "is as it was",
}


class Way(NamedTuple):
    """A way to deviate that one of the runs has and the other has not."""

    sign: str
    text: str
    observed: str


class Row(NamedTuple):
    """A pair."""

    name: str
    kernel: str
    before: str
    after: str
    ways: tuple[Way, ...]
    reasons: tuple[str, ...]


class Group(NamedTuple):
    """The pairs to which the same happened."""

    change: str
    means: str
    bad: bool
    rows: tuple[Row, ...]


def grouped(pairs: Sequence[Pair]) -> tuple[Group, ...]:
    """Every kind of change that occurred, what a gate looks at first."""
    groups = []
    for change in ORDER:
        rows = tuple(_row(pair) for pair in pairs if pair.change is change)
        if rows:
            bad = change in (Change.REGRESSED, Change.BROKE, Change.CHANGED)
            groups.append(Group(change.value, MEANS[change], bad, rows))
    return tuple(groups)


def _row(pair: Pair) -> Row:
    before, after = pair.before, pair.after
    kernels = dict.fromkeys(v.kernel for v in (before, after) if v is not None)
    return Row(
        name=clean(pair.name),
        kernel=clean(" → ".join(kernels)),
        before=before.status.value if before else "",
        after=after.status.value if after else "",
        ways=(*_only(before, after, "-"), *_only(after, before, "+")),
        reasons=tuple(clean(reason) for reason in after.reasons) if after else (),
    )


def _only(one: Verdict | None, other: Verdict | None, sign: str) -> list[Way]:
    if one is None:
        return []
    there = ways(other) if other else frozenset()
    mine: dict[tuple[str, str], Finding] = {}
    for finding in one.deviations:
        mine.setdefault((finding.clause.value, finding.signature), finding)
    return [
        Way(sign, clean(f"{clause}: {signature}"), clean(finding.observed))
        for (clause, signature), finding in mine.items()
        if (clause, signature) not in there
    ]
