"""What is told of two runs, for every pair of statuses; and a table that none is missing."""

from __future__ import annotations

import itertools
from datetime import date

import pytest

from conformance.compare import Change, Incomparable, compare, told
from conformance.known import Known
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


def row(signature: str, *, kernel: str = ">= 6.1", sometimes: bool = True) -> Known:
    return Known(
        case="loop_full",
        kernel=kernel,
        clause=Clause.ACKNOWLEDGED_READABLE,
        signature=signature,
        reason="r",
        link="l",
        review_by=date(2027, 6, 1),
        sometimes=sometimes,
    )


@pytest.mark.parametrize(
    ("old", "new", "rows", "change"),
    [
        (verdict(), verdict(F, "zeros"), [row("zeros")], Change.CHANCE),
        (verdict(F, "zeros"), verdict(), [row("zeros")], Change.CHANCE),
        (verdict(F, "zeros"), verdict(F, "foreign"), [row("zeros"), row("f*")], Change.CHANCE),
        (verdict(F, "zeros"), verdict(F, "zeros"), [row("zeros")], Change.SAME),
        # Each of the differing ways, on both kernels, by a row that tells of chance.
        (verdict(F, "zeros"), verdict(F, "foreign"), [row("zeros")], Change.CHANGED),
        (verdict(), verdict(F, "zeros", "foreign"), [row("zeros")], Change.REGRESSED),
        (verdict(), verdict(F, "zeros"), [row("zeros", sometimes=False)], Change.REGRESSED),
        (verdict(), verdict(F, "zeros"), [row("zeros", kernel=">= 7")], Change.REGRESSED),
        (verdict(F, "zeros"), verdict(), [row("zeros", kernel=">= 7")], Change.FIXED),
        (verdict(S), verdict(F, "zeros"), [row("zeros")], Change.REGRESSED),
        (verdict(B), verdict(), [row("zeros")], Change.RUNS),
        (verdict(F, "zeros"), verdict(B), [row("zeros")], Change.BROKE),
    ],
)
def test_what_depends_on_chance_is_told_apart(
    old: Verdict, new: Verdict, rows: list[Known], change: Change
) -> None:
    [pair] = compare([old], [new], rows)
    assert pair.change is change
    if change is Change.CHANCE:
        assert len(list(told(pair))) > 1


def test_a_row_that_speaks_of_one_of_two_kernels_is_no_excuse() -> None:
    old = verdict(F, "zeros").model_copy(update={"release": "6.1.0"})
    [pair] = compare([old], [verdict()], [row("zeros", kernel="< 6.12")])
    assert pair.change is Change.FIXED


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
