"""The table of ratios: of the newest figures of this kind of machine, and honest about what is missing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from benchmarks import picture, ratios, table
from conformance.exits import Refused
from conformance.session import DURATIONS, open_library
from conformance.shards import Durations

CLONE: dict[str, Any] = {"vng_seconds": {"median": 8.0}, "clone_seconds": {"median": 0.09}}
ONE: dict[str, Any] = {"wall_seconds": 100.0, "guest_seconds": 88.0, "slot_megabytes": 30.0,
       "qemu_megabytes": {"max": 90.0}}  # fmt: skip
TWO: dict[str, Any] = {
    **ONE,
    "wall_seconds": 52.0,
    "library_times_the_sample": 5.0,
    "slot_megabytes": 40.0,
}
FOUND: dict[str, dict[str, Any]] = {"clone": CLONE, "one": ONE, "two": TWO}


def test_each_ratio_is_what_it_says() -> None:
    told = {ratio.name: value for ratio, value in table.rows(FOUND)}
    assert told == pytest.approx({
        "clone": 8 / 0.09, "answer": 0.09, "overhead": 12.0, "slots": 100 / 52,
        "library": 52 * 5 / 60, "five": 5 * 52 * 5 / 60, "memory": 130.0,
    })  # fmt: skip
    assert table.table(table.rows(FOUND)).count("  met") == len(table.RATIOS)


@pytest.mark.parametrize(
    ("part", "figure", "value", "missed"),
    [
        ("clone", "clone_seconds", {"median": 0.11}, {"clone", "answer"}),
        ("one", "guest_seconds", 80.0, {"overhead"}),
        ("two", "wall_seconds", 61.0, {"slots", "library", "five"}),
        ("one", "qemu_megabytes", {"max": 121.0}, {"memory"}),
    ],
)
def test_a_worse_figure_misses_its_target(
    part: str, figure: str, value: Any, missed: set[str]
) -> None:
    found: dict[str, dict[str, Any]] = {**FOUND, part: {**FOUND[part], figure: value}}
    told = table.rows(found)
    assert {r.name for r, v in told if v is not None and not r.met(v)} == missed
    assert table.table(told).count("  missed") == len(missed)


def test_a_part_that_is_missing_leaves_a_gap() -> None:
    told = {ratio.name: value for ratio, value in table.rows({"clone": CLONE})}
    assert told["answer"] == 0.09
    assert told["slots"] is None


def line(part: str, figures: object, *, cores: int = 2, at: str = "2026-01-01T00:00:00Z") -> Any:
    return {"at": at, "part": part, "machine": {"cores": cores}, "figures": figures}


def test_only_a_machine_like_this_one_counts_and_the_newest_wins() -> None:
    lines = [line("one", 1), line("one", 2), line("one", 3, cores=8)]
    assert table.newest(lines, {"cores": 2}) == {"one": 2}


def measured(monkeypatch: pytest.MonkeyPatch, **parts: Any) -> None:
    def part(figures: Any) -> Any:
        def measure(say: object, **more: object) -> Any:
            if isinstance(figures, Exception):
                raise figures
            return figures

        return measure

    monkeypatch.setattr(ratios, "PARTS", {name: part(each) for name, each in parts.items()})


def test_a_part_that_fails_is_measured_again_by_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--history", str(tmp_path / "h.jsonl"), "--picture", str(tmp_path / "p.svg")]
    measured(monkeypatch, clone=Refused("there is no vng here"), one=ONE, two=TWO)
    assert table.main(places) == 2
    assert "clone: there is no vng here" in capsys.readouterr().err
    measured(monkeypatch, clone=CLONE, one=Refused("not asked"), two=Refused("not asked"))
    assert table.main([*places, "--only", "clone"]) == 0
    kept = [json.loads(each) for each in (tmp_path / "h.jsonl").read_text().splitlines()]
    assert [each["part"] for each in kept] == ["one", "two", "clone"]
    assert set(kept[0]["machine"]) == {"processor", "cores", "memory_gib", "kernel", "qemu"}
    measured(monkeypatch, clone={**CLONE, "clone_seconds": {"median": 0.2}})
    assert table.main([*places, "--only", "clone"]) == 1
    capsys.readouterr()
    assert table.main([*places, "--show"]) == 1
    assert "0.2 s" in capsys.readouterr().out
    drawn = etree.parse(tmp_path / "p.svg").getroot()
    circles = drawn.findall(".//{*}circle")
    # Both answers and both ratios of clones, and what came once.
    assert len(circles) == 2 + 2 + 5
    assert {c.get("fill") for c in circles} == {"#2a7a2a", "#b03030"}


def test_a_picture_says_nothing_but_text() -> None:
    odd = picture.Panel(
        title="<script>&", unit="s", target=1.0, least=False,
        points=(picture.Point(day="2026-01-01", value=0.0),),
    )  # fmt: skip
    root = etree.fromstring(picture.svg([odd]).encode())
    assert next(t.text for t in root.iter("{*}text")) == "<script>&"


def test_a_sample_is_spread_over_the_library() -> None:
    durations = Durations.load(DURATIONS)
    variants = open_library(()).variants
    some = ratios.sample(variants, durations, 60)
    assert len({v.id for v in some}) == 60
    assert some == ratios.sample(variants, durations, 60)
    assert len({v.case for v in some}) > 30
    short = [s for s in durations.seconds.values() if s <= ratios.LONGEST]
    mean = sum(short) / len(short)
    assert math.isclose(sum(durations.seconds[v.id] for v in some) / 60, mean, rel_tol=0.1)


def test_what_a_case_uses_is_not_the_harness_s() -> None:
    work = {"private": 100 << 20, "pages": 12_800}
    assert ratios.own_bytes(work, 2_560) == 60 << 20
    assert ratios.own_bytes({**work, "pages": 100}, 2_560) == 100 << 20
