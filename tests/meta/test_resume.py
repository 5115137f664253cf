"""``./conform run --resume``: after SIGKILL, the same result as if nothing had happened."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
from pathlib import Path

import pytest
from junitparser import JUnitXml

from conformance.exits import REFUSED
from conformance.record import key_of
from tests.meta.conftest import CASE, KNOWN, LIMIT, User
from tests.support.fake_engine import RELEASE_VARIABLE, STALLS_VARIABLE

ALL = ("fake_a_passes", "fake_b_fails", "fake_c_skips", "fake_d_stalls", "fake_e_broken",
       "fake_f_recorded")  # fmt: skip
DONE = 3
"""How many of them are judged before the one that stalls."""


def killed(user: User, *words: str) -> None:
    """A run of one slot whose main process gets SIGKILL while a variant hangs."""
    user.has(*ALL)
    user.more = {STALLS_VARIABLE: "1"}
    run = user.start("-n", "1", *words)
    machine = os.pidfd_open(int(user.hears()))
    # A slot has its next variant before the last one's result is written.
    while (user.out / "record.jsonl").read_bytes().count(b'"kind":"verdict"') < DONE:
        assert run.poll() is None
    run.kill()
    run.communicate(timeout=LIMIT)
    assert select.select([machine], [], [], LIMIT)[0], "the machine outlived the runner"
    os.close(machine)
    user.more = {}


def resumed(user: User, *words: str) -> subprocess.CompletedProcess[str]:
    return user.conform("run", "--resume", str(user.out), *words)


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(user: User, *told: str, words: tuple[str, ...] = ()) -> None:
    """One line says why, and nothing is changed."""
    before = files(user.out)
    done = resumed(user, *words)
    assert done.returncode == REFUSED, done.stdout + done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("conform: ")
    assert all(word in last for word in told), done.stderr
    assert "Traceback" not in done.stderr
    assert files(user.out) == before


def seen(folder: Path) -> dict[str, object]:
    """What a run came to, without what belongs to its folder."""
    lines = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
    assert lines[-1].pop("sha256")
    xml = JUnitXml.fromfile(str(folder / "junit.xml"))
    return {
        "lines": lines[1:],
        "testcases": [
            (case.get("classname"), case.get("name"), *(child.tag for child in case))
            for case in xml._elem.iter("testcase")
        ],
        "consoles": sorted(path.relative_to(folder) for path in folder.rglob("console.log")),
        "left": sorted(path.name for path in folder.iterdir()),
    }


def told(run: subprocess.CompletedProcess[str]) -> str:
    """A summary without the place of its record."""
    return re.sub(r"\S+/record.jsonl", "", run.stdout)


@pytest.mark.parametrize("kernels", [("one",), ("one", "two")])
def test_it_comes_to_what_an_undisturbed_run_comes_to(
    user: User, tmp_path: Path, kernels: tuple[str, ...]
) -> None:
    words = [word for kernel in kernels for word in ("--kernel", kernel)]
    killed(user, *words)
    assert len(user.record(salvage=True).entries) == DONE
    done = resumed(user)
    total = len(ALL) * len(kernels)
    assert f"conform: {DONE} of {total} variants were judged before" in done.stderr
    assert f"[1/{total - DONE}, " in done.stderr
    whole = user.conform_run("-n", "1", *words, "--out", str(tmp_path / "whole"))
    assert (done.returncode, told(done)) == (whole.returncode, told(whole))
    here = seen(user.out)
    assert here == seen(tmp_path / "whole")
    assert len(here["testcases"]) == total  # type: ignore[arg-type]
    assert len(set(map(key_of, user.record().verdicts))) == total


def test_what_was_judged_is_kept_byte_by_byte(user: User) -> None:
    killed(user)
    before = (user.out / "record.jsonl").read_bytes()
    resumed(user, "-n", "3")
    assert (user.out / "record.jsonl").read_bytes().startswith(before)


@pytest.mark.parametrize("cut", [1, 40])
def test_a_line_that_was_cut_short_is_told_and_dropped(user: User, cut: int) -> None:
    killed(user)
    path = user.out / "record.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    done = resumed(user)
    assert "record.jsonl:7: cut short; what has no verdict is dropped" in done.stderr
    assert f"conform: {DONE - 1} of {len(ALL)} variants were judged before" in done.stderr
    assert len(user.record().entries) == len(ALL)


def test_an_entry_without_its_verdict_is_run_again(user: User) -> None:
    killed(user)
    path = user.out / "record.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    done = resumed(user)
    assert "what has no verdict is dropped" in done.stderr
    assert len(user.record().entries) == len(ALL)


def test_it_can_be_killed_and_resumed_again(user: User) -> None:
    killed(user)
    (user.out / ".junit.xml.0123abcd").write_text("half a fi")
    user.more = {STALLS_VARIABLE: "1"}
    again = subprocess.Popen(
        [*user.conformance, "run", "--resume", str(user.out)],
        cwd=Path(__file__).parents[2],
        env=user.env,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    machine = os.pidfd_open(int(user.hears()))
    # As long as it runs, nobody else may write.
    refused(user, "another run is writing it")
    again.kill()
    again.wait(LIMIT)
    assert select.select([machine], [], [], LIMIT)[0]
    os.close(machine)
    user.more = {}
    assert resumed(user).returncode == 3
    assert len(user.record().entries) == len(ALL)
    assert not list(user.out.glob(".*"))


def test_a_whole_run_has_nothing_left(user: User) -> None:
    user.has("fake_a_passes", "fake_b_fails")
    first = user.conform_run()
    (user.out / "junit.xml").unlink()  # killed after the footer
    before = (user.out / "record.jsonl").read_bytes()
    done = resumed(user)
    assert (done.returncode, told(done)) == (1, told(first))
    assert "2 of 2 variants were judged before" in done.stderr
    assert (user.out / "record.jsonl").read_bytes() == before
    assert (user.out / "junit.xml").is_file()


# -- what differs -------------------------------------------------------------------------------


def test_other_options(user: User, tmp_path: Path) -> None:
    killed(user, "--should")
    refused(user, "-k fake_", "-k other", words=("-k", "other"))
    refused(user, "without --strict", words=("--strict",))
    refused(user, "--kernel debian/sid", words=("--kernel", "debian/sid"))
    refused(user, "--out", words=("--out", str(tmp_path / "elsewhere")))
    same = ("-k", "fake_", "--should", "--cases", str(user.cases))
    assert resumed(user, *same).returncode == 3


def test_a_part_is_the_one_that_it_was(user: User) -> None:
    """Whatever the machine that takes it up is told of itself."""
    user.has(*(f"fake_{letter}_passes" for letter in "abcdef"))
    user.more = {"CI_NODE_INDEX": "2", "CI_NODE_TOTAL": "3"}
    assert user.conform_run("-n", "1", "--shard", "auto").returncode == 0
    whole = [key_of(verdict) for verdict in user.record().verdicts]
    assert len(whole) == 2
    path = user.out / "record.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    first = next(place for place, line in enumerate(lines) if b'"kind":"verdict"' in line)
    for more in ({}, {"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "2"}):
        path.write_bytes(b"".join(lines[: first + 1]))
        user.more = more
        done = resumed(user)
        assert done.returncode == 0, done.stderr
        assert "1 of 2 variants were judged before" in done.stderr
        assert [key_of(verdict) for verdict in user.record().verdicts] == whole


def test_other_cases(user: User) -> None:
    killed(user)
    user.has("fake_g_passes")
    refused(user, "the cases have changed")


def test_another_kernel_of_the_same_name(user: User) -> None:
    killed(user)
    user.more = {RELEASE_VARIABLE: "6.13.0-fake"}
    refused(user, "debian/trixie is not what it was: release 6.12.0-fake, now 6.13.0-fake")


def test_other_known_deviations(user: User) -> None:
    killed(user)
    user.knows("fake_b_fails")
    refused(user, "the known deviations have changed", "fake_b_fails on debian/trixie")


def test_a_row_that_speaks_of_nothing_that_was_judged_may_come(user: User) -> None:
    killed(user)
    (user.known / "rows.yaml").write_text(KNOWN.format(case="fake_f_recorded"))
    assert resumed(user).returncode == 3


def test_a_folder_whose_cases_are_gone(user: User, tmp_path: Path) -> None:
    killed(user)
    user.cases.rename(tmp_path / "moved")
    refused(user, str(user.cases), "does not exist")


def test_damage_in_the_midst(user: User) -> None:
    killed(user)
    path = user.out / "record.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[3][:-30] + b"\n", *lines[4:]]))
    refused(user, "record.jsonl:4", "cannot be resumed")


def test_a_header_that_was_cut_short(user: User) -> None:
    user.out.mkdir()
    (user.out / "record.jsonl").write_text('{"kind":"hea')
    refused(user, "record.jsonl:1: cut short", "cannot be resumed")


def test_a_folder_that_is_none_of_a_run(user: User, tmp_path: Path) -> None:
    user.out.mkdir()
    refused(user, "record.jsonl: No such file or directory")


def test_what_pytest_made(user: User) -> None:
    user.has("fake_a_passes", text=CASE)
    user.pytest()
    refused(user, "made by pytest")
