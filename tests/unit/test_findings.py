"""The tables of docs/findings.md say what the verdicts say, and nothing better."""

from __future__ import annotations

import pytest

from conformance.model import Clause, Finding, Level, Status, Verdict
from conformance.report.findings import (
    claims_table,
    families_table,
    kernels_of,
    refresh,
    results_table,
    roll_up,
)


def verdict(
    case: str, kernel: str, release: str, status: Status, *findings: Finding, reasons: str = ""
) -> Verdict:
    return Verdict(
        case=case,
        kernel=kernel,
        release=release,
        status=status,
        findings=findings,
        reasons=(reasons,) if reasons else (),
    )


def finding(level: Level, claim: str) -> Finding:
    return Finding(
        clause=Clause.NO_OOM_KILL,
        level=level,
        expected="no kill",
        observed="a kill",
        claims=(claim,),
        signature="invoked-by-kworker",
    )


OLD, NEW = ("debian/bullseye", "5.10.0-40"), ("debian/trixie", "6.12.117")


def test_kernels_stand_by_age_of_release_not_by_name() -> None:
    some = [
        verdict("a", "x", "6.12.117", Status.PASS),
        verdict("a", "y", "6.1.192", Status.PASS),
    ]
    assert [name for name, _ in kernels_of(some)] == ["y", "x"]


def test_a_kernel_that_was_updated_between_two_cases_has_both_releases() -> None:
    some = [verdict(case, "x", f"6.1.0-{n}", Status.PASS) for case, n in (("a", 57), ("b", 56))]
    assert kernels_of(some) == (("x", "6.1.0-56 and 6.1.0-57"),)


def test_a_failed_claim_fails_though_another_case_passed() -> None:
    some = [
        verdict("a", *NEW, Status.FAIL, finding(Level.MUST, "S1")),
        verdict("b", *NEW, Status.PASS),
    ]
    row = _row(claims_table(some, {"a": ["S1"], "b": ["S1"]}), "S1")
    assert row.endswith("| **fails** in 1 case |")


def test_a_claim_that_only_skipped_cases_cover_does_not_hold() -> None:
    some = [verdict("a", *OLD, Status.SKIP, reasons="not charged")]
    assert _row(claims_table(some, {"a": ["S1"]}), "S1").endswith("| not applicable |")
    assert _row(claims_table(some, {"a": ["S1"]}), "S2").endswith("| not tested |")


def test_a_broken_case_proves_nothing_of_its_claim() -> None:
    some = [verdict("a", *NEW, Status.BROKEN, reasons="no shortage")]
    assert _row(claims_table(some, {"a": ["S1"]}), "S1").endswith("| not tested |")


def test_advisories_are_told_beside_a_claim_that_holds() -> None:
    some = [verdict("a", *NEW, Status.PASS, finding(Level.SHOULD, "S1"))]
    assert "holds, advisories in 1 case" in _row(claims_table(some, {"a": ["S1"]}), "S1")


def test_a_row_is_a_variant_that_fails_somewhere_and_tells_of_what() -> None:
    some = [
        verdict("a", *NEW, Status.FAIL, finding(Level.MUST, "S1")),
        verdict("a", *OLD, Status.SKIP, reasons="not charged"),
        verdict("b", *NEW, Status.PASS),
    ]
    table = results_table(some)
    assert "| skip | **FAIL**<br>no_oom_kill: invoked-by-kworker |" in table
    assert "`b" not in table


def test_a_family_is_counted_by_status() -> None:
    some = [
        verdict("a", *NEW, Status.FAIL, finding(Level.MUST, "S1")),
        verdict("b", *NEW, Status.PASS),
        verdict("b", *OLD, Status.SKIP, reasons="not charged"),
    ]
    table = families_table(some, {"a": "loop", "b": "loop", "c": "zram"})
    assert "| loop | 1 skip | 1 pass, 1 **FAIL** |" in table
    assert "| zram | not run | not run |" in table


def test_roll_up_takes_the_worst_and_nothing_of_nothing() -> None:
    assert roll_up([Status.PASS, Status.BROKEN, Status.SKIP]) is Status.BROKEN
    assert roll_up([]) is None


def test_tables_are_made_anew_between_their_markers() -> None:
    document = "a\n<!-- table: claims -->\nold\n<!-- end -->\nb"
    assert refresh(document, {"claims": "new"}) == (
        "a\n<!-- table: claims -->\nnew\n<!-- end -->\nb"
    )
    with pytest.raises(KeyError):
        refresh(document, {})


def _row(table: str, claim: str) -> str:
    return next(line for line in table.splitlines() if line.startswith(f"| **{claim}** "))
