"""What a verification says of the blocks of a layer: of those that were written, and of all others."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from conformance.model import (
    BLOCK,
    AnyLayer,
    Bystander,
    BystanderIo,
    Extent,
    FsLayer,
    LoopLayer,
    RangeKind,
    Role,
    Snapshot,
    Verify,
    Write,
)
from conformance.model.layers.snapshot import DmSnapshotLayer, SnapshotOriginLayer
from conformance.oracle import account
from conformance.oracle.account import Account, Ack, Alien, Found, accounts
from tests.support.accounts import (
    LAYERS,
    USED_DISK,
    account_of,
    alien,
    called,
    line,
    on,
    ranged,
    scene_of,
)
from tests.support.builders import Act, ran, read, synced, write, wrote


def acked(first: int, last: int, *, generation: int = 2, name: str = "acked") -> Act:
    ops = [wrote(first, last - first), synced()]
    return write(name, Role.SETUP, (first, last), ops, generation=generation)


def unsynced(first: int, last: int, *, generation: int = 2) -> Act:
    ops = [wrote(first, last - first)]
    return write("unsynced", Role.SETUP, (first, last), ops, generation=generation)


def look(*extents: Extent) -> Act:
    step = Verify(name="look", role=Role.OBSERVE, verb="verify", length=64 * BLOCK)
    return Act(step=step, seen={"extents": extents})


# -- what an acknowledged block holds -------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said", "foreign"),
    [
        ("22", "++", []),
        ("..", "zz", []),
        ("12", "o+", []),
        ("92", "f+", [0]),
        ("?2", "f+", [0]),
        ("!2", "u+", []),
    ],
)
def test_what_a_block_holds_that_was_acknowledged_twice(
    content: str, said: str, foreign: list[int]
) -> None:
    acts = acked(0, 2, generation=1, name="first"), acked(0, 2), read("look", content)
    found = account_of(*acts)
    assert (line(found), alien(found)) == (said, foreign)


def test_what_a_failed_read_says_is_kept() -> None:
    first = Ack(order=1, generation=2, step=0, by="write() and fsync()", told=False)
    assert account_of(acked(0, 1), read("look", "!")).found == (
        Found(verify=1, block=0, ack=first, kind="unreadable", errno=errno.EIO),
    )


def test_an_alien_block_says_what_it_holds() -> None:
    assert account_of(acked(0, 1), read("look", "2?7")).alien == (
        Alien(verify=1, block=1, content="foreign", generation=None),
        Alien(verify=1, block=2, content="generation", generation=7),
    )


def test_a_generation_that_was_not_told_is_nobody_s() -> None:
    bare = look(Extent(0, 2 * BLOCK, "generation", None, None))
    found = account_of(acked(0, 1), unsynced(1, 2), bare)
    assert (line(found), alien(found), found.stored) == ("f", [0, 1], {0: 0, 1: 0})


@pytest.mark.parametrize(
    ("extent", "foreign"),
    [
        (Extent(0, BLOCK, "foreign", None, None), [0]),
        (Extent(512, 2 * BLOCK, "foreign", None, None), [1]),
        (Extent(BLOCK, 2 * BLOCK - 1, "foreign", None, None), [1]),
        (Extent(1, BLOCK, "foreign", None, None), []),
        (Extent(1, 2 * BLOCK - 2, "foreign", None, None), []),
    ],
)
def test_whole_blocks_of_an_extent_are_judged(extent: Extent, foreign: list[int]) -> None:
    assert alien(account_of(look(extent))) == foreign


def test_of_zeros_those_blocks_are_judged_that_were_acknowledged() -> None:
    acts = acked(9, 10, name="far"), acked(2, 4), look(Extent(0, 9 * BLOCK, "zero", None, None))
    assert [one.block for one in account_of(*acts).found] == [2, 3]


# -- what nobody acknowledged ---------------------------------------------------------------------


def test_of_a_device_that_held_anything_at_first_what_nobody_wrote_is_not_judged() -> None:
    acts = unsynced(1, 2), acked(2, 3, name="other"), read("look", "???7")
    assert alien(account_of(*acts, layers=USED_DISK)) == [2]
    assert alien(account_of(*acts)) == [0, 1, 2, 3]


def test_a_generation_that_was_never_written_to_a_block_is_alien_on_any_device() -> None:
    found = account_of(unsynced(0, 2), read("look", "27"), layers=USED_DISK)
    assert alien(found) == [1]


def test_what_was_written_and_not_acknowledged_may_be_there() -> None:
    found = account_of(unsynced(0, 3), read("look", "2.!"))
    assert (found.found, found.alien) == ((), ())


# -- what is not judged ---------------------------------------------------------------------------


def bystander(target: str = "device") -> Bystander:
    io = BystanderIo(target=target, offset=BLOCK, length=2 * BLOCK)
    return Bystander(name="busy", io=io)


@pytest.mark.parametrize(
    ("who", "foreign", "said"),
    [
        (bystander(), [0, 3], "f--f"),
        (bystander("other"), [0, 1, 2, 3], "ffff"),
        (Bystander(name="idle"), [0, 1, 2, 3], "ffff"),
    ],
)
def test_where_a_bystander_writes_nothing_is_judged(
    who: Bystander, foreign: list[int], said: str
) -> None:
    found = account_of(acked(0, 4), read("look", "????"), bystanders=[who])
    assert (alien(found), line(found)) == (foreign, said)


@pytest.mark.parametrize(("below", "foreign"), [("device", []), ("second", [0, 2])])
def test_below_a_filesystem_nothing_is_judged(below: str, foreign: list[int]) -> None:
    layers: Sequence[AnyLayer] = (
        *LAYERS,
        LoopLayer(name="second", layer="loop", on="other"),
        FsLayer(name="fs", layer="fs", on=below, type="ext4"),
    )
    assert alien(account_of(acked(1, 2), read("look", "?2?"), layers=layers)) == foreign


# -- several layers -------------------------------------------------------------------------------


def test_each_layer_that_was_written_or_read_has_an_account() -> None:
    acts = (
        on("a", acked(0, 1)),
        on("b", called("open a; write a", [0, 0])),
        on("c", ranged(RangeKind.DISCARD, (0, 1))),
        on("d", read("look", ".")),
        on("a", read("again", "2")),
        ran("run", Role.SETUP, ["true"]),
    )
    assert [one.target for one in accounts(scene_of(*acts))] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "elsewhere",
    [
        acked(0, 2, generation=3, name="elsewhere"),
        called("open a; write a; fsync a", [0, 2 * BLOCK, 0], generation=3),
        ranged(RangeKind.ZEROOUT, (0, 2)),
        read("elsewhere", "9?"),
    ],
)
def test_what_is_done_on_another_layer_is_not_this_one_s(elsewhere: Act) -> None:
    acts = acked(0, 2), on("other", elsewhere), read("look", "22")
    assert account_of(*acts) == account_of(acts[0], ran("true", Role.SETUP, ["true"]), acts[2])


# -- snapshots ------------------------------------------------------------------------------------

SNAPSHOTS: Sequence[AnyLayer] = (
    *LAYERS,
    SnapshotOriginLayer(name="origin", layer="snapshot_origin", on="device", size=16 * BLOCK),
    DmSnapshotLayer(name="snapshot", layer="dm_snapshot", on="origin", cow=16 * BLOCK),
    DmSnapshotLayer(name="second", layer="dm_snapshot", on="origin", cow=16 * BLOCK),
)


def snapshot(*acts: Act, of: str = "snapshot") -> Account:
    return account_of(*acts, target=of, layers=SNAPSHOTS)


def taken(target: str = "snapshot") -> Act:
    return Act(step=Snapshot(name="take", verb="snapshot", target=target))


def origin(first: int, last: int, generation: int) -> Act:
    return on("origin", acked(first, last, generation=generation, name=f"at_{generation}"))


def test_a_snapshot_holds_what_its_origin_held_when_it_was_taken() -> None:
    acts = origin(0, 3, 2), taken(), origin(0, 2, 3), on("snapshot", read("look", "2322"))
    found = snapshot(*acts)
    assert (line(found), alien(found)) == ("+f+", [1, 3])


def test_a_snapshot_that_is_taken_anew_holds_what_its_origin_holds_by_then() -> None:
    acts = origin(0, 2, 2), taken(), origin(0, 2, 3), taken(), on("snapshot", read("look", "23"))
    assert line(snapshot(*acts)) == "o+"


def test_another_snapshot_does_not_change_this_one() -> None:
    acts = origin(0, 2, 2), taken(), origin(0, 2, 3), taken("second")
    assert line(snapshot(*acts, on("snapshot", read("look", "22")))) == "++"
    assert line(snapshot(*acts, on("second", read("look", "33")), of="second")) == "++"


def test_what_was_written_to_a_snapshot_is_gone_when_it_is_taken_anew() -> None:
    mine = on("snapshot", acked(0, 1, generation=3))
    acts = origin(0, 1, 2), taken(), mine, taken(), on("snapshot", read("look", "2"))
    assert line(snapshot(*acts)) == "+"


def test_a_snapshot_has_no_space_of_its_own_when_it_is_taken_anew() -> None:
    promised = on("snapshot", ranged(RangeKind.ALLOCATE, (4, 6)))
    mine, again = (on("snapshot", acked(0, 1, name=name)) for name in ("mine", "again"))
    assert snapshot(taken(), promised, mine, again).before[3] == {0, 4, 5}
    assert snapshot(taken(), promised, mine, taken(), again).before[4] == set()


# -- what was stored ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "stored"), [("..2222", 16384), ("222.2222", 12288), ("..1.", 0), ("", 0)]
)
def test_what_was_stored_of_a_step_is_what_is_found_in_its_region(
    content: str, stored: int
) -> None:
    for step in acked(2, 6), called("open a; write a", [0, 4 * BLOCK], blocks=(2, 6)):
        assert account_of(step, read("look", content)).stored == {0: stored}


def test_the_first_verification_after_a_step_says_what_was_stored() -> None:
    acts = acked(0, 2), read("look", "2."), acked(2, 4, generation=3), read("again", "2233")
    assert account_of(*acts).stored == {0: 4096, 2: 8192}


def test_what_nobody_read_was_not_found_stored() -> None:
    assert account_of(read("look", ".."), acked(0, 2)).stored == {}


def test_of_a_region_that_ends_within_a_block_that_block_counts() -> None:
    whole = acked(2, 4)
    step = whole.step.model_copy(update={"offset": 2 * BLOCK + 512, "length": BLOCK})
    assert isinstance(step, Write)
    assert account_of(Act(step=step, seen=whole.seen), read("look", "2222")).stored == {0: 8192}


# -- values ---------------------------------------------------------------------------------------

VALUES: dict[str, dict[str, Any]] = {
    "Ack": {"order": 1, "generation": 2, "step": 0, "by": "fsync()", "told": False},
    "Found": {"verify": 1, "block": 0, "ack": None, "kind": None, "errno": None},
    "Alien": {"verify": 1, "block": 0, "content": "foreign", "generation": None},
    "Account": {"target": "device", "found": (), "alien": (), "stored": {}, "before": {}},
}


@pytest.mark.parametrize("name", VALUES)
def test_what_is_found_is_a_value(name: str) -> None:
    """Made by keyword, equal to what is like it, and never changed; and small, as there are many."""
    cls, fields = getattr(account, name), VALUES[name]
    one = cls(**fields)
    assert one == cls(**fields)
    with pytest.raises(FrozenInstanceError):
        setattr(one, next(iter(fields)), 7)
    with pytest.raises(TypeError):
        cls(*fields.values())
    assert not hasattr(one, "__dict__")


def test_a_block_s_account_is_small() -> None:
    assert not hasattr(account._Block(unspecified=0), "__dict__")
