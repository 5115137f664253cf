"""Today's judge against the published records: recorded observations are its corpus.

A variant whose case has other steps today cannot be judged from an old record; it is BROKEN, with that
reason, and most must not be.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.compare import ways
from conformance.library import load_library
from conformance.model import Observation, Status, Variant, Verdict
from conformance.oracle import OTHER_STEP, judge
from conformance.record import read_record

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "results" / "published").glob("*.jsonl.xz"))


def observed(path: Path) -> list[tuple[Variant, Observation, Verdict]]:
    """Every observation of a record whose variant is still there, with the verdict of then."""
    library = load_library([ROOT / "cases"], ROOT / "fixtures")
    variants = {(v.case, tuple(v.values.items())): v for v in library.variants}
    found = []
    for entry in read_record(path).entries:
        variant = variants.get((entry.verdict.case, tuple(entry.verdict.values.items())))
        if variant is not None and entry.observation is not None:
            found.append((variant, entry.observation, entry.verdict))
    return found


def test_there_are_published_records() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_says_what_was_said_then(path: Path) -> None:
    entries = observed(path)
    other, differing = [], []
    for variant, observation, then in entries:
        now = judge(variant, observation)
        if any(OTHER_STEP in reason for reason in now.reasons):
            other.append(variant.id)
        elif (now.status, ways(now)) != (then.status, ways(then)):
            differing.append(f"{variant.id} on {then.kernel}: {then.status} then, {now.status} now")
    assert differing == []
    assert len(other) * 4 < len(entries)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_record_without_its_evidence_is_not_believed(path: Path) -> None:
    """The planted fault: without what was read back and the watchers' view nothing is a PASS, and a
    survey records nothing.
    """
    fine = (Status.PASS, Status.RECORDED)
    variant, observation, _ = next(e for e in observed(path) if e[2].status in fine)
    arm = observation.arms[0]
    bare = arm.model_copy(update={"steps": arm.steps[:2]})
    cut = observation.model_copy(update={"arms": (bare, *observation.arms[1:])})
    assert judge(variant, cut).status is Status.BROKEN
