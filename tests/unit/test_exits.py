"""The exit status is the OR of what happened, and never one of the statuses that mean a refusal."""

from __future__ import annotations

from itertools import combinations

import pytest

from conformance.exits import (
    BROKEN,
    CRASHED,
    DEVIATES,
    INTERRUPTED,
    NOTHING,
    REFUSED,
    STALE,
    status,
)
from conformance.report.result import Asked, Outlook, Result
from tests.support.results import one_of_each

BIT = {
    Outlook.GOOD: 0,
    Outlook.KNOWN: 0,
    Outlook.SKIPPED: 0,
    Outlook.BAD: DEVIATES,
    Outlook.BROKEN: BROKEN,
    Outlook.FIXED: STALE,
}


def outlooks(results: tuple[Result, ...], asked: Asked) -> set[Outlook]:
    return {result.outlook(asked) for result in results}


@pytest.mark.parametrize("strict", [False, True])
def test_or_of_all_combinations(strict: bool) -> None:
    asked = Asked(strict=strict)
    seen = set()
    for size in range(1, 9):
        for results in combinations(one_of_each(), size):
            found = outlooks(results, asked)
            expected = 0
            for outlook in found:
                expected |= BIT[outlook]
            if found == {Outlook.SKIPPED}:
                expected |= NOTHING
            assert status(results, asked, stale=False) == expected
            assert status(results, asked, stale=True) == expected | STALE
            seen.add(expected)
    assert seen == ({0, 1, 2, 3, 8} if strict else {0, 1, 2, 3, 4, 5, 6, 7, 8})


def test_nothing_is_not_success() -> None:
    assert status([], Asked(), stale=False) == NOTHING


def test_refusal_is_no_sum_of_bits() -> None:
    highest = DEVIATES | BROKEN | STALE | NOTHING
    assert highest < min(REFUSED, CRASHED, INTERRUPTED)
    assert len({REFUSED, CRASHED, INTERRUPTED}) == 3
