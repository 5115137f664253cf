"""Every family has a control that passes, and the page shows it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from conformance.library import Library, load_library
from conformance.model import Verdict
from conformance.published import all_verdicts
from conformance.session import known_rows
from tests.planted.controls import CONTROLS, NO_CONTROL, Control, lacking, table
from tests.planted.saboteurs import BOOKWORM, SABOTEURS, TRIXIE
from tests.planted.table import coverage
from tests.support.detection import PAGE, with_table

ROOT = Path(__file__).parents[2]
BY_FAMILY = {control.family: control for control in CONTROLS}


@cache
def library() -> Library:
    return load_library([ROOT / "cases"], ROOT / "fixtures")


@cache
def published() -> dict[str, tuple[Verdict, ...]]:
    return all_verdicts(ROOT / "results" / "published")


def test_every_family_has_a_control_or_a_reason() -> None:
    families = {variant.family for variant in library().variants}
    assert set(BY_FAMILY) | set(NO_CONTROL) == families
    assert len(BY_FAMILY) == len(CONTROLS)
    assert not set(BY_FAMILY) & set(NO_CONTROL)


def test_every_control_passes_in_what_is_published() -> None:
    assert lacking(CONTROLS, library().variants, published()) == []


def test_no_control_deviates_by_chance() -> None:
    rows = known_rows(None)
    spoken_of = [
        (control.variant, row.where)
        for control in CONTROLS
        for variant in library().variants
        if variant.id == control.variant and not control.planted
        for verdict in published()[variant.case]
        if verdict.kernel == control.kernel and verdict.values == variant.values
        for row in rows
        if row.covers(verdict)
    ]
    assert spoken_of == []


def test_what_has_no_control_has_never_passed() -> None:
    cases = {v.case for v in library().variants if v.family in NO_CONTROL}
    ran = [v for case in cases for v in published().get(case, ()) if v.status != "SKIP"]
    assert ran == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (replace(BY_FAMILY["nbd"], variant="nbd_no_such"), "no variant of nbd"),
        (replace(BY_FAMILY["nbd"], family="zram"), "no variant of zram"),
        (
            replace(
                BY_FAMILY["loop_enospc"],
                variant="loop_enospc_tmpfs_full[buffered-off]",
                kernel="debian/forky",
            ),
            "no PASS without a finding",
        ),
        (replace(BY_FAMILY["loop_memcg"], planted=False), "no PASS without a finding"),
        (replace(BY_FAMILY["nbd"], planted=True), "no row without a saboteur"),
        (
            # Its row on this kernel is that of the OOM killer, with Debian's own driver.
            replace(BY_FAMILY["loop_memcg"], kernel="debian/trixie"),
            "no row without a saboteur",
        ),
    ],
    ids=[
        "no variant",
        "another family",
        "another kernel",
        "a failure",
        "not planted",
        "planted elsewhere",
    ],
)
def test_a_control_that_is_none_is_told(wrong: Control, told: str) -> None:
    (line,) = lacking([wrong], library().variants, published())
    assert told in line


def test_the_page_shows_the_controls() -> None:
    page = PAGE.read_text()
    assert with_table(page, "controls", table()) == page
    assert with_table(page, "controls", "another") != page
    with pytest.raises(KeyError):
        with_table(page, "nothing", "")


def test_whoever_is_not_on_both_kernels_says_why() -> None:
    both = {BOOKWORM, TRIXIE}
    assert {one.name for one in SABOTEURS if bool(one.only) == (set(one.kernels) == both)} == set()


def test_the_page_has_the_saboteurs_of_each_clause() -> None:
    page = PAGE.read_text()
    assert with_table(page, "clauses", coverage(SABOTEURS)) == page
