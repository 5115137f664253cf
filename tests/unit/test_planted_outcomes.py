"""What came of the saboteurs is kept, and is of the saboteurs of today."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conformance.model import Clause, Status
from tests.planted import outcomes
from tests.planted.menders import MENDERS
from tests.planted.outcomes import digest, done, kept, missing, note, outcome, right
from tests.planted.saboteurs import BOOKWORM, SABOTEURS, TRIXIE, Act
from tests.planted.table import table
from tests.planted.trial import Caught

ONE = replace(
    SABOTEURS[1],
    kernels=(BOOKWORM, TRIXIE),
    clauses=frozenset({Clause.ERROR_SURFACED}),
    should=frozenset({Clause.ERRNO_PRECISE}),
    first=Clause.ERROR_SURFACED,
)
CAUGHT = Caught(
    release="6.1.0-57",
    status=Status.FAIL,
    must=(Clause.ERROR_SURFACED,),
    should=(Clause.ERRNO_PRECISE,),
    first=Clause.ERROR_SURFACED,
    reasons=(),
    observed=(),
    alone=frozenset(),
    failed=(),
)


def test_each_saboteur_of_today_was_caught_as_is_written() -> None:
    assert missing((*SABOTEURS, *MENDERS), kept()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"must": ()},
        {"must": (Clause.ERROR_SURFACED, Clause.BOUNDED)},
        {"should": ()},
        {"first": Clause.ERRNO_PRECISE},
        {"reasons": ("no shortage",)},
        {"failed": ("a command",)},
    ],
)
def test_who_is_caught_by_less_or_more_is_not_right(change: dict[str, object]) -> None:
    assert right(ONE, CAUGHT)
    assert not right(ONE, replace(CAUGHT, **change))  # type: ignore[arg-type]


def test_no_verdict_is_right_for_the_reason_that_is_written() -> None:
    broken = replace(CAUGHT, status=Status.BROKEN, reasons=("the relief\ndid not come",))
    asked = replace(ONE, broken="relief")
    assert right(asked, broken)
    assert not right(replace(ONE, broken="control"), broken)
    assert not right(asked, CAUGHT)
    assert outcome(asked, TRIXIE, broken).by == "no verdict: the relief did not come"


def test_a_mender_has_to_pass_where_the_kernel_alone_does_not() -> None:
    mender = replace(ONE, mends=frozenset({Clause.BOUNDED}), clauses=frozenset(), first=None)
    mender = replace(mender, should=frozenset())
    passed = replace(CAUGHT, status=Status.PASS, must=(), should=(), first=None)
    assert right(mender, replace(passed, alone=frozenset({Clause.BOUNDED})))
    assert not right(mender, passed)


def test_what_is_noted_is_read_and_the_last_word_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(outcomes, "FILE", tmp_path / "planted.tsv")
    assert kept() == {}
    note(outcome(ONE, TRIXIE, replace(CAUGHT, must=())))
    assert not done(ONE, TRIXIE, kept())
    note(outcome(ONE, TRIXIE, CAUGHT))
    assert done(ONE, TRIXIE, kept())
    assert missing([ONE], kept()) == [f"{BOOKWORM} {ONE.name}"]
    assert "| not run or `error_surfaced`, `errno_precise (should)` (" in table([ONE], kept())


def test_who_changed_is_run_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(outcomes, "FILE", tmp_path / "planted.tsv")
    note(outcome(ONE, TRIXIE, CAUGHT))
    for change in (
        {"variant": SABOTEURS[0].variant},
        {"acts": (Act(step="fill", script="true"),)},
        {"clauses": frozenset({Clause.BOUNDED})},
        {"mends": frozenset({Clause.BOUNDED})},
        {"conforming": True},
    ):
        assert not done(replace(ONE, **change), TRIXIE, kept())
    assert digest(replace(ONE, does="other words", why="others")) == digest(ONE)
