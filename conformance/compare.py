"""Two runs held against each other: what was fixed, what regressed, what fails in another way.

Pure. Variants are matched by case and values, and by kernel where a run has several kernels: a kernel
update is then compared with what it replaces, although the two have different names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from conformance.known import Known
from conformance.model import ROLL_UP, Finding, Level, Status, Value, Verdict, spread, variant_id


class Change(StrEnum):
    """What became of a variant from one run to the other."""

    REGRESSED = "regressed"  # a FAIL that was none
    BROKE = "broke"  # nothing is known of it any more
    CHANGED = "changed"  # a FAIL before and after, by other findings
    FIXED = "fixed"  # a FAIL before, and none now
    CHANCE = "chance"  # all that differs depends on chance on both kernels, by known rows
    NEW = "new"
    GONE = "gone"
    SKIPPED = "skipped"  # ran before, and is skipped now
    RUNS = "runs"  # was skipped or broken before, and runs now
    ADVISED = "advised"  # the same status, by other advisories
    SAME = "same"


ORDER = tuple(Change)
"""As reports list them: what a gate looks at first."""


class Pair(Value):
    """One variant in both runs."""

    case: str
    values: dict[str, str] = {}
    kernel: str
    change: Change
    before: Verdict | None  # of several attempts the worst
    after: Verdict | None
    attempts_before: tuple[Status, ...] = ()  # empty if there was one only
    attempts_after: tuple[Status, ...] = ()

    @property
    def name(self) -> str:
        """``case[variant]``."""
        return variant_id(self.case, self.values)


class Incomparable(ValueError):
    """Two runs that have nothing to compare. One line."""


def compare(
    before: Sequence[Verdict], after: Sequence[Verdict], rows: Sequence[Known] = ()
) -> tuple[Pair, ...]:
    """Every variant of either run, what matters most first.

    Of a variant that was run several times, all verdicts are among them, and the worst is compared.
    ``rows``: the known deviations, some of which say that what they tell of depends on chance.
    Raises Incomparable if no variant is in both.
    """
    by_kernel = len({v.kernel for v in before}) > 1 or len({v.kernel for v in after}) > 1
    old, new = _keyed(before, by_kernel=by_kernel), _keyed(after, by_kernel=by_kernel)
    if not old.keys() & new.keys():
        kernels = f"{_kernels(before)} and {_kernels(after)}"
        raise Incomparable(f"no variant is in both runs, which are of {kernels}")
    sometimes = [row for row in rows if row.sometimes]
    keys = dict.fromkeys([*old, *new])
    pairs = [_pair(old.get(key, ()), new.get(key, ()), sometimes) for key in keys]
    return tuple(sorted(pairs, key=lambda pair: ORDER.index(pair.change)))


def ways(verdict: Verdict) -> frozenset[tuple[str, str]]:
    """How a variant deviates: clause and signature of each ``must`` finding."""
    return frozenset((f.clause.value, f.signature) for f in verdict.deviations)


def _keyed(
    verdicts: Sequence[Verdict], *, by_kernel: bool
) -> Mapping[tuple[str, ...], Sequence[Verdict]]:
    keyed: dict[tuple[str, ...], list[Verdict]] = {}
    for v in verdicts:
        cell = (f"{axis}={value}" for axis, value in v.values.items())
        keyed.setdefault((v.kernel if by_kernel else "", v.case, *cell), []).append(v)
    return keyed


def _worst(attempts: Sequence[Verdict]) -> Verdict | None:
    return min(attempts, key=lambda v: ROLL_UP.index(v.status), default=None)


def _kernels(verdicts: Sequence[Verdict]) -> str:
    return ", ".join(dict.fromkeys(verdict.kernel for verdict in verdicts)) or "nothing"


def _pair(old: Sequence[Verdict], new: Sequence[Verdict], sometimes: Sequence[Known]) -> Pair:
    before, after = _worst(old), _worst(new)
    known = after or before
    assert known is not None
    return Pair(
        case=known.case,
        values=known.values,
        kernel=known.kernel,
        change=_change(before, after, sometimes),
        before=before,
        after=after,
        attempts_before=_statuses(old),
        attempts_after=_statuses(new),
    )


def _statuses(attempts: Sequence[Verdict]) -> tuple[Status, ...]:
    return tuple(verdict.status for verdict in attempts) if len(attempts) > 1 else ()


def _change(before: Verdict | None, after: Verdict | None, sometimes: Sequence[Known]) -> Change:
    if before is None:
        return Change.NEW
    if after is None:
        return Change.GONE
    if _by_chance(before, after, sometimes):
        return Change.CHANCE
    match before.status, after.status:
        case Status.FAIL, Status.FAIL:
            return Change.SAME if ways(before) == ways(after) else Change.CHANGED
        case _, Status.FAIL:
            return Change.REGRESSED
        case Status.BROKEN, Status.BROKEN:
            return Change.SAME
        case _, Status.BROKEN:
            return Change.BROKE
        case Status.FAIL, (Status.PASS | Status.RECORDED):
            return Change.FIXED
        case (old, Status.SKIP) if old is not Status.SKIP:
            return Change.SKIPPED
        case (Status.SKIP | Status.BROKEN, now) if now is not Status.SKIP:
            return Change.RUNS
    return Change.SAME if _advice(before) == _advice(after) else Change.ADVISED


def _by_chance(before: Verdict, after: Verdict, sometimes: Sequence[Known]) -> bool:
    """Whether rows that speak of both kernels tell of all that the two do not share, and of chance."""
    if not {before.status, after.status} <= {Status.PASS, Status.FAIL}:
        return False
    rows = [row for row in sometimes if row.covers(before) and row.covers(after)]
    differing = [*_apart(before, after), *_apart(after, before)]
    return bool(differing) and all(any(row.tells_of(f) for row in rows) for f in differing)


def _apart(one: Verdict, other: Verdict) -> Iterator[Finding]:
    shared = ways(other)
    return (f for f in one.deviations if (f.clause.value, f.signature) not in shared)


def _advice(verdict: Verdict) -> frozenset[tuple[str, str]]:
    return frozenset(
        (f.clause.value, f.signature) for f in verdict.findings if f.level is not Level.MUST
    )


def told(pair: Pair) -> Iterator[str]:
    """What is to be said of a pair: a line, and one for each way in which it deviates."""
    before = pair.before.status.value if pair.before else "-"
    after = pair.after.status.value if pair.after else "-"
    yield f"{pair.change.value:<10} {before:>8} -> {after:<8} {pair.name} on {pair.kernel}"
    for when, attempts in (("before", pair.attempts_before), ("after", pair.attempts_after)):
        if len(set(attempts)) > 1:
            yield f"{'':<10} ~ {when}: {spread(attempts)}"
    if pair.change in (Change.REGRESSED, Change.CHANGED, Change.FIXED, Change.CHANCE):
        old = ways(pair.before) if pair.before else frozenset()
        new = ways(pair.after) if pair.after else frozenset()
        for clause, signature in sorted(old - new):
            yield f"{'':<10} - {clause}: {signature}"
        for clause, signature in sorted(new - old):
            yield f"{'':<10} + {clause}: {signature}"
    if pair.change is Change.BROKE and pair.after:
        for reason in pair.after.reasons:
            yield f"{'':<10} ! {reason}"
