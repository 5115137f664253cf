"""What a run tells while it goes on, for a person and for a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from conformance.progress import Clock, Display, display, preparing, remark, span
from conformance.report.result import Asked
from tests.support.results import one_of_each


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def play(shown: Display, hands: Hands) -> None:
    for result in one_of_each():
        shown.started(result.variant.id)
    for result in one_of_each():
        hands.now += 10
        shown.finished(result.variant.id, result)


def test_lines_of_a_log() -> None:
    file, hands = io.StringIO(), Hands()
    with display(Console(file=file, width=40), 16, Asked(), hands) as shown:
        play(shown, hands)
    lines = file.getvalue().splitlines()
    assert lines[0] == "[1/16, 7 running, 2 min left] PASS passes"
    assert lines[2].startswith("[3/16, 5 running, 2 min left] FAIL fails: error_surfaced at fill:")
    assert lines[3].startswith("[4/16, 4 running, 2 min left] FAIL as known known: ")
    assert lines[5].endswith("BROKEN broken: the shortage never arrived")
    assert len(lines) == 8


def test_bar_of_a_terminal() -> None:
    file, hands = io.StringIO(), Hands()
    console = Console(file=file, width=120, force_terminal=True, color_system=None)
    with display(console, 16, Asked(), hands) as shown:
        play(shown, hands)
    told = file.getvalue()
    assert "8/16" in told
    assert "left" in told
    assert "running passes +7" in told
    assert "✗ FAIL fails error_surfaced at fill" in told
    assert "✗ FAIL as known known" in told
    assert "PASS passes" not in told


def test_preparing_a_log() -> None:
    file = io.StringIO()
    with preparing(Console(file=file, width=20)) as say:
        say("fetching [a] kernel of some length")
    assert file.getvalue() == "fetching [a] kernel of some length\n"


def test_time_left_is_unknown_at_first() -> None:
    hands = Hands()
    clock = Clock(4, hands, {})
    assert clock.left() == ""
    hands.now += 30
    clock.finished("one")
    assert clock.left() == "2 min left"


def test_time_left_goes_by_what_each_is_expected_to_take() -> None:
    hands = Hands()
    clock = Clock(3, hands, {"long": 100.0, "short": 20.0, "skipped": 0.0})
    hands.now += 200
    clock.finished("long")
    # By the number of them it would be 400 s.
    assert clock.left() == "40 s left"
    clock.finished("short")
    clock.finished("skipped")
    assert clock.left() == "0 s left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (3599, "1 h 00 min"), (3900, "1 h 05 min")],
)
def test_span(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_good_results_need_no_remark() -> None:
    told = {result.variant.case: remark(result, Asked()) for result in one_of_each()}
    assert told["passes"] == told["surveyed"] == told["advised"] == ""
    assert told["skipped"] == "no module dm_thin_pool; no tool thin_check"
