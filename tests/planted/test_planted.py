"""Each saboteur is caught by the clauses that it violates, and by no other; none goes unseen.

Run by hand: ``tox -e planted``, which makes docs/detection.md of it too. What came of each is kept in
results/planted.tsv, see tests/planted/outcomes.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.model import Clause
from tests.planted.menders import MENDERS
from tests.planted.outcomes import done, kept, note, outcome, right
from tests.planted.saboteurs import SABOTEURS, Saboteur
from tests.planted.trial import Caught, Trials

pytestmark = pytest.mark.planted


@pytest.fixture(scope="module")
def trials() -> Trials:
    return Trials()


KEPT = kept()
EACH = [(saboteur, kernel) for saboteur in (*SABOTEURS, *MENDERS) for kernel in saboteur.kernels]


@pytest.mark.parametrize(
    ("saboteur", "kernel"), EACH, ids=[f"{saboteur.name}@{kernel}" for saboteur, kernel in EACH]
)
def test_it_is_caught_by_what_it_violates_and_by_nothing_else(
    saboteur: Saboteur, kernel: str, trials: Trials, tmp_path: Path
) -> None:
    if done(saboteur, kernel, KEPT):
        return
    caught: Caught = trials.of(saboteur, kernel, tmp_path)
    note(outcome(saboteur, kernel, caught))
    assert not caught.failed, "the sabotage itself did not work"
    assert right(saboteur, caught), "\n".join((*caught.reasons, *caught.observed))


def test_no_clause_is_without_a_saboteur() -> None:
    caught = {clause for saboteur in SABOTEURS for clause in saboteur.clauses | saboteur.should}
    assert caught == set(Clause)
