"""What is told of two runs, for every pair of statuses; and a table that none is missing."""

from __future__ import annotations

import itertools

import pytest

from conformance.compare import Change, Incomparable, compare, told
from conformance.model import Clause, Finding, Level, Status, Verdict

P, F, B, S, R = Status.PASS, Status.FAIL, Status.BROKEN, Status.SKIP, Status.RECORDED


def verdict(
    status: Status = P,
    *signatures: str,
    case: str = "loop_full",
    kernel: str = "debian/trixie",
    level: Level = Level.MUST,
) -> Verdict:
    clause = Clause.ACKNOWLEDGED_READABLE
    return Verdict(
        case=case,
        values={"request": "1M"},
        kernel=kernel,
        release="6.12.117",
        status=status,
        findings=tuple(
            Finding(clause=clause, level=level, expected="x", observed="y", signature=signature)
            for signature in signatures
        ),
        reasons=("the rig could not be built",) if status is B else (),
    )


EXPECTED = {
    **{(old, F): Change.REGRESSED for old in (P, B, S, R)},
    (F, F): Change.SAME,
    **{(old, B): Change.BROKE for old in (P, F, S, R)},
    (B, B): Change.SAME,
    **{(F, now): Change.FIXED for now in (P, R)},
    **{(old, S): Change.SKIPPED for old in (P, F, B, R)},
    (S, S): Change.SAME,
    **{(old, now): Change.RUNS for old in (S, B) for now in (P, R)},
    **{(old, now): Change.SAME for old in (P, R) for now in (P, R)},
}


@pytest.mark.parametrize(("old", "now"), list(itertools.product(Status, Status)))
def test_every_pair_of_statuses(old: Status, now: Status) -> None:
    signature = {F: ("zeros",)}
    [pair] = compare(
        [verdict(old, *signature.get(old, ()))], [verdict(now, *signature.get(now, ()))]
    )
    assert pair.change is EXPECTED[old, now]


def test_another_way_to_fail() -> None:
    [pair] = compare([verdict(F, "zeros")], [verdict(F, "foreign")])
    assert pair.change is Change.CHANGED
    lines = list(told(pair))
    assert any("- acknowledged_readable: zeros" in line for line in lines)
    assert any("+ acknowledged_readable: foreign" in line for line in lines)


def test_another_advisory() -> None:
    [pair] = compare([verdict(P, "EIO", level=Level.SHOULD)], [verdict(P)])
    assert pair.change is Change.ADVISED


def test_new_and_gone() -> None:
    pairs = compare(
        [verdict(), verdict(case="old")], [verdict(), verdict(case="new"), verdict(B, case="more")]
    )
    assert {pair.case: pair.change for pair in pairs} == {
        "loop_full": Change.SAME,
        "old": Change.GONE,
        "new": Change.NEW,
        "more": Change.NEW,
    }


def test_one_kernel_against_another() -> None:
    [pair] = compare([verdict(kernel="debian/bookworm")], [verdict(F, "zeros")])
    assert pair.change is Change.REGRESSED


def test_several_kernels_are_compared_each_with_itself() -> None:
    both = [verdict(kernel="debian/bookworm"), verdict(F, "zeros")]
    assert {pair.change for pair in compare(both, both)} == {Change.SAME}


def test_nothing_in_common() -> None:
    with pytest.raises(Incomparable, match="no variant is in both runs"):
        compare([verdict(case="a")], [verdict(case="b")])


def test_what_matters_most_comes_first() -> None:
    pairs = compare(
        [verdict(case="a"), verdict(F, "x", case="b"), verdict(case="c")],
        [verdict(case="a"), verdict(case="b"), verdict(F, "x", case="c")],
    )
    assert [pair.change for pair in pairs] == [Change.REGRESSED, Change.FIXED, Change.SAME]
