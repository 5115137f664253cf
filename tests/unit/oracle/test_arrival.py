"""Whether a shortage arrived, and whether its relief was relief: gauges at and just beyond each line.

The gauge of these runs is a tmpfs of 1 MiB, told by the bytes that it has left; ``fill`` asks for space in
requests of 8 KiB. What a reading shows is NORMS': "The shortage must be shown to have arrived by a reading
that does not depend on the error under test", and "prove the relief, as well as the shortage".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import TypeAdapter

from conformance.model import AnyStep, Hog, InodeQuota, Inodes, NoShortage, Reading, Role, TmpfsSize
from conformance.oracle.answer import Reason
from conformance.oracle.arrival import arrival_reasons, request_of, room
from conformance.oracle.scene import scenes
from tests.support.builders import Act, Story, imposed, ran, read, relieved, stored, write

MIB = 1 << 20
REFUSED = "and no limit was hit"


def gauge(left: int | None, hits: int | None = None, *, limit: int = MIB) -> Reading:
    """So many bytes are left; None: no limit is in force."""
    if left is None:
        return Reading(kind="gauge", used=0, hits=hits)
    return Reading(kind="gauge", used=limit - left, limit=limit, hits=hits)


def at(act: Act, left: int | None, hits: int | None = None) -> Act:
    return act.watching(reading=gauge(left, hits))


def fill(name: str = "fill", role: Role = Role.PROVOKE) -> Act:
    return write(name, role, (0, 2), stored(0, 2), generation=2)


BEGIN = at(imposed(), MIB)
FULL = at(fill(), 0)
FREED = at(relieved(), None)


def reasons(
    *acts: Act, shortage: Any = None, taken: int | None = None, problem: str = ""
) -> list[Reason]:
    """Why it is not proven, of a run that went on for all its steps or for so many."""
    story = Story(acts=acts, shortage=shortage or TmpfsSize(kind="tmpfs_size", layer="b", size=MIB))
    (scene,) = scenes(story.variant, story.observation)
    return list(arrival_reasons(replace(scene, taken=scene.taken[:taken])))


def texts(*acts: Act, shortage: Any = None) -> list[str]:
    return [reason.text for reason in reasons(*acts, shortage=shortage)]


# -- what a gauge leaves, and what a request asks for ------------------------------------------------


@pytest.mark.parametrize(
    ("reading", "left"),
    [
        (Reading(kind="gauge", used=4), None),
        (Reading(kind="gauge", used=4, limit=10), 6),
        (Reading(kind="gauge", used=12, limit=10), -2),
    ],
)
def test_what_is_left_is_the_limit_less_what_is_used(reading: Reading, left: int | None) -> None:
    assert room(reading) == left


WRITE = {"verb": "write", "submit": "direct", "length": 65536, "generation": 1}
RANGE = {"verb": "range_op", "op": "zeroout", "length": 65536}
FILES = {"verb": "files", "directory": "d", "count": 9, "generation": 1}
CALLS = {"verb": "calls", "length": 12288, "generation": 1, "script": "open a; write a"}
DD = ("dd", "if=/dev/zero", "of=/dev/loop0")


@pytest.mark.parametrize(
    ("step", "count"),
    [
        (WRITE | {"request": 8192}, 8192),
        (WRITE | {"request": 512}, 4096),
        (RANGE, 65536),
        (RANGE | {"request": 8192}, 8192),
        (RANGE | {"request": 512}, 4096),
        (FILES | {"size": 16384}, 16384),
        (FILES | {"size": 1}, 4096),
        (CALLS, 12288),
        ({"verb": "run", "argv": (*DD, "bs=64K")}, 65536),
        ({"verb": "run", "argv": (*DD, "obs=8192", "ibs=1M")}, 8192),
        ({"verb": "run", "argv": (*DD, "bs=512")}, 4096),
        ({"verb": "run", "argv": (*DD, "ibs=1M")}, 4096),
        ({"verb": "run", "argv": DD}, 4096),
        ({"verb": "mount"}, 65536),
    ],
)
def test_a_request_asks_for_a_block_or_more(step: dict[str, Any], count: int) -> None:
    named = {"as": "fill", "role": "provoke", **step}
    assert request_of(TypeAdapter[Any](AnyStep).validate_python(named)) == count


# -- the limit is in force --------------------------------------------------------------------------


@pytest.mark.parametrize("off", [-4096, 0, 4096])
def test_a_limit_may_be_kept_in_pages(off: int) -> None:
    begin = imposed().watching(reading=gauge(0, limit=MIB + off))
    assert texts(begin, FULL, FREED) == []


@pytest.mark.parametrize("off", [-4097, 4097])
def test_a_limit_that_is_more_than_a_page_off_is_another(off: int) -> None:
    begin = imposed().watching(reading=gauge(0, limit=MIB + off))
    wrong = f"arm main: the limit in force is {MIB + off} bytes, and 1048576 was asked for"
    assert texts(begin, FULL, FREED) == [wrong]


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_a_limit_of_inodes_is_kept_as_it_was_asked_for(off: int) -> None:
    quota = InodeQuota(kind="inode_quota", layer="b", type="user", id=1, limit=8)
    begin = imposed().watching(reading=gauge(0, limit=8 + off))
    wrong = f"arm main: the limit in force is {8 + off} inodes, and 8 was asked for"
    assert texts(begin, at(fill(), 0), FREED, shortage=quota) == ([wrong] if off else [])


def test_where_no_limit_was_asked_for_in_bytes_any_is_right() -> None:
    assert texts(BEGIN, FULL, FREED, shortage=Hog(kind="hog", layer="b", leave=0)) == []


def test_a_gauge_without_a_limit_shows_that_none_is_in_force() -> None:
    none = "arm main: impose put no limit in force: the gauge shows none"
    assert texts(at(imposed(), None), FULL, FREED) == [none]


def test_of_no_shortage_nothing_has_to_be_shown() -> None:
    assert texts(at(imposed(), None), FULL, shortage=NoShortage(kind="none")) == []


def test_what_the_rig_could_not_impose_is_told_elsewhere() -> None:
    failed = at(imposed(), None)
    assert texts(replace(failed, seen={"problem": "no quota"})) == []


# -- the shortage was met ---------------------------------------------------------------------------

PROBE = read("probe", "..")
LARGER = write("larger", Role.PROVOKE, (0, 2), [], generation=3)
LARGER = replace(LARGER, step=LARGER.step.model_copy(update={"request": 65536}))

ARRIVED: dict[str, tuple[Act, ...]] = {
    "less is left than one request asks for": (BEGIN, at(fill(), 8192)),
    "a later look shows it: what was kept back is written at unmount": (
        BEGIN,
        at(fill(), MIB),
        at(PROBE, 8192),
    ),
    "the largest request that provokes counts": (BEGIN, at(fill(), MIB), at(LARGER, 65536)),
    "a limit was hit, whatever is left": (at(imposed(), MIB, 0), at(fill(), MIB, 1)),
    "a limit was hit once more": (at(imposed(), MIB, 3), at(fill(), MIB, 4)),
    "a limit was hit, which was not counted before": (BEGIN, at(fill(), MIB, 1)),
    "nothing provokes, and less is left than a block": (BEGIN, at(PROBE, 4096)),
}


@pytest.mark.parametrize("name", ARRIVED)
def test_the_shortage_has_arrived_where(name: str) -> None:
    assert texts(*ARRIVED[name], FREED) == []


NOT_ARRIVED: dict[str, tuple[tuple[Act, ...], str]] = {
    "a byte more is left than one request asks for, whatever who looks on asks for": (
        (BEGIN, at(fill(), 8193), at(PROBE, 9000)),
        "8193 bytes were left at least",
    ),
    "it was short only before anything provoked it": (
        (BEGIN, at(PROBE, 100), at(fill(), 9000)),
        "100 bytes were left at least",
    ),
    "no limit was hit": ((at(imposed(), MIB, 0), at(fill(), MIB, 0)), "1048576 bytes"),
    "a limit was hit before, and not again": (
        (at(imposed(), MIB, 3), at(fill(), MIB, 3)),
        "1048576 bytes were left at least",
    ),
    "a count that was not there before shows no hit": (
        (BEGIN, at(fill(), MIB, 0)),
        "1048576 bytes were left at least",
    ),
    "nothing provokes, and a byte more than a block is left": (
        (BEGIN, at(PROBE, 4097)),
        "4097 bytes were left at least",
    ),
    "no reading shows a limit": ((BEGIN, at(fill(), None)), "nothing was read"),
    "a reading without a limit leaves the others": (
        (BEGIN, at(fill(), 9000), at(PROBE, None)),
        "9000 bytes were left at least",
    ),
    "nothing was done": ((BEGIN,), "nothing was read"),
}


@pytest.mark.parametrize(
    ("left", "told"), [(0, []), (1, ["1 inodes were left at least"])], ids=["none", "one"]
)
def test_of_inodes_none_may_be_left(left: int, told: list[str]) -> None:
    few = Inodes(kind="inodes", layer="b")
    found = texts(BEGIN, at(fill(), left), FREED, shortage=few)
    assert [text.split(": ")[-1].split(",")[0] for text in found] == told


@pytest.mark.parametrize("name", NOT_ARRIVED)
def test_the_shortage_has_not_arrived_where(name: str) -> None:
    acts, read_at_most = NOT_ARRIVED[name]
    (text,) = texts(*acts, FREED)
    assert text.startswith(f"arm main: the shortage was not shown to have arrived: {read_at_most}")
    assert text.endswith(f", {REFUSED}")


@pytest.mark.parametrize(("left", "arrived"), [(73728, True), (73729, False)])
def test_a_filesystem_s_reserve_counts_beside_the_request(left: int, *, arrived: bool) -> None:
    """A hog's gauge may show 64 KiB as left although a request of 8 KiB is refused."""
    found = texts(BEGIN, at(fill(), left), FREED, shortage=Hog(kind="hog", layer="b", leave=0))
    assert (found == []) is arrived


# -- how much an arrival that is not shown weighs ---------------------------------------------------

AFTER = at(read("read_relieved", ".."), None)


@pytest.mark.parametrize(
    ("acts", "taken", "fatal"),
    [
        pytest.param((BEGIN, at(fill(), MIB), FREED, AFTER), 4, True, id="the run went to its end"),
        pytest.param((BEGIN, at(fill(), MIB), FREED, AFTER), 3, True, id="cut short after relief"),
        pytest.param(
            (BEGIN, at(fill(), MIB), FREED, AFTER), 2, False, id="cut short before relief"
        ),
        pytest.param((BEGIN, at(fill(), MIB)), 2, True, id="relief was never planned"),
    ],
)
def test_a_run_that_was_cut_short_may_not_have_come_to_it(
    acts: tuple[Act, ...], taken: int, *, fatal: bool
) -> None:
    (reason,) = reasons(*acts, taken=taken)
    assert reason.fatal is fatal


# -- relief is relief -------------------------------------------------------------------------------


def again(name: str = "again", role: Role = Role.RECOVER) -> Act:
    return fill(name, role)


ENOUGH: dict[str, tuple[Act, ...]] = {
    "the limit is gone": (BEGIN, FULL, FREED),
    "a byte more is left than before": (BEGIN, FULL, at(PROBE, 4096), at(relieved(), 4097)),
    "nothing was known to be left before": (BEGIN, FULL, at(PROBE, None), at(relieved(), 4096)),
    "a byte more is left than the next request asks for": (
        BEGIN,
        FULL,
        at(relieved(), MIB),
        at(again(), 8193),
    ),
    "no limit is in force after the next write": (
        BEGIN,
        FULL,
        at(relieved(), MIB),
        at(again(), None),
    ),
    "only who looks on finds little left": (
        BEGIN,
        FULL,
        at(relieved(), MIB),
        at(read("read_relieved", ".."), 0),
    ),
    "little is left in the next shortage": (
        BEGIN,
        FULL,
        at(relieved(), MIB),
        at(replace(imposed(), step=imposed().step.model_copy(update={"name": "once_more"})), MIB),
        at(fill("more"), 0),
        at(again(), 0),
    ),
}


@pytest.mark.parametrize("name", ENOUGH)
def test_it_is_relief_where(name: str) -> None:
    assert texts(*ENOUGH[name]) == []


TOO_LITTLE: dict[str, tuple[tuple[Act, ...], str]] = {
    "as much is left as at the last look": (
        (
            BEGIN,
            FULL,
            at(PROBE, 5000),
            at(ran("sync", Role.OBSERVE, ["sync"]), 3000),
            at(read("look", ".."), 4000),
            at(relieved(), 4000),
        ),
        "relieve relieved nothing: 4000 bytes were left, and then 4000",
    ),
    "less is left than before": (
        (BEGIN, at(fill(), 4096), at(relieved(), 100)),
        "relieve relieved nothing: 4096 bytes were left, and then 100",
    ),
    "the next request cannot be served for certain": (
        (BEGIN, FULL, at(relieved(), MIB), at(again(), 8192)),
        "relieve relieved too little: 8192 bytes were left after again",
    ),
    "the second write after it finds too little, which alone is told of": (
        (
            BEGIN,
            FULL,
            at(relieved(), MIB),
            at(again("first"), 9000),
            at(again("second"), 200),
            at(again("third"), 100),
        ),
        "relieve relieved too little: 200 bytes were left after second",
    ),
}


@pytest.mark.parametrize("name", TOO_LITTLE)
def test_it_is_no_relief_where(name: str) -> None:
    acts, text = TOO_LITTLE[name]
    assert texts(*acts) == [f"arm main: {text}"]


def test_where_nothing_was_done_relief_is_measured_by_the_step_that_imposed() -> None:
    assert texts(at(imposed(), 4096), at(relieved(), 4096)) == [
        f"arm main: the shortage was not shown to have arrived: nothing was read, {REFUSED}",
        "arm main: relieve relieved nothing: 4096 bytes were left, and then 4096",
    ]
