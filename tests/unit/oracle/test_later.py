"""Whose error the first sync of a step may be: one that a step before left over, told late.

The expectations are errseq's (Documentation/core-api/errseq.rst): an error of the page cache is kept until
it was reported once, and whoever syncs the device next has it reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from conformance.model import (
    BLOCK,
    Ended,
    Op,
    RangeKind,
    RangeOp,
    Role,
    Submit,
    Submitter,
)
from conformance.oracle.later import excused, leftover, may_be_told_late
from conformance.oracle.scene import Scene
from tests.support import builders
from tests.support.builders import (
    EIO,
    PID,
    Act,
    Story,
    closed,
    imposed,
    ran,
    read,
    stored,
    synced,
    write,
    wrote,
)
from tests.support.trials import joined

EPERM = -1
TWO = stored(0, 4)
"""Two requests that the page cache took."""


def scene(*acts: Act) -> Scene:
    return joined(Story(acts=acts)).acts[0].scene


def wrote_by(submit: Submit, *ops: Op, name: str = "first") -> Act:
    return write(name, Role.PROVOKE, (0, 4), ops, generation=2, submit=submit)


def buffered(*ops: Op) -> Act:
    return wrote_by(Submit.BUFFERED, *ops, closed())


def command(*argv: str) -> Act:
    return ran("first", Role.PROVOKE, argv)


def calls(script: str) -> Act:
    """A script on the device of which each call succeeded."""
    results = [2 * BLOCK if "write" in call else 0 for call in script.split(";")]
    return builders.calls("script", Role.PROVOKE, script, results, generation=3)


def ranged(*ops: Op, target: str = "device") -> Act:
    """A discard of the first block."""
    step = RangeOp(
        name="range",
        role=Role.PROVOKE,
        verb="range_op",
        target=target,
        op=RangeKind.DISCARD,
        length=BLOCK,
    )
    submitter = Submitter(pid=PID, cgroup="", ops=ops, ended=Ended(exit_code=0))
    return Act(step=step, seen={"submitter": submitter})


def on_image(act: Act) -> Act:
    """The same to the file below the device, which has a page cache of its own."""
    return replace(act, step=act.step.model_copy(update={"target": "image"}))


def unseen(act: Act) -> Act:
    return replace(act, seen={})


DD = ("dd", "if=/dev/zero", "of={device}", "bs=4096", "count=1")

LEFT_OVER = {
    "writes that nobody synced": buffered(*TWO),
    "a write after the last sync": buffered(wrote(0, 2), synced(), wrote(2, 2)),
    "stores into a mapping": wrote_by(Submit.MMAP, *TWO),
    "synced writes of a writer that was killed": buffered(*TWO, synced()).ended(signal=9),
    "synced writes of a writer that ran over its limit": buffered(*TWO, synced()).ended(
        timed_out=True
    ),
    "dd": command(*DD),
    "dd that syncs, and was killed": command(*DD, "conv=fsync").ended(signal=9),
    "a script without a sync": calls("open a; write a; close a"),
    "a script with one that ran over its limit": calls("open a; write a; fsync a").ended(
        timed_out=True
    ),
}
NOTHING_LEFT_OVER = {
    "no submitter": imposed(),
    "a submitter that nobody saw": unseen(buffered(*TWO)),
    "writes that were synced": buffered(*TWO, synced()),
    "writes whose sync failed": buffered(*TWO, synced(EIO)),
    "a writer that wrote nothing": buffered(),
    "writes under O_DIRECT": wrote_by(Submit.DIRECT, *TWO),
    "writes under O_DSYNC": wrote_by(Submit.DSYNC, *TWO),
    "a discard": ranged(Op("discard", 0, BLOCK, 0, 0, 1, 2)),
    "dd that syncs at its end": command(*DD, "conv=fsync"),
    "dd that syncs the data at its end": command(*DD, "conv=fdatasync"),
    "dd under O_SYNC": command(*DD, "oflag=sync"),
    "dd under O_DSYNC": command(*DD, "oflag=dsync"),
    "a shell that syncs": command("sh", "-c", "cat /etc/passwd > {device}; sync {device}"),
    "a script with a sync": calls("open a; write a; fsync a"),
    "a script under O_DIRECT": calls("open a direct; write a"),
}


@pytest.mark.parametrize("name", LEFT_OVER)
def test_the_fate_is_open_of(name: str) -> None:
    (taken,) = scene(LEFT_OVER[name]).taken
    assert leftover(taken) is True


@pytest.mark.parametrize("name", NOTHING_LEFT_OVER)
def test_nothing_is_left_over_of(name: str) -> None:
    (taken,) = scene(NOTHING_LEFT_OVER[name]).taken
    assert leftover(taken) is False


# -- between what was left over and a sync ----------------------------------------------------------

LEFT = buffered(*TWO)
ELSEWHERE = on_image(LEFT)
LAST = wrote_by(Submit.BUFFERED, *TWO, synced(EIO), closed(), name="last")
NO_WRITE = wrote_by(Submit.BUFFERED, closed(EPERM), name="between")
SYNC = ("sh", "-c", "sync {device}")

LATE: dict[str, Sequence[Act]] = {
    "a step left writes over": [LEFT],
    "nobody did anything since": [LEFT, imposed(), read("look", "2222")],
    "what came between wrote nothing": [LEFT, NO_WRITE],
    "O_DSYNC came between, and wrote nothing": [LEFT, wrote_by(Submit.DSYNC, name="between")],
    "O_DIRECT came between, which syncs no page": [LEFT, wrote_by(Submit.DIRECT, *TWO)],
    "another's sync was of the file below": [LEFT, on_image(buffered(*TWO, synced()))],
    "a discard of another device was synced": [LEFT, ranged(synced(), target="other")],
    "a discard of the device was not synced": [LEFT, ranged()],
    "a command synced something else": [LEFT, command("sync", "/mnt/file")],
    "nobody knows how a command that syncs ended": [
        LEFT,
        command(*SYNC).ended(),
    ],
    "a script came between that asked nothing": [LEFT, calls("open a direct; write a; close a")],
    "a command left writes over": [command(*DD)],
}
IN_TIME: dict[str, Sequence[Act]] = {
    "nobody wrote before": [],
    "all was synced": [buffered(*TWO, synced())],
    "another synced since": [LEFT, buffered(*TWO, synced())],
    "another was told since": [LEFT, buffered(*TWO, synced(EIO))],
    "O_DIRECT with a sync came between": [LEFT, wrote_by(Submit.DIRECT, *TWO, synced())],
    "O_DSYNC came between, which syncs by itself": [LEFT, wrote_by(Submit.DSYNC, *TWO)],
    "a discard of the device was synced": [LEFT, ranged(synced())],
    "a command synced the device": [LEFT, command(*SYNC)],
    "a script synced the device": [LEFT, calls("open a; write a; fsync a")],
    "what was left over is in the file below": [ELSEWHERE],
    "a command wrote to something else": [command("cp", "/etc/passwd", "/mnt")],
}


@pytest.mark.parametrize("name", LATE)
def test_a_sync_may_be_told_of_another_s_error_if(name: str) -> None:
    found = scene(*LATE[name], LAST)
    assert may_be_told_late(found, found.taken[-1]) is True


@pytest.mark.parametrize("name", IN_TIME)
def test_a_sync_is_told_of_its_own_error_if(name: str) -> None:
    found = scene(*IN_TIME[name], LAST)
    assert may_be_told_late(found, found.taken[-1]) is False


@pytest.mark.parametrize("left", [LEFT, ELSEWHERE, command("cp", "/etc/passwd", "/mnt")])
def test_a_command_may_be_told_of_whatever_was_left_over(left: Act) -> None:
    """What it syncs, nobody knows."""
    found = scene(left, command("sync"))
    assert may_be_told_late(found, found.taken[-1]) is True


def test_what_comes_after_a_step_is_not_told_by_it() -> None:
    found = scene(LAST, LEFT)
    assert may_be_told_late(found, found.taken[0]) is False


# -- which call of a step is excused ----------------------------------------------------------------


def excused_of(*acts: Act) -> Op | None:
    found = scene(*acts)
    return excused(found, found.taken[-1])


@pytest.mark.parametrize("code", [EIO, EPERM])
def test_the_first_sync_that_fails_is_excused(code: int) -> None:
    syncs = [*stored(0, 2), synced(code), *stored(2, 4), synced(EIO)]
    one = excused_of(LEFT, buffered(*syncs))
    assert one is not None
    assert (one.kind, one.result, one.start_us) == ("sync", code, 20)


def test_the_first_write_that_syncs_itself_is_excused() -> None:
    one = excused_of(LEFT, wrote_by(Submit.DSYNC, wrote(0, 2, EIO), wrote(2, 2, EIO)))
    assert one is not None
    assert (one.kind, one.offset, one.result) == ("write", 0, EIO)


NO_EXCUSE: dict[str, Sequence[Act]] = {
    "the first sync succeeded": [LEFT, buffered(*TWO, synced(), synced(EIO))],
    "a write failed and no sync": [LEFT, buffered(wrote(0, 2, EIO))],
    "a sync failed where each write syncs": [LEFT, wrote_by(Submit.DSYNC, *TWO, synced(EIO))],
    "nothing was left over": [LAST],
    "it is a command": [LEFT, command("sync")],
}


@pytest.mark.parametrize("name", NO_EXCUSE)
def test_no_call_is_excused_if(name: str) -> None:
    assert excused_of(*NO_EXCUSE[name]) is None
