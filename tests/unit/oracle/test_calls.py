"""Who must be told of a lost write: one script each, with answers that conform and that do not.

The expectations are those of Documentation/filesystems/vfs.rst ("Handling errors during writeback"),
Documentation/core-api/errseq.rst and the manual pages, written before the judge was asked.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest

from conformance.model import (
    BLOCK,
    AnyLayer,
    Clause,
    Ended,
    FileLayer,
    FsLayer,
    Level,
    Role,
    Status,
    Variant,
    Verdict,
)
from tests.support.builders import (
    Act,
    Story,
    calls,
    imposed,
    read,
    relieved,
    told,
)

E = -errno.EIO
RO = -errno.EROFS
W = 2 * BLOCK
"""What a write of the whole region returns."""

LOST = ".."
MUST, SHOULD = "must", "should"
REPORTED = "reported_once"


def after(
    script: str, results: Sequence[int], found: str = LOST, *, down: int | None = None
) -> Verdict:
    """What is said of a script while there is no space, of which the medium then holds ``found``."""
    whole = [*results, *([] if down is None else [down])]
    story = Story(
        acts=(
            calls(
                "control",
                Role.CONTROL,
                "open a; write a; fsync a",
                [0, W, 0],
                first=8,
                generation=1,
            ),
            read("control_read", "11", Role.CONTROL, first=8),
            imposed(),
            calls("lose", Role.PROVOKE, script, whole, first=0, generation=2),
            read("read_short", found),
            relieved(),
            read("read_relieved", found),
        ),
        clauses=(Clause.REPORTED_ONCE, Clause.ERROR_SURFACED),
    )
    if down is None:
        return story.verdict
    return _OnFilesystem(acts=_with_beside(story.acts), clauses=story.clauses).verdict


def _with_beside(acts: tuple[Act, ...]) -> tuple[Act, ...]:
    control = calls(
        "control", Role.CONTROL, "open a; write a; fsync a", [0, W, 0, 0], first=8, generation=1
    )
    return (control, *acts[1:])


class _OnFilesystem(Story):
    """The same on a file, beside which another could be made or not."""

    @property
    def variant(self) -> Variant:
        """The builder's variant, with a filesystem between."""
        found = super().variant
        arm = found.arms[0]
        layers: tuple[AnyLayer, ...] = (
            *(
                one.model_copy(update={"name": "disk"}) if one.name == "device" else one
                for one in arm.layers
            ),
            FsLayer(name="fs", layer="fs", on="disk", type="xfs"),
            FileLayer(name="device", layer="file", on="fs", size=self.device * BLOCK),
        )
        return found.model_copy(update={"arms": (arm.model_copy(update={"layers": layers}),)})


ACKED_LOST = (MUST, "acknowledged_readable", "zeros")
SILENT = (MUST, "error_surfaced", "lost-in-silence")

TABLE = {
    "told once, and not again": ("open a; write a; fsync a; fsync a", [0, W, E, 0], set()),
    "told never": (
        "open a; write a; fsync a; fsync a",
        [0, W, 0, 0],
        {(MUST, REPORTED, "not-told:fsync"), ACKED_LOST, SILENT},
    ),
    "told twice": (
        "open a; write a; fsync a; fsync a",
        [0, W, E, E],
        {(MUST, REPORTED, "told-again:fsync")},
    ),
    "told by msync, and again by fsync": (
        "open a; store a; msync a; fsync a",
        [0, W, E, E],
        {(MUST, REPORTED, "told-again:fsync")},
    ),
    "both told": ("open a; open b; write a; fsync a; fsync b", [0, 0, W, E, E], set()),
    "the second not told": (
        "open a; open b; write a; fsync a; fdatasync b",
        [0, 0, W, E, 0],
        {(MUST, REPORTED, "not-told:fdatasync")},
    ),
    "the writer not told, whom another forestalled": (
        "open a; open b; write a; fsync b; uring_fsync a",
        [0, 0, W, E, 0],
        {(MUST, REPORTED, "not-told:uring_fsync")},
    ),
    "a duplicate told as well": (
        "open a; dup a b; write a; fsync a; fsync b",
        [0, 0, W, E, E],
        {(MUST, REPORTED, "told-again:fsync")},
    ),
    "a duplicate told in its place": (
        "open a; dup a b; write a; close a; fsync b; fsync b",
        [0, 0, W, 0, E, 0],
        set(),
    ),
    "a forked descriptor told as well": (
        "open a; fork a b; write a; fsync b; fsync a",
        [0, 0, W, E, E],
        {(MUST, REPORTED, "told-again:fsync")},
    ),
    "opened after the report, not told": (
        "open a; write a; fsync a; open b; fsync b",
        [0, W, E, 0, 0],
        set(),
    ),
    "opened after the report, told": (
        "open a; write a; fsync a; open b; fsync b",
        [0, W, E, 0, E],
        {(MUST, REPORTED, "told-stranger:fsync")},
    ),
    "opened before any report, told": (
        "open a; write a; close a; open b; fsync b; fsync b",
        [0, W, 0, 0, E, 0],
        set(),
    ),
    "opened before any report, told nothing": (
        "open a; open k; write a; sync; open b; fsync k; fsync b",
        [0, 0, W, 0, 0, E, 0],
        {(SHOULD, REPORTED, "late-opener-not-told:fsync")},
    ),
    "nobody told after the inode may have gone": (
        "open a; write a; close a; sync; evict; open b; fsync b",
        [0, W, 0, 0, 0, 0, 0],
        set(),
    ),
    "told after the inode may have gone": (
        "open a; write a; close a; sync; evict; open b; fsync b",
        [0, W, 0, 0, 0, 0, E],
        set(),
    ),
    "an eviction while it is open forgets nothing": (
        "open a; write a; sync; evict; fsync a; fsync a",
        [0, W, 0, 0, 0, 0],
        {(MUST, REPORTED, "not-told:fsync"), ACKED_LOST, SILENT},
    ),
    "sync_file_range tells": (
        "open a; write a; sync_file_range a; fsync a",
        [0, W, E, 0],
        set(),
    ),
    "sync_file_range does not tell, fsync does": (
        "open a; write a; sync_file_range a; fsync a",
        [0, W, 0, E],
        {(SHOULD, REPORTED, "not-told:sync_file_range")},
    ),
    "neither tells": (
        "open a; write a; sync_file_range a; fsync a",
        [0, W, 0, 0],
        {
            (SHOULD, REPORTED, "not-told:sync_file_range"),
            (MUST, REPORTED, "not-told:fsync"),
            ACKED_LOST,
            SILENT,
        },
    ),
    "told anew of a new loss": (
        "open a; write a 0 4K; fsync a; write a 4K 4K; fsync a; fsync a",
        [0, BLOCK, E, BLOCK, E, 0],
        set(),
    ),
    "not told of a new loss": (
        "open a; write a 0 4K; fsync a; write a 4K 4K; fsync a",
        [0, BLOCK, E, BLOCK, 0],
        {(MUST, REPORTED, "not-told:fsync"), ACKED_LOST, SILENT},
    ),
    "one report for two losses in a row": (
        "open a; write a 0 4K; write a 4K 4K; fsync a; fsync a",
        [0, BLOCK, BLOCK, E, 0],
        set(),
    ),
    "told at a write under O_DSYNC, and not by fsync": (
        "open a dsync; open b; write a; fsync a; fsync b; fsync b",
        [0, 0, E, 0, E, 0],
        set(),
    ),
    "told at a write by RWF_DSYNC, and again by fsync": (
        "open a; write a dsync; fsync a",
        [0, E, E],
        {(MUST, REPORTED, "told-again:fsync")},
    ),
    "a write under O_DSYNC that succeeded and is lost": (
        "open a dsync; write a; fsync a",
        [0, W, 0],
        {(MUST, REPORTED, "not-told:fsync"), ACKED_LOST, SILENT},
    ),
    "a direct write is told at the write, whoever else may be told": (
        "open a direct; open b; write a; fsync a; fsync b",
        [0, 0, E, 0, 0],
        set(),
    ),
    "a direct write that was told is told again, once": (
        "open a direct; open b; write a; fsync b; fsync b",
        [0, 0, E, E, 0],
        set(),
    ),
    "a close tells nothing": ("open a; open b; write a; close a; fsync b", [0, 0, W, 0, E], set()),
    "a file that could not be opened is told nothing": (
        "open a; write a; fsync a; open b; fsync b",
        [0, W, E, RO, -errno.EBADF],
        set(),
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_who_must_be_told(name: str) -> None:
    script, results, expected = TABLE[name]
    verdict = after(script, results)
    assert told(verdict) == expected
    failed = any(level == MUST for level, _, _ in expected)
    assert verdict.status is (Status.FAIL if failed else Status.PASS), verdict.reasons


def test_a_filesystem_that_shut_itself_down_may_say_so_every_time() -> None:
    script = "open a; write a; fsync a; fsync a; open b; fsync b"
    assert told(after(script, [0, W, E, RO, 0, RO], down=RO)) == set()
    assert told(after(script, [0, W, E, RO, 0, RO], down=0)) == {
        (MUST, REPORTED, "told-again:fsync"),
        (MUST, REPORTED, "told-stranger:fsync"),
    }


def test_a_filesystem_that_shut_itself_down_must_tell_once() -> None:
    verdict = after("open a; open b; write a; fsync a; fsync b", [0, 0, W, RO, 0], down=RO)
    assert told(verdict) == {(MUST, REPORTED, "not-told:fsync")}


def test_syncfs_has_an_account_of_its_own() -> None:
    script = "open a; open b; write a; syncfs a; syncfs a; fsync a; syncfs b"
    assert told(after(script, [0, 0, W, E, 0, E, E], down=0)) == set()
    assert told(after(script, [0, 0, W, E, 0, 0, E], down=0)) == {
        (MUST, REPORTED, "not-told:fsync")
    }
    assert told(after(script, [0, 0, W, E, E, E, 0], down=0)) == {
        (MUST, REPORTED, "told-again:syncfs"),
        (MUST, REPORTED, "not-told:syncfs"),
    }


def test_a_syncfs_that_succeeded_acknowledges() -> None:
    verdict = after("open a; write a; syncfs a; fsync a", [0, W, 0, E], down=0)
    assert told(verdict) == {(MUST, REPORTED, "not-told:syncfs"), ACKED_LOST}


def test_what_was_stored_is_owed_to_nobody() -> None:
    verdict = after("open a; write a; fsync a", [0, W, E], "22")
    assert told(verdict) == {(MUST, REPORTED, "told-stranger:fsync")}


def test_a_script_that_lost_nothing_shows_nothing() -> None:
    verdict = after("open a; write a; fsync a", [0, W, 0], "22")
    assert verdict.status is Status.BROKEN
    assert any("lost nothing" in reason for reason in verdict.reasons)


def test_a_script_that_is_told_in_part_is_no_answer() -> None:
    act = calls("lose", Role.PROVOKE, "open a; write a", [0, W], first=0, generation=2)
    ops = act.seen["file_ops"]
    act.seen["file_ops"] = ops[:1]
    story = Story(acts=(imposed(), act, read("read_short", LOST), relieved()))
    assert any("not those of the script" in reason for reason in story.verdict.reasons)


def test_a_store_may_be_answered_by_sigbus() -> None:
    for script, findings in (
        ("open a; store a; msync a", set()),
        ("open a; write a; fsync a", {(MUST, "submitter_survives", "signal-7")}),
    ):
        act = calls("lose", Role.PROVOKE, script, [0, W, 0], first=0, generation=2)
        act.seen["file_ops"] = act.seen["file_ops"][:1]
        act.seen["submitter"] = act.seen["submitter"].model_copy(update={"ended": Ended(signal=7)})
        story = Story(acts=(imposed(), act, read("read_short", LOST), relieved()), clauses=())
        found = {one for one in told(story.verdict) if one[1] == "submitter_survives"}
        assert found == findings


def test_a_survey_tells_what_was_answered() -> None:
    story = Story(
        acts=(
            calls("control", Role.CONTROL, "open a; write a", [0, W], first=8, generation=1),
            imposed(),
            calls(
                "lose", Role.PROVOKE, "open a; write a; fsync a", [0, W, E], first=0, generation=2
            ),
            read("read_short", LOST),
            relieved(),
        ),
        level=Level.SURVEY,
        clauses=(),
    )
    assert "lose: open a = 0; write a = 8192; fsync a = -1 EIO" in story.verdict.notes
