"""The soak: what it runs, and how it tells what wavers."""

from __future__ import annotations

import argparse
from pathlib import Path

from conformance.known import parse_known
from conformance.model import Clause, Finding, Level, Status, Verdict
from conformance.record import Entry
from tests.soak.__main__ import command, load
from tests.soak.spread import spreads, told

ROW = """\
- case: loop_full
  variant: {request: 1M}
  kernel: ">= 6.1"
  clause: kernel_sound
  signature: "*"
  reason: a race
  link: none
  review_by: 2027-06-01
  sometimes: true
"""
LOST = Finding(
    clause=Clause.ACKNOWLEDGED_READABLE,
    level=Level.MUST,
    expected="x",
    observed="y",
    signature="zeros",
)


def entry(attempt: int, *findings: Finding, request: str = "1M") -> Entry:
    return Entry(
        attempt=attempt,
        verdict=Verdict(
            case="loop_full",
            values={"request": request},
            kernel="debian/trixie",
            release="6.12.117",
            status=Status.FAIL if findings else Status.PASS,
            findings=findings,
        ),
    )


def test_what_is_always_the_same_is_counted_and_not_told() -> None:
    (one,) = spreads([entry(1), entry(2), entry(3)], ())
    assert not one.wavers
    assert one.statuses == (("PASS", 3),)
    assert "| debian/trixie | 1 | 3 | 0 | 0 |" in told([one])
    assert "loop_full" not in told([one])


def test_a_status_that_wavers_is_told_with_its_spread() -> None:
    found = spreads([entry(1), entry(2, LOST), entry(3), entry(1, request="4K")], ())
    assert [one.wavers for one in found] == [True, False]
    assert "| debian/trixie | 2 | 4 | 1 | 0 |" in told(found)
    assert "- `loop_full[1M]` on debian/trixie: 2 times PASS; 1 times FAIL" in told(found)


def test_what_fails_in_another_way_does_not_waver_and_is_told() -> None:
    other = LOST.model_copy(update={"signature": "foreign"})
    (one,) = spreads([entry(1, LOST), entry(2, other)], ())
    assert not one.wavers
    assert "| debian/trixie | 1 | 2 | 0 | 1 |" in told([one])
    assert "1 times acknowledged_readable: zeros; 1 times acknowledged_readable: foreign" in told(
        [one]
    )


def test_a_row_that_speaks_of_chance_explains_its_own_variant() -> None:
    rows = parse_known(ROW, "known.yaml")
    found = spreads(
        [entry(1), entry(2, LOST), entry(1, request="4K"), entry(2, LOST, request="4K")], rows
    )
    assert [one.known for one in found] == [("known.yaml:1",), ()]
    assert "(by chance, as known.yaml:1 says)" in told(found)


def test_without_options_it_is_twenty_times_on_two_kernels() -> None:
    asked = argparse.Namespace(out=Path("/x"), resume=None)
    words = command(asked, ["-k", "nbd"])
    assert words[2:] == [
        *("-m", "conformance", "run", "--out", "/x", "-k", "nbd", "--repeat", "20"),
        *("--kernel", "debian/bookworm", "--kernel", "debian/trixie"),
    ]
    words = command(asked, ["--repeat=3", "--kernel", "debian/sid"])
    assert words[5:] == ["--out", "/x", "--repeat=3", "--kernel", "debian/sid"]


def test_a_run_that_is_taken_up_again_has_its_options_already() -> None:
    asked = argparse.Namespace(out=Path("/x"), resume=Path("/y"))
    assert command(asked, [])[3:] == ["conformance", "run", "--resume", "/y"]


def test_the_load_is_there_within_and_gone_after() -> None:
    def busy() -> set[str]:
        found = set()
        for task in Path("/proc/self/task").iterdir():
            for child in (task / "children").read_text().split():
                if b"while True: pass" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.add(child)
        return found

    with load(2):
        # Each becomes another program twice, and has no words in between.
        assert any(len(busy()) == 2 for _ in range(10_000))
    assert not busy()
