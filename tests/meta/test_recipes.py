"""The scripts of recipes/ do what their readers expect; what they ask of the command line is there.

``tox -e recipes`` has the tools and schemas that read the recipes.
"""

from __future__ import annotations

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
