"""openQA's known issues become rows, for what was seen to fail and nothing else."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
import yaml

from conformance.known import parse_known, settle
from conformance.model import Disposition, Status, Verdict
from conformance.openqa import OpenqaError, parse, rows
from tests.support.results import finding

FILE = """
conform:
  loop_full:
  - kernel: "^6\\\\.12"
    product: "sle-15"
    message: loop loses short writes
    bugzilla: https://bugzilla.example.org/1
  '*':
  - test: "zram_.*"
    message: zram
"""


def verdict(case: str = "loop_full", release: str = "6.12.117-default") -> Verdict:
    return Verdict(
        case=case,
        values={"submit": "direct"},
        kernel="host",
        release=release,
        status=Status.FAIL,
        findings=(finding(),),
    )


def made(*verdicts: Verdict, **given: str) -> list[dict[str, Any]]:
    return rows(parse(FILE, "f"), verdicts, given, date(2026, 11, 24))


def test_what_failed_as_it_says_becomes_a_row_that_is_one() -> None:
    told = made(verdict(), product="sle-15-SP7")
    text = yaml.safe_dump(told, sort_keys=False)
    [row] = parse_known(text, "rows.yaml")
    assert (row.reason, row.link) == ("loop loses short writes", "https://bugzilla.example.org/1")
    assert str(row.review_by) == "2027-02-22"
    assert settle(verdict(), [row]).disposition is Disposition.AS_KNOWN
    other = verdict(release="6.12.118")
    assert settle(other, [row]).disposition is Disposition.UNEXPECTED


@pytest.mark.parametrize(
    ("seen", "given"),
    [
        (verdict(), {}),  # nobody says which product this is
        (verdict(), {"product": "opensuse"}),
        (verdict(release="6.4.0"), {"product": "sle-15"}),
        (verdict("loop_other"), {"product": "sle-15"}),
        (
            verdict().model_copy(update={"status": Status.PASS, "findings": ()}),
            {"product": "sle-15"},
        ),
    ],
)
def test_nothing_else_becomes_one(seen: Verdict, given: dict[str, str]) -> None:
    assert made(seen, **given) == []


def test_a_star_has_its_own_expression_for_names() -> None:
    assert [row["case"] for row in made(verdict("zram_full"), verdict("my_zram_full"))] == [
        "zram_full"
    ]


@pytest.mark.parametrize(
    "text", ["[1]", "a: b", "a: {b: c}", "a: {'*': [{test: '('}]}", "a: {b: [{", ""]
)
def test_what_is_no_such_file_is_told_in_one_line(text: str) -> None:
    with pytest.raises(OpenqaError, match=r"^f\.yaml: ") as told:
        parse(text, "f.yaml")
    assert "\n" not in str(told.value)
