"""Steps whose answer has to be whole: what is said where it is not.

A ledger without an error in it must have all that was asked for, a script all of its calls, a reading every
byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from conformance.model import (
    BLOCK,
    Ended,
    Extent,
    Op,
    RangeKind,
    RangeOp,
    Role,
    Submit,
    Submitter,
    Verify,
)
from conformance.oracle.answer import rig_reasons
from conformance.oracle.scene import scenes
from tests.support.builders import (
    EIO,
    ENOSPC,
    PID,
    Act,
    Story,
    calls,
    closed,
    imposed,
    ran,
    read,
    relieved,
    stored,
    synced,
    write,
    wrote,
)

REFUSED = -1
"""EPERM, of all errors the one that is nearest to a success."""
FINE, STATUS = Ended(exit_code=0), Ended(exit_code=1)
KILLED, HELD = Ended(signal=9), Ended(timed_out=True)
NOBODY = "no submitter was seen"
TOLD_NOTHING = "the submitter ended with status 1 and told of no error"


def said(act: Act, role: str = "") -> list[str]:
    """What is said of a step of the case's own; with a role, of one before the shortage."""
    acts = (act, imposed(), relieved()) if role else (imposed(), act, relieved())
    tale = Story(acts=acts)
    (scene,) = scenes(tale.variant, tale.observation)
    found = list(rig_reasons(scene))
    assert all(reason.fatal for reason in found)
    of = f"arm main: {role} step it: " if role else "arm main: step it: "
    assert all(reason.text.startswith(of) for reason in found)
    return [reason.text.removeprefix(of) for reason in found]


def ending(act: Act, ended: Ended) -> Act:
    """The same act with another end of its submitter."""
    return act.ended(**ended.model_dump())


# -- writes -------------------------------------------------------------------------------------------

BUFFERED, DSYNC, LIBAIO = Submit.BUFFERED, Submit.DSYNC, Submit.FIO_LIBAIO
NOT_ALL = "the ledger has no error, and yet not every block was written"
NO_SYNC = "the ledger has no error, and yet does not end with a sync"
WHOLE = [*stored(0, 6), synced(), closed()]
PART = [*stored(0, 4), synced(), closed()]


def wrote_all(
    ops: Sequence[Op],
    ended: Ended = FINE,
    submit: Submit = BUFFERED,
    blocks: tuple[int, int] = (0, 6),
) -> list[str]:
    """What is said of a writer of these blocks that made these calls and ended so."""
    act = write("it", Role.PROVOKE, blocks, ops, generation=2, submit=submit)
    return said(ending(act, ended))


@pytest.mark.parametrize("ended", [KILLED, HELD])
def test_a_writer_that_was_ended_need_not_have_written_all(ended: Ended) -> None:
    assert wrote_all(PART, ended) == []


@pytest.mark.parametrize(
    "ops",
    [
        [*stored(0, 4), wrote(4, 2, REFUSED)],
        [*stored(0, 4), wrote(4, 2, ENOSPC), synced()],
        [*stored(0, 4), synced(EIO)],
        [*stored(0, 4), wrote(4, 2, 0)],
        [*stored(0, 4), wrote(4, 2, BLOCK), synced()],
    ],
)
def test_a_writer_that_was_told_need_not_have_written_all(ops: list[Op]) -> None:
    assert wrote_all(ops) == []
    assert wrote_all(ops, STATUS) == []


def test_fio_may_stop_at_an_error_that_it_did_not_log() -> None:
    assert wrote_all(stored(0, 4), STATUS, LIBAIO) == []
    assert wrote_all(stored(0, 4), submit=LIBAIO) == [NOT_ALL]
    assert wrote_all(stored(0, 6), submit=LIBAIO) == []


@pytest.mark.parametrize("submit", [BUFFERED, Submit.DIRECT, Submit.MMAP])
def test_a_writer_that_writes_all_syncs_at_the_end(submit: Submit) -> None:
    assert wrote_all(WHOLE, submit=submit) == []
    assert wrote_all([*stored(0, 6), closed()], submit=submit) == [NO_SYNC]
    before = [*stored(0, 4), synced(), *stored(4, 6)]
    assert wrote_all(before, submit=submit) == [NO_SYNC]
    assert wrote_all([*before, synced()], submit=submit) == []


def test_a_writer_under_o_dsync_need_not_sync() -> None:
    assert wrote_all(stored(0, 6), submit=DSYNC) == []


@pytest.mark.parametrize(
    "ops",
    [
        PART,
        [*stored(2, 6), synced()],
        [*stored(0, 2), *stored(4, 6), synced()],
        [*stored(0, 4), synced()._replace(offset=4 * BLOCK, length=2 * BLOCK)],
        [synced()],
        [],
    ],
)
def test_a_writer_without_an_error_has_written_all(ops: list[Op]) -> None:
    assert wrote_all(ops) == [NOT_ALL]
    assert wrote_all(ops, STATUS) == [NOT_ALL]


def test_a_writer_may_write_beyond_what_it_was_asked_for() -> None:
    assert wrote_all([*stored(0, 6), synced()], blocks=(2, 4)) == []


def test_nothing_can_be_written_beyond_the_end_of_the_device() -> None:
    """Which has sixteen blocks."""
    assert wrote_all([*stored(14, 16), synced()], blocks=(14, 18)) == []
    assert wrote_all([*stored(12, 14), synced()], blocks=(12, 18)) == [NOT_ALL]
    assert wrote_all([synced()], blocks=(16, 18)) == []
    assert wrote_all([], blocks=(16, 18)) == [NO_SYNC]


def test_a_writer_says_how_it_ended() -> None:
    assert wrote_all(WHOLE, STATUS) == [TOLD_NOTHING]
    assert wrote_all(stored(0, 6), STATUS, DSYNC) == [TOLD_NOTHING]
    assert wrote_all(WHOLE, Ended()) == ["the submitter did not end, and nobody said why"]


def test_a_step_without_a_submitter_is_none() -> None:
    acts = (
        write("it", Role.PROVOKE, (0, 2), [], generation=2),
        ran("it", Role.PROVOKE, ("true",)),
        calls("it", Role.PROVOKE, "open a; write a", [0, 8192], first=0, generation=2),
        zeroed([]),
    )
    for act in acts:
        assert said(Act(step=act.step)) == [NOBODY]
    assert said(acts[1]) == []


# -- scripts, ranges and readings -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "ended", "wrong"),
    [
        (3, FINE, []),
        (1, KILLED, []),
        (1, HELD, []),
        (3, STATUS, ["the submitter ended with status 1"]),
        (2, FINE, ["the calls seen are not those of the script: open write"]),
        (0, FINE, ["the calls seen are not those of the script: none"]),
    ],
)
def test_a_script_is_made_to_its_end(made: int, ended: Ended, wrong: list[str]) -> None:
    act = calls("it", Role.PROVOKE, "open a; write a; fsync a", [0, 8192, 0], first=0, generation=2)
    act.seen["file_ops"] = act.seen["file_ops"][:made]
    assert said(ending(act, ended)) == wrong


def zeroed(ops: Sequence[Op]) -> Act:
    """Blocks 2 to 5 are zeroed, two with each call."""
    step = RangeOp(
        name="it",
        role=Role.PROVOKE,
        verb="range_op",
        op=RangeKind.ZEROOUT,
        offset=2 * BLOCK,
        length=4 * BLOCK,
        request=2 * BLOCK,
    )
    submitter = Submitter(pid=PID, cgroup="", ops=tuple(ops), ended=FINE)
    return Act(step=step, seen={"submitter": submitter})


def zero(first: int, result: int = 0) -> Op:
    return Op("zeroout", first * BLOCK, 2 * BLOCK, 0, result, 1, 2)


NOT_ASKED = "no error was seen, and yet not the whole range was asked for"
UNSYNCED = "no error was seen, and yet no sync at the end"


@pytest.mark.parametrize(
    ("ops", "ended", "wrong"),
    [
        ([zero(2), zero(4), synced(), closed()], FINE, []),
        ([zero(2)], KILLED, []),
        ([zero(2)], HELD, []),
        ([zero(2), zero(4, REFUSED)], STATUS, []),
        ([zero(2), synced()], FINE, [NOT_ASKED]),
        ([zero(0), zero(2), zero(4), synced()], FINE, [NOT_ASKED]),
        ([wrote(2, 2), zero(4), synced()], FINE, [NOT_ASKED]),
        ([zero(2), zero(4), synced()], STATUS, [TOLD_NOTHING]),
        ([zero(2), zero(4), closed()], FINE, [UNSYNCED]),
        ([zero(2), synced(), zero(4)], FINE, [UNSYNCED]),
    ],
)
def test_a_range_is_asked_for_whole(ops: list[Op], ended: Ended, wrong: list[str]) -> None:
    assert said(ending(zeroed(ops), ended)) == wrong


def zeros(first: int, last: int) -> Extent:
    return Extent(first * BLOCK, (last - first) * BLOCK, "zero", None, None)


@pytest.mark.parametrize(
    ("extents", "whole"),
    [
        ([zeros(4, 8)], True),
        ([zeros(4, 5), zeros(5, 8)], True),
        ([zeros(6, 8), zeros(4, 6)], True),
        ([], False),
        ([zeros(4, 7)], False),
        ([zeros(5, 8)], False),
        ([zeros(4, 9)], False),
        ([zeros(4, 5), zeros(6, 8)], False),
        ([zeros(4, 5), zeros(6, 8), zeros(5, 6)], True),
        ([zeros(4, 6), zeros(5, 6), zeros(6, 8)], False),
        ([zeros(4, 8), zeros(4, 8)], False),
        ([zeros(4, 4), zeros(4, 8)], False),
        ([zeros(4, 8), zeros(8, 8)], False),
    ],
)
def test_a_reading_tells_of_each_byte_once(extents: list[Extent], *, whole: bool) -> None:
    act = read("it", "....", first=4)
    act.seen["extents"] = tuple(extents)
    assert said(act) == ([] if whole else ["the extents do not add up to bytes 16384 to 32767"])


def test_a_reading_ends_where_the_device_does() -> None:
    asked = read("it", "....", first=14).step
    assert isinstance(asked, Verify)
    assert said(Act(step=asked, seen={"extents": (zeros(14, 16),)})) == []
    for extents in ((zeros(14, 15),), (zeros(14, 18),)):
        assert said(Act(step=asked, seen={"extents": extents})) == [
            "the extents do not add up to bytes 57344 to 65535"
        ]
