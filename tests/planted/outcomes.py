"""What came of each saboteur on each kernel: lines of results/planted.tsv, appended when they are known.

Who was caught as is written of him is not run again while he and his variant are the same, so that a run that
was ended goes on. To begin anew, delete the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from conformance import tsv
from conformance.library import load_library, select
from conformance.machine.cache import digest_of
from conformance.model import Status, Value, Variant, as_json
from conformance.planner import planned_arms
from tests.planted.saboteurs import Saboteur
from tests.planted.trial import Caught

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "results" / "planted.tsv"
RIGHT, WRONG = "yes", "no"


class Outcome(Value):
    """What the judge said of a saboteur on a kernel: a line of the file."""

    saboteur: str
    kernel: str
    release: str
    right: str
    by: str
    """Clauses, as the table has them, or the reason why there is no verdict."""
    digest: str


def right(saboteur: Saboteur, caught: Caught) -> bool:
    """Whether the judge said what it must, and nothing else."""
    if caught.failed:
        return False
    if saboteur.broken:
        reasons = " ".join(caught.reasons)
        return caught.status is Status.BROKEN and saboteur.broken in reasons
    if saboteur.mends and not (caught.status is Status.PASS and saboteur.mends <= caught.alone):
        return False
    wanted = (saboteur.clauses, saboteur.should, saboteur.first)
    return not caught.reasons and wanted == (
        frozenset(caught.must),
        frozenset(caught.should),
        caught.first,
    )


def outcome(saboteur: Saboteur, kernel: str, caught: Caught) -> Outcome:
    """What is kept of it."""
    return Outcome(
        saboteur=saboteur.name,
        kernel=kernel,
        release=caught.release,
        right=RIGHT if right(saboteur, caught) else WRONG,
        by=_by(caught),
        digest=digest(saboteur),
    )


def _by(caught: Caught) -> str:
    if caught.status is Status.BROKEN:
        return f"no verdict: {' '.join(caught.reasons[0].split())}"
    told = [*caught.must, *(f"{clause} (should)" for clause in caught.should)]
    return ", ".join(f"`{clause}`" for clause in told) or "none"


def digest(saboteur: Saboteur) -> str:
    """Changes when what he does does, or what is asked of the variant, or what must be said of him."""
    (variant,) = select(_variants(), saboteur.variant)
    said = [sorted(saboteur.clauses), sorted(saboteur.should), saboteur.first, saboteur.broken]
    acts = [str(act) for act in saboteur.acts]
    arms = [as_json(arm) for arm in planned_arms(variant)]
    told = [saboteur.variant, acts, said, sorted(saboteur.mends), saboteur.conforming, arms]
    return digest_of(json.dumps(told))[:12]


@cache
def _variants() -> tuple[Variant, ...]:
    return load_library(
        [ROOT / "cases", ROOT / "tests" / "planted" / "cases"], ROOT / "fixtures"
    ).variants


def kept() -> dict[tuple[str, str], Outcome]:
    """The outcomes so far, the last word on each."""
    found = tsv.read(Outcome, FILE.read_text()) if FILE.exists() else ()
    return {(one.saboteur, one.kernel): one for one in found}


def note(one: Outcome) -> None:
    """Keep it."""
    tsv.append(FILE, one)


def done(saboteur: Saboteur, kernel: str, outcomes: Mapping[tuple[str, str], Outcome]) -> bool:
    """Whether he was caught as is written, and is still the same."""
    one = outcomes.get((saboteur.name, kernel))
    return one is not None and one.right == RIGHT and one.digest == digest(saboteur)


def missing(
    saboteurs: Iterable[Saboteur], outcomes: Mapping[tuple[str, str], Outcome]
) -> list[str]:
    """Who was not caught as is written, or was not run since he or his variant changed."""
    return [
        f"{kernel} {saboteur.name}"
        for saboteur in saboteurs
        for kernel in saboteur.kernels
        if not done(saboteur, kernel, outcomes)
    ]
