"""The README says what there is, and nothing that is not."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import click
import pytest

from conformance import exits
from conformance.cli import cli
from conformance.known import Known, in_range
from conformance.library import Library
from conformance.model import Status, Variant
from conformance.report.formats import FORMATS
from conformance.session import choose, known_rows, open_library

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def options(command: click.Command) -> set[str]:
    return {
        option
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
        if option not in ("-h", "--help")
    }


def table_options() -> set[str]:
    section = README.partition("## Options of")[2].partition("## ")[0]
    rows = re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)
    return {row.split()[0] for row in rows}


def test_every_command_is_mentioned() -> None:
    for name in cli.commands:
        assert f"./conform {name}" in README, name


def test_every_command_has_examples() -> None:
    for name, command in cli.commands.items():
        assert f"conform {name}" in (command.epilog or ""), name


def test_every_option_of_pytest_s_is_mentioned() -> None:
    section = README.partition("## With pytest")[2].partition("## ")[0]
    source = (ROOT / "conformance" / "plugin.py").read_text()
    options = re.findall(r'addoption\(\s*"(--[a-z]+)"', source)
    assert len(options) > 5
    assert [option for option in options if f"{option}" not in section] == []


def test_the_table_of_options_is_the_truth() -> None:
    assert table_options() == options(cli.commands["run"])


def test_every_option_of_judge_is_mentioned() -> None:
    for option in options(cli.commands["judge"]):
        assert option in README, option


def test_every_status_and_exit_code_is_told() -> None:
    for status in Status:
        assert f"| {status} |" in README
    for bit in (exits.DEVIATES, exits.BROKEN, exits.STALE, exits.NOTHING):
        assert re.search(rf"^\| {bit} \|", README, re.MULTILINE)
    for code in (exits.REFUSED, exits.CRASHED, exits.INTERRUPTED):
        assert re.search(rf"\b{code}\b", README)


def test_the_example_is_what_is_known_of_its_kernel() -> None:
    example = README.partition("## Two commands")[2].partition("## ")[0]
    release = re.search(r"    case +(\S+)", example)
    assert release is not None
    variants = choose(library(), "loop_enospc_short_write")
    failing = [one for one in variants if deviates(one, release[1])]
    assert f"✗ FAIL {len(failing)} of {len(variants)} known" in example
    clauses = {
        row.clause.value for row in rows() for one in failing if row.of(one.case, one.values)
    }
    assert set(re.findall(r"^    (\w+) \(must, as known\) at", example, re.MULTILINE)) == clauses


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/here.md",
    "docs/performance.md",
    "docs/reports.md",
    "docs/scale.md",
    "docs/survival.md",
    "docs/security.md",
]
RECIPES = [f"docs/recipes/{path.name}" for path in sorted((ROOT / "docs/recipes").iterdir())]


@pytest.mark.parametrize("name", [*PAGES, *RECIPES])
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert targets
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []


def test_every_format_of_a_report_is_told_of() -> None:
    page = (ROOT / "docs" / "reports.md").read_text()
    for name in FORMATS:
        assert re.search(rf"^\| `{name}` \|", page, re.MULTILINE), name
    for name in ("report", "compare"):
        for option in options(cli.commands[name]) - options(cli.commands["judge"]):
            assert f"`{option}" in page, option


def test_the_two_commands_are_executable() -> None:
    for name in ("conform", ".ci/run", "benchmarks/run"):
        assert (ROOT / name).stat().st_mode & 0o100
    assert "    ./conform run " in README
    assert "    ./conform test " in README


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_s_page_is_one_screen(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= 24


def test_options_of_bisect_are_told() -> None:
    page = (ROOT / "docs" / "bisect.md").read_text()
    for option in options(cli.commands["bisect"]):
        assert option in page, option


BISECTED = {
    "page": (ROOT / "docs" / "bisect.md").read_text(),
    "help": cli.commands["bisect"].epilog or "",
}


@cache
def library() -> Library:
    return open_library(())


@cache
def rows() -> tuple[Known, ...]:
    return known_rows(None)


def deviates(variant: Variant, release: str) -> bool:
    """Whether a known row says so, and not of some runs only."""
    return any(
        row.of(variant.case, variant.values) and in_range(release, row.kernel)
        for row in rows()
        if not row.sometimes
    )


@pytest.mark.parametrize("place", BISECTED)
def test_what_is_bisected_changes_between_the_two_kernels(place: str) -> None:
    sessions = BISECTED[place].split("git bisect start ")[1:]
    assert len(sessions) == 2
    for session in sessions:
        new, old = re.findall(r" v([\d.]+)", " " + session.splitlines()[0])
        expression = re.search(r"bisect -k '([^']+)'", session)
        assert expression is not None
        [variant] = choose(library(), expression[1])
        fixed = "--until-fixed" in session
        assert (deviates(variant, old), deviates(variant, new)) == (fixed, not fixed)


def test_contributing_tells_of_every_environment_and_of_every_folder_of_tests() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"-e ([a-z,]+)|`([a-z]+)`", page))
    environments = re.findall(r"^\[testenv:(\w+)\]", (ROOT / "tox.ini").read_text(), re.MULTILINE)
    assert len(environments) > 10
    told = {word for pair in named for text in pair for word in text.split(",")}
    assert [name for name in environments if name not in told] == []
    layout = re.search(r"^    tests/ +(.*?)\n\n", page, re.MULTILINE | re.DOTALL)
    assert layout is not None
    words = set(re.findall(r"[a-z]+", layout[1]))
    folders = [path.name for path in (ROOT / "tests").glob("[a-z]*/")]
    assert [name for name in folders if name not in words] == []
