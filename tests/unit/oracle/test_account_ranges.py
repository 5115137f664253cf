"""What the ledger makes of zeroing, discards, truncation and commands: block by block.

The expectations are those of the norm: "Acknowledged means", and fallocate(2), of whose words ``before``
keeps which blocks have space for certain.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

import pytest

from conformance.model import Op, RangeKind, Role, Run, Truncate
from conformance.oracle.account import Account, Ack, Found, written_by
from tests.support.accounts import account_of, alien, call, line, on, ranged
from tests.support.builders import EIO, ENOSPC, Act, closed, ran, read, synced, write, wrote

DISCARD, ZEROOUT, PUNCH = RangeKind.DISCARD, RangeKind.ZEROOUT, RangeKind.PUNCH_HOLE
ALLOCATE = RangeKind.ALLOCATE
ALL = (0, 1 << 62)
"""All of a device, however large: 4 EiB."""


def old(first: int = 0, last: int = 8, *, generation: int = 2, name: str = "old") -> Act:
    """Blocks that are written and acknowledged."""
    ops = [wrote(first, last - first), synced()]
    return write(name, Role.SETUP, (first, last), ops, generation=generation)


def new() -> Act:
    """A write to see the state of affairs by: block 15."""
    return old(15, 16, generation=3, name="new")


def truncated(blocks: int, target: str = "image", *, more: int = 0) -> Act:
    size = blocks * 4096 + more
    step = Truncate(name="cut", role=Role.PROVOKE, verb="truncate", target=target, size=size)
    return Act(step=step)


# -- zeroes ---------------------------------------------------------------------------------------

ZEROING = {
    RangeKind.ZEROOUT: "BLKZEROOUT and fsync()",
    RangeKind.ZERO_RANGE: "fallocate(ZERO_RANGE) and fsync()",
    RangeKind.PUNCH_HOLE: "fallocate(PUNCH_HOLE) and fsync()",
    RangeKind.WRITE_ZEROES: "fallocate(WRITE_ZEROES) and fsync()",
}


@pytest.mark.parametrize("kind", ZEROING)
def test_what_was_zeroed_and_synced_holds_zeros(kind: RangeKind) -> None:
    account = account_of(old(0, 1), ranged(kind, (0, 1)), read("look", "."), read("again", "2"))
    ack = Ack(order=2, generation=-1, step=1, by=ZEROING[kind], told=False)
    assert account.found == (
        Found(verify=2, block=0, ack=ack, kind=None),
        Found(verify=3, block=0, ack=ack, kind="older"),
    )


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"exit_code": 0}, False),
        ({"exit_code": 1}, False),
        ({"signal": 9}, True),
        ({"timed_out": True, "exit_code": 0}, True),
    ],
)
def test_who_was_ended_after_zeroing_did_not_live_to_be_told(
    how: dict[str, Any], told: bool
) -> None:
    act = ranged(ZEROOUT, (0, 2), **how)
    assert [one.ack.told for one in account_of(act, read("look", "..")).found] == [told, told]


UNTOLD = ("z++z", "++++")
"""Either is right: what was zeroed may be stored, and need not."""
OPEN = ("z--z", "+--+")
AS_IT_WAS = ("zzzz", "++++")
LEFT: dict[str, tuple[list[Op], tuple[str, str]]] = {
    "zeroed and synced": ([call(ZEROOUT, 1, 2), synced()], ("z++z", "+oo+")),
    "zeroed and closed": ([call(ZEROOUT, 1, 2), closed()], UNTOLD),
    "synced before": ([synced(), call(ZEROOUT, 1, 2)], UNTOLD),
    "zeroed, and not synced": ([call(ZEROOUT, 1, 2), synced(EIO)], UNTOLD),
    "a success after a sync that failed proves nothing": (
        [call(ZEROOUT, 1, 2), synced(EIO), synced()],
        UNTOLD,
    ),
    "refused": ([call(ZEROOUT, 1, 2, ENOSPC), synced()], OPEN),
    "not permitted": ([call(ZEROOUT, 1, 2, -1), synced()], OPEN),
    "not known": ([call(PUNCH, 1, 2, -errno.EOPNOTSUPP), synced()], AS_IT_WAS),
    "discarded": ([call(DISCARD, 1, 2), synced()], OPEN),
    "reset": ([call(RangeKind.ZONE_RESET, 1, 2), synced()], OPEN),
    "allocated": ([call(ALLOCATE, 1, 2), synced()], AS_IT_WAS),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_a_call_on_a_range_leaves(name: str) -> None:
    """Where there are zeros afterwards, and where there is what was there before."""
    ops, wanted = LEFT[name]
    kind = next(RangeKind(op.kind) for op in ops if op.placed)
    acts = old(0, 4), ranged(kind, (1, 3), ops)
    found = [line(account_of(*acts, read("look", content))) for content in ("....", "2222")]
    assert tuple(found) == wanted


@pytest.mark.parametrize(
    ("ops", "left"),
    [
        ([], "++++----+"),
        ([call(ZEROOUT, 4, 2), call(ZEROOUT, 6, 1)], "+++++++-+"),
        ([call(ZEROOUT, 4, 4)], "+++++++++"),
    ],
)
def test_of_a_call_that_was_in_flight_the_rest_of_the_range_is_open(
    ops: Sequence[Op], left: str
) -> None:
    acts = old(0, 9), ranged(ZEROOUT, (4, 8), ops, signal=9)
    assert line(account_of(*acts, read("look", "2" * 9))) == left


def test_who_ended_by_itself_had_no_call_in_flight() -> None:
    acts = old(0, 9), ranged(ZEROOUT, (4, 8), [], exit_code=1)
    assert line(account_of(*acts, read("look", "2" * 9))) == "+++++++++"


def test_a_range_without_a_submitter_was_left_alone() -> None:
    acts = old(0, 2), Act(step=ranged(ZEROOUT, (0, 2)).step)
    assert line(account_of(*acts, read("look", "22"))) == "++"


# -- what was cut off, and what commands wrote ----------------------------------------------------


@pytest.mark.parametrize(
    ("act", "left"),
    [
        (truncated(4), "++++----"),
        (truncated(4, more=1), "++++----"),
        (truncated(3, more=4095), "+++-----"),
        (truncated(4, "other"), "++++++++"),
        (ran("dd", Role.SETUP, ["dd", "of={device}", "bs=4096", "seek=3", "count=2"]), "+++--+++"),
        (ran("dd", Role.SETUP, ["dd", "of={device}", "bs=512", "seek=31", "count=2"]), "+++--+++"),
        (ran("dd", Role.SETUP, ["dd", "of={device}", "bs=4096", "count=0"]), "++++++++"),
        (ran("dd", Role.SETUP, ["dd", "of={other}", "bs=4096", "count=2"]), "++++++++"),
        (ran("mkfs", Role.SETUP, ["mkfs", "{device}"]), ""),
        (ran("true", Role.SETUP, ["true"]), "++++++++"),
    ],
)
def test_what_was_cut_off_or_overwritten_is_open(act: Act, left: str) -> None:
    account = account_of(old(), act, read("look", "2" * 8))
    assert (line(account), alien(account)) == (left.rstrip("-"), [])


@pytest.mark.parametrize(
    ("content", "foreign"), [("..????..", [2, 5]), ("..2222..", [2, 5]), ("........", [])]
)
def test_beside_what_a_command_wrote_data_is_alien(content: str, foreign: list[int]) -> None:
    dd = ran("dd", Role.SETUP, ["dd", "of={device}", "bs=4096", "seek=3", "count=2"])
    assert alien(account_of(dd, read("look", content))) == foreign


def test_what_a_command_wrote_stays_until_a_write_over_it_is_acknowledged() -> None:
    dd = ran("dd", Role.SETUP, ["dd", "of={device}", "bs=4096", "count=3"])
    ops = [wrote(0, 1), synced(), wrote(1, 1)]
    over = write("over", Role.REUSE, (0, 3), ops, generation=2)
    account = account_of(dd, over, read("look", "???"))
    assert (line(account), alien(account)) == ("f", [0])


def test_what_a_command_wrote_over_an_acknowledged_block_is_open_again() -> None:
    dd = ran("dd", Role.SETUP, ["dd", "of={device}", "bs=4096", "count=1"])
    assert alien(account_of(dd, old(0, 2), dd, read("look", "??"))) == [1]


@pytest.mark.parametrize(
    ("act", "place"),
    [
        (ran("true", Role.SETUP, ["true"]), 1),
        (ran("mkfs", Role.SETUP, ["mkfs", "{device}"]), 2),
        (truncated(4), 2),
        (ranged(ZEROOUT, (0, 2)), 2),
        (ranged(ALLOCATE, (0, 2)), 2),
        (ranged(DISCARD, (0, 2)), 2),
        (ranged(PUNCH, (0, 2), [call(PUNCH, 0, 2, -errno.EOPNOTSUPP)]), 1),
        (ranged(ZEROOUT, (0, 2), [call(ZEROOUT, 0, 1), call(ZEROOUT, 1, 1, ENOSPC)]), 3),
        (ranged(ZEROOUT, (0, 2), signal=9), 3),
    ],
)
def test_what_changes_the_layer_has_a_place_in_the_order(act: Act, place: int) -> None:
    found = account_of(act, new(), read("look", "3", first=15)).found
    assert [one.ack.order for one in found] == [place]


# -- what has space -------------------------------------------------------------------------------


def before(*acts: Act) -> list[int]:
    """The blocks of which it is certain before the next write that they have space."""
    account: Account = account_of(*acts, new())
    return sorted(account.before[len(acts)])


SPACE: dict[str, tuple[list[Act], list[int]]] = {
    "nothing at first": ([], []),
    "what was acknowledged": ([old(2, 4)], [2, 3]),
    "not what was not": ([write("w", Role.SETUP, (2, 4), [wrote(2, 2)], generation=2)], []),
    "what was found written": ([read("look", "..2?!1")], [2, 5]),
    "not where zeros were found": ([old(0, 5), read("look", ".2.")], [1, 3, 4]),
    "what fallocate promised": ([old(0, 2), ranged(ALLOCATE, (4, 6))], [0, 1, 4, 5]),
    "what ZERO_RANGE promised": ([ranged(RangeKind.ZERO_RANGE, (4, 6))], [4, 5]),
    "what WRITE_ZEROES promised": ([ranged(RangeKind.WRITE_ZEROES, (4, 6))], [4, 5]),
    "not what was zeroed": ([ranged(ZEROOUT, (4, 6))], []),
    "still what was zeroed": ([old(4, 6), ranged(ZEROOUT, (4, 6))], [4, 5]),
    "not what fallocate was refused": (
        [ranged(ALLOCATE, (4, 6), [call(ALLOCATE, 4, 2, ENOSPC)])],
        [],
    ),
    "not a hole": (
        [old(0, 4), ranged(ALLOCATE, (4, 8)), ranged(PUNCH, (3, 5))],
        [0, 1, 2, 5, 6, 7],
    ),
    "not what was discarded": (
        [old(0, 4), ranged(ALLOCATE, (4, 8)), ranged(DISCARD, (3, 5))],
        [0, 1, 2, 5, 6, 7],
    ),
    "not what was reset": ([old(0, 4), ranged(RangeKind.ZONE_RESET, (1, 3))], [0, 3]),
    "not what was cut off": ([old(0, 4), truncated(2)], [0, 1]),
    "still the block in which a file was cut": ([old(0, 4), truncated(2, more=1)], [0, 1, 2]),
    "still what a command wrote over": (
        [old(0, 2), ran("m", Role.SETUP, ["m", "{device}"])],
        [0, 1],
    ),
}


@pytest.mark.parametrize("name", SPACE)
def test_what_has_space_for_certain(name: str) -> None:
    acts, blocks = SPACE[name]
    assert before(*acts) == blocks


def test_what_has_space_is_known_before_each_step_that_needs_it() -> None:
    acts = (
        old(0, 2),
        ranged(ALLOCATE, (4, 6)),
        ranged(ZEROOUT, (0, 2), []),
        Act(step=new().step),
        Act(step=ranged(ZEROOUT, (0, 2)).step),
    )
    held = {0, 1, 4, 5}
    assert account_of(*acts).before == {0: set(), 1: {0, 1}, 2: held, 3: held, 4: held}


def test_of_another_layer_s_ranges_nothing_is_kept() -> None:
    account = account_of(old(0, 2), on("other", ranged(PUNCH, (0, 2))), read("look", ".2"))
    assert (line(account), account.before) == ("z+", {0: frozenset()})


# -- what a command writes ------------------------------------------------------------------------

WRITES: dict[str, tuple[str, tuple[tuple[int, int], ...]]] = {
    "a command that names the layer": ("mkfs -t ext4 {device}", (ALL,)),
    "a command that names it within a word": ("fio --filename={device} --rw=write", (ALL,)),
    "a command that names another": ("mkfs {other}", ()),
    "a command that names none": ("true", ()),
    "dd that reads it": ("dd if={device} of=/dev/null", ()),
    "dd with a block size": ("dd of={device} bs=4K seek=2 count=3", ((8192, 20480),)),
    "dd by its path": ("/usr/bin/dd of={device} bs=1M count=2 conv=fsync sync", ((0, 2 << 20),)),
    "dd of blocks without a size": ("dd of={device} seek=2 count=3", ((1024, ALL[1]),)),
    "dd with a size of output blocks": (
        "dd of={device} obs=4096 seek=2 count=3",
        ((8192, ALL[1]),),
    ),
    "dd whose bs= goes before obs=": (
        "dd of={device} bs=1024 obs=4096 seek=2 count=1",
        ((2048, 3072),),
    ),
    "dd to the end": ("dd of={device} bs=4096 seek=1", ((4096, ALL[1]),)),
    "dd of no block": ("dd of={device} bs=4096 seek=1 count=0", ()),
    "dd with a count that is none": ("dd of={device} bs=4096 count=many", (ALL,)),
    "dd with a size that is none": ("dd of={device} bs=64kB count=1", (ALL,)),
}


@pytest.mark.parametrize("name", WRITES)
def test_where_a_command_may_write(name: str) -> None:
    words, ranges = WRITES[name]
    step = ran("run", Role.SETUP, words.split()).step
    assert isinstance(step, Run)
    assert written_by(step, "device") == ranges
