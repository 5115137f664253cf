"""``pytest`` from the checkout: items, outcomes, reports, xdist, --lf, the record."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from lxml import etree

from conformance.model import Status
from tests.meta.conftest import CASE, ROOT, User
from tests.support.fake_engine import LACKS_VARIABLE

ALL = ("fake_a_passes", "fake_b_fails", "fake_c_broken", "fake_d_skips", "fake_e_advised",
       "fake_f_recorded")  # fmt: skip


def outcomes(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    last = done.stdout.strip().splitlines()[-1]
    found = re.findall(r"(\d+) (passed|failed|skipped|xfailed|error)s?\b", last)
    return {word: int(number) for number, word in found}


@pytest.mark.parametrize("words", [(), ("-n", "2")])
def test_each_status_has_its_outcome(user: User, words: tuple[str, ...]) -> None:
    user.has(*ALL)
    done = user.pytest(*words)
    assert done.returncode == 1, done.stdout
    assert outcomes(done) == {"passed": 3, "failed": 1, "skipped": 1, "error": 1}
    record = user.record()
    assert sorted(entry.verdict.case for entry in record.entries) == sorted(ALL)
    assert record.footer is not None
    assert record.footer.counts[Status.PASS] == 2
    assert (user.out / "junit.xml").is_file()
    assert all(entry.observation for entry in record.entries)


def test_a_failure_is_a_short_report_and_no_traceback(user: User) -> None:
    user.has("fake_b_fails")
    done = user.pytest()
    for told in (
        f"{user.place('fake_b_fails')}:1: FAIL fake_b_fails on debian/trixie (6.12.0-fake)",
        '  norm      write(2): "an error is an error"',
        "  clause    error_surfaced (must, S1), step fill",
        "  expected  an error",
        "  observed  silence",
        f"  evidence  {user.out}/consoles/fake_b_fails/console.log",
        "  again     ./conform run -k fake_b_fails --kernel debian/trixie",
    ):
        assert told in done.stdout
    assert "Traceback" not in done.stdout
    assert "plugin.py" not in done.stdout
    assert "FAILED fake_b_fails - error_surfaced at fill: expected an error" in done.stdout


def test_skip_tells_reasons_at_the_case(user: User) -> None:
    user.has("fake_d_skips")
    done = user.pytest("-rs")
    assert "fake_d_skips.yaml:1: no module dm_thin_pool; no tool thin_check" in done.stdout


def test_ids_begin_with_the_case(user: User) -> None:
    user.has("fake_a_passes")
    done = user.pytest("--co", "-q", k="fake_a_passes or loop_enospc_short_write")
    ids = done.stdout.split("\n\n")[0].splitlines()
    assert "fake_a_passes" in ids
    assert len(ids) > 1
    assert all(re.match(r"(fake_a_passes|loop_enospc_short_write)(\[|$)", name) for name in ids)
    assert not user.out.exists()


def test_pytest_selects_what_the_command_line_selects(user: User) -> None:
    user.has("fake_a_passes")
    for expression in ("LOOP_memcg and not fio", "direct or fake_a"):
        ids = user.pytest("--co", "-q", k=expression).stdout.split("\n\n")[0].splitlines()
        done = user.conform("run", "--list", "-k", expression, "--cases", str(user.cases))
        assert sorted(ids) == sorted(line.split()[0] for line in done.stdout.splitlines())


def test_last_failed(user: User) -> None:
    user.has("fake_a_passes", "fake_b_fails", "fake_c_broken")
    user.pytest()
    done = user.pytest("--lf", "--co", "-q")
    assert done.stdout.split("\n\n")[0].splitlines() == ["fake_b_fails", "fake_c_broken"]


def test_an_item_for_each_kernel(user: User) -> None:
    user.has("fake_a_passes")
    done = user.pytest("--kernel", "one", "--kernel", "../two/bzImage", "-v")
    assert outcomes(done) == {"passed": 2}
    assert "fake_a_passes@one" in done.stdout
    assert "fake_a_passes@two_bzImage" in done.stdout


def test_a_path_after_kernel_does_not_move_the_configuration(user: User) -> None:
    user.has("fake_a_passes")
    done = user.pytest("--kernel", str(user.cases))
    assert outcomes(done) == {"passed": 1}, done.stdout + done.stderr


def test_one_variant_by_path_and_name(user: User) -> None:
    path = "cases/loop_enospc/loop_enospc_short_write.yaml"
    done = user.pytest("--co", "-q", path, k="4K")
    assert "loop_enospc_short_write[4K-off]" in done.stdout


@pytest.mark.parametrize("words", [(), ("-n", "2")])
def test_a_kernel_that_is_none_ends_the_session(user: User, words: tuple[str, ...]) -> None:
    user.has("fake_a_passes")
    done = user.pytest("--kernel", "missing", *words)
    assert done.returncode == 64
    assert "no kernel missing" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not (user.out / "record.jsonl").exists()


def test_a_folder_that_is_not_empty_is_refused_before_anything_is_prepared(user: User) -> None:
    user.has("fake_a_passes")
    user.out.mkdir()
    (user.out / "record.jsonl").touch()
    done = user.pytest("--kernel", "missing")
    assert done.returncode == 64
    assert f"{user.out}: not empty" in done.stdout + done.stderr


def test_pytest_s_terminal_is_not_written_to(user: User) -> None:
    user.has("fake_a_skips")
    done = user.pytest("--kernel", "missing\x1b]0;owned\x07")
    # Once as it is prepared, and once as it is refused.
    assert done.stdout.count("missing]0;owned") == 2
    user.more[LACKS_VARIABLE] = "no module \x1b[2J\x07x"
    done = user.pytest("-rs")
    assert "no module x; no tool thin_check" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("words", [(), ("-n", "2")])
def test_a_bad_case_is_a_usage_error_with_its_place(user: User, words: tuple[str, ...]) -> None:
    user.has("fake_a_passes", text=CASE.replace("claims:", "clams: [S1]\nclaims:"))
    done = user.pytest(*words)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: {user.place('fake_a_passes')}:3:1: " in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_no_such_folder_of_cases(user: User) -> None:
    done = user.pytest("--cases", "/no/such/folder")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "/no/such/folder" in done.stderr


@pytest.mark.parametrize("words", [(), ("-n", "2")])
def test_the_projects_own_tests_make_no_run(user: User, words: tuple[str, ...]) -> None:
    runs = ROOT / "results" / "runs"
    before = set(runs.iterdir()) if runs.exists() else set()
    done = user._run(
        [*user.command, "-q", "-k", "test_span", *words, "tests/unit/test_progress.py"]
    )
    assert done.returncode == 0, done.stdout
    assert "conformance ==" not in done.stdout
    assert (set(runs.iterdir()) if runs.exists() else set()) == before


def test_nothing_selected(user: User) -> None:
    done = user.pytest(k="no_such_case")
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED


# -- known deviations ---------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("-n", "2")])
def test_known_deviation_is_an_xfail_with_its_reason(user: User, words: tuple[str, ...]) -> None:
    user.has("fake_a_fails")
    user.knows("fake_a_fails")
    done = user.pytest("-rx", *words)
    assert done.returncode == 0, done.stdout
    assert outcomes(done) == {"xfailed": 1}
    assert "known deviation: error_surfaced at fill" in done.stdout
    assert user.record().entries[0].verdict.status is Status.FAIL


def test_strict_makes_it_a_failure(user: User) -> None:
    user.has("fake_a_fails")
    user.knows("fake_a_fails")
    assert outcomes(user.pytest("--strict")) == {"failed": 1}


def test_a_known_deviation_that_is_gone_is_a_failure(user: User) -> None:
    user.has("fake_a_passes")
    user.knows("fake_a_passes")
    done = user.pytest()
    assert done.returncode == 1
    assert outcomes(done) == {"failed": 1}
    assert "stale known deviation: " in done.stdout


def test_strict_goes_by_no_row_so_that_none_is_stale(user: User) -> None:
    user.has("fake_a_passes")
    user.knows("fake_a_passes")
    done = user.pytest("--strict")
    assert done.returncode == 0
    assert outcomes(done) == {"passed": 1}
    assert "stale" not in done.stdout


# -- --junitxml ---------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("-n", "2")])
def test_pytest_s_junit_file_says_what_ours_says(
    user: User, tmp_path: Path, words: tuple[str, ...]
) -> None:
    user.has("fake_a_passes", "fake_b_fails", "fake_c_broken", "fake_d_skips")
    xml = tmp_path / "deep" / "pytest.xml"
    done = user.pytest(f"--junitxml={xml}", "--kernel", "one", "--kernel", "two", *words)
    assert f"generated xml file: {xml}" in done.stdout
    assert xml.read_text() == (user.out / "junit.xml").read_text()
    root = etree.parse(xml).getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("8", "2", "2")
    names = [case.get("name") for case in root.iter("testcase")]
    assert len(set(names)) == 8
    failed = root.find(".//testcase[@name='fake_b_fails@one']")
    assert failed is not None
    assert failed.get("classname") == "fake"
    assert failed.find("failure").get("type") == "error_surfaced"
    assert "FAIL fake_b_fails on one" in failed.findtext("system-out")
    properties = {p.get("name"): p.get("value") for p in failed.iter("property")}
    assert properties["release"] == "6.12.0-fake"
    assert (properties["clause"], properties["claims"]) == ("error_surfaced", "S1")


def test_other_tests_keep_their_place_in_pytest_s_junit_file(user: User, tmp_path: Path) -> None:
    user.has("fake_a_fails")
    other = tmp_path / "test_other.py"
    other.write_text("def test_fake_not():\n    assert 0\n\ndef test_fake_well():\n    pass\n")
    xml = tmp_path / "pytest.xml"
    user.pytest(f"--junitxml={xml}", "cases", str(other))
    root = etree.parse(xml).getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("3", "2", "0")
    suites = {suite.get("name"): suite for suite in root}
    assert list(suites) == ["fake-debian_trixie", "pytest"]
    assert suites["pytest"].get("tests") == "2"
    assert [case.get("name") for case in suites["pytest"].iter("testcase")] == [
        "test_fake_not", "test_fake_well"
    ]  # fmt: skip


@pytest.mark.parametrize("words", [(), ("-n", "2")])
def test_each_variant_runs_as_often_as_is_asked_for(user: User, words: tuple[str, ...]) -> None:
    """As ``./conform run --repeat`` does: whole rounds, one testcase, and what wavers is a failure."""
    user.has("fake_a_wavers", "fake_b_passes")
    junit = user.cases.parent / "junit.xml"
    done = user.pytest("--repeat", "3", "--junitxml", str(junit), *words)
    assert done.returncode == 1, done.stdout
    assert outcomes(done) == {"passed": 5, "failed": 1}
    assert "FAILED fake_a_wavers #2 - " in done.stdout
    entries = user.record().entries
    assert sorted(entry.attempt for entry in entries) == [1, 1, 2, 2, 3, 3]
    root = etree.parse(junit).getroot()
    assert sorted(case.get("name") for case in root.iter("testcase")) == [
        "fake_a_wavers",
        "fake_b_passes",
    ]
    [case] = [one for one in root.iter("testcase") if one.get("name") == "fake_a_wavers"]
    assert [child.tag for child in case if child.tag in ("failure", "flakyFailure")] == [
        "failure",
        "flakyFailure",
    ]


def test_no_repetition_is_refused(user: User) -> None:
    user.has("fake_a_passes")
    done = user.pytest("--repeat", "0")
    assert done.returncode == 4
    assert "--repeat 0: at least 1" in done.stderr
