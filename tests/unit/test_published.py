"""Today's judge against the published records: recorded observations are its corpus.

A variant whose case asks something else today is judged by what was asked then, and of every variant and
kernel the newest record is by today's case.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.compare import ways
from conformance.exits import BROKEN
from conformance.library import load_library
from conformance.model import Observation, Plan, Status, Variant, Verdict
from conformance.oracle import judge
from conformance.planner import as_asked, planned_arms
from conformance.record import RecordWriter, read_record

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "results" / "published").glob("*.jsonl.xz"))


@cache
def today() -> dict[tuple[str, tuple[tuple[str, str], ...]], Variant]:
    """The library's variants, by case and values."""
    library = load_library([ROOT / "cases"], ROOT / "fixtures")
    return {(v.case, tuple(v.values.items())): v for v in library.variants}


def observed(path: Path) -> list[tuple[Variant, Observation, Verdict]]:
    """Every observation of a record whose variant is still there, as it was asked then, with the verdict
    of then.
    """
    found = []
    for entry in read_record(path).entries:
        variant = today().get((entry.verdict.case, tuple(entry.verdict.values.items())))
        if variant is not None and entry.observation is not None:
            found.append((as_asked(variant, entry.plan), entry.observation, entry.verdict))
    return found


def test_there_are_published_records() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_says_what_was_said_then(path: Path) -> None:
    differing = []
    for variant, observation, then in observed(path):
        now = judge(variant, observation)
        if (now.status, ways(now)) != (then.status, ways(then)):
            differing.append(f"{variant.id} on {then.kernel}: {then.status} then, {now.status} now")
    assert differing == []


def test_the_newest_word_on_each_variant_and_kernel_is_by_the_case_of_today() -> None:
    newest = {
        (variant.id, then.kernel): variant for path in FILES for variant, _, then in observed(path)
    }
    asked = {variant.id: planned_arms(variant) for variant in today().values()}
    assert [key for key, variant in newest.items() if planned_arms(variant) != asked[key[0]]] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_record_without_its_evidence_is_not_believed(path: Path) -> None:
    """The planted fault: without what was read back and the watchers' view nothing is a PASS, and a
    survey records nothing.
    """
    fine = (Status.PASS, Status.RECORDED)
    entries = sorted(observed(path), key=lambda entry: entry[2].status not in fine)
    variant, observation, _ = entries[0]  # of a file that has failures alone, one of them
    arm = observation.arms[0]
    bare = arm.model_copy(update={"steps": arm.steps[:2]})
    cut = observation.model_copy(update={"arms": (bare, *observation.arms[1:])})
    assert judge(variant, cut).status is Status.BROKEN


def test_an_observation_of_yesterday_s_case_is_judged_by_what_was_asked_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = read_record(ROOT / "results" / "published" / "2026-11-24-first-cases.jsonl.xz")
    for entry in record.entries:
        now = today().get((entry.verdict.case, tuple(entry.verdict.values.items())))
        if (
            now is None
            or not isinstance(entry.plan, Plan)
            or entry.verdict.status is not Status.PASS
        ):
            continue
        if [step.name for step in entry.plan.arms[0].steps] != [
            step.name for step in now.arms[0].steps
        ]:
            break
    else:
        pytest.fail("no case of the first record has other steps today")
    asks = entry.plan.model_copy(update={"arms": planned_arms(now)})
    for name, plan in (("then", entry.plan), ("now", asks)):
        with RecordWriter(tmp_path / name, record.header, planned=1) as writer:
            writer.add(plan=plan, observation=entry.observation, verdict=entry.verdict)
    assert main(["judge", str(tmp_path / "then")]) == 0
    assert f"asked of them then: 1, the first {now.id}" in capsys.readouterr().err
    assert main(["judge", str(tmp_path / "now")]) == BROKEN
