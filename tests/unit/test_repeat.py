"""A variant that was run several times: how it spreads, and what each report and status makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from conformance.cli import main
from conformance.compare import Change, compare, told
from conformance.exits import BROKEN, DEVIATES, STALE, status
from conformance.model import Disposition, Status, Verdict
from conformance.published import verdicts_of
from conformance.record import (
    Cases,
    Header,
    RecordError,
    RecordWriter,
    merge_records,
    read_record,
)
from conformance.report import junit
from conformance.report.formats import FORMATS
from conformance.report.result import Asked, Result, gathered
from conformance.session import open_library
from tests.support.results import finding, result, variant

P, F, B, S = Status.PASS, Status.FAIL, Status.BROKEN, Status.SKIP
XSD = Path(__file__).parent.parent / "data" / "junit-10.xsd"
ROW = ("results/known/loop.yaml:3",)


def attempts(*statuses: Status, known: bool = False) -> list[Result]:
    """An attempt for each status; what is ``known`` is told of by a row."""
    told = []
    for number, one in enumerate(statuses, 1):
        disposition = Disposition.AS_KNOWN if known and one is F else None
        findings = (finding(),) if one is F else ()
        reasons = ("no guest",) if one in (B, S) else ()
        row = ROW if known and one is F else ()
        made = result(one, *findings, disposition=disposition, reasons=reasons, known=row)
        told.append(made.model_copy(update={"attempt": number}))
    return told


def one_of(*statuses: Status, known: bool = False, asked: Asked | None = None) -> Result:
    [told] = gathered(attempts(*statuses, known=known), asked or Asked())
    return told


def test_the_worst_is_shown_and_the_spread_is_told() -> None:
    told = one_of(P, F, P, F)
    assert told.verdict.status is F
    assert told.attempt == 2
    assert told.wavers
    assert told.told_spread() == "FAIL 2 of 4, PASS 2 of 4"


def test_attempts_that_agree_do_not_waver() -> None:
    assert not one_of(F, F).wavers
    assert one_of(F, F).told_spread() == "FAIL 2 of 2"
    assert one_of(P).told_spread() == ""
    assert one_of(P).attempts == ()


def test_attempts_that_are_still_to_be_made_are_told() -> None:
    made = attempts(P, P)
    [told] = gathered(made, Asked(), planned={(made[0].variant.id, made[0].verdict.kernel): 5})
    assert told.told_spread() == "PASS 2 of 2; 3 not made"


def test_gathering_again_changes_nothing() -> None:
    once = gathered(attempts(P, F, B), Asked())
    assert gathered(once, Asked()) == once


def test_variants_and_kernels_are_kept_apart() -> None:
    made = [result(P), result(F, finding(), kernel="other"), result(P, of=variant("other"))]
    assert gathered(made, Asked()) == tuple(made)


@pytest.mark.parametrize(
    ("statuses", "known", "asked", "code"),
    [
        ((P, P), False, Asked(), 0),
        ((P, F, P), False, Asked(), DEVIATES),  # once is enough: a kernel that may lose data does
        ((P, B), False, Asked(), BROKEN),
        ((F, B), False, Asked(), DEVIATES | BROKEN),
        ((F, P), True, Asked(), 0),  # a row that says "sometimes"; else the PASS would be stale
        ((F, P), True, Asked(strict=True), DEVIATES),
        ((F, B), True, Asked(), BROKEN),  # what is known does not hide what is broken
        ((S, P), False, Asked(), 0),
    ],
)
def test_the_exit_status_is_the_or_over_all_attempts(
    statuses: tuple[Status, ...], known: bool, asked: Asked, code: int
) -> None:
    assert status([one_of(*statuses, known=known, asked=asked)], asked, stale=False) == code


def test_a_known_deviation_that_one_attempt_does_not_show_is_stale() -> None:
    deviates, conforms = attempts(F, P, known=True)
    fixed = conforms.verdict.model_copy(update={"disposition": Disposition.FIXED, "known": ROW})
    made = [deviates, conforms.model_copy(update={"verdict": fixed})]
    assert status(gathered(made, Asked()), Asked(), stale=False) == STALE


# -- reports --------------------------------------------------------------------------------------


def test_junit_has_one_testcase_and_surefire_s_elements_for_attempts_that_differ() -> None:
    told = etree.fromstring(junit.strict([one_of(P, F, B, P)], Asked()).encode())
    etree.XMLSchema(etree.parse(XSD)).assertValid(told)
    [case] = told.iter("testcase")
    assert case.find("failure").get("type") == "error_surfaced"
    assert "attempts  FAIL 1 of 4, BROKEN 1 of 4, PASS 2 of 4" in case.findtext("system-out")
    flaky = case.find("flakyFailure")
    assert flaky.get("type") == "error_surfaced"
    assert flaky.get("message").startswith("attempt 2 of 4: error_surfaced at fill")
    assert "FAIL loop_full" in flaky.findtext("stackTrace")
    assert flaky.find("system-err") is not None
    assert case.find("flakyError").get("message") == "attempt 3 of 4: no guest"
    assert told.get("tests") == "1"


def test_junit_of_attempts_that_agree_has_none_of_them() -> None:
    told = junit.document([one_of(F, F)], Asked())
    assert "flaky" not in told
    assert 'name="attempts" value="FAIL 2 of 2"' in told


@pytest.mark.parametrize("form", sorted(set(FORMATS) - {"html", "squad", "timing", "durations"}))
def test_every_format_has_one_entry_and_tells_the_spread(form: str) -> None:
    told = FORMATS[form]([one_of(P, F, P)], Asked())
    assert "FAIL 1 of 3, PASS 2 of 3" in " ".join(told.split())


def test_comparing_takes_the_worst_and_tells_the_spread() -> None:
    before = [one.verdict for one in attempts(P, P)]
    after = [one.verdict for one in attempts(P, F)]
    [pair] = compare(before, after)
    assert pair.change is Change.REGRESSED
    assert pair.attempts_after == (P, F)
    lines = list(told(pair))
    assert any(line.endswith("~ after: FAIL 1 of 2, PASS 1 of 2") for line in lines)
    assert not any("before:" in line for line in lines)


# -- records --------------------------------------------------------------------------------------

HEADER = Header(started="2026-11-24T08:00:00Z", command=("conform",), cases=Cases(sha256="0"))


def verdict(one: Status, case: str = "a") -> Verdict:
    return Verdict(case=case, kernel="k", release="6.1", status=one)


def write(path: Path, *statuses: Status, case: str = "a") -> Path:
    with RecordWriter(path, HEADER, planned=len(statuses)) as writer:
        for number, one in enumerate(statuses, 1):
            writer.add(plan=None, observation=None, verdict=verdict(one, case), attempt=number)
    return path


def test_a_record_holds_every_attempt(tmp_path: Path) -> None:
    path = write(tmp_path / "record.jsonl", P, F, P)
    entries = read_record(path).entries
    assert [(entry.attempt, entry.verdict.status) for entry in entries] == [(1, P), (2, F), (3, P)]
    first, second = path.read_text().splitlines()[1:3]
    assert "attempt" not in first
    assert '"attempt":2' in second


@pytest.mark.parametrize("number", ["0", "true", '"2"', "2.5"])
def test_an_attempt_is_a_number(tmp_path: Path, number: str) -> None:
    path = write(tmp_path / "record.jsonl", P, F)
    path.write_text(path.read_text().replace('"attempt":2', f'"attempt":{number}'))
    with pytest.raises(RecordError, match=r"record.jsonl:3: an attempt is a whole number from 1"):
        read_record(path)


def test_the_same_attempt_twice_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "record.jsonl", P, F, F)
    path.write_text(path.read_text().replace('"attempt":3', '"attempt":2'))
    with pytest.raises(RecordError, match=r":4: a second verdict of a on k, attempt 2"):
        read_record(path)


def test_records_with_attempts_are_merged(tmp_path: Path) -> None:
    parts = [write(tmp_path / "1", P, F), write(tmp_path / "2", P, P, case="b")]
    whole = tmp_path / "whole.jsonl"
    assert merge_records([(path, read_record(path)) for path in parts], whole) == 4
    assert [entry.attempt for entry in read_record(whole).entries] == [1, 2, 1, 2]


def test_published_history_is_the_worst_attempt_s(tmp_path: Path) -> None:
    record = read_record(write(tmp_path / "1", P, F, P))
    merge_records([(tmp_path / "1", record)], tmp_path / "1.jsonl.xz")
    assert [one.status for one in verdicts_of(tmp_path, "a")] == [F]


def test_an_old_run_is_judged_and_compared_with_its_spread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, values = "loop_enospc_short_write", {"request": "4K", "loop_dio": "off"}
    for name, statuses in (("old", (P, P)), ("new", (P, B))):
        header = HEADER.model_copy(update={"cases": Cases(sha256=open_library(()).sha256)})
        (tmp_path / name).mkdir()
        path = tmp_path / name / "record.jsonl"
        with RecordWriter(path, header, planned=len(statuses)) as writer:
            for number, one in enumerate(statuses, 1):
                told = verdict(one, case).model_copy(update={"values": values})
                writer.add(plan=None, observation=None, verdict=told, attempt=number)
    assert main(["judge", str(tmp_path / "new")]) == BROKEN
    assert "BROKEN 1 of 2, PASS 1 of 2" in capsys.readouterr().out
    assert main(["compare", str(tmp_path / "old"), str(tmp_path / "new")]) == BROKEN
    assert "after: BROKEN 1 of 2, PASS 1 of 2" in capsys.readouterr().out
