"""What is made of records: which files a report names, and what it says of several runs."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from conformance.commands.records import together
from conformance.model import Status
from conformance.report import html, junit, kcidb
from conformance.report.result import Asked, Result
from conformance.report.short import evidence
from conformance.session import Ending
from tests.support.results import finding, result, variant

CONSOLE = "loop_full/main/console.log"


def one(record: Path, case: str, **more: object) -> Result:
    told = finding(evidence=(CONSOLE, "fill: write(0, 4096) = 4096"))
    return result(Status.FAIL, told, of=variant(case)).model_copy(
        update={"record": str(record), **more}
    )


def a_folder(path: Path, *consoles: str) -> Path:
    for console in consoles:
        (path / console).parent.mkdir(parents=True)
        (path / console).touch()
    return path


def test_a_console_that_did_not_come_with_the_record_is_not_named(tmp_path: Path) -> None:
    record = tmp_path / "whole.jsonl.xz"
    attempts = (one(record, "a"), one(record, "a", attempt=2))
    of_one = one(record, "a", attempts=attempts)
    [alone] = together([(record, Ending(results=(of_one,)))]).results
    for told in (alone, *alone.attempts):
        assert told.consoles == ()
        assert evidence(told, Asked(folder=str(tmp_path))) == (
            "fill: write(0, 4096) = 4096",
            f"{tmp_path}/whole.jsonl.xz",
        )


def test_of_several_records_each_result_names_its_own_files(tmp_path: Path) -> None:
    first = a_folder(tmp_path / "first", CONSOLE) / "record.jsonl"
    second = a_folder(tmp_path / "second") / "record.jsonl"
    endings = [
        (first, Ending(results=(one(first, "a"),))),
        (second, Ending(results=(one(second, "b"),))),
    ]
    a, b = together(endings).results
    quoted = "fill: write(0, 4096) = 4096"
    assert evidence(a, Asked()) == (f"{tmp_path}/first/{CONSOLE}", quoted, str(first))
    assert evidence(b, Asked()) == (quoted, str(second))


EARLY, LATE = "2026-11-24T08:00:00", "2026-11-30T09:00:00"


def two_runs(tmp_path: Path) -> Ending:
    endings = []
    for name, began, kernel in (("new", LATE, "debian/sid"), ("old", EARLY, "debian/trixie")):
        record = tmp_path / name / "record.jsonl"
        made = result(Status.PASS, kernel=kernel)
        told = made.model_copy(update={"record": str(record), "started": began})
        endings.append((record, Ending(results=(told,), started=began)))
    return together(endings)


def test_of_several_records_each_result_has_the_start_of_its_own_run(tmp_path: Path) -> None:
    both = two_runs(tmp_path)
    assert both.started == EARLY
    suites = ET.fromstring(junit.document(both.results, Asked(), started=both.started))
    assert {suite.get("name"): suite.get("timestamp") for suite in suites} == {
        "loop_enospc-debian_sid": LATE,
        "loop_enospc-debian_trixie": EARLY,
    }
    tests = kcidb.report(both.results, Asked(), started=both.started)["tests"]
    assert [test["start_time"] for test in tests] == [f"{LATE}Z", f"{EARLY}Z"]
    page = html.document(both.results, Asked(), started=both.started)
    assert "2026-11-24 08:00:00 UTC</time> to <time" in page
    assert "2026-11-30 09:00:00 UTC</time>" in page
    assert page.count(" UTC</time>") == 2
    alone = html.document(both.results[:1], Asked(), started=LATE)
    assert alone.count(" UTC</time>") == 1


def test_kcidb_calls_a_test_the_same_alone_and_among_others(tmp_path: Path) -> None:
    both = two_runs(tmp_path)
    ids = [test["id"] for test in kcidb.report(both.results, Asked())["tests"]]
    for told, name in zip(both.results, ids, strict=True):
        asked = Asked(folder=str(Path(told.record).parent))
        [test] = kcidb.report([told], asked, started=told.started)["tests"]
        assert test["id"] == name
        again = told.model_copy(update={"started": "2026-12-01T00:00:00"})
        [other] = kcidb.report([again], asked)["tests"]
        assert other["id"] != name


@pytest.mark.parametrize("console", [CONSOLE, ""])
def test_a_run_s_own_consoles_stay_as_they_are(tmp_path: Path, console: str) -> None:
    folder = a_folder(tmp_path, *filter(None, [console]))
    record = folder / "record.jsonl"
    [told] = together([(record, Ending(results=(one(record, "a"),)))]).results
    assert told.consoles == tuple(filter(None, [console]))
