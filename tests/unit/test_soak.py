"""The soak: what it runs, and how it tells what wavers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from agent.basics import poll_until

from conformance import tsv
from conformance.known import parse_known
from conformance.model import Clause, Finding, Level, NotApplicable, Status, Variant, Verdict
from conformance.record import Entry, RecordError
from tests.soak import __main__ as soak
from tests.soak import tally
from tests.soak.__main__ import command, enter, load, rounds
from tests.soak.spread import Spread, told
from tests.soak.spread import spreads as spread_of

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


VARIANTS = {
    f"loop_full[{request}]": cast(
        Variant, SimpleNamespace(case="loop_full", values={"request": request})
    )
    for request in ("1M", "4K")
}


def entry(
    *findings: Finding,
    request: str = "1M",
    release: str = "6.12.117+deb13-cloud-amd64",
    why: str = "",
    kernel: str = "debian/trixie",
) -> Entry:
    values = {"request": request}
    return Entry(
        plan=NotApplicable(case="loop_full", values=values, kernel=kernel, reasons=(why,)),
        verdict=Verdict(
            case="loop_full",
            values=values,
            kernel=kernel,
            release=release,
            status=Status.FAIL if findings else Status.PASS,
            findings=findings,
        ),
    )


def spreads(entries: Sequence[Entry], rows: Sequence[Any] = ()) -> list[Spread]:
    return spread_of(tally.entered((), entries), VARIANTS, rows)


def test_what_is_always_the_same_is_counted_and_not_told() -> None:
    (one,) = spreads([entry(), entry(), entry()])
    assert not one.wavers
    assert one.statuses == (("PASS", 3),)
    assert "| debian/trixie | 1 | 3 | 0 | 0 | 0 |" in told([one])
    assert "loop_full" not in told([one])


def test_a_status_that_wavers_is_told_with_its_spread() -> None:
    found = spreads([entry(LOST), entry(), entry(), entry(request="4K")])
    assert [one.wavers for one in found] == [True, False]
    assert "| debian/trixie | 2 | 1-3 | 1 | 1 | 0 |" in told(found)
    assert "- `loop_full[1M]` on debian/trixie: 2 times PASS; 1 times FAIL" in told(found)


def test_what_fails_in_another_way_does_not_waver_and_is_told() -> None:
    other = LOST.model_copy(update={"signature": "foreign"})
    (one,) = spreads([entry(LOST), entry(other)])
    assert not one.wavers
    assert "| debian/trixie | 1 | 2 | 0 | 0 | 1 |" in told([one])
    assert "1 times acknowledged_readable: foreign; 1 times acknowledged_readable: zeros" in told(
        [one]
    )


def test_a_status_that_wavers_in_several_ways_adds_them_up() -> None:
    other = LOST.model_copy(update={"signature": "foreign"})
    (one,) = spreads([entry(LOST), entry(other), entry(other), entry()])
    assert one.statuses == (("FAIL", 3), ("PASS", 1))


def test_a_row_that_speaks_of_chance_explains_its_own_variant() -> None:
    rows = parse_known(ROW, "known.yaml")
    found = spreads([entry(), entry(LOST), entry(request="4K"), entry(LOST, request="4K")], rows)
    assert [one.known for one in found] == [("known.yaml:1",), ()]
    assert [one.unexplained for one in found] == [False, True]
    assert "(by chance, as known.yaml says)" in told(found)
    assert "| debian/trixie | 2 | 2 | 2 | 1 | 0 |" in told(found)


def test_a_row_of_other_kernels_or_not_of_chance_explains_nothing() -> None:
    rows = parse_known(ROW, "known.yaml")
    (one,) = spreads([entry(release="5.10.0"), entry(LOST, release="5.10.0")], rows)
    assert one.known == ()
    rows = parse_known(ROW.replace("sometimes: true", "sometimes: false"), "known.yaml")
    (one,) = spreads([entry(), entry(LOST)], rows)
    assert one.known == ()


def test_no_row_explains_a_rig_that_broke() -> None:
    rows = parse_known(ROW, "known.yaml")
    broken = entry()
    broken = broken.model_copy(
        update={"verdict": broken.verdict.model_copy(update={"status": Status.BROKEN})}
    )
    (one,) = spreads([entry(LOST), broken], rows)
    assert one.known == ("known.yaml:1",)
    assert one.unexplained
    (one,) = spreads([broken, broken], rows)
    assert not one.unexplained


def test_a_variant_that_is_no_more_is_not_told_of() -> None:
    assert spread_of(tally.entered((), [entry()]), {}, ()) == []


def test_rounds_add_up_in_the_file() -> None:
    counts = tally.entered((), [entry(), entry(LOST)])
    again = tally.entered(
        tsv.read(tally.Count, tsv.document(tally.Count, counts)), [entry(), entry(request="4K")]
    )
    assert [(one.variant, one.status.value, one.times) for one in again] == [
        ("loop_full[1M]", "PASS", 2),
        ("loop_full[1M]", "FAIL", 1),
        ("loop_full[4K]", "PASS", 1),
    ]
    assert tsv.read(tally.Count, tsv.document(tally.Count, again)) == again
    assert "\tFAIL\tacknowledged_readable: zeros\t1\n" in tsv.document(tally.Count, again)


@pytest.mark.parametrize("change", [{"why": "another plan"}, {"release": "6.12.118"}])
def test_what_was_counted_of_another_plan_or_release_is_dropped(change: dict[str, str]) -> None:
    counts = tally.entered((), [entry(), entry(), entry(request="4K")])
    again = tally.entered(counts, [entry(LOST, **change)])
    assert [(one.variant, one.status.value, one.times) for one in again] == [
        ("loop_full[1M]", "FAIL", 1),
        ("loop_full[4K]", "PASS", 1),
    ]


def test_the_least_is_that_of_the_round_s_own_variants() -> None:
    counts = tally.entered((), [entry(), entry(LOST), entry(), entry(request="4K")])
    assert tally.least(counts, [entry()]) == 3
    assert tally.least(counts, [entry(), entry(request="4K")]) == 1
    assert tally.least(counts, [entry(), entry(kernel="debian/sid")]) == 0
    assert tally.least(counts, []) == 0


def test_without_options_it_is_on_two_kernels(tmp_path: Path) -> None:
    assert command(tmp_path, "2", ["-k", "nbd"])[2:] == [
        *("-m", "conformance", "run", "-n", "2", "--out", str(tmp_path), "-k", "nbd"),
        *("--kernel", "debian/bookworm", "--kernel", "debian/trixie"),
    ]
    words = command(tmp_path, "2", ["--kernel=debian/sid"])
    assert words[7:] == ["--out", str(tmp_path), "--kernel=debian/sid"]


def test_a_round_that_is_taken_up_again_says_its_options_which_must_be_the_same(
    tmp_path: Path,
) -> None:
    begun = command(tmp_path, "2", ["-k", "nbd"])
    (tmp_path / "record.jsonl").touch()
    assert command(tmp_path, "2", ["-k", "nbd"]) == [
        "--resume" if word == "--out" else word for word in begun
    ]


class Runs:
    """In place of ``./conform run``: each leaves a record, and the last one what is given."""

    def __init__(self, records: Sequence[Sequence[Entry] | RecordError]) -> None:
        self.records = iter(records)
        self.made = 0

    def __call__(self, words: Sequence[str], **_: object) -> Any:
        self.made += 1
        work = Path(words[words.index("--out") + 1])
        work.mkdir()
        return SimpleNamespace(wait=lambda: 0, terminate=lambda: None)

    def read(self, path: Path) -> Any:
        found = next(self.records)
        if isinstance(found, RecordError):
            raise found
        return SimpleNamespace(entries=found)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def made(*records: Sequence[Entry] | RecordError) -> Runs:
        found = Runs(records)
        monkeypatch.setattr(subprocess, "Popen", found)
        monkeypatch.setattr(soak, "read_record", found.read)
        monkeypatch.setattr(soak, "TALLY", tmp_path / "soak.tsv")
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        return found

    return made


def test_rounds_go_on_until_each_variant_has_its_attempts(runs: Any, tmp_path: Path) -> None:
    found = runs([entry(), entry(request="4K")], [entry(), entry(request="4K")], [])
    enter(tmp_path / "soak.tsv", [entry()])
    rounds(tmp_path / "work", "2", (), 2)
    assert found.made == 2
    assert not (tmp_path / "work").exists()
    counts = tsv.read(tally.Count, (tmp_path / "soak.tsv").read_text())
    assert [(one.variant, one.times) for one in counts] == [
        ("loop_full[1M]", 3),
        ("loop_full[4K]", 2),
    ]


def test_a_round_that_is_not_whole_is_not_counted_and_stays(runs: Any, tmp_path: Path) -> None:
    runs(RecordError("no footer"))
    with pytest.raises(RecordError, match="no footer"):
        rounds(tmp_path / "work", "2", (), 2)
    assert (tmp_path / "work").exists()
    assert not (tmp_path / "soak.tsv").exists()


def test_without_a_number_it_is_six_machines_to_a_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(soak, "TALLY", tmp_path / "soak.tsv")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5})
    monkeypatch.setattr(soak, "load", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(soak, "rounds", lambda *words: asked.append(words[1]))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    soak.main([])
    soak.main(["-n", "4"])
    assert asked == ["18", "4"]


def test_the_load_is_there_within_and_gone_after() -> None:
    def busy() -> dict[str, int]:
        """Who, and at which priority: 19 is the lowest."""
        found = {}
        for child in Path("/proc/thread-self/children").read_text().split():
            if b"while True: pass" in Path(f"/proc/{child}/cmdline").read_bytes():
                found[child] = os.getpriority(os.PRIO_PROCESS, int(child))
        return found

    with load(2):
        # Each becomes another program three times, and has no words in between.
        assert poll_until(lambda: list(busy().values()) == [19, 19], 60)
    assert not busy()
