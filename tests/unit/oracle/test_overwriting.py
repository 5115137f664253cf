"""Rewriting what has space already: what of it is told, word by word (``overwrite_in_place``, S12).

``fill`` of the story stores blocks 0 to 5 while there is space for no more; these have space, blocks 6 to
11 need not have any.
"""

from __future__ import annotations

import errno
import signal
from typing import Any

import pytest

from conformance.model import BLOCK, Clause, Finding, Level, Role, Submit
from tests.support import trials
from tests.support.builders import (
    EIO,
    ENOSPC,
    Act,
    Story,
    closed,
    ran,
    read,
    stored,
    story,
    synced,
    write,
    wrote,
)
from tests.support.submitters import files

EPERM = -errno.EPERM
EXPECTED = "rewriting blocks that have space already succeeds during the shortage"


def found(tale: Story) -> list[Finding]:
    return trials.found(Clause.OVERWRITE_IN_PLACE, tale)


def over(blocks: tuple[int, int], *ops: Any, role: Role = Role.OVERWRITE) -> Act:
    """The story's overwriting, with other calls."""
    return write("overwrite", role, blocks, ops, generation=3)


def told(*acts: Act) -> list[tuple[str, str]]:
    """Signature and words of each finding."""
    return [(one.signature, one.observed) for one in found(story().but(*acts))]


def test_a_finding_says_what_was_expected_and_shows_the_calls_that_failed() -> None:
    ops = [wrote(0, 2), wrote(2, 2, EPERM), wrote(4, 2, EIO), synced(), synced(EPERM), closed()]
    findings = found(story().but(over((0, 6), *ops)))
    assert [one.signature for one in findings] == [
        "sync-failed:EPERM",
        "write-failed:EIO",
        "write-failed:EPERM",
    ]
    assert [one.observed for one in findings] == [
        "1 sync failed, the first: sync() = -1 EPERM",
        "1 write failed, the first: write(16384, 8192) = -1 EIO",
        "1 write failed, the first: write(8192, 8192) = -1 EPERM",
    ]
    for one in findings:
        assert (one.clause, one.level) == (Clause.OVERWRITE_IN_PLACE, Level.MUST)
        assert (one.arm, one.step, one.expected) == ("main", "overwrite", EXPECTED)
        assert one.evidence == (
            "write(8192, 8192) = -1 EPERM",
            "write(16384, 8192) = -1 EIO",
            "sync() = -1 EPERM",
        )


def test_failures_alike_are_one_finding_that_shows_the_first() -> None:
    ops = [wrote(0, 2, ENOSPC), wrote(2, 2, ENOSPC), wrote(4, 2, ENOSPC)]
    text = "3 writes failed, the first: write(0, 8192) = -1 ENOSPC"
    assert told(over((0, 6), *ops)) == [("write-failed:ENOSPC", text)]


@pytest.mark.parametrize(
    "act",
    [
        over((0, 2), *stored(0, 2), synced(), closed()),
        over((0, 2), wrote(0, 2, EIO), role=Role.REUSE),
        write("again", Role.OVERWRITE, (0, 2), [wrote(0, 2, EIO)], generation=4),
    ],
    ids=["all of it", "by who does not overwrite", "after relief"],
)
def test_nothing_is_said_of(act: Act) -> None:
    assert told(act) == []


REFUSED = "1 write failed, the first: write({}, {}) = -1 ENOSPC"
SPACE: dict[str, tuple[tuple[int, int], list[Any], list[tuple[str, str]]]] = {
    "the last blocks that have space": (
        (4, 6),
        [wrote(4, 2, ENOSPC)],
        [("write-failed:ENOSPC", REFUSED.format(16384, 8192))],
    ),
    "blocks that have none": ((6, 8), [wrote(6, 2, ENOSPC)], []),
    "nothing of what has space, once": (
        (4, 6),
        [wrote(4, 2, 0), synced()],
        [("write-short", "write(16384, 8192) = 0")],
    ),
    "nothing of what has space, before an error that says why": (
        (2, 6),
        [wrote(2, 2, 0), wrote(4, 2, ENOSPC)],
        [("write-failed:ENOSPC", REFUSED.format(16384, 8192))],
    ),
    "nothing of what has space, twice": (
        (2, 6),
        [wrote(2, 2, 0), wrote(4, 2, 0), synced()],
        [("write-short", "write(8192, 8192) = 0")],
    ),
    "nothing of what need not have any": ((5, 7), [wrote(5, 2, 0), synced()], []),
    "a block that has space, and one that has none": ((5, 7), [wrote(5, 2, ENOSPC)], []),
    "a part of a block that has none": (
        (5, 7),
        [wrote(5, 2, ENOSPC)._replace(length=BLOCK + 512)],
        [],
    ),
    "blocks that have space, beside others that have none": (
        (4, 8),
        [wrote(4, 2, ENOSPC), wrote(6, 2, EIO)],
        [("write-failed:ENOSPC", REFUSED.format(16384, 8192))],
    ),
    "a sync of blocks that have space": (
        (4, 6),
        [*stored(4, 6), synced(EIO)],
        [("sync-failed:EIO", "1 sync failed, the first: sync() = -1 EIO")],
    ),
    "a sync of all, of which some have none": ((4, 8), [*stored(4, 8), synced(EIO)], []),
}


@pytest.mark.parametrize("name", SPACE)
def test_only_blocks_that_had_space_are_judged(name: str) -> None:
    blocks, ops, expected = SPACE[name]
    assert told(over(blocks, *ops)) == expected


def test_a_device_is_judged_by_what_was_stored_on_it_and_not_on_another() -> None:
    """The first two blocks of a second device were never written before."""
    act = over((0, 2), wrote(0, 2, ENOSPC))
    elsewhere = Act(step=act.step.model_copy(update={"target": "image"}), seen=act.seen)
    assert told(elsewhere) == []


def test_a_command_that_rewrites_is_judged_by_all_that_it_did() -> None:
    """Which blocks it meant is not known; it is the case that says that they have space."""
    act = ran("overwrite", Role.OVERWRITE, ["rewrite"])
    submitter = act.seen["submitter"].model_copy(update={"ops": (wrote(6, 2, ENOSPC),)})
    text = REFUSED.format(24576, 8192)
    assert told(Act(step=act.step, seen={"submitter": submitter})) == [
        ("write-failed:ENOSPC", text)
    ]


NO_END = "overwrite did not end within its limit"
STORED = over((0, 2), *stored(0, 2), synced(), closed())


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (STORED.ended(signal=15), [("killed", "overwrite was ended by SIGTERM")]),
        (STORED.ended(timed_out=True), [("timed-out", NO_END)]),
        (STORED.ended(exit_code=0, killable=False), [("timed-out", NO_END)]),
        (
            STORED.in_a("sync").ended(timed_out=True),
            [("timed-out", f"{NO_END}: sync() had not returned")],
        ),
        (Act(step=STORED.step), []),
    ],
    ids=["killed", "ended by the rig", "not to be ended", "in a sync", "not seen"],
)
def test_an_overwriter_comes_to_an_end_of_its_own(
    act: Act, expected: list[tuple[str, str]]
) -> None:
    assert told(act) == expected


def test_an_error_of_a_step_before_told_late_is_not_this_step_s() -> None:
    """``fill`` was killed before it synced; the first sync of the device is told of what it left."""
    left = write("fill", Role.PROVOKE, (0, 12), stored(0, 6), generation=2, killed_by_rig=True)
    late = over((0, 2), *stored(0, 2), synced(EIO), synced())
    assert told(left, late) == []
    assert told(left, late, read("read_relieved", "32222.")) == [
        ("sync-failed:EIO", "1 sync failed, the first: sync() = -1 EIO")
    ]
    moved = over((2, 4), *stored(2, 4), synced(EIO), synced())
    assert told(left, moved, read("read_relieved", "222222")) == [
        ("sync-failed:EIO", "1 sync failed, the first: sync() = -1 EIO")
    ]
    half = wrote(0, 3)._replace(offset=BLOCK // 2, length=2 * BLOCK, result=2 * BLOCK)
    refused = wrote(1, 2, ENOSPC)
    parts = over((0, 3), half, refused, synced(EIO), synced())
    failed = ("write-failed:ENOSPC", "1 write failed, the first: write(4096, 8192) = -1 ENOSPC")
    assert told(left, parts, read("read_relieved", "232222")) == [failed]
    again = over((0, 2), *stored(0, 2), synced(EIO), synced(EIO))
    assert told(left, again) == [("sync-failed:EIO", "1 sync failed, the first: sync() = -1 EIO")]


BUS = ("write-failed:SIGBUS", "a store into the mapping was answered with SIGBUS")


@pytest.mark.parametrize(
    ("blocks", "submit", "expected"),
    [
        ((4, 6), Submit.MMAP, [BUS]),
        ((5, 7), Submit.MMAP, []),
        ((4, 6), Submit.DIRECT, [("killed", "overwrite was ended by SIGBUS")]),
    ],
    ids=["all of it has space", "a part of it has none", "by who has no mapping"],
)
def test_a_store_that_failed_is_a_write_that_failed(
    blocks: tuple[int, int], submit: Submit, expected: list[tuple[str, str]]
) -> None:
    """Which of its stores it was is not known."""
    act = write("overwrite", Role.OVERWRITE, blocks, [], generation=3, submit=submit)
    assert told(act.ended(signal=signal.SIGBUS)) == expected
    assert told(act.ended(signal=signal.SIGBUS, timed_out=True)) == [("timed-out", NO_END)]


def test_files_that_are_rewritten_by_a_mapping_are_the_case_s_to_know_of() -> None:
    act = files("overwrite", 0)
    step = act.step.model_copy(update={"role": Role.OVERWRITE, "submit": Submit.MMAP})
    assert told(Act(step=step, seen=act.seen).ended(signal=signal.SIGBUS)) == [BUS]


def test_half_of_a_block_range_that_has_space_was_taken() -> None:
    act = over((4, 6), wrote(4, 2, BLOCK), synced())
    readings = [read(f"read_{when}", "222232......4411") for when in ("relieved", "reattached")]
    assert told(act, *readings) == [("write-short", "write(16384, 8192) = 4096")]


# -- what does not read back ------------------------------------------------------------------------


def read_back(relieved: str, reattached: str = "") -> list[tuple[str, str]]:
    """What is told of blocks 0 to 3, rewritten while the shortage lasted, that read so after it."""
    return told(
        over((0, 4), *stored(0, 4), synced(), closed()),
        read("read_relieved", f"{relieved}........11"),
        read("read_reattached", f"{reattached or relieved}......4411"),
    )


NOT_BACK = "were rewritten, and do not read back"


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("333322", ""),
        ("323322", "bytes 4096 to 8191 (4 KiB)"),
        ("3322.2", "bytes 8192 to 16383 (8 KiB)"),
        ("232.22", "bytes 0 to 4095 (4 KiB), bytes 8192 to 16383 (8 KiB)"),
        ("3333..", ""),
        ("3?3322", ""),
    ],
    ids=["all", "old data", "old data, and others' losses", "zeros too", "others'", "foreign data"],
)
def test_what_was_rewritten_and_is_old_again_was_not_stored(content: str, where: str) -> None:
    assert read_back(content) == ([("not-stored", f"{where} {NOT_BACK}")] if where else [])


def test_what_was_missed_only_while_the_shortage_lasted_was_stored() -> None:
    tale = story()
    at = [act.step.name for act in tale.acts].index("relieve")
    short = read("read_again", "222222........11")
    tale = Story(acts=(*tale.acts[:at], short, *tale.acts[at:]))
    assert found(tale) == []


def test_the_overwriting_of_a_mapping_is_judged_alike() -> None:
    assert found(story(Submit.MMAP)) == []
