"""Each rule is shown to complain once, at its place; the project's own cases give no cause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from conformance.library import Library, load_library
from conformance.lint import KNOWN_ROW, RULES, lint
from tests.support.case_tree import Edit, plant

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Row:
    case: str
    where: str
    variant: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)


def load(root: Path, *edits: Edit) -> Library:
    plant(root, *edits)
    return load_library([root / "cases"], root / "fixtures")


PLANTED: dict[str, tuple[Edit, ...]] = {
    "L001": (("case", "title: A write", "title: «A write that should fail, a write"),),
    "L002": (("case", "title: A write", "title: «Check that a write"),),
    "L003": (("stack", "title: A loop", "title: «A" + " very" * 22 + " simple loop"),),
    "L004": (
        ("files", "succeeded are whole", "succeeded are whole."),
        ("files", "title: ", "title: «"),
    ),
    "L005": (("procedure", "title: F", "title: «f"),),
    "L006": (
        (
            "case",
            "title: A write past the space of a full backing tmpfs fails with an error",
            "title: «Files whose fsync succeeded are WHOLE",
        ),
    ),
    "L010": (("case", ", section: ERRORS", ""), ("case", "  - {source", "  «- {source")),
    "L011": (("case", '"write(2)"', '«"the manual"'),),
    "L012": (("case", "section: ERRORS", 'quote: «"a\\nb\\nc"'),),
    "L013": (("case", "[S1, S12]", "«[S12, S1]"),),
    "L020": (("stack", "params:", "# a «TODO\nparams:"),),
    "L023": (("case", "expect:", f"notes: «{'word ' * 21}\nexpect:"),),
    "L030": (
        ("case", "rig: stack", "rig: fs_stack"),
        ("case", "{device_size: 12M, ", "{"),
        (
            "case",
            '  loop_dio: ["off", "on"]\nexclude:\n  - {submit: buffered, loop_dio: "on"}\n',
            "",
        ),
        ("case", '\n  - {need: "probe:tmpfs_direct_io", when: {loop_dio: "on"}}', ""),
        ("case", '"${device_size}"', "12M"),
        ("stack", "title: ", "«title: "),
    ),
    "L031": (
        ("files", "cgroups: [limited]", "cgroups: «[limited, limited/a, other]"),
        ("files", "{cgroup: limited}", "{cgroup: limited/a}"),
    ),
    "L032": (
        (
            "procedure",
            "  - relieve",
            "  - run: {as: now, role: observe, argv: [x], when: {count: «9}}\n  - relieve",
        ),
    ),
    "L040": (
        ("case", "clauses: [error_surfaced, reusable]", "clauses: []"),
        ("case", "title: A", "«title: A"),
    ),
    "L041": (("case", "level: must", "level: survey"), ("case", "clauses: [", "clauses: «[")),
    "L042": (("case", ", reusable]", ", reusable, «bounded]"),),
}

IDS = {
    "L021": "a_name_that_goes_on_and_on_and_on_and_still_says_little",
    "L022": "loop_test_enospc",
}
"""Rules on a file's name, which an edit cannot plant."""


@pytest.mark.parametrize("rule", PLANTED)
def test_a_rule_complains_at_its_place(
    rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = plant(tmp_path, *PLANTED[rule])
    remarks = lint(load_library([tmp_path / "cases"], tmp_path / "fixtures"))
    assert [(remark.rule, remark.place) for remark in remarks] == [(rule, place)]


@pytest.mark.parametrize("rule", IDS)
def test_a_rule_on_names_complains_at_the_file(
    rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plant(tmp_path)
    (tmp_path / "cases/loop/write_full.yaml").rename(tmp_path / f"cases/loop/{IDS[rule]}.yaml")
    remarks = lint(load_library([tmp_path / "cases"], tmp_path / "fixtures"))
    assert [(r.rule, r.place) for r in remarks] == [(rule, f"cases/loop/{IDS[rule]}.yaml:1:1")]


def test_a_known_deviation_of_no_case_is_told(tmp_path: Path) -> None:
    rows = [
        Row(case="write_full", where="results/known/loop.toml:3"),
        Row(case="gone", where="results/known/loop.toml:9"),
    ]
    [remark] = lint(load(tmp_path), rows)
    assert remark.rule == KNOWN_ROW.id
    assert str(remark) == (
        "results/known/loop.toml:9: L050 there is no case 'gone'; delete the row, or correct it"
    )


@pytest.mark.parametrize(
    ("variant", "told"),
    [
        ({}, []),
        ({"submit": ("buffered", "direct"), "loop_dio": "off"}, []),
        ({"submitted": "direct"}, ["write_full has no 'submitted'"]),
        ({"submit": ("direct", "indirect")}, ["write_full has no submit 'indirect'"]),
        (
            {"submit": "indirect", "dio": "on"},
            ["write_full has no submit 'indirect'", "write_full has no 'dio'"],
        ),
        (
            {"submit": "buffered", "loop_dio": "on"},  # which the case excludes
            ["write_full has each of these values, and no variant with all"],
        ),
    ],
)
def test_a_known_deviation_of_no_variant_is_told(
    variant: dict[str, str | tuple[str, ...]], told: list[str], tmp_path: Path
) -> None:
    row = Row(case="write_full", where="results/known/loop.yaml:3", variant=variant)
    assert [remark.message for remark in lint(load(tmp_path), [row])] == told


def test_no_rule_is_without_a_planted_fault() -> None:
    assert sorted([*PLANTED, *IDS, KNOWN_ROW.id]) == sorted(rule.id for rule in (*RULES, KNOWN_ROW))


def test_every_rule_says_what_it_is_and_what_to_do() -> None:
    for rule in (*RULES, KNOWN_ROW):
        assert rule.description.endswith(".")
        assert rule.description[0].isupper()
        assert rule.to_fix
        assert not rule.to_fix.endswith(".")


def test_a_library_without_fault_gives_no_cause(tmp_path: Path) -> None:
    assert lint(load(tmp_path)) == ()


def test_the_projects_own_cases_give_no_cause() -> None:
    remarks = lint(load_library([ROOT / "cases"], ROOT / "fixtures"))
    assert not remarks, "\n".join(map(str, remarks))
