"""What the judge says of each planted fault, word by word, evidence and all: words.txt.

Which clauses a fault violates is written from the norm (tests/support/liars.py) and held by
test_planted_faults.py. Here a report's words are held: that the span that it names is the one that was lost,
and the call that it quotes the one that failed. ``python -m tests.unit.oracle.test_words`` writes words.txt
anew; who changes it reads the difference.
"""

from __future__ import annotations

import re
import tempfile
from functools import cache
from pathlib import Path

import pytest

from conformance.library import load_library
from conformance.machine.fake import FakeMachine
from conformance.model import Level, Observation, Variant, Verdict
from conformance.oracle import judge
from conformance.runner import Facts, run_variant
from tests.support.breakages import BREAKAGES
from tests.support.liars import FAULTS, Liar, LiarsMachine
from tests.support.model_guest import ModelGuest

ROOT = Path(__file__).parents[3]
PAGE = Path(__file__).with_name("words.txt")
VARIANTS = {v.id: v for v in load_library([ROOT / "cases"], ROOT / "fixtures").variants}
LIARS = {liar.name: liar for liar in (*FAULTS, *BREAKAGES)}


HONEST = {v.family: v for v in reversed(VARIANTS.values()) if v.level is not Level.SURVEY}
"""The first variant of each family that makes a claim."""


@cache
def observed(name: str) -> Observation:
    """What is seen of a guest with one fault: no work of the judge's, and done once."""
    liar = LIARS[name]
    return _seen(VARIANTS[liar.variant], LiarsMachine(liar))


@cache
def observed_of_the_honest(family: str) -> Observation:
    """What is seen of a guest that conforms."""
    return _seen(HONEST[family], FakeMachine(lambda: ModelGuest().handlers(), kernel="model"))


def _seen(variant: Variant, machine: FakeMachine) -> Observation:
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_variant(variant, machine, facts=Facts(), workdir=Path(folder))
    assert outcome.observation is not None
    arms = [arm.model_copy(update={"console": "CONSOLE"}) for arm in outcome.observation.arms]
    return outcome.observation.model_copy(update={"arms": tuple(arms)})


def words(liar: Liar) -> str:
    return said(judge(VARIANTS[liar.variant], observed(liar.name)))


def said(verdict: Verdict) -> str:
    """All that a verdict says, line by line."""
    lines = [f"{verdict.status.value}", *(f"because {reason}" for reason in verdict.reasons)]
    lines += [f"note {note}" for note in verdict.notes]
    for found in verdict.findings:
        lines.append(
            f"{found.level.value} {found.clause.value} {found.signature} "
            f"[{found.arm}: {found.step}] {' '.join(found.claims)}"
        )
        lines += [f"  expected {found.expected}", f"  observed {found.observed}"]
        lines += [f"  evidence {line}" for line in found.evidence if line != "CONSOLE"]
        lines.append(f"  console {found.evidence.count('CONSOLE')}")
    return "\n".join(re.sub(r"\s+$", "", line) for line in lines) + "\n"


def page() -> dict[str, str]:
    """What words.txt holds, by the liar's name."""
    parts = PAGE.read_text().split("## ")[1:]
    return {name: text.rstrip() + "\n" for name, _, text in (p.partition("\n") for p in parts)}


PARTS = page() if PAGE.exists() else {}


@pytest.mark.parametrize("name", LIARS)
def test_it_says_these_words(name: str) -> None:
    assert words(LIARS[name]) == PARTS[name]


@pytest.mark.parametrize("family", HONEST)
def test_of_who_conforms_nothing_is_said(family: str) -> None:
    assert said(judge(HONEST[family], observed_of_the_honest(family))) == "PASS\n"


def test_nobody_else_is_on_the_page() -> None:
    assert list(PARTS) == list(LIARS)


if __name__ == "__main__":
    PAGE.write_text("\n".join(f"## {name}\n{words(liar)}" for name, liar in LIARS.items()))
