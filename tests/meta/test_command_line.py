"""``./conform run`` as a user sees it: every outcome, message and exit status."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path

import pytest
from junitparser import JUnitXml

from conformance.exits import INTERRUPTED, REFUSED
from conformance.model import Status
from conformance.record import key_of, read_record
from tests.meta.conftest import CASE, LIMIT, User
from tests.support.fake_engine import REFUSES_VARIABLE

ALL = ("fake_a_passes", "fake_b_fails", "fake_c_broken", "fake_d_skips", "fake_e_advised",
       "fake_f_recorded")  # fmt: skip


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["fake_a_passes"], 0),
        (["fake_a_recorded"], 0),
        (["fake_a_advised"], 0),
        (["fake_a_fails", "fake_b_passes"], 1),
        (["fake_a_broken", "fake_b_passes"], 2),
        (["fake_a_raises"], 2),
        (["fake_a_dies"], 2),
        (["fake_a_fails", "fake_b_broken"], 3),
        (["fake_a_skips"], 8),
        (["fake_a_skips", "fake_b_passes"], 0),
    ],
)
def test_exit_status(user: User, names: list[str], code: int) -> None:
    user.has(*names)
    done = user.conform_run("-n", "1")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(user.record().entries) == len(names)


def test_should_counts_advisories(user: User) -> None:
    user.has("fake_a_advised")
    assert user.conform_run("--should").returncode == 1


def test_summary_record_and_junit_agree(user: User) -> None:
    user.has(*ALL)
    done = user.conform_run("-n", "2")
    assert done.returncode == 3
    lines = done.stdout.splitlines()
    for name, told in {
        "fake_a_passes": "✓ PASS",
        "fake_b_fails": "✗ FAIL",
        "fake_c_broken": "! BROKEN",
        "fake_d_skips": "- SKIP",
        "fake_e_advised": "✓ PASS +1 advisory",
        "fake_f_recorded": "· RECORDED",
    }.items():
        assert [line.split(maxsplit=1)[1].strip() for line in lines if line.startswith(name)] == [
            told
        ]
    assert "error_surfaced (must) at fill" in lines
    assert "SKIP: no module dm_thin_pool; no tool thin_check" in lines
    record = user.record()
    assert record.footer is not None
    assert record.footer.counts == {
        Status.PASS: 2, Status.FAIL: 1, Status.BROKEN: 1, Status.SKIP: 1, Status.RECORDED: 1
    }  # fmt: skip
    xml = JUnitXml.fromfile(str(user.out / "junit.xml"))
    assert (xml.tests, xml.failures, xml.errors) == (6, 1, 1)
    for entry in record.entries:
        assert entry.observation is not None
        assert (user.out / entry.observation.arms[0].console).is_file()


def test_progress_of_a_log(user: User) -> None:
    user.has("fake_a_passes", "fake_b_fails")
    lines = user.conform_run("-n", "1").stderr.splitlines()
    assert lines[0] == "preparing debian/trixie"
    assert lines[1].startswith("[1/2, 0 running, ") or lines[1].startswith("[1/2, 1 running, ")
    assert lines[1].endswith("left] PASS fake_a_passes")
    assert lines[2].endswith("FAIL fake_b_fails: error_surfaced at fill: expected an error; "
                             "observed silence")  # fmt: skip


def test_kernels_side_by_side(user: User) -> None:
    user.has("fake_a_passes", "fake_b_fails")
    done = user.conform_run("--kernel", "one", "--kernel", "two", "--kernel", "one")
    assert done.stdout.splitlines()[0].split() == ["one", "two"]
    assert len(user.record().entries) == 4


def test_a_worker_that_dies_takes_one_case_with_it(user: User) -> None:
    user.has("fake_a_dies", "fake_b_passes", "fake_c_passes")
    done = user.conform_run("-n", "1")
    assert done.returncode == 2
    assert "BROKEN: the worker process ended: exit status 9" in done.stdout
    assert sorted(entry.verdict.status for entry in user.record().entries) == [
        Status.BROKEN, Status.PASS, Status.PASS
    ]  # fmt: skip


@pytest.mark.parametrize("slots", ["1", "2"])
def test_a_kernel_that_once_cannot_be_opened_costs_no_case(user: User, slots: str) -> None:
    user.has(*(f"fake_{letter}_passes" for letter in "abcdefgh"))
    user.more = {REFUSES_VARIABLE: "once"}
    done = user.conform_run("-n", slots)
    assert done.returncode == 0, done.stdout
    assert "conform: debian/trixie cannot be opened in slot " in done.stderr
    assert "no space left" in done.stderr
    assert {entry.verdict.status for entry in user.record().entries} == {Status.PASS}


def test_a_kernel_that_no_slot_can_open_is_given_up(user: User) -> None:
    names = [f"fake_{letter}_passes" for letter in "abcdefgh"]
    user.has(*names)
    user.more = {REFUSES_VARIABLE: "always"}
    done = user.conform_run("-n", "2")
    assert done.returncode == 2, done.stdout
    assert "[8/8, 0 running, " in done.stderr
    entries = user.record().entries
    assert sorted(entry.verdict.case for entry in entries) == names
    assert {entry.verdict.reasons for entry in entries} == {("no space left",)}


def test_the_command_that_repeats_a_failure_repeats_it(user: User, tmp_path: Path) -> None:
    user.has("fake_a_fails", "fake_b_passes")
    user.conform_run()
    told = (user.out / "junit.xml").read_text()
    # Of the first, which fails: each has a short report.
    line = next(line for line in told.splitlines() if line.strip().startswith("again"))
    line = line.split("</")[0]
    words = line.split("again", 1)[1].split()
    assert words[0] == "./conform"
    again = user.conform(*words[1:], "--out", str(tmp_path / "again"))
    assert again.returncode == 1
    assert "1 variant: 1 FAIL" in again.stdout


# -- several times --------------------------------------------------------------------------------


def test_repeat_tells_how_the_statuses_spread(user: User, tmp_path: Path) -> None:
    user.has("fake_a_wavers", "fake_b_passes")
    done = user.conform_run("--repeat", "3", "-n", "1")
    assert done.returncode == 1, done.stderr
    assert "fake_a_wavers on debian/trixie: FAIL 1 of 3, PASS 2 of 3" in done.stdout
    assert "2 variants: 1 FAIL, 1 PASS, 1 wavers" in done.stdout
    assert "[2/6, " in done.stderr
    assert "FAIL fake_a_wavers #2: " in done.stderr
    record = user.record()
    assert [entry.attempt for entry in record.entries] == [1, 1, 2, 2, 3, 3]
    consoles = {entry.observation.arms[0].console for entry in record.entries if entry.observation}
    assert len(consoles) == 6
    assert all((user.out / console).is_file() for console in consoles)
    xml = JUnitXml.fromfile(str(user.out / "junit.xml"))
    assert (xml.tests, xml.failures, xml.errors) == (2, 1, 0)
    assert "<flakyFailure " in (user.out / "junit.xml").read_text()
    merged = user.conform("merge", str(user.out), "--to", str(tmp_path / "m.jsonl"))
    assert merged.returncode == 0


def test_repeat_is_a_number(user: User) -> None:
    refused(user.conform_run("--repeat", "0"), "--repeat")


# -- what a user gets wrong ---------------------------------------------------------------------


def refused(done: subprocess.CompletedProcess[str], *told: str) -> None:
    assert done.returncode == REFUSED
    last = done.stderr.splitlines()[-1]
    assert last.startswith("conform: ")
    assert all(word in last for word in told), done.stderr
    assert "Traceback" not in done.stderr


def test_selecting_nothing(user: User) -> None:
    user.has("fake_a_passes")
    done = user.conform_run(k="zzzz")
    assert done.returncode == 8
    assert done.stderr == "conform: -k 'zzzz' selects none of the variants\n"
    done = user.conform_run(k="fake_a_passe")
    assert done.returncode == 0
    done = user.conform_run(k="fake_a_posses")
    assert done.returncode == 8
    assert done.stderr.endswith("did you mean fake_a_passes?\n")


def test_bad_case(user: User) -> None:
    user.has("fake_a_passes", text=CASE.replace("claims:", "clams: [S1]\nclaims:"))
    refused(user.conform_run(), f"{user.place('fake_a_passes')}:3:1: ", "clams")
    user.has("fake_a_passes", text=CASE.replace("[S1]", "[S99]"))
    refused(user.conform_run(), f"{user.place('fake_a_passes')}:3:", "S99")
    assert not user.out.exists()


def test_kernel_that_is_none(user: User) -> None:
    user.has("fake_a_passes")
    refused(user.conform_run("--kernel", "good", "--kernel", "missing"), "no kernel missing")
    assert not user.out.exists()


def test_kernels_that_results_could_not_tell_apart(user: User) -> None:
    user.has("fake_a_passes")
    refused(user.conform_run("--kernel", "a/b", "--kernel", "a.b"), "a/b and a.b")


def test_module_that_does_not_fit(user: User, tmp_path: Path) -> None:
    user.has("fake_a_passes")
    (tmp_path / "loop.ko").touch()
    refused(user.conform_run("--module", str(tmp_path / "loop.ko")), "loop.ko", "vermagic")


def test_results_are_never_written_over(user: User) -> None:
    user.has("fake_a_passes")
    assert user.conform_run().returncode == 0
    before = (user.out / "record.jsonl").read_bytes()
    refused(user.conform_run(), "not empty")
    assert (user.out / "record.jsonl").read_bytes() == before


def test_no_place_to_write(user: User, tmp_path: Path) -> None:
    user.has("fake_a_passes")
    (tmp_path / "file").touch()
    refused(user.conform_run("--out", str(tmp_path / "file" / "out")), "file")


def test_no_such_engine(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(User, "env", {**user.env, "CONFORM_ENGINE": "no.such:engine"})
    user.has("fake_a_passes")
    refused(user.conform_run(), "no.such")


# -- interruption -------------------------------------------------------------------------------


def is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(user: User, number: signal.Signals) -> None:
    user.has("fake_a_passes", "fake_b_hangs", "fake_c_passes")
    run = user.start("-n", "1")
    machine = int(user.hears())
    # As a terminal does it: to the whole group. SIGTERM goes to one process.
    (os.killpg if number == signal.SIGINT else os.kill)(run.pid, number)
    out, err = run.communicate(timeout=LIMIT)
    assert run.returncode == INTERRUPTED, err
    assert is_dead(machine)
    assert "Traceback" not in err
    assert "interrupted: 2 of 3 variants were not run" in err
    assert "1 variant: 1 PASS" in out
    record = user.record(salvage=True)
    assert [entry.verdict.case for entry in record.entries] == ["fake_a_passes"]
    assert record.footer is None
    errors = [
        child.get("type")
        for child in JUnitXml.fromfile(str(user.out / "junit.xml"))._elem.iter("error")
    ]
    assert errors == ["NotRun", "NotRun"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_a_kernel_is_prepared(user: User, number: signal.Signals) -> None:
    user.has("fake_a_passes")
    run = user.start("--kernel", "slow")
    tool = os.pidfd_open(int(user.hears()))
    (os.killpg if number == signal.SIGINT else os.kill)(run.pid, number)
    _, err = run.communicate(timeout=LIMIT)
    assert run.returncode == INTERRUPTED, err
    assert select.select([tool], [], [], LIMIT)[0]
    os.close(tool)
    assert err.splitlines()[-1] == "conform: interrupted before the first case; nothing was run"
    assert "Traceback" not in err
    assert not user.out.exists()


def test_tools_do_not_outlive_a_main_process_that_is_killed(user: User) -> None:
    user.has("fake_a_passes")
    run = user.start("--kernel", "slow")
    tool = os.pidfd_open(int(user.hears()))
    run.kill()
    ended, _, _ = select.select([tool], [], [], LIMIT)
    assert ended
    run.communicate(timeout=LIMIT)
    os.close(tool)


def test_interrupted_twice_does_not_wait(user: User) -> None:
    user.has("fake_a_stubborn")
    run = user.start("-n", "1")
    assert user.hears() == "running"
    os.killpg(run.pid, signal.SIGINT)
    assert user.hears() == "closing"
    os.killpg(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=LIMIT)
    assert run.returncode == INTERRUPTED
    assert "Traceback" not in err


def test_machines_do_not_outlive_a_main_process_that_is_killed(user: User) -> None:
    user.has("fake_a_hangs")
    run = user.start("-n", "1")
    machine = os.pidfd_open(int(user.hears()))
    run.kill()
    ended, _, _ = select.select([machine], [], [], LIMIT)
    assert ended
    run.communicate(timeout=LIMIT)
    os.close(machine)


# -- judging again ------------------------------------------------------------------------------


def test_judge_of_an_interrupted_record_says_so(user: User) -> None:
    user.has("fake_a_skips", "fake_b_hangs")
    run = user.start("-n", "1")
    user.hears()
    os.killpg(run.pid, signal.SIGINT)
    run.communicate(timeout=LIMIT)
    done = user.conform("judge", str(user.out), "--cases", str(user.cases))
    assert done.returncode & 2
    assert "no footer" in done.stderr


def test_judge_of_no_record(user: User, tmp_path: Path) -> None:
    (tmp_path / "record.jsonl").write_text("{}\n")
    refused(user.conform("judge", str(tmp_path)), "record.jsonl:1")


@pytest.mark.parametrize("lie", ["", "1"])
def test_judge_gives_the_same_report(
    user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    made = {"CONFORM_ENGINE": "tests.support.model_engine:engine", "CONFORM_FAKE_LIE": lie}
    monkeypatch.setattr(User, "env", {**user.env, **made})
    run = user.conform_run("--kernel", "one", "--kernel", "two", k="short_write and off")
    assert run.returncode == (1 if lie else 0), run.stdout + run.stderr
    assert ("bystanders_unharmed" in run.stdout) == bool(lie)
    xml = tmp_path / "again.xml"
    again = user.conform("judge", str(user.out), *user.shared()[:4], "--junit", str(xml))
    assert (again.returncode, again.stdout, again.stderr) == (run.returncode, run.stdout, "")
    assert xml.read_text() == (user.out / "junit.xml").read_text()


# -- known deviations ---------------------------------------------------------------------------


def test_known_deviation(user: User) -> None:
    user.has("fake_a_fails")
    user.knows("fake_a_fails")
    done = user.conform_run()
    assert done.returncode == 0, done.stdout
    assert "FAIL known" in done.stdout
    assert 'type="xfail"' in (user.out / "junit.xml").read_text()


def test_strict_ignores_what_is_known(user: User) -> None:
    user.has("fake_a_fails")
    user.knows("fake_a_fails")
    assert user.conform_run("--strict").returncode == 1


def test_stale_known_deviation(user: User) -> None:
    user.has("fake_a_passes")
    user.knows("fake_a_passes")
    done = user.conform_run()
    assert done.returncode == 4
    assert "stale known deviation: " in done.stdout
    assert str(user.known) in done.stdout


def test_a_row_that_strict_does_not_go_by_is_not_stale(user: User) -> None:
    user.has("fake_a_passes")
    user.knows("fake_a_passes")
    done = user.conform_run("--strict")
    assert done.returncode == 0
    assert "stale" not in done.stdout
    assert 'failures="0"' in (user.out / "junit.xml").read_text()


def test_malformed_known_deviation(user: User) -> None:
    user.has("fake_a_passes")
    (user.known / "rows.yaml").write_text("known = [")
    refused(user.conform_run(), str(user.known / "rows.yaml"))


def test_four_shards_merged_are_the_whole(user: User, tmp_path: Path) -> None:
    user.has(*ALL, "fake_g_passes", "fake_h_fails")
    kernels = ("--kernel", "one", "--kernel", "two")
    user.conform_run("-n", "1", *kernels)
    whole = {key_of(v): (v.status, v.findings, v.reasons) for v in user.record().verdicts}
    parts = []
    for index in (3, 1, 4, 2):
        user.out = tmp_path / f"part{index}"
        parts.append(user.out)
        user.conform_run("-n", "1", *kernels, "--shard", f"{index}/4")
    assert all(len(read_record(part / "record.jsonl").entries) == 4 for part in parts)
    to = tmp_path / "all.jsonl"
    done = user.conform("merge", *map(str, parts), "--to", str(to))
    assert done.returncode == 0, done.stderr
    merged = read_record(to).verdicts
    assert {key_of(v): (v.status, v.findings, v.reasons) for v in merged} == whole
    assert len(merged) == len(whole) == 16


def test_a_shard_to_which_nothing_falls_has_nothing_to_do(user: User, tmp_path: Path) -> None:
    user.has("fake_a_passes")
    parts = []
    for index in (2, 1):
        user.out = tmp_path / f"part{index}"
        parts.append(str(user.out))
        done = user.conform_run("-n", "1", "--shard", f"{index}/2")
        assert done.returncode == 0, done.stderr
        assert len(user.record().entries) == 2 - index
        told = "conform: --shard 2/2: nothing falls to it of 1 variants\n"
        assert (done.stderr == told) is (index == 2)
    to = tmp_path / "all.jsonl"
    assert user.conform("merge", *parts, "--to", str(to)).returncode == 0
    assert len(read_record(to).entries) == 1
    assert user.conform("run", "--resume", parts[0]).returncode == 0
