"""The run of mutants: what puts one in a module's place, and what tells explained survivors from others."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from tests.mutation.survivors import Survivor, explained, unexplained, untried
from tests.mutation.swap import swap
from tests.mutation.targets import TARGETS, among

ROOT = Path(__file__).parents[2]
SOURCE = """
LIMIT = 3

def small(count, most=LIMIT):
    return count < most

class Box:
    @property
    def full(self):
        return small(1)

    @staticmethod
    def name():
        return "box"
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType("mutated_module")
    exec(SOURCE, made.__dict__)
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def test_a_function_that_was_imported_already_is_the_mutant_s(module: types.ModuleType) -> None:
    small, box = module.small, module.Box()
    assert small(1)
    assert box.full
    swap(module, SOURCE.replace("<", ">"), classes=False)
    assert module.small is small
    assert not small(1)
    assert not box.full


def test_a_method_of_a_class_that_was_imported_already_is_the_mutant_s(
    module: types.ModuleType,
) -> None:
    box = module.Box
    swap(module, SOURCE.replace('"box"', '"crate"'), classes=False)
    assert module.Box is box
    assert box.name() == "crate"


def test_a_default_is_the_mutant_s(module: types.ModuleType) -> None:
    small = module.small
    swap(module, SOURCE.replace("LIMIT = 3", "LIMIT = 1"), classes=False)
    assert not small(1)


def test_a_value_is_the_mutant_s_wherever_it_is_known_by_its_name(
    module: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = types.ModuleType("importing_module")
    vars(other).update(LIMIT=module.LIMIT, OTHER=module.LIMIT)
    monkeypatch.setitem(sys.modules, other.__name__, other)
    swap(module, SOURCE.replace("LIMIT = 3", "LIMIT = 4"), classes=False)
    assert (module.LIMIT, vars(other)["LIMIT"], vars(other)["OTHER"]) == (4, 4, 3)


def test_a_class_whose_body_is_another_takes_the_place_of_the_old_one(
    module: types.ModuleType,
) -> None:
    old = module.Box
    swap(module, SOURCE.replace("    @property\n", ""), classes=True)
    assert module.Box is not old
    assert callable(module.Box().full)


ROW = """
[[survivor]]
module = "m.py"
function = "f"
before = "a < b"
after = ["a <= b", "a >= b"]
why = "{why}"
"""


def test_a_survivor_is_explained_or_told() -> None:
    rows = explained(ROW.format(why="a is never b"))
    known, other = (
        Survivor("m.py", "f", "a < b", "a <= b"),
        Survivor("m.py", "g", "a < b", "a <= b"),
    )
    assert unexplained([known, other], rows) == (
        [other],
        [Survivor("m.py", "f", "a < b", "a >= b")],
    )


def test_of_two_alike_one_row_explains_one() -> None:
    rows = explained(ROW.format(why="a is never b"))
    twice = [rows[0].survivor] * 2
    assert unexplained(twice, rows)[0] == [rows[0].survivor]


def test_a_row_without_a_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="no reason"):
        explained(ROW.format(why="  "))


def test_each_explained_survivor_still_stands_in_its_module() -> None:
    for row in explained():
        text = " ".join((ROOT / row.survivor.module).read_text().split())
        assert row.survivor.before in text, row


def test_every_module_of_the_judge_is_mutated() -> None:
    judge = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "conformance" / "oracle").rglob("*.py")
        if path.name != "__init__.py"
    }
    assert judge < set(TARGETS)
    for tests in TARGETS.values():
        assert all((ROOT / test).exists() for test in tests)


def test_tests_are_chosen_among_a_module_s_own() -> None:
    tests = ("tests/unit/test_a.py", "tests/unit/test_b.py")
    assert among(tests, []) == tests
    assert among(tests, ["test_b"]) == tests[1:]
    assert among(tests, ["tests/unit/test_c.py"]) == ()


def test_a_mutant_that_no_test_was_run_on_is_not_counted_as_killed() -> None:
    assert untried(["a", "b", "c"], {"a": "a test"}, {"c"}) == ["b"]
