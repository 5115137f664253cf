"""The schemas and the reference page: fresh, complete, and of one mind with the loader."""

from __future__ import annotations

from pathlib import Path

import pytest

import conformance.model
from conformance.model import Case, Procedure, Rig, Step, Value
from conformance.parts import LAYERS, SHORTAGES, STEPS
from conformance.schema import (
    _MEANINGS,
    FILES,
    PAGE,
    documents,
    main,
    meaning,
    schema_for,
)
from conformance.yaml_marks import parse, plain
from tests.support.case_tree import NAMES, TREE, Wrong, read_wrong
from tests.support.json_schema import Schema

ROOT = Path(__file__).parents[2]
KINDS: dict[str, type[Value]] = {"cases": Case, "rigs": Rig, "procedures": Procedure}
SCHEMAS = {kind: Schema(schema_for(model)) for kind, model in KINDS.items()}
MADE = documents()

OF_FORM = {
    "an unknown key",
    "a key by its Python name",
    "an unknown level",
    "text where a list belongs",
    "a list where text belongs",
    "neither steps nor a name",
    "nothing where a scalar belongs",
    "an unknown claim",
    "an empty list",
    "an unknown clause",
    "an unknown clause as a key",
    "a requirement of no kind",
    "a requirement that is a list",
    "a requirement with a key too many",
    "a bad cgroup",
    "an axis that cannot vary",
    "a value twice",
    "an empty condition",
    "a condition on a list of lists",
    "what looks like a name",
    "an unknown step",
    "an unknown layer",
    "an unknown shortage",
    "a step with two words",
    "a step without values",
    "a step that says its verb twice",
    "a step with an unknown key",
    "a step without a key",
    "a step's name by its Python name",
    "a size that is none",
    "text where a number belongs",
    "a number out of range",
    "text where a switch belongs",
    "an end that is none",
    "a rig that is wrong in itself",
    "a rig with an unknown key",
    "a call that there is not",
}
"""Of what the loader refuses, what an editor can tell from the form alone."""


def kind_of(name: str) -> str:
    first, second, *_ = name.split("/")
    return first if first == "cases" else second


@pytest.mark.parametrize("path", [*FILES, PAGE])
def test_what_is_kept_is_fresh(path: str) -> None:
    told = f"{path} is stale; run: python -m conformance.schema"
    assert (ROOT / path).read_text() == MADE[path], told


def test_the_command_writes_all_of_them(tmp_path: Path) -> None:
    for path in MADE:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    main(tmp_path)
    assert {path: (tmp_path / path).read_text() for path in MADE} == MADE


@pytest.mark.parametrize(
    "path",
    [
        path.relative_to(ROOT).as_posix()
        for path in [*ROOT.glob("cases/*/*.yaml"), *ROOT.glob("fixtures/*/*.yaml")]
    ],
)
def test_a_schema_takes_the_projects_own_files(path: str) -> None:
    value = plain(parse((ROOT / path).read_text(), path))
    assert SCHEMAS[kind_of(path)].faults(value) == []


NOT_YAML = {
    "not YAML",
    "a tab",
    "a duplicate key",
    "a key that is not text",
    "an unknown anchor",
    "a tag",
    "an octal",
    "infinity",
    "a huge number",
    "a huge whole number",
    "a second document",
    "a forbidden character",
}
WRONG = [
    wrong
    for wrong in read_wrong(ROOT / "tests/data/wrong_cases.txt")
    if wrong.title not in NOT_YAML
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.title)
def test_a_schema_refuses_what_is_wrong_in_form_and_no_more(wrong: Wrong) -> None:
    tree = dict(TREE)
    for which, old, new in wrong.edits:
        tree[NAMES[which]] = tree[NAMES[which]].replace(old, new.replace("«", ""))
    found = [
        fault
        for name, text in tree.items()
        for fault in SCHEMAS[kind_of(name)].faults(plain(parse(text, name)))
    ]
    assert bool(found) == (wrong.title in OF_FORM), found


def test_what_is_listed_as_form_exists() -> None:
    assert {wrong.title for wrong in WRONG} >= OF_FORM


def test_no_description_is_left_over() -> None:
    for holder, name in _MEANINGS:
        assert f"| `{name}` |" in MADE[PAGE], f"{holder}.{name} is described, and is nowhere"
        model = getattr(conformance.model, holder, Step)
        keys = {field.alias or key: field for key, field in model.model_fields.items()}
        assert keys[name].description is None, f"{holder}.{name} describes itself"


def test_a_field_that_nobody_describes_is_an_error() -> None:
    class Undescribed(Value):
        colour: str

    with pytest.raises(KeyError, match=r"Undescribed\.colour has no description"):
        meaning(Undescribed, "colour")


@pytest.mark.parametrize("word", [*LAYERS, *SHORTAGES, *STEPS])
def test_every_part_has_its_section(word: str) -> None:
    assert f"\n### `{word}`\n" in MADE[PAGE]
