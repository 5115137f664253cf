"""What findings on stored data say: which bytes, acknowledged by what, with which calls as evidence.

``fill`` writes two blocks at a time, of generation 2, on a device of 16; 14 and 15 are the control's.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from conformance.model import (
    BLOCK,
    Calls,
    Ended,
    Extent,
    FileOp,
    Files,
    FileState,
    Finding,
    Level,
    Mount,
    Op,
    Role,
    Submitter,
    VerifyFiles,
)
from conformance.oracle.clauses.data import acknowledged_readable, error_surfaced, no_foreign_data
from conformance.oracle.trial import Trial, trial
from tests.support.builders import (
    EIO,
    ENOSPC,
    PID,
    Act,
    Story,
    imposed,
    read,
    relieved,
    stored,
    story,
    synced,
    write,
    wrote,
)
from tests.support.trials import joined


def found(clause: Callable[[Trial], Iterator[Finding]], tale: Story) -> list[Finding]:
    return list(clause(joined(tale)))


def filled(ops: Sequence[Op], content: str, *, after: str | None = None) -> Story:
    """``fill`` makes these calls, and its blocks read so during the shortage and after."""
    return Story(
        acts=(
            story().act("control"),
            story().act("control_read"),
            imposed(),
            write("fill", Role.PROVOKE, (0, 12), ops, generation=2),
            read("read_short", content.ljust(14, ".") + "11"),
            relieved(),
            read("read_relieved", (content if after is None else after).ljust(14, ".") + "11"),
        )
    )


# -- acknowledged_readable: blocks ------------------------------------------------------------------


def test_a_loss_names_its_bytes_and_quotes_the_calls_that_touched_them() -> None:
    (lost,) = found(acknowledged_readable, filled([*stored(0, 6), synced()], "22..22"))
    assert (lost.level, lost.signature, lost.step) == (Level.MUST, "zeros", "read_short")
    assert lost.expected == "every acknowledged byte reads back"
    assert lost.observed == (
        "bytes 8192 to 16383 (8 KiB) were acknowledged by write() and fsync() "
        "and read back as zeros"
    )
    assert lost.evidence == ("fill: write(8192, 8192) = 8192", "fill: sync() = 0")


def test_a_loss_that_passes_is_told_as_one_of_the_shortage() -> None:
    tale = filled([*stored(0, 6), synced()], "22!!22", after="222222")
    (lost,) = found(acknowledged_readable, tale)
    assert (lost.level, lost.signature) == (Level.SHOULD, "unreadable-during-shortage")
    assert lost.expected == "every acknowledged byte reads back during the shortage too"
    assert lost.observed == (
        "bytes 8192 to 16383 (8 KiB) were acknowledged by write() and fsync() "
        "and could not be read back (EIO) while the shortage lasted"
    )


def test_of_an_unreadable_block_without_an_errno_none_is_told() -> None:
    tale = filled([*stored(0, 6), synced()], "222222", after="2!2222")
    act = tale.act("read_relieved")
    bare = tuple(extent._replace(errno=None) for extent in act.seen["extents"])
    (lost,) = found(acknowledged_readable, tale.but(replace(act, seen={"extents": bare})))
    assert lost.observed.endswith("and could not be read back")


FIFTH = [f"fill: write({at}, 8192) = 8192" for at in (8192, 16384, 24576, 32768)]


@pytest.mark.parametrize(
    ("ops", "told"),
    [
        pytest.param(
            [*stored(0, 10), synced(), synced()],
            [*FIFTH, "fill: sync() = 0"],
            id="the-last-four-and-one-sync",
        ),
        pytest.param(
            [wrote(0, 10), synced(EIO), wrote(0, 10), synced()],
            ["fill: write(0, 40960) = 40960"] * 2 + ["fill: sync() = 0"],
            id="the-sync-after-the-last-of-them",
        ),
        pytest.param(
            [
                wrote(0, 10)._replace(start_us=10, end_us=15),
                synced()._replace(start_us=15, end_us=20),
            ],
            ["fill: write(0, 40960) = 40960", "fill: sync() = 0"],
            id="a-sync-that-began-when-the-write-ended",
        ),
    ],
)
def test_evidence_is_the_writes_and_the_sync_that_acknowledged_them(
    ops: list[Op], told: list[str]
) -> None:
    (lost,) = found(acknowledged_readable, filled(ops, ""))
    assert list(lost.evidence) == told


# -- acknowledged_readable: files -------------------------------------------------------------------


def files(*names: str) -> Act:
    """Files of three blocks that were written and fsynced."""
    step = Files(
        name="files",
        role=Role.SETUP,
        verb="files",
        directory="d",
        size=3 * BLOCK,
        count=len(names),
        generation=1,
    )
    ops = [
        FileOp(kind, f"d/{name}", 1, length, length, 1, 2)
        for name in names
        for kind, length in (("create", 0), ("write", 3 * BLOCK), ("fsync", 0))
    ]
    return Act(step=step, seen={"file_ops": tuple(ops)})


def found_files(name: str, *states: FileState) -> Act:
    step = VerifyFiles(name=name, role=Role.OBSERVE, verb="verify_files")
    return Act(step=step, seen={"files": states})


def state(name: str, how: str, size: int = 3 * BLOCK, **more: object) -> FileState:
    return FileState.model_validate({"path": f"d/{name}", "state": how, "size": size, **more})


WRONG = (
    Extent(BLOCK, BLOCK, "zero", None, None),
    Extent(4 * BLOCK, 2 * BLOCK, "foreign", None, None),
    Extent(8 * BLOCK, BLOCK, "zero", None, None),
)


def around_files(during: Sequence[FileState], after: Sequence[FileState]) -> Story:
    return Story(
        acts=(
            files("a", "b", "c"),
            imposed(),
            found_files("during", *during),
            relieved(),
            Act(step=Mount(name="mount", role=Role.RECOVER, verb="mount")),
            found_files("after", *after),
        )
    )


def test_files_that_are_lost_alike_are_one_finding_that_describes_the_first() -> None:
    tale = around_files(
        [],
        [
            state("a", "wrong", wrong=WRONG),
            state("b", "wrong", size=5, wrong=WRONG[2:]),
            state("c", "missing", size=0),
        ],
    )
    missing, wrong = found(acknowledged_readable, tale)
    assert (missing.signature, missing.level, missing.step) == (
        "fsynced-file-lost",
        Level.MUST,
        "after",
    )
    assert missing.expected == "every file whose fsync succeeded is there and whole"
    assert missing.observed == ("1 file (d/c) whose fsync returned 0: missing after relief")
    assert missing.evidence == ("d/c: missing, 0 bytes",)
    assert wrong.signature == "fsynced-file-wrong"
    assert wrong.observed == (
        "2 files (d/a, d/b) whose fsync returned 0: wrong, d/a in bytes 4096 to 8191 (4 KiB), "
        "bytes 16384 to 24575 (8 KiB) after relief"
    )
    assert wrong.evidence == ("d/a: wrong, 12288 bytes", "d/b: wrong, 5 bytes")


def test_files_that_cannot_be_read_while_the_shortage_lasts_are_told_with_the_first_s_errno() -> (
    None
):
    tale = around_files(
        [state("a", "unreadable", errno=errno.EIO), state("b", "unreadable", errno=errno.ENOMEM)],
        [state("a", "whole"), state("b", "whole")],
    )
    (lost,) = found(acknowledged_readable, tale)
    assert (lost.signature, lost.level, lost.step) == (
        "fsynced-file-unreadable-during-shortage",
        Level.SHOULD,
        "during",
    )
    assert lost.expected == (
        "every file whose fsync succeeded is there and whole during the shortage too"
    )
    assert lost.observed == (
        "2 files (d/a, d/b) whose fsync returned 0: unreadable (EIO) "
        "while the shortage lasted, or until a mount"
    )


# -- error_surfaced ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "others"),
    [
        ([], ""),
        ([wrote(6, 2, -errno.EPERM)], ", which told of 1 error elsewhere"),
        ([wrote(6, 2, ENOSPC)] * 2, ", which told of 2 errors elsewhere"),
    ],
)
def test_a_loss_in_silence_tells_how_many_errors_there_were_elsewhere(
    more: list[Op], others: str
) -> None:
    tale = filled([*stored(0, 6), *more, synced()], "22..22")
    (silent,) = found(error_surfaced, tale)
    assert (silent.signature, silent.step, silent.level) == (
        "lost-in-silence",
        "fill",
        Level.MUST,
    )
    assert silent.observed == (
        "bytes 8192 to 16383 (8 KiB) were not stored, and write() and fsync() succeeded "
        f"for them in step fill{others}"
    )
    assert silent.evidence == ("fill: write(8192, 8192) = 8192", "fill: sync() = 0")


def test_a_loss_in_silence_tells_of_all_that_succeeded_for_it() -> None:
    """One block by write and fsync, the other by a write under O_DSYNC."""
    step = Calls.model_validate(
        {
            "as": "calls",
            "role": Role.PROVOKE,
            "verb": "calls",
            "length": 2 * BLOCK,
            "generation": 2,
            "script": "open a; write a 0 4096; fsync a; open b dsync; write b 4096 4096",
        }
    )
    done = [("open", 0), ("write", BLOCK), ("fsync", 0), ("open", 0), ("write", BLOCK)]
    ops = tuple(FileOp(do, "", 1, result, result, n, n) for n, (do, result) in enumerate(done))
    submitter = Submitter(pid=PID, cgroup="", ended=Ended(exit_code=0))
    calls = Act(step=step, seen={"submitter": submitter, "file_ops": ops})
    tale = Story(acts=(imposed(), calls, read("read", "..")))
    (silent,) = found(error_surfaced, tale)
    assert silent.observed == (
        "bytes 0 to 8191 (8 KiB) were not stored, and write() and fsync() "
        "and write() that syncs itself succeeded for them in step calls"
    )


END = 65536
"""Bytes of the device."""


def bytes_written(offset: int, length: int, result: int) -> Op:
    return wrote(0, 1)._replace(offset=offset, length=length, result=result)


@pytest.mark.parametrize(
    ("ops", "told"),
    [
        ([bytes_written(END - BLOCK, 2 * BLOCK, BLOCK)], ""),
        ([bytes_written(END - BLOCK, 2 * BLOCK, BLOCK + 1)], "write(61440, 8192) = 4097"),
        ([bytes_written(END, BLOCK, 1)], "write(65536, 4096) = 1"),
        ([bytes_written(END + BLOCK, BLOCK, 0)], ""),
        ([bytes_written(END + BLOCK, BLOCK, ENOSPC)], ""),
        ([Op("discard", END, BLOCK, 0, BLOCK, 0, 0)], ""),
        (
            [bytes_written(END, BLOCK, BLOCK), bytes_written(END + BLOCK, BLOCK, BLOCK)],
            "write(65536, 4096) = 4096",
        ),
    ],
    ids=["up-to-the-end", "a-byte-more", "one-byte", "nothing", "refused", "no-write", "the-first"],
)
def test_what_was_taken_past_the_device_s_end_is_acknowledged_in_vain(
    ops: list[Op], told: str
) -> None:
    past = [
        (one.step, one.observed)
        for one in found(error_surfaced, filled([*ops, synced()], ""))
        if one.signature == "past-end-acknowledged"
    ]
    assert past == ([("fill", f"{told}, on a device of 65536 bytes")] if told else [])


def test_a_write_that_took_more_than_it_was_given_stored_no_more() -> None:
    """And of two the first is told."""
    ops = [bytes_written(0, BLOCK, 2 * BLOCK), bytes_written(2 * BLOCK, BLOCK, BLOCK + 1), synced()]
    one, *others = found(error_surfaced, filled(ops, "2"))
    assert [other.signature for other in others] == ["lost-in-silence"]
    assert (one.signature, one.step, one.level) == ("more-than-asked", "fill", Level.MUST)
    assert one.expected == "no more bytes are told to be written than were given"
    assert one.observed == "write(0, 4096) = 8192"


def test_of_a_device_whose_size_nobody_knows_no_end_is_known() -> None:
    tale = filled([bytes_written(END, BLOCK, BLOCK), synced()], "")
    seen = tale.observation
    (arm,) = seen.arms
    assert arm.built is not None
    unsized = arm.model_copy(update={"built": arm.built.model_copy(update={"layers": {}})})
    joined = trial(tale.variant, seen.model_copy(update={"arms": (unsized,)}))
    assert list(error_surfaced(joined)) == []


# -- no_foreign_data --------------------------------------------------------------------------------


def test_what_nobody_submitted_is_told_by_its_content() -> None:
    tale = filled([*stored(0, 6), synced()], "2222221..?", after="22222213.?")
    foreign, generation = found(no_foreign_data, tale)
    assert (foreign.signature, foreign.step) == ("foreign", "read_short")
    assert foreign.observed == (
        "bytes 36864 to 40959 (4 KiB) of device hold data that is no ledger's"
    )
    assert (generation.signature, generation.step) == ("never-submitted-generation", "read_short")
    assert generation.observed == (
        "bytes 24576 to 32767 (8 KiB) of device hold generation 1, 3, never submitted for them"
    )
    assert {one.expected for one in (foreign, generation)} == {
        "old content, or what was submitted for the block"
    }
