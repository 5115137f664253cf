"""The command line's own share: options, and that what a user got wrong is one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from conformance.cli import main
from conformance.commands.bisect import STOP
from conformance.engine import ENGINE_VARIABLE
from conformance.exits import BROKEN, CRASHED, DEVIATES, INTERRUPTED, NOTHING, REFUSED
from conformance.model import Finding, Status, Verdict
from conformance.record import Cases, Header, RecordWriter, read_record
from conformance.runner import Outcome
from conformance.scheduler import slots_from
from conformance.session import open_library
from conformance.task import Job, broken
from tests.support.results import finding

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "--nonsense"], "--nonsense"),
        (["fly"], "fly"),
        (["run", "--cases", "/no/such"], "/no/such"),
        (["run", "--module", "/no/such.ko"], "/no/such.ko"),
        (["run", "-k", "a and"], "column"),
        (["run", "-n", "0"], "-n: '0' is neither auto nor a whole number from 1"),
        (["run", "-n", "many"], "'many'"),
        (["run", "--known", "/no/such"], "/no/such"),
        (["judge", "/no/such"], "/no/such"),
        (["judge"], "RECORD"),
    ],
)
def test_usage_errors_are_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == REFUSED
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert err.startswith("conform: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [["gc"], ["run", "-k", "loop_enospc_tmpfs_full"]])
def test_a_user_without_a_home_is_told_what_to_set(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container that runs under a uid of no name."""

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    for name in ("HOME", "XDG_CACHE_HOME", "CONFORM_CACHE", "CONFORM_ENGINE"):
        monkeypatch.delenv(name, raising=False)
    assert main(words) == REFUSED
    assert "point CONFORM_CACHE at a directory of your own" in capsys.readouterr().err


def test_list_begins_with_the_id(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--list", "-k", "loop_enospc_short_write and 64K"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    for line in lines:
        assert line.startswith("loop_enospc_short_write[64K-")
        assert "cases/loop_enospc/loop_enospc_short_write.yaml:1" in line


def test_list_by_what_a_variant_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--claim", "s9"]) == 0
    assert {line.partition("[")[0] for line in capsys.readouterr().out.splitlines()} == {
        "loop_enospc_metadata_took_it"
    }
    assert main(["list", "--family", "loop_quota", "--requirement", "quota_xfs"]) == 0
    assert all("[xfs-" in line for line in capsys.readouterr().out.splitlines())
    assert main(["list", "--families"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("in all")
    assert main(["list", "--family", "no_such"]) == NOTHING


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--family", "loop_quotas"], "--family 'loop_quotas'; did you mean loop_quota"),
        (["--claim", "s99"], "--claim 'S99'"),
        (["--requirement", "module:zrm"], "--requirement 'module:zrm'; did you mean module:zram"),
        (["-k", "loop_enospc_shrt"], "-k 'loop_enospc_shrt'; did you mean loop_enospc_"),
        (["--family", "loop_quota", "--claim", "S9"], "--family 'loop_quota', --claim 'S9'"),
    ],
)
def test_a_list_of_nothing_says_what_no_variant_is(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", *words]) == NOTHING
    assert f"no variant is of that kind: {told}" in capsys.readouterr().err


def test_a_list_is_of_the_part_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--list", "-k", "zram_full"]
    assert main(words) == 0
    whole = capsys.readouterr().out.splitlines()
    parts = []
    for part in ("1/2", "2/2"):
        assert main([*words, "--shard", part]) == 0
        parts += capsys.readouterr().out.splitlines()
    assert sorted(parts) == sorted(whole)
    assert main([*words, "--shard", "9/8"]) == REFUSED


def test_lint_has_nothing_to_say_of_the_suite_s_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint"]) == 0
    assert "nothing to say" in capsys.readouterr().err


def test_lint_complains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = (ROOT / "cases/loop_enospc/loop_enospc_tmpfs_full.yaml").read_text()
    mine = tmp_path / "mine" / "full_too.yaml"
    mine.parent.mkdir()
    mine.write_text(case)
    assert main(["lint", "--cases", str(tmp_path)]) == DEVIATES
    assert "L006" in capsys.readouterr().out  # the title is there already


def test_selecting_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--list", "-k", "no_such_case"]) == NOTHING
    assert "selects none" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["run", "--help"], ["judge", "-h"], ["--version"]):
        assert main(words) == 0
    assert "--kernel" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "-1", "1.5", "two", " 2"])
def test_slots_are_checked(text: str) -> None:
    with pytest.raises(ValueError, match="neither auto"):
        slots_from(text)


def test_slots() -> None:
    assert slots_from("3") == 3
    assert slots_from("auto") >= 1


# -- commands on records --------------------------------------------------------------------------


def test_a_run_is_reported_merged_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = a_run(tmp_path / "old", Status.PASS), a_run(tmp_path / "new", Status.BROKEN)
    assert main(["report", str(old), "--format", "ktap"]) == 0
    assert f"ok 1 {VARIANT}" in capsys.readouterr().out
    assert main(["compare", str(old), str(new)]) == BROKEN
    assert "1 broke" in capsys.readouterr().out
    assert main(["compare", str(old), str(old), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["change"] == "same"
    assert main(["merge", str(old), str(new), "--to", str(tmp_path / "m.jsonl")]) == REFUSED
    assert "already" in capsys.readouterr().err
    assert main(["merge", str(old), "--to", str(tmp_path / "m.jsonl.xz")]) == 0
    merged = str(tmp_path / "m.jsonl.xz")
    assert main(["judge", merged]) == 0
    assert main(["report", merged, "--format", "squad", "--to", str(tmp_path / "s.json")]) == 0
    text = (tmp_path / "s.json").read_text()
    assert VARIANT in text
    assert f"evidence  {merged}" in text


def test_a_record_that_is_cut_is_reported_only_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = a_run(tmp_path / "run", Status.PASS) / "record.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    assert main(["report", str(path), "--format", "ktap"]) == REFUSED
    assert "no footer" in capsys.readouterr().err
    assert main(["report", str(path), "--format", "ktap", "--salvage"]) == BROKEN
    told = capsys.readouterr()
    assert VARIANT in told.out
    assert f"# incomplete: {path}:3: no footer" in told.out
    assert f"conform: {path}:3: no footer" in told.err


def test_what_a_cut_record_has_no_verdict_of_is_an_error_in_junit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = a_run(tmp_path / "run", Status.PASS) / "record.jsonl"
    *lines, _ = path.read_text().splitlines(keepends=True)
    other = {
        "kind": "plan",
        "case": "loop_enospc_short_write",
        "variant": {"request": "4K", "loop_dio": "on"},
        "kernel": "debian/trixie",
        "reasons": ["no direct I/O"],
    }
    path.write_text("".join([*lines, json.dumps(other) + "\n"]))
    assert main(["report", str(path), "--format", "junit", "--salvage"]) == BROKEN
    root = ET.fromstring(capsys.readouterr().out)
    assert in_error(root) == ["loop_enospc_short_write[4K-on]", "incomplete"]
    assert {error.get("type") for error in root.iter("error")} == {"NotRun"}
    assert [one.get("name") for one in root.iter("property")].count("incomplete") == 1
    # Another record has it: then nothing of it is missing.
    whole = a_run(tmp_path / "whole", Status.PASS, loop_dio="on")
    words = ["report", str(path), str(whole), "--format", "junit", "--salvage"]
    assert main(words) == BROKEN
    assert in_error(ET.fromstring(capsys.readouterr().out)) == ["incomplete"]


def in_error(root: ET.Element) -> list[str | None]:
    """The tests of a JUnit report that are in error."""
    return [one.get("name") for one in root.iter("testcase") if one.find("error") is not None]


def test_a_report_says_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = a_run(tmp_path / "run", Status.PASS, request="3K")
    assert main(["report", str(folder), "--format", "ktap", "--salvage"]) == BROKEN
    told = capsys.readouterr()
    assert "no case has this any more" in told.err
    assert "# incomplete: " in told.out


def test_a_record_that_is_cut_is_compared_only_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = a_run(tmp_path / "whole", Status.PASS), a_run(tmp_path / "cut", Status.PASS)
    lines = (cut / "record.jsonl").read_text().splitlines(keepends=True)
    (cut / "record.jsonl").write_text("".join(lines[:-1]))
    assert main(["compare", str(whole), str(cut)]) == REFUSED
    assert "record.jsonl:3: no footer" in capsys.readouterr().err
    assert main(["compare", str(whole), str(cut), "--salvage"]) == BROKEN
    assert "1 same" in capsys.readouterr().out


def test_a_record_that_is_cut_is_merged_only_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = a_run(tmp_path / "cut", Status.PASS) / "record.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    to = tmp_path / "m.jsonl"
    assert main(["merge", str(path), "--to", str(to)]) == REFUSED
    err = capsys.readouterr().err
    assert "no footer" in err
    assert "(--salvage takes what is whole)" in err
    assert err.count("\n") == 1
    assert not to.exists()
    assert main(["merge", str(path), "--to", str(to), "--salvage"]) == BROKEN
    assert "no footer" in capsys.readouterr().err
    # What it was made of was not whole, and so it is not: not even merged once more.
    inherited = f"{to}: merged of what is not whole: {path}:3: no footer"
    assert main(["judge", str(to)]) == BROKEN
    assert inherited in capsys.readouterr().err
    assert main(["report", str(to), "--format", "ktap"]) == REFUSED
    assert f"{inherited}: the run did not come to its end (--salvage" in capsys.readouterr().err
    assert main(["report", str(to), "--format", "ktap", "--salvage"]) == BROKEN
    assert f"# incomplete: {to}: merged of " in capsys.readouterr().out
    words = ["merge", str(to), "--to", str(tmp_path / "again.jsonl.xz")]
    assert main(words) == REFUSED
    assert inherited in capsys.readouterr().err
    assert main([*words, "--salvage"]) == BROKEN
    assert main(["judge", words[-1]]) == BROKEN
    assert inherited in capsys.readouterr().err


def test_what_a_cut_record_has_no_verdict_of_is_missing_where_it_is_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = a_run(tmp_path / "cut", Status.PASS) / "record.jsonl"
    *lines, _ = cut.read_text().splitlines(keepends=True)
    other = {"request": "4K", "loop_dio": "on"}
    plan = {"kind": "plan", "case": CASE, "variant": other, "kernel": "debian/trixie"}
    cut.write_text("".join([*lines, json.dumps({**plan, "reasons": ["no direct I/O"]}) + "\n"]))
    whole = a_run(tmp_path / "whole", Status.PASS, loop_dio="on")
    for records, missing in (([cut], 1), ([cut, whole], 0)):
        to = tmp_path / f"{len(records)}.jsonl"
        assert main(["merge", *map(str, records), "--to", str(to), "--salvage"]) == BROKEN
        capsys.readouterr()
        assert main(["report", str(to), "--format", "junit", "--salvage"]) == BROKEN
        root = ET.fromstring(capsys.readouterr().out)
        assert in_error(root) == [f"{CASE}[4K-on]"] * missing + ["incomplete"]


def test_a_cut_record_makes_rows_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_run(tmp_path / "cut", Status.FAIL, findings=(finding(),))
    path = folder / "record.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    issues = tmp_path / "issues.yaml"
    for test, code in ((CASE, BROKEN), ("another", BROKEN | NOTHING)):
        issues.write_text(f"conformance:\n  {test}:\n  - message: it is dropped\n    bugzilla: 1\n")
        assert main(["known", str(issues), str(folder)]) == code
        told = capsys.readouterr()
        assert f"conform: {path}:3: no footer" in told.err
        assert (f"case: {CASE}" in told.out) is (code == BROKEN)


def test_each_run_s_modules_are_in_its_own_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = (finding(),)
    patched = a_run(tmp_path / "patched", Status.FAIL, findings=told, modules=["/x/loop.ko"])
    plain = a_run(tmp_path / "plain", Status.FAIL, findings=told, loop_dio="on")
    for records in ((patched, plain), (plain, patched)):
        assert main(["report", *map(str, records), "--format", "junit"]) == 0
        lines = capsys.readouterr().out.splitlines()
        again = {line.partition("<")[0] for line in lines if line.startswith("  again")}
        assert len(again) == 2
        for line in again:
            assert ("--module /x/loop.ko" in line) is ("[4K-off]" in line), line


def test_runs_of_other_modules_are_not_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patched = a_run(tmp_path / "patched", Status.PASS, modules=["/x/loop.ko"])
    plain = a_run(tmp_path / "plain", Status.PASS, loop_dio="on")
    to = tmp_path / "m.jsonl"
    assert main(["merge", str(plain), str(patched), "--to", str(to)]) == REFUSED
    assert "patched/record.jsonl: made with other modules than " in capsys.readouterr().err
    assert not to.exists()


@pytest.mark.parametrize("words", [["--list"], []])
def test_a_table_of_durations_that_is_none(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = tmp_path / "durations.tsv"
    table.write_text("# seconds\n<<<<<<< HEAD\n")
    monkeypatch.setattr("conformance.cli.DURATIONS", table)
    assert main(["run", "-k", "zram_full", "--out", str(tmp_path / "out"), *words]) == REFUSED
    told = f"conform: {table}:2: not seconds, a tab and an id: '<<<<<<< HEAD'\n"
    assert capsys.readouterr().err == told


def test_a_defect_of_the_suite_is_no_deviation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> None:
        raise ZeroDivisionError("a planted fault")

    monkeypatch.setattr("conformance.cli.open_library", fails)
    monkeypatch.setattr("conformance.commands.bisect.open_library", fails)
    for words, code in ((["run"], CRASHED), (["bisect", "-k", "zram_full"], STOP)):
        assert main(words) == code
        told = capsys.readouterr().err
        assert "Traceback" in told
        assert "ZeroDivisionError: a planted fault" in told
        assert told.splitlines()[-1].startswith("conform: ")


def test_a_folder_that_is_not_empty_is_refused_before_anything_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> None:
        raise AssertionError("something was prepared")

    monkeypatch.setattr("conformance.cli.load_engine", fails)
    (tmp_path / "record.jsonl").touch()
    words = ["-k", "zram_full", "--out", str(tmp_path)]
    assert main(["run", *words]) == REFUSED
    assert main(["bisect", *words, "--build", f"touch {tmp_path}/built"]) == STOP
    assert capsys.readouterr().err.count(f"{tmp_path}: not empty") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["record.jsonl"]


def test_ctrl_c_after_the_last_case_does_not_deny_what_was_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_jobs(
        jobs: Sequence[Job], *, finished: Callable[[Job, Outcome], None], **_: object
    ) -> bool:
        for job in jobs:
            finished(job, broken(job, "a made-up run"))
        return True

    def interrupted(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setenv(ENGINE_VARIABLE, "tests.support.fake_engine:engine")
    monkeypatch.setattr("conformance.cli.run_jobs", run_jobs)
    monkeypatch.setattr("conformance.cli.conclude", interrupted)
    words = ["run", "-k", "zram_full", "-n", "1", "--out", str(tmp_path)]
    assert main(words) == INTERRUPTED
    record = tmp_path / "record.jsonl"
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"conform: interrupted; what was judged is in {record}"
    assert read_record(record).footer is not None


def test_the_nearest_case_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-k", "loop_enopsc_short_write"]) == NOTHING
    assert "did you mean loop_enospc_short_write" in capsys.readouterr().err


def test_several_runs_are_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = a_run(tmp_path / "old", Status.PASS)
    new = a_run(tmp_path / "new", Status.BROKEN, started="2026-11-30T09:00:00Z")
    page = tmp_path / "report.html"
    assert main(["report", str(old), str(new), "--format", "html", "--to", str(page)]) == 0
    told = page.read_text()
    assert told.startswith("<!doctype html>")
    # Of two results of a variant on a kernel, the later run's.
    assert '<span class="tile s-B">' in told
    assert '<span class="tile s-P">' not in told.partition('id="claims"')[0]
    assert "2026-11-30 09:00:00 UTC" in told
    assert "2026-11-24" not in told.partition("<script")[0]


def test_a_known_deviation_is_the_same_issue_where_its_row_moves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_run(tmp_path / "run", Status.FAIL, findings=(finding(),))
    row = (
        "- case: loop_enospc_short_write\n  kernel: '>= 6.1'\n  clause: error_surfaced\n"
        "  signature: lost-in-silence\n  reason: it is dropped\n  link: a commit\n"
        "  review_by: 2027-06-01\n"
    )
    (tmp_path / "known").mkdir()
    told = []
    for above in ("", "# A row was put here,\n# and another.\n"):
        (tmp_path / "known" / "rows.yaml").write_text(above + row)
        words = ["report", str(folder), "--format", "kcidb", "--known", str(tmp_path / "known")]
        assert main(words) == 0
        [issue] = json.loads(capsys.readouterr().out)["issues"]
        told.append(issue)
    assert told[0]["comment"] == "it is dropped (a commit)"
    assert told[0]["id"] == told[1]["id"]
    assert told[0]["misc"]["where"] != told[1]["misc"]["where"]


def test_two_runs_are_compared_as_a_page_and_as_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = a_run(tmp_path / "old", Status.PASS), a_run(tmp_path / "new", Status.BROKEN)
    page, data = tmp_path / "changes.html", tmp_path / "changes.json"
    assert main(["compare", str(old), str(new), "--format", "html", "--to", str(page)]) == BROKEN
    assert 'id="broke"' in page.read_text()
    assert main(["compare", str(old), str(new), "--format", "json", "--to", str(data)]) == BROKEN
    assert json.loads(data.read_text())[0]["change"] == "broke"
    assert capsys.readouterr().out == ""


def test_a_format_that_there_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = a_run(tmp_path / "run", Status.PASS)
    assert main(["report", str(folder), "--format", "tap"]) == REFUSED
    assert "ktap" in capsys.readouterr().err


CASE = "loop_enospc_short_write"
VARIANT = f"{CASE}[4K-off]"


def a_run(
    folder: Path,
    status: Status,
    started: str = "2026-11-24T08:00:00Z",
    findings: tuple[Finding, ...] = (),
    modules: Sequence[str] = (),
    **values: str,
) -> Path:
    folder.mkdir()
    library = open_library(())
    header = Header(
        started=started,
        command=("conform",),
        host={"modules": list(modules)},
        cases=Cases(sha256=library.sha256),
    )
    verdict = Verdict(
        case=CASE,
        values={"request": "4K", "loop_dio": "off", **values},
        kernel="debian/trixie",
        release="6.12.117",
        status=status,
        findings=findings,
        reasons=("no guest",) if status is Status.BROKEN else (),
    )
    with RecordWriter(folder / "record.jsonl", header, planned=1) as writer:
        writer.add(plan=None, observation=None, verdict=verdict)
    return folder
