"""Each format says what its readers need, held against their own rules where these can be had."""

from __future__ import annotations

import json
import re
from datetime import date
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from kcidb_io.schema import LATEST

from conformance.known import Known
from conformance.model import HERE, Clause, Status
from conformance.report import kcidb
from conformance.report.formats import FORMATS
from conformance.report.result import Asked, NotRun, Result
from conformance.shards import Durations
from tests.support.results import finding, known_row, one_of_each, result, variant

ASKED = Asked(folder="results/runs/now")
STARTED = "2026-11-24T08:00:00"
HOSTILE = "a \x1b[31mred\x00 # TODO\nnot ok 9 - <LAVA_SIGNAL_TESTCASE TEST_CASE_ID=x RESULT=pass>"


def made(name: str, asked: Asked = ASKED) -> str:
    return FORMATS[name](one_of_each(), asked, started=STARTED)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_variant_is_told_of(name: str) -> None:
    text = made(name)
    assert text.endswith("\n")
    for one in one_of_each():
        assert one.variant.case in text


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_what_a_guest_wrote_cannot_break_out(name: str) -> None:
    bad = result(Status.FAIL, finding(observed=HOSTILE), of=variant("hostile"))
    broken = result(Status.BROKEN, of=variant("broken"), reasons=(HOSTILE,))
    text = FORMATS[name]([bad, broken], ASKED, started=STARTED)
    assert "\x1b" not in text
    assert "\x00" not in text
    assert "\n<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=x" not in text
    if name == "ktap":
        assert [line for line in ktap_lines(text) if line[1] == "9"] == []


LACKING = ASKED.model_copy(
    update={
        "lacks": ("run/record.jsonl:9: no footer",),
        "not_run": (NotRun(variant("waits"), "debian/trixie"),),
    }
)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_report_of_what_is_not_whole_says_so(name: str) -> None:
    text = made(name, LACKING)
    assert "incomplete" in text
    assert "run/record.jsonl:9: no footer" in " ".join(text.split())
    assert "planned, and not run" in " ".join(text.split())
    assert 'incomplete"' not in made(name)
    assert "no footer" not in made(name)


def statuses(
    name: str, asked: Asked = ASKED, results: list[Result] | None = None
) -> dict[str, str]:
    """What a reader of the format takes each case to have come to."""
    text = FORMATS[name](one_of_each() if results is None else results, asked, started=STARTED)
    match name:
        case "tmt":
            return {one["name"].rpartition("/")[2]: one["result"] for one in yaml.safe_load(text)}
        case "lava":
            signal = r"^<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=(\S+) RESULT=(\w+)"
            return dict(re.findall(signal, text, re.MULTILINE))
        case "squad":
            tests = json.loads(text)["tests"]
            return {key.rpartition("/")[2]: one["result"] for key, one in tests.items()}
        case "kcidb":
            tests = json.loads(text)["tests"]
            return {one["path"].split(".")[-1]: one["status"] for one in tests}
        case "ktap":
            told = [(name, f"{ok} {sign or ''}".strip()) for ok, _, name, sign in ktap_lines(text)]
            return {key.rpartition("/")[2]: value for key, value in told}
    root = ET.fromstring(text)
    return {
        one.get("name", ""): next((child.tag for child in one if child.tag in BAD_TAGS), "good")
        for one in root.iter("testcase")
    }


BAD_TAGS = ("failure", "error")
BY_RESULT = ["junit", "junit-strict", "kcidb", "ktap", "lava", "squad", "tmt"]
"""The formats whose readers take results from them."""
FAILS = {"ktap": "not ok", "kcidb": "FAIL", "junit": "failure", "junit-strict": "failure"}


@pytest.mark.parametrize("results", [one_of_each(), []], ids=["some", "none"])
@pytest.mark.parametrize("name", BY_RESULT)
def test_what_is_not_whole_has_an_entry_that_is_not_good(name: str, results: list[Result]) -> None:
    name_of = "conform_incomplete" if name == "lava" else "incomplete"
    cut = ASKED.model_copy(update={"lacks": ("run/record.jsonl:9: no footer",)})
    words = {"ktap": "not ok ERROR", "kcidb": "MISS", "lava": "fail", "squad": "fail"}
    assert statuses(name, cut, results)[name_of] == words.get(name, "error")
    assert name_of not in statuses(name, results=results)
    assert len(statuses(name, cut, results)) == len(statuses(name, results=results)) + 1


@pytest.mark.parametrize("name", BY_RESULT)
def test_every_format_goes_by_what_decides_of_the_exit_status(name: str) -> None:
    fails = FAILS.get(name, "fail")
    told = statuses(name)
    assert told["fails"] == told["fixed"] == fails
    assert told["advised"] == told["passes"] != fails
    should = statuses(name, ASKED.model_copy(update={"should": True}))
    assert should["advised"] == fails
    assert should | {"advised": told["advised"]} == told
    strict = statuses(name, ASKED.model_copy(update={"strict": True}))
    assert strict["known"] == fails
    assert strict["fixed"] == told["passes"]


@pytest.mark.parametrize("name", ["kcidb", "ktap", "lava", "squad", "tmt"])
def test_a_pass_that_counts_as_a_failure_says_why(name: str) -> None:
    fixed = [one for one in one_of_each() if one.variant.case == "fixed"]
    assert "no longer seen" in FORMATS[name](fixed, ASKED, started=STARTED)


# -- KTAP ---------------------------------------------------------------------------------------

LINE = re.compile(r"^\s*(ok|not ok) (\d+) ([^#]+?)(?: # (SKIP|XFAIL|TIMEOUT|ERROR)(?: .*)?)?$")


def ktap_lines(text: str) -> list[tuple[str, str, str, str | None]]:
    """The test lines, as ktap.rst's grammar has them; every other line must be of its other kinds."""
    found = []
    for line in text.splitlines():
        matched = LINE.match(line)
        if matched:
            found.append((matched[1], matched[2], matched[3], matched[4]))
        else:
            assert re.match(r"^\s*(KTAP version 1|1\.\.\d+|# .*)$", line), line
    return found


def test_ktap_lines() -> None:
    inner = {name: (ok, directive) for ok, _, name, directive in ktap_lines(made("ktap"))}
    assert inner["passes"] == ("ok", None)
    assert inner["advised"] == ("ok", None)
    assert inner["fails"] == ("not ok", None)
    assert inner["known"] == ("ok", "XFAIL")
    assert inner["fixed"] == ("not ok", None)
    assert inner["broken"] == ("not ok", "ERROR")
    assert inner["skipped"] == ("ok", "SKIP")
    assert inner["debian_trixie.loop_enospc"] == ("not ok", None)


def test_ktap_says_why_a_line_is_not_ok_that_no_clause_failed() -> None:
    lines = [line.strip() for line in made("ktap").splitlines()]
    at = next(n for n, line in enumerate(lines) if re.fullmatch(r"not ok \d+ fixed", line))
    assert lines[at - 1] == "# known deviation no longer seen: results/known/loop.toml:3"
    assert "no longer seen" not in made("ktap", ASKED.model_copy(update={"strict": True}))


def test_ktap_lists_what_is_missing_before_the_first_group() -> None:
    text = made("ktap", LACKING)
    *rest, last = ktap_lines(text)
    assert rest == ktap_lines(made("ktap"))
    assert last == ("not ok", "2", "conform/incomplete", "ERROR")
    assert text.splitlines()[1] == "1..2"
    assert text.splitlines()[2:4] == [
        "# incomplete: run/record.jsonl:9: no footer",
        "# incomplete: waits@debian_trixie: planned, and not run: the run was cut short",
    ]


def test_ktap_plans_count_what_follows() -> None:
    lines = made("ktap").splitlines()
    assert lines[:2] == ["KTAP version 1", "1..1"]
    assert lines[2:4] == ["  KTAP version 1", "  1..8"]
    assert [line[:2] for line in lines].count("  ") == len(lines) - 3


def test_under_strict_a_known_deviation_is_not_ok() -> None:
    text = made("ktap", ASKED.model_copy(update={"strict": True}))
    assert ("not ok", None) in [
        (ok, directive) for ok, _, name, directive in ktap_lines(text) if name == "known"
    ]


# -- KCIDB --------------------------------------------------------------------------------------


def test_kcidb_takes_it() -> None:
    data = json.loads(made("kcidb"))
    LATEST.validate(data)
    status = {test["path"].split(".")[2]: test["status"] for test in data["tests"]}
    assert status == {
        "passes": "PASS",
        "advised": "PASS",
        "fails": "FAIL",
        "known": "FAIL",
        "fixed": "FAIL",
        "broken": "MISS",
        "skipped": "SKIP",
        "surveyed": "DONE",
    }
    [incident] = data["incidents"]
    [known] = [test for test in data["tests"] if ".known" in test["path"]]
    assert incident["test_id"] == known["id"]
    assert incident["issue_id"] == data["issues"][0]["id"]


def test_kcidb_s_validation_can_fail() -> None:
    data = json.loads(made("kcidb"))
    data["tests"][0]["path"] = "loop_full[1M]"
    assert not LATEST.is_valid(data)


def test_kcidb_ids_are_those_of_the_variant_and_the_kernel() -> None:
    two = [result(Status.PASS, of=variant(request=size)) for size in ("4K", "1M")]
    data = kcidb.report([*two, result(Status.PASS, kernel="debian/sid")], ASKED, started=STARTED)
    assert len({test["id"] for test in data["tests"]}) == 3
    assert len(data["builds"]) == 2
    assert {test["build_id"] for test in data["tests"]} == {b["id"] for b in data["builds"]}


def lost(kernel: str = "debian/trixie") -> Result:
    """What a worker that died leaves: a kernel, and no release."""
    return result(Status.BROKEN, of=variant("lost"), kernel=kernel, release="")


@pytest.mark.parametrize(
    "more",
    [
        [result(Status.PASS, release="6.12.118")],
        [result(Status.FAIL, finding(), release="6.12.118"), lost("debian/sid")],
    ],
)
@pytest.mark.parametrize("asked", [ASKED, LACKING], ids=["whole", "cut"])
def test_kcidb_refers_to_nothing_that_is_not_there(more: list[Result], asked: Asked) -> None:
    data = kcidb.report([lost(), *one_of_each(), *more], asked, started=STARTED)
    LATEST.validate(data)
    ids = {key: [one["id"] for one in data[key]] for key in data if key != "version"}
    assert all(len(set(there)) == len(there) for there in ids.values())
    assert {test["build_id"] for test in data["tests"]} == set(ids["builds"])
    assert {build["checkout_id"] for build in data["builds"]} == set(ids["checkouts"])
    assert {incident["issue_id"] for incident in data["incidents"]} <= set(ids["issues"])
    assert {incident["test_id"] for incident in data["incidents"]} <= set(ids["tests"])
    assert "6.12.118" in " ".join(build["comment"] for build in data["builds"])


def test_kcidb_gives_what_lost_its_machine_the_release_of_the_others() -> None:
    data = kcidb.report([lost(), result(Status.PASS)], ASKED, started=STARTED)
    assert [build["comment"] for build in data["builds"]] == ["debian/trixie 6.12.117"]
    assert {test["misc"]["release"] for test in data["tests"]} == {"6.12.117"}


def test_kcidb_of_what_is_not_whole_says_so_of_each_kernel() -> None:
    both = [result(Status.PASS), result(Status.PASS, kernel="debian/sid")]
    data = kcidb.report(both, LACKING, started=STARTED)
    lacks = [test for test in data["tests"] if test["path"] == "conform.incomplete"]
    assert {test["build_id"] for test in lacks} == {build["id"] for build in data["builds"]}
    assert {test["status"] for test in lacks} == {"MISS"}
    LATEST.validate(kcidb.report([], LACKING, started=STARTED))


def issue_of(row: Known) -> dict[str, Any]:
    known = next(one for one in one_of_each() if one.variant.case == "known")
    told = known.model_copy(update={"rows": (row,)})
    data = kcidb.report([told], ASKED, started=STARTED)
    LATEST.validate(data)
    [issue], [incident] = data["issues"], data["incidents"]
    assert (incident["issue_id"], incident["issue_version"]) == (issue["id"], issue["version"])
    return dict(issue)


def test_kcidb_s_issue_is_what_the_row_is_about() -> None:
    issue = issue_of(known_row())
    assert issue["comment"] == f"write-back drops the error ({known_row().link})"
    assert issue["report_url"] == "https://lore.kernel.org/r/20261124@example.org/"
    assert issue["report_subject"] == "known: error_surfaced: lost-in-silence"
    assert "report_url" not in issue_of(known_row(link="drivers/block/loop.c, lo_rw_aio()"))


@pytest.mark.parametrize(
    ("more", "same"),
    [
        ({"where": "results/known/other.yaml:77"}, True),
        ({"reason": "for another reason", "link": "a commit", "sometimes": True}, True),
        ({"kernel": ">=6.1"}, True),
        ({"kernel": ">= 6.1, < 6.12"}, False),
        ({"signature": "zeros"}, False),
        ({"clause": Clause.BOUNDED}, False),
        ({"variant": {"submit": "direct"}}, False),
        ({"case": "another"}, False),
    ],
)
def test_kcidb_s_issue_stays_the_same_where_rows_move(more: dict[str, Any], same: bool) -> None:
    assert (issue_of(known_row())["id"] == issue_of(known_row(**more))["id"]) is same


def test_kcidb_s_issue_that_was_looked_at_again_has_a_higher_version() -> None:
    later = issue_of(known_row(reason="known better", review_by=date(2027, 12, 1)))
    assert later["version"] > issue_of(known_row())["version"]
    assert later["id"] == issue_of(known_row())["id"]


def test_kcidb_says_where_a_test_ran() -> None:
    two = [result(Status.PASS), result(Status.FAIL, finding(), kernel=HERE)]
    data = kcidb.report(two, ASKED, started=STARTED)
    LATEST.validate(data)
    guest, here = data["tests"]
    assert guest["environment"] == {"comment": "QEMU", "misc": {"platform": "qemu"}}
    assert here["environment"]["misc"] == {"platform": "here"}
    assert "no guest" in here["environment"]["comment"]
    assert " --here " in here["log_excerpt"]
    assert "--kernel" not in here["log_excerpt"]


def test_kcidb_cuts_a_log_in_its_middle() -> None:
    long = result(Status.FAIL, finding(observed="word " * 9000 + "the end"))
    [test] = kcidb.report([long], ASKED, started=STARTED)["tests"]
    assert len(test["log_excerpt"]) <= kcidb.EXCERPT
    assert "left out" in test["log_excerpt"]
    assert test["log_excerpt"].endswith("--strict")


# -- SQUAD, LAVA, tmt ---------------------------------------------------------------------------


def test_squad() -> None:
    data = json.loads(made("squad"))
    assert data["tests"]["loop_enospc/known"]["result"] == "fail"
    assert {one["result"] for one in data["tests"].values()} == {"pass", "fail", "skip"}
    assert "/" not in data["metadata"]["job_id"]
    both = [*one_of_each(), result(Status.PASS, kernel="debian/sid")]
    names = json.loads(FORMATS["squad"](both, ASKED, started=STARTED))["tests"]
    assert all(name.count("/") == 1 for name in names)
    assert len(names) == len(both)


def test_squad_names_no_release_that_nobody_knows() -> None:
    two = [lost(), result(Status.PASS)]
    assert json.loads(FORMATS["squad"](two, ASKED))["metadata"]["release"] == "6.12.117"


def test_lava_signals() -> None:
    lines = made("lava").splitlines()
    told = re.compile(r"<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=(\S+) RESULT=(pass|fail|skip|unknown)\b")
    found = {m[1]: m[2] for line in lines if (m := told.match(line))}
    assert found["fails"] == "fail"
    assert found["known"] == "skip"
    assert found["broken"] == "unknown"
    assert len(found) == len(one_of_each())
    found |= statuses("lava", LACKING)
    assert not [name for name in found if set(name) & set("$& \"'`()<>/\\|;")]


def test_tmt_results() -> None:
    entries = yaml.safe_load(made("tmt"))
    by_name = {entry["name"]: entry for entry in entries}
    assert all(name.startswith("/loop_enospc/") for name in by_name)
    assert by_name["/loop_enospc/broken"]["result"] == "error"
    known = by_name["/loop_enospc/known"]
    assert (known["result"], known["original-result"]) == ("pass", "fail")
    assert by_name["/loop_enospc/surveyed"]["result"] == "info"
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d", entry["duration"]) for entry in entries)
    assert {entry["result"] for entry in entries} <= {
        *("pass", "fail", "info", "warn", "error", "skip", "pending")
    }


# -- timing, durations --------------------------------------------------------------------------

SPENT = {"total": 10.0, "spawn": 0.5, "restore": 0.1, "answer": 0.4, "build": 2.0, "steps": 5.0,
         "observation": 0.5, "teardown": 0.8, "close": 0.1, "judge": 0.1}  # fmt: skip


def spent(
    about: str, /, status: Status = Status.PASS, kernel: str = "a", **seconds: float
) -> Result:
    made = result(status, of=variant(about), kernel=kernel)
    return made.model_copy(update={"verdict": made.verdict.model_copy(update={"seconds": seconds})})


def test_timing_accounts_for_every_second() -> None:
    two = [spent("short", total=2.0, steps=1.5), spent("long", Status.PASS, "a", **SPENT)]
    lines = FORMATS["timing"](two, ASKED, started=STARTED).splitlines()
    head = lines[0].split()
    table = {line.split()[0]: dict(zip(head, line.split(), strict=True)) for line in lines[:-1]}
    assert list(table) == ["variant", "long", "short", "sum", "share"]
    for name in ("long", "short", "sum"):
        told = {column: cell for column, cell in table[name].items() if cell != "-"}
        parts = sum(float(cell) for column, cell in told.items()
                    if column not in ("variant", "total"))  # fmt: skip
        assert parts == pytest.approx(float(told["total"]), abs=0.06)
    assert table["long"]["other"] == "0.50"
    assert table["short"]["rig"] == "-"
    # 12 s, of which 2 + 5 + 0.5 + 1.5 are the guest's.
    assert lines[-1] == "harness overhead: 25.0% of the time"


def test_timing_of_what_no_guest_ran() -> None:
    told = FORMATS["timing"]([spent("skipped", Status.SKIP)], ASKED, started=STARTED)
    assert told.splitlines()[-1] == "harness overhead: - of the time"


def test_durations_are_medians_of_what_ran() -> None:
    results = [
        spent("three", total=1.0),
        spent("three", total=9.0, kernel="b"),
        spent("three", total=2.0, kernel="c"),
        spent("half", Status.SKIP, total=0.0),
        spent("half", total=7.0, kernel="b"),
        spent("never", Status.SKIP, total=0.2),
        spent("lost", Status.BROKEN, total=90.0),
    ]
    text = FORMATS["durations"](results, ASKED, started=STARTED)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == ["7.0\thalf", "-\tlost", "0.2\tnever", "2.0\tthree"]
    assert Durations.parse(text).seconds == {"half": 7.0, "never": 0.2, "three": 2.0}
