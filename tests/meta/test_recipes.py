"""The scripts of recipes/ do what their readers expect; what they ask of the command line is there.

``tox -e recipes`` has the tools and schemas that read the recipes.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from conformance.cli import cli
from tests.meta.conftest import ROOT, User

RECIPES = ROOT / "recipes"
FILES = sorted(p for p in RECIPES.rglob("*") if p.is_file() and "requirements" not in p.name)


def script(user: User, path: str, **env: str) -> subprocess.CompletedProcess[str]:
    cases = shlex.join(["--cases", str(user.cases)])
    return subprocess.run(
        [RECIPES / path],
        env={
            **user.env,
            "CONFORM": shlex.join(user.conformance),
            "CONFORM_OPTIONS": cases,
            "CONFORM_SELECT": "fake_",
            **env,
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("case", "status"), [("fake_a_passes", 0), ("fake_a_fails", 1), ("fake_a_skips", 77)]
)
def test_autopkgtest_hears_of_a_skip(user: User, tmp_path: Path, case: str, status: int) -> None:
    user.has(case)
    env = {"CONFORM_HOME": str(ROOT), "AUTOPKGTEST_ARTIFACTS": str(tmp_path / "artifacts")}
    done = script(user, "debian/tests/conform", **env)
    assert done.returncode == status, done.stderr
    assert (tmp_path / "artifacts" / "conform" / "junit.xml").is_file()


def test_tmt_finds_a_result_for_each_variant_and_its_log(user: User, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    done = script(
        user,
        "tmt/run.sh",
        TMT_TEST_DATA=str(data),
        CONFORM_ENGINE="tests.support.model_engine:engine",
        CONFORM_OPTIONS="",
        CONFORM_SELECT="loop_enospc_short_write and off",
    )
    results = yaml.safe_load((data / "results.yaml").read_text())
    assert results, done.stderr
    for result in results:
        assert result["name"].startswith("/loop_enospc/loop_enospc_short_write[")
        assert result["result"] == "pass"
        assert all((data / log).exists() for log in result["log"])
    assert (data / "record.jsonl").is_file()


MODEL = {
    "CONFORM_ENGINE": "tests.support.model_engine:engine",
    "CONFORM_OPTIONS": "",
    "CONFORM_SELECT": "loop_enospc_short_write[4K-off]",
}


def tmt(user: User, tmp_path: Path, **env: str) -> tuple[int, dict[str, str]]:
    """The status of run.sh, and what each result of its results.yaml is, if it leaves one."""
    data = tmp_path / "data"
    data.mkdir()
    done = script(user, "tmt/run.sh", TMT_TEST_DATA=str(data), **{**MODEL, **env})
    results = data / "results.yaml"
    told = yaml.safe_load(results.read_text()) if results.exists() else []
    return done.returncode, {one["name"]: one["result"] for one in told}


def stand_in(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_tmt_hears_of_a_run_that_was_killed(user: User, tmp_path: Path) -> None:
    real = shlex.join(user.conformance)
    record = '"$TMT_TEST_DATA/run/record.jsonl"'
    killed = f'if [ "$1" = run ]; then {real} "$@"; sed -i \'$d\' {record}; exit 137; fi'
    conform = stand_in(tmp_path / "conform", f'{killed}\nexec {real} "$@"')
    _, told = tmt(user, tmp_path, CONFORM=conform)
    assert told == {
        "/loop_enospc/loop_enospc_short_write[4K-off]": "pass",
        "/conform/incomplete": "error",
        "/conform/run": "error",
    }


@pytest.mark.parametrize("status", [1, 3, 8, 64, 130])
def test_tmt_hears_of_a_run_that_left_nothing(user: User, tmp_path: Path, status: int) -> None:
    conform = stand_in(tmp_path / "conform", f"exit {status}")
    assert tmt(user, tmp_path, CONFORM=conform)[1] == {"/conform/run": "error"}


def test_tmt_s_results_are_judged_as_the_run_is(user: User, tmp_path: Path) -> None:
    user.knows("loop_enospc_short_write")
    _, told = tmt(user, tmp_path, CONFORM_JUDGING=shlex.join(["--known", str(user.known)]))
    assert told == {"/loop_enospc/loop_enospc_short_write[4K-off]": "fail"}


@pytest.mark.parametrize("option", ["--should", "--strict", "--known=x", "--cases x"])
def test_tmt_judges_nothing_in_two_ways(user: User, tmp_path: Path, option: str) -> None:
    assert tmt(user, tmp_path, CONFORM_OPTIONS=f"-n 1 {option}") == (64, {})


def test_tmt_here_names_no_kernel(user: User, tmp_path: Path) -> None:
    conform = stand_in(tmp_path / "conform", f'echo "$*" >>{tmp_path}/log')
    tmt(user, tmp_path, CONFORM=conform, CONFORM_OPTIONS="--here", CONFORM_KERNEL="")
    ran, reported = (tmp_path / "log").read_text().splitlines()
    assert ran.startswith("run -k loop_enospc_short_write[4K-off] --here --out ")
    assert reported.startswith("report ")


@pytest.mark.parametrize(
    ("run", "report", "fails"),
    [
        (0, 0, False),
        (3, 0, False),  # deviates, and BROKEN
        (2, 2, False),  # the report says itself that it is not whole
        (15, 0, False),
        (3, 3, True),  # the launcher's
        (1, 64, True),  # there is no record
        (8, 64, True),
        (64, 64, True),
        (64, 0, True),  # a record that somebody else has left there
        (130, 2, True),
        (137, 2, True),
    ],
)
def test_lava_hears_of_what_was_not_run(tmp_path: Path, run: int, report: int, fails: bool) -> None:
    stand_in(tmp_path / "conform", f"[ $1 = run ] && exit {run}; exit {report}")
    stand_in(tmp_path / "bin" / "lava-test-case", 'echo "$*"')
    steps = yaml.safe_load((RECIPES / "lava.yaml").read_text())["run"]["steps"]
    done = subprocess.run(
        ["sh", "-e", "-c", "\n".join(steps[steps.index("cd conform") + 1 :])],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SELECT": "x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("conform_run --result fail\n" if fails else "")


def test_github_s_summary_keeps_its_lines(tmp_path: Path) -> None:
    steps = yaml.safe_load((RECIPES / "github-workflow.yml").read_text())["jobs"]["conform"][
        "steps"
    ]
    [lines] = [step["run"] for step in steps if step.get("name") == "Report"]
    stand_in(tmp_path / "conform" / "conform", "[ $1 = report ] || echo a table; exit 1")
    summary = tmp_path / "summary"
    env = {**os.environ, "GITHUB_STEP_SUMMARY": str(summary)}
    subprocess.run(["bash", "-e", "-c", lines], cwd=tmp_path, env=env, check=True)
    assert summary.read_text() == "```\na table\n```\n"


def test_debian_s_control_names_its_script() -> None:
    text = (RECIPES / "debian/tests/control").read_text()
    fields = dict(re.findall(r"^(\w+): (.*(?:\n .*)*)", text, re.MULTILINE))
    assert (RECIPES / "debian/tests" / fields["Tests"]).stat().st_mode & 0o100
    # README.package-tests of autopkgtest lists them.
    known = {"allow-stderr", "needs-internet", "needs-root", "skippable"}
    assert set(fields["Restrictions"].split(", ")) == known


def options(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_option_that_a_recipe_uses_is_there(path: Path) -> None:
    text = path.read_text().replace("\\\n", " ")
    for command, rest in re.findall(r"conform(?:/conform)?\"? (run|report|judge)\b(.*)", text):
        used = set(re.findall(r"(?<![\w-])(--[a-z-]+)", rest))
        assert used <= options(cli.commands[command]), path


def test_what_is_checked_finds_something() -> None:
    found = "".join(path.read_text() for path in FILES)
    assert len(re.findall(r"conform(?:/conform)?\"? (?:run|report|judge)\b", found)) >= 6
