"""Scripts of calls for themselves: what each call was, which writes were lost, and who was owed a report.

What the judge says of whole runs is in test_calls.py. Here is what those do not come near: results of 1, 0
and -1, descriptors that could not be had, and reports that the norm leaves open. The expectations are those
of Documentation/core-api/errseq.rst, Documentation/filesystems/vfs.rst and the manual pages.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import FrozenInstanceError

import pytest

from conformance.model import BLOCK, Calls, FileOp, Role
from conformance.model.calls import STORES
from conformance.oracle.calls import (
    Made,
    Misreport,
    call_line,
    lost_writes,
    made,
    misreports,
    shut_down,
    untold,
)
from conformance.oracle.scene import Scene, Taken, scenes
from tests.support.builders import (
    Act,
    Story,
    calls,
    imposed,
    read,
    relieved,
)

W = 2 * BLOCK
"""What a write of the whole region returns."""
E, RO, BAD = -errno.EIO, -errno.EROFS, -errno.EBADF
REFUSED = -1
"""EPERM, of all errors the one that is nearest to a success."""


def script(text: str, results: Sequence[int] | None = None) -> tuple[Calls, tuple[FileOp, ...]]:
    """A script and its answers: every call succeeded, unless they are given."""
    if results is None:
        does = [part.split()[0] for part in text.split(";")]
        results = [W if do in STORES else 0 for do in does]
    act = calls("lose", Role.PROVOKE, text, results, first=0, generation=2)
    assert isinstance(act.step, Calls)
    return act.step, act.seen["file_ops"]


# -- what a call was ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "direct", "durable", "forgets"),
    [
        ("open a; write a; store a; fsync a", [], [], []),
        ("open a direct; write a; store a; fsync a", [1], [], []),
        ("open a dsync; write a; store a; fsync a", [], [1], []),
        ("open a direct_dsync; write a", [1], [1], []),
        ("open a; write a dsync; write a", [], [1], []),
        ("open a direct; dup a b; close a; write b", [3], [], []),
        ("open a dsync; fork a b; write b", [], [2], []),
        ("open a direct; open b; write b; write a", [3], [], []),
        ("open a direct; close a; open a; write a", [], [], []),
        ("evict; open a; evict; sync; close a; sync; evict", [], [], [0, 6]),
        ("open a; dup a b; close a; evict; close b; evict", [], [], [5]),
    ],
)
def test_what_a_call_was(
    text: str, direct: list[int], durable: list[int], forgets: list[int]
) -> None:
    found = made(*script(text))
    assert [one.place for one in found] == list(range(len(found)))
    assert [one.place for one in found if one.direct] == direct
    assert [one.place for one in found if one.durable] == durable
    assert [one.place for one in found if one.forgets] == forgets


@pytest.mark.parametrize("had", [0, REFUSED])
@pytest.mark.parametrize("text", ["open a; evict", "open k; dup k a; close k; evict"])
def test_a_descriptor_that_could_not_be_had_keeps_no_inode(text: str, had: int) -> None:
    """By whichever call it was to be had, of which the last before the eviction is a close or none."""
    results = {"open a; evict": [had, 0], "open k; dup k a; close k; evict": [0, had, 0, 0]}
    assert made(*script(text, results[text]))[-1].forgets is (had == REFUSED)


def test_which_calls_say_that_the_file_is_stored() -> None:
    saying = "fsync a; fdatasync a; msync a; uring_fsync a; uring_fdatasync a"
    others = "write a; store a; sync_file_range a; syncfs a; sync; close a"
    found = made(*script(f"open a; {saying}; {others}"))
    assert [one.place for one in found if one.syncs] == [1, 2, 3, 4, 5]


def test_a_write_is_of_its_own_part_of_the_region_or_of_the_whole() -> None:
    act = calls(
        "lose", Role.PROVOKE, "open a; write a 4K 8K; write a", [0, W, W], first=4, generation=2
    )
    assert isinstance(act.step, Calls)
    _, part, whole = made(act.step, act.seen["file_ops"])
    assert part.region(act.step) == (20480, 8192)
    assert whole.region(act.step) == (16384, 8192)


def test_a_call_is_told_with_its_result() -> None:
    step, ops = script("open a dsync; dup a b; write b; fsync b", [0, 0, W, E])
    assert [call_line(one) for one in made(step, ops)] == [
        "open a dsync = 0",
        "dup a b = 0",
        "write b = 8192",
        "fsync b = -1 EIO",
    ]


@pytest.mark.parametrize(
    ("results", "down"),
    [([0, E], False), ([0, E, 0], False), ([0, E, REFUSED], True), ([0, 0, RO], True)],
)
def test_a_filesystem_is_down_if_no_file_could_be_made_beside(
    results: list[int], *, down: bool
) -> None:
    assert shut_down(*script("open a; fsync a", results)) is down


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("open a; fsync a", False),
        ("open a; write a", True),
        ("open a; store a", True),
        ("open a; write a; fsync a", False),
        ("open a; write a; sync_file_range a", False),
        ("open a; write a; syncfs a; sync; close a", True),
        ("open a; fsync a; write a", True),
        ("open a; write a; fsync a; write a", True),
        ("open a; write a; write a; fsync a", False),
        ("open a direct; write a", False),
        ("open a; open b direct; write a; write b", True),
        ("open a dsync; write a", False),
        ("open a; write a dsync; write a", True),
        # O_DSYNC syncs what it wrote itself, and nothing of what was written before.
        ("open a; write a 0 4K; write a 4K 4K dsync", True),
    ],
)
def test_what_a_script_leaves_in_the_page_cache(text: str, *, left: bool) -> None:
    assert untold(*script(text)) is left


# -- what was lost --------------------------------------------------------------------------------


def played(text: str, results: Sequence[int], *later: Act, first: int = 0) -> tuple[Scene, Taken]:
    """A script while there is no space, and what was done afterwards."""
    step = calls("lose", Role.PROVOKE, text, results, first=first, generation=2)
    tale = Story(acts=(imposed(), step, *later, relieved()))
    (scene,) = scenes(tale.variant, tale.observation)
    return scene, scene.taken[1]


HALVES = "open a; write a 0 4K; write a 4K 4K"


@pytest.mark.parametrize("first", [0, 6])
@pytest.mark.parametrize(
    ("text", "results", "found", "lost"),
    [
        (HALVES, [0, BLOCK, BLOCK], "22", set()),
        (HALVES, [0, BLOCK, BLOCK], "2.", {2}),
        (HALVES, [0, BLOCK, BLOCK], ".2", {1}),
        (HALVES, [0, BLOCK, BLOCK], "?!", {1, 2}),
        (HALVES, [0, BLOCK, BLOCK], "32", {1}),
        ("open a; store a; fsync a", [0, W, E], "2.", {1}),
        # Of a write that came back short, what it said it took.
        ("open a; write a", [0, BLOCK], "2.", set()),
        ("open a; write a", [0, BLOCK], ".2", {1}),
        ("open a; write a", [0, 1], "..", set()),
        ("open a; write a", [0, 0], "..", set()),
        # Of one that failed, all that it was asked for.
        ("open a; write a", [0, REFUSED], "2.", {1}),
        ("open a; write a", [0, REFUSED], "22", set()),
    ],
)
def test_a_write_is_lost_if_the_medium_does_not_hold_it(
    text: str, results: list[int], found: str, lost: set[int], first: int
) -> None:
    scene, taken = played(text, results, read("read_short", found, first=first), first=first)
    assert lost_writes(scene, taken) == lost


def test_extents_of_many_blocks_hold_what_is_within_them() -> None:
    one = read("read_short", "2222", first=4)
    long = one.seen["extents"][0]._replace(length=4 * BLOCK)
    whole = Act(step=one.step, seen={"extents": (long,)})
    for first, lost in ((3, {1}), (4, set()), (6, set()), (7, {1})):
        scene, taken = played("open a; write a", [0, W], whole, first=first)
        assert lost_writes(scene, taken) == lost


def test_only_the_next_verification_of_the_same_layer_counts() -> None:
    one = read("read_image", "22")
    other = Act(step=one.step.model_copy(update={"target": "image"}), seen=one.seen)
    again = read("read_again", "22")
    scene, taken = played("open a; write a", [0, W], other, read("read_short", "2."), again)
    assert lost_writes(scene, taken) == {1}


@pytest.mark.parametrize("told", [0, E])
@pytest.mark.parametrize("look", [[], [read("read_short", "")]], ids=["no step", "no extents"])
def test_nothing_is_known_to_be_lost_or_owed_if_nobody_looked(look: list[Act], told: int) -> None:
    scene, taken = played("open a; write a; fsync a", [0, W, told], *look)
    assert (lost_writes(scene, taken), misreports(scene, taken)) == (frozenset(), ())


# -- who was owed a report --------------------------------------------------------------------------

GONE = "close a; evict; open b; fsync b"

OWED: dict[str, tuple[str, list[int], list[tuple[str, str]]]] = {
    "nobody has it open, and nothing was evicted": (
        "open a; write a; close a; sync; open b; fsync b",
        [0, W, 0, 0, 0, 0],
        [("fsync b = 0", "late-opener-not-told")],
    ),
    "another keeps the inode": (
        f"open a; open k; write a; {GONE}",
        [0, 0, W, 0, 0, 0, 0],
        [("fsync b = 0", "late-opener-not-told")],
    ),
    "a duplicate keeps the inode": (
        f"open a; dup a k; write a; {GONE}",
        [0, 0, W, 0, 0, 0, 0],
        [("fsync b = 0", "late-opener-not-told")],
    ),
    "who could not open it does not keep the inode": (
        f"open a; open k; write a; {GONE}",
        [0, REFUSED, W, 0, 0, 0, 0],
        [],
    ),
    "a duplicate that could not be had does not keep the inode": (
        f"open a; dup a k; write a; {GONE}",
        [0, REFUSED, W, 0, 0, 0, 0],
        [],
    ),
    "who could not open it after the report is told EBADF": (
        "open a; write a; fsync a; open k; fsync k",
        [0, W, E, REFUSED, BAD],
        [],
    ),
    "a duplicate that could not be had is told EBADF": (
        "open a; write a; fsync a; dup a k; fsync k",
        [0, W, E, REFUSED, BAD],
        [],
    ),
    "not told, and asked again": (
        "open a; write a; fsync a; fsync a",
        [0, W, 0, 0],
        [("fsync a = 0", "not-told")],
    ),
    "not told, and then told": (
        "open a; write a; fsync a; fsync a",
        [0, W, 0, E],
        [("fsync a = 0", "not-told")],
    ),
    "not told by syncfs, and asked again": (
        "open a; write a; syncfs a; syncfs a",
        [0, W, 0, 0],
        [("syncfs a = 0", "not-told")],
    ),
    "not told by sync_file_range, and asked again": (
        "open a; write a; sync_file_range a; sync_file_range a",
        [0, W, 0, 0],
        [("sync_file_range a = 0", "not-told"), ("sync_file_range a = 0", "not-told")],
    ),
    "any errno is a report": ("open a; write a; fsync a", [0, W, REFUSED], []),
    "a write that was refused at once": ("open a; write a; fsync a", [0, REFUSED, 0], []),
    "a write that was refused at once, and a report of nothing": (
        "open a; write a; fsync a",
        [0, REFUSED, E],
        [("fsync a = -1 EIO", "told-stranger")],
    ),
    "a write under O_DSYNC that took nothing has told nobody": (
        "open a; write a dsync; fsync a",
        [0, 0, E],
        [("fsync a = -1 EIO", "told-stranger")],
    ),
    "a write under O_DSYNC tells of what was lost before it": (
        "open a; write a; write a dsync; fsync a",
        [0, W, E, E],
        [("fsync a = -1 EIO", "told-again")],
    ),
    "a write under O_DSYNC has told, whoever opens the file then": (
        "open a; write a dsync; open b; fsync b",
        [0, E, 0, 0],
        [],
    ),
    "a write under O_DSYNC tells its own descriptor and no other": (
        "open a; open b; write a dsync; fsync b",
        [0, 0, E, 0],
        [("fsync b = 0", "not-told")],
    ),
    "a direct write that was told, and who opens the file then is not": (
        "open a direct; write a; open b; fsync b",
        [0, E, 0, 0],
        [],
    ),
    "a direct write that was told, and who opens the file then is too, once": (
        "open a direct; write a; open b; fsync b; fsync b",
        [0, E, 0, E, E],
        [("fsync b = -1 EIO", "told-again")],
    ),
    "a direct write that succeeded and is lost": (
        "open a direct; open b; write a; fsync b",
        [0, 0, W, 0],
        [],
    ),
    "a direct write that was told, after one through the page cache of which nobody was": (
        "open a; open d direct; write a; write d; open b; fsync b",
        [0, 0, W, E, 0, 0],
        [("fsync b = 0", "late-opener-not-told")],
    ),
    "a direct write that was told, before one through the page cache that was told too": (
        "open a; open d direct; write d; write a; fsync a; open b; fsync b",
        [0, 0, E, W, E, 0, 0],
        [],
    ),
    "a direct write that succeeded and is lost, of which fsync tells": (
        "open a direct; open b; write a; fsync b",
        [0, 0, W, E],
        [],
    ),
}


@pytest.mark.parametrize("name", OWED)
def test_who_was_owed_a_report(name: str) -> None:
    text, results, wrong = OWED[name]
    scene, taken = played(text, results, read("read_short", ".."))
    assert [(call_line(one.made), one.wrong) for one in misreports(scene, taken)] == wrong


def test_of_two_answers_that_are_wrong_each_is_told_with_its_place() -> None:
    text = "open a; open b; write a; fsync a; fsync b; fsync a"
    scene, taken = played(text, [0, 0, W, 0, E, 0], read("read_short", ".."))
    assert [(one.made.place, one.wrong) for one in misreports(scene, taken)] == [(3, "not-told")]
    scene, taken = played(text, [0, 0, W, 0, 0, 0], read("read_short", ".."))
    assert [(one.made.place, one.wrong) for one in misreports(scene, taken)] == [
        (3, "not-told"),
        (4, "not-told"),
    ]


@pytest.mark.parametrize(("beside", "wrong"), [(0, ["not-told"]), (RO, [])])
def test_a_write_that_a_filesystem_refused_as_it_was_down_owes_nobody(
    beside: int, wrong: list[str]
) -> None:
    """It may have failed before anything was recorded: then only the writer knows."""
    text = "open a; open b; write a dsync; fsync b"
    scene, taken = played(text, [0, 0, RO, 0, beside], read("read_short", ".."))
    assert [one.wrong for one in misreports(scene, taken)] == wrong


def test_what_was_worked_out_is_made_by_name_and_not_changed() -> None:
    scene, taken = played("open a; write a; fsync a", [0, W, 0], read("read_short", ".."))
    (one,) = misreports(scene, taken)
    with pytest.raises(FrozenInstanceError):
        one.wrong = "told-again"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        one.made.place = 0  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        Misreport("not-told", one.made)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        Made(0, one.made.call, one.made.op, False, False, False)  # type: ignore[call-arg]
