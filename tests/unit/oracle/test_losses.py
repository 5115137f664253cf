"""What is lost for good, what only while the shortage lasted, and what nobody was told of.

``fill`` writes blocks while there is no space, and fsync says that they are stored. What each verification
then finds is a line with one character for each block (tests/support/builders.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from conformance.model import (
    AnyLayer,
    Ended,
    Op,
    RangeKind,
    RangeOp,
    Role,
    Snapshot,
    Submitter,
    Variant,
)
from conformance.model.layers.snapshot import DmSnapshotLayer, SnapshotOriginLayer
from conformance.oracle.account import accounts
from conformance.oracle.losses import Loss, block_ranges, losses, unsurfaced
from conformance.oracle.scene import Scene, scenes
from tests.support.builders import (
    EIO,
    PID,
    Act,
    Story,
    imposed,
    read,
    relieved,
    stored,
    synced,
    write,
)

BEFORE, AFTER = "before", "after"
ELSEWHERE = read("elsewhere", "..", first=12)


def scene_of(*acts: Act, taken: int | None = None, story: type[Story] = Story) -> Scene:
    """A run of these acts, of which so many were taken."""
    told = story(acts=acts)
    (scene,) = scenes(told.variant, told.observation)
    return replace(scene, taken=scene.taken[:taken])


def filled(
    during: Sequence[str], after: Sequence[str] = (), ops: Sequence[Op] = (*stored(0, 6), synced())
) -> tuple[Act, ...]:
    """Six blocks are written, and read so often while there is no space, and after relief."""
    return (
        imposed(),
        write("fill", Role.PROVOKE, (0, 6), ops, generation=2),
        *(read(f"short_{number}", content) for number, content in enumerate(during)),
        relieved(),
        *(read(f"after_{number}", content) for number, content in enumerate(after)),
    )


def told(scene: Scene) -> list[tuple[str, bool, str, tuple[tuple[int, int], ...]]]:
    """Of each loss: how it reads, whether for good, the first step that found it, and its bytes."""
    return [
        (loss.kind, loss.lasting, scene.taken[loss.verify].name, loss.ranges)
        for account in accounts(scene)
        for loss in losses(scene, account)
    ]


@pytest.mark.parametrize(
    ("blocks", "ranges"),
    [
        ((), ()),
        ((2,), ((8192, 12288),)),
        ((3, 0, 1, 1), ((0, 8192), (12288, 16384))),
        ((0, 1, 2), ((0, 12288),)),
    ],
)
def test_blocks_that_touch_are_one_range(
    blocks: tuple[int, ...], ranges: tuple[tuple[int, int], ...]
) -> None:
    assert block_ranges(blocks) == ranges


# -- one block, and all that was read of it ---------------------------------------------------------

READ_AFTER: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, bool, str] | None]] = {
    "always there": (("2", "2"), ("2", "2"), None),
    "gone while it was short": ((".", "!"), ("2",), ("zeros", False, "short_0")),
    "gone after relief": (("2",), (".",), ("zeros", True, "after_0")),
    "gone after relief, and then there": (("2",), (".", "2"), ("zeros", True, "after_0")),
    "otherwise wrong before and later": (
        ("!",),
        (".", "?"),
        ("zeros", True, "short_0"),
    ),
    "wrong twice while it was short": (("?", "."), ("2",), ("foreign", False, "short_0")),
}
"""What was read before relief and after it; then how it is lost, whether for good, and who found it."""


@pytest.mark.parametrize("name", READ_AFTER)
def test_what_reads_wrong_after_relief_is_lost_for_good(name: str) -> None:
    during, after, lost = READ_AFTER[name]
    found = told(scene_of(*filled(during, after)))
    assert found == ([] if lost is None else [(*lost, ((0, 4096),))])


NOT_READ_AFTER: dict[str, tuple[tuple[str, ...], tuple[str, bool, str]]] = {
    "wrong content, which nothing brings back": ((".",), ("zeros", True, "short_0")),
    "wrong content after it could not be read": (("!", ".", "?"), ("zeros", True, "short_1")),
    "what could not be read may be there": (("!", "!"), ("unreadable", False, "short_0")),
}


@pytest.mark.parametrize("name", NOT_READ_AFTER)
def test_where_relief_is_looked_at_elsewhere(name: str) -> None:
    during, lost = NOT_READ_AFTER[name]
    assert told(scene_of(*filled(during), ELSEWHERE)) == [(*lost, ((0, 4096),))]


@pytest.mark.parametrize("name", NOT_READ_AFTER)
def test_what_was_cut_short_says_nothing_of_for_good(name: str) -> None:
    during, (kind, _, step) = NOT_READ_AFTER[name]
    acts = (*filled(during), ELSEWHERE)
    found = told(scene_of(*acts, taken=len(acts) - 1))
    assert found == [(kind, False, step, ((0, 4096),))]


@pytest.mark.parametrize(
    ("during", "lost"),
    [
        (("!", "!"), ("unreadable", True, "short_0")),
        (("!", ".", "?"), ("zeros", True, "short_1")),
        ((".",), ("zeros", True, "short_0")),
    ],
)
def test_where_nothing_is_read_after_relief_the_last_word_is_what_was_read_before(
    during: tuple[str, ...], lost: tuple[str, bool, str]
) -> None:
    assert told(scene_of(*filled(during))) == [(*lost, ((0, 4096),))]


# -- many blocks ------------------------------------------------------------------------------------


def test_blocks_that_are_lost_alike_are_one_loss() -> None:
    scene = scene_of(*filled([".2!2.2"], ["2..2.2"]))
    assert told(scene) == [
        ("zeros", False, "short_0", ((0, 4096),)),
        ("zeros", True, "short_0", ((8192, 12288), (16384, 20480))),
        ("zeros", True, "after_0", ((4096, 8192),)),
    ]
    found = losses(scene, accounts(scene)[0])
    assert [(loss.target, loss.kept) for loss in found] == [
        ("device", False),
        ("device", False),
        ("device", True),
    ]


def test_what_was_whole_between_two_losses_was_not_kept_before_the_first() -> None:
    scene = scene_of(*filled([".", "2"], ["."]))
    (loss,) = losses(scene, accounts(scene)[0])
    assert (loss.kind, loss.kept) == ("zeros", False)


def test_an_acknowledgement_is_judged_apart_from_the_one_before() -> None:
    """What is gone, and is then written again and stored, was lost once."""
    anew = write("anew", Role.OVERWRITE, (0, 2), [*stored(0, 2), synced()], generation=3)
    begin, relief = filled([".."])[:3], (relieved(), read("after", "33"))
    assert told(scene_of(*begin, anew, *relief)) == [("zeros", True, "short_0", ((0, 8192),))]


def test_a_loss_cannot_be_changed_nor_made_by_place() -> None:
    scene = scene_of(*filled(["."]))
    (loss,) = losses(scene, accounts(scene)[0])
    with pytest.raises(FrozenInstanceError):
        loss.lasting = False  # type: ignore[misc]
    with pytest.raises(TypeError):
        Loss("zeros", True, False, "device", 2, ())  # type: ignore[call-arg]
    assert not hasattr(loss, "__dict__")


# -- what nobody was told of ------------------------------------------------------------------------


def silent(scene: Scene) -> list[tuple[str, int, str | None]]:
    """The layer, the block, and how it read, of each block that was never stored, in silence."""
    return [
        (account.target, one.block, one.kind)
        for account in accounts(scene)
        for one in unsurfaced(scene, account)
    ]


def test_zeros_and_older_data_stand_where_a_write_was_never_stored() -> None:
    control = write("control", Role.CONTROL, (0, 2), [*stored(0, 2), synced()], generation=1)
    scene = scene_of(control, *filled(["112.?2"], ["112.?2"]))
    assert silent(scene) == [("device", 0, "older"), ("device", 1, "older"), ("device", 3, "zeros")]


@pytest.mark.parametrize(
    ("during", "after"),
    [
        pytest.param([".."], ["22"], id="it turned up again"),
        pytest.param(["22"], [".."], id="it was stored once"),
        pytest.param(["??"], [".."], id="others had written there"),
        pytest.param(["!!"], [".."], id="nothing was known of it at first"),
    ],
)
def test_what_was_not_found_wanting_at_first_and_for_good_was_stored(
    during: list[str], after: list[str]
) -> None:
    assert silent(scene_of(*filled(during, after))) == []


def test_who_was_told_of_an_error_later_was_told() -> None:
    ops = [*stored(0, 4), synced(), *stored(4, 6), synced(EIO)]
    assert silent(scene_of(*filled([".."], [".."], ops))) == []


def test_zeroes_that_were_told_and_not_written_are_never_stored() -> None:
    step = RangeOp(
        name="zero",
        role=Role.PROVOKE,
        verb="range_op",
        op=RangeKind.ZEROOUT,
        length=8192,
    )
    ops = (Op("zeroout", 0, 8192, 0, 0, 30, 35), Op("sync", 0, 0, 0, 0, 40, 45))
    submitter = Submitter(pid=PID, cgroup="", ops=ops, ended=Ended(exit_code=0))
    control = write("control", Role.CONTROL, (0, 2), [*stored(0, 2), synced()], generation=1)
    zeroed = Act(step=step, seen={"submitter": submitter})
    scene = scene_of(control, imposed(), zeroed, read("short", "1."))
    assert silent(scene) == [("device", 0, "older")]


# -- what a snapshot held of its origin -------------------------------------------------------------


class OnSnapshot(Story):
    """The builder's run, with an origin on the device, and a snapshot of it."""

    @property
    def variant(self) -> Variant:
        found = super().variant
        arm = found.arms[0]
        layers: tuple[AnyLayer, ...] = (
            *arm.layers,
            SnapshotOriginLayer(name="origin", layer="snapshot_origin", on="device", size=65536),
            DmSnapshotLayer(name="snapshot", layer="dm_snapshot", on="origin", cow=65536),
        )
        return found.model_copy(update={"arms": (arm.model_copy(update={"layers": layers}),)})


def on(target: str, act: Act) -> Act:
    step: Any = act.step
    return replace(act, step=step.model_copy(update={"target": target}))


def test_what_a_snapshot_lost_of_its_origin_s_was_stored_once() -> None:
    writing = write("control", Role.CONTROL, (0, 2), [*stored(0, 2), synced()], generation=1)
    mine = write("mine", Role.PROVOKE, (2, 4), [*stored(2, 4), synced()], generation=2)
    scene = scene_of(
        on("origin", writing),
        Act(step=Snapshot(name="take", verb="snapshot")),
        imposed(),
        on("snapshot", mine),
        on("snapshot", read("short", "1..2")),
        story=OnSnapshot,
    )
    assert told(scene) == [("zeros", True, "short", ((4096, 12288),))]
    assert silent(scene) == [("snapshot", 2, "zeros")]
