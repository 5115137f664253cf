"""docs/survival.md and the tests speak of the same faults."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.faults.page import ROOT, rows

TESTS = ROOT / "tests"


def functions(path: Path) -> dict[str, str]:
    """The tests of a file, by name, with their source."""
    text = path.read_text()
    return {
        node.name: ast.get_source_segment(text, node) or ""
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_row_has_its_test() -> None:
    for row in rows():
        found = functions(TESTS / row.path)
        assert row.function in found, row
        # What is said is compared in the test: with the page, or word by word.
        if "told: Told" not in found[row.function]:
            missing = [said for said in row.says if said not in found[row.function]]
            assert not missing, f"{row.test} does not ask for {missing}"


def test_every_fault_has_its_row() -> None:
    named = {(row.path, row.function) for row in rows()}
    sound = {"test_a_sound_one_answers"}
    for path in sorted((TESTS / "faults").glob("test_*.py")):
        if path != Path(__file__):
            for name in functions(path).keys() - sound:
                assert (f"faults/{path.name}", name) in named, name


def test_no_row_is_there_twice() -> None:
    tests = [row.test for row in rows()]
    assert sorted(set(tests)) == sorted(tests)


def test_the_page_on_security_names_tests_that_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text()))
    assert named
    every = {name for path in TESTS.rglob("test_*.py") for name in functions(path)}
    assert named - every == set()
