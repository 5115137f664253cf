"""What a block may hold: acknowledged, refused, in flight, written by others. One story each.

``fill`` writes blocks 0 to 11 of a device of 16 while there is space for eight; blocks 14 and 15 are the
control's, of generation 1. The expectations are the norm's: "Acknowledged means", and of what it allows,
O_DIRECT, short counts, and a success of fsync after a failed one.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from conformance.model import BLOCK, Hog, Level, Op, Reading, Role, Status, Submit
from tests.support.builders import (
    EIO,
    ENOSPC,
    SPACE,
    Act,
    Story,
    closed,
    imposed,
    ran,
    read,
    relieved,
    stored,
    story,
    synced,
    told,
    write,
    wrote,
)

LOST = {
    ("must", "acknowledged_readable", "zeros"),
    ("must", "error_surfaced", "lost-in-silence"),
}
FOREIGN = {("must", "no_foreign_data", "foreign")}
REFUSED = wrote(6, 2, ENOSPC)
ACKNOWLEDGED = [*stored(0, 6), synced(), REFUSED, synced()]
"""Blocks 0 to 5, and then a refusal."""
DIRECT, DSYNC, MMAP = Submit.DIRECT, Submit.DSYNC, Submit.MMAP


def filled(
    ops: Sequence[Op],
    content: str,
    *,
    submit: Submit = Submit.BUFFERED,
    signal: int | None = None,
    after: str | None = None,
    end: int = 12,
) -> Story:
    """``fill`` makes these calls, and its twelve blocks read so during the shortage and after."""
    fill = write("fill", Role.PROVOKE, (0, end), ops, generation=2, submit=submit)
    if signal is not None:
        submitter = fill.seen["submitter"].model_copy(update={"killed_by_rig": True})
        fill = Act(step=fill.step, seen={"submitter": submitter}).ended(signal=signal)
    whole = story(submit)
    return Story(
        acts=(
            whole.act("control"),
            whole.act("control_read"),
            imposed(),
            fill,
            read("read_short", content.ljust(14, ".") + "11"),
            relieved(),
            read("read_relieved", (after or content).ljust(14, ".") + "11"),
        )
    )


FINE: dict[str, Story] = {
    "a refused buffered write, and zeros": filled([*stored(0, 6), REFUSED, synced()], "222222"),
    "a refused buffered write that is there all the same": filled(
        [*stored(0, 6), REFUSED, synced()], "22222222"
    ),
    "a refused O_DIRECT write, and anything": filled(
        [*stored(0, 6), REFUSED, synced()], "222222??", submit=DIRECT
    ),
    "an O_DIRECT write that came back short, and anything after the count": filled(
        [*stored(0, 6), wrote(6, 2, BLOCK), synced()], "2222222?", submit=DIRECT
    ),
    "a buffered write that came back short, and zeros after the count": filled(
        [*stored(0, 6), wrote(6, 2, BLOCK), synced()], "2222222."
    ),
    "a buffered write that came back short in the midst of a block": filled(
        [*stored(0, 6), wrote(6, 2, BLOCK + 512), synced()], "2222222?"
    ),
    "a loss of which fsync told, although the next fsync succeeded": filled(
        [*stored(0, 6), synced(EIO), *stored(6, 8), synced()], "......22"
    ),
    "a loss of which fsync told, although fsync alone succeeded afterwards": filled(
        [*stored(0, 6), synced(EIO), synced()], "......"
    ),
    "a loss of which msync told": filled([*stored(0, 6), synced(EIO)], "22....", submit=MMAP),
    "a write that was not over when the sync began": filled(
        [
            wrote(0, 2)._replace(start_us=1, end_us=90),
            synced()._replace(start_us=50, end_us=100),
        ],
        "..",
        submit=DIRECT,
        signal=9,
    ),
    "old content where the overwriting of an acknowledged block was refused": filled(
        [*stored(0, 6), synced(), wrote(0, 2, EIO), synced(EIO)], "222222"
    ),
    "a buffered writer that was killed: its request is there": filled(
        stored(0, 6), "22222222", signal=9
    ),
    "a buffered writer that was killed: its request is not there": filled(
        stored(0, 6), "222222", signal=9
    ),
    "an O_DIRECT writer that was killed: its request is anything": filled(
        stored(0, 6), "222222??", submit=DIRECT, signal=9
    ),
    "a mapping's writer that was killed: a page of its request is torn": filled(
        stored(0, 6), "2222222?", submit=MMAP, signal=9
    ),
    "a mapping's writer that was killed at its first request": filled(
        [], "?.", submit=MMAP, signal=9
    ),
    "fio that was killed, of which no request is known": filled(
        [], "2222??2..2.?", submit=Submit.FIO_LIBAIO, signal=9
    ),
    "io_uring through the page cache, whose request failed: old content": filled(
        [*stored(0, 6), REFUSED, synced()], "222222", submit=Submit.FIO_IO_URING_BUFFERED
    ),
    "a request by O_DIRECT from a registered buffer that failed, and anything": filled(
        [*stored(0, 6), synced(), REFUSED], "222222??", submit=Submit.FIO_IO_URING_FIXED
    ),
    "a killed writer's blocks that fsync had not covered": filled(stored(0, 6), "", signal=9),
}


@pytest.mark.parametrize("name", FINE)
def test_nothing_is_said_of(name: str) -> None:
    verdict = FINE[name].verdict
    assert (verdict.status, told(verdict), verdict.reasons) == (Status.PASS, set(), ())


WRONG: dict[str, tuple[Story, set[tuple[str, str, str]]]] = {
    "zeros where fsync succeeded": (filled([*stored(0, 6), REFUSED, synced()], "2.2222"), LOST),
    "zeros where msync succeeded": (
        filled([*stored(0, 6), synced()], "22222.", submit=MMAP, end=6),
        LOST,
    ),
    "zeros where fsync succeeded, and another told of an error": (
        filled([*stored(0, 6), synced(), *stored(6, 8), synced(EIO)], "2.2222"),
        # The submitter was told that something of its is lost; the byte is gone all the same.
        {("must", "acknowledged_readable", "zeros")},
    ),
    "zeros where O_DSYNC succeeded": (
        filled([*stored(0, 6), REFUSED], "22.222", submit=DSYNC),
        LOST,
    ),
    "zeros where io_uring completed a write under O_DSYNC": (
        filled([*stored(0, 6), REFUSED], "22.222", submit=Submit.FIO_IO_URING_DSYNC),
        LOST,
    ),
    "foreign data where io_uring's write through the page cache was refused": (
        filled([*stored(0, 6), REFUSED, synced()], "222222?", submit=Submit.FIO_IO_URING_BUFFERED),
        FOREIGN,
    ),
    "zeros within the count of a short write": (
        filled([*stored(0, 6), wrote(6, 2, BLOCK), synced()], "222222"),
        LOST,
    ),
    "zeros where fsync succeeded before the writer was killed": (
        filled([*stored(0, 4), synced(), *stored(4, 6)], "222", signal=9),
        # It did not live to be told.
        {("must", "acknowledged_readable", "zeros")},
    ),
    "foreign data where a buffered write was refused": (
        filled([*stored(0, 6), REFUSED, synced()], "222222?"),
        FOREIGN,
    ),
    "foreign data after a failed fsync of a buffered write": (
        filled([*stored(0, 6), synced(EIO)], "2222?2"),
        FOREIGN,
    ),
    "foreign data where a killed buffered writer was at work": (
        filled(stored(0, 6), "222222?", signal=9),
        FOREIGN,
    ),
    "a torn page of a request that was over when the writer was killed": (
        filled(stored(0, 6), "22222?", submit=MMAP, signal=9),
        FOREIGN,
    ),
    "a torn page beyond the request that was in flight": (
        filled(stored(0, 6), "222222..?", submit=MMAP, signal=9),
        FOREIGN,
    ),
    "a torn page although the writer ended by itself": (
        filled([*stored(0, 6), synced(EIO)], "222222?", submit=MMAP),
        FOREIGN,
    ),
    "foreign data where O_DIRECT neither failed nor was asked for": (
        filled([*stored(0, 6), REFUSED, synced()], "222222??.?", submit=DIRECT),
        FOREIGN,
    ),
    "another generation where nobody wrote": (
        filled([*stored(0, 6), REFUSED, synced()], "222222...1"),
        {("must", "no_foreign_data", "never-submitted-generation")},
    ),
    "foreign data where fsync succeeded, when nobody reads again": (
        filled(ACKNOWLEDGED, "2222?2"),
        {("must", "acknowledged_readable", "foreign"), *FOREIGN},
    ),
    "zeros that turn up again after relief": (
        filled(ACKNOWLEDGED, "22..22", after="222222"),
        {("should", "acknowledged_readable", "zeros-during-shortage")},
    ),
    "zeros only after relief, which were stored at first": (
        filled(ACKNOWLEDGED, "222222", after="22.222"),
        {("must", "acknowledged_readable", "zeros-once-stored")},
    ),
    "blocks that cannot be read while the shortage lasts": (
        filled(ACKNOWLEDGED, "22!!22", after="222222"),
        {("should", "acknowledged_readable", "unreadable-during-shortage")},
    ),
    "blocks that cannot be read after relief": (
        filled(ACKNOWLEDGED, "222222", after="22!222"),
        {("must", "acknowledged_readable", "unreadable")},
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_it_is_told_of(name: str) -> None:
    tale, wanted = WRONG[name]
    verdict = tale.verdict
    assert told(verdict) == wanted, verdict.reasons
    failed = any(level == "must" for level, _, _ in wanted)
    assert verdict.status is (Status.FAIL if failed else Status.PASS)


def test_an_acknowledged_overwriting_that_is_undone_is_a_loss() -> None:
    undone = story().but(
        read("read_relieved", "222222........11"), read("read_reattached", "222222......4411")
    )
    assert told(undone.verdict) == {
        ("must", "acknowledged_readable", "older"),
        ("must", "error_surfaced", "lost-in-silence"),
        ("must", "overwrite_in_place", "not-stored"),
    }


def test_a_block_that_was_written_again_may_hold_either_generation() -> None:
    again = story().but(
        write(
            "overwrite",
            Role.OVERWRITE,
            (0, 2),
            [*stored(0, 2), synced(EIO), closed()],
            generation=3,
        ),
        read("read_relieved", "232222........11"),
        read("read_reattached", "232222......4411"),
    )
    assert told(again.verdict) == {("must", "overwrite_in_place", "sync-failed:EIO")}


# -- commands, of whose writes no ledger knows ------------------------------------------------------

DD = ("dd", "if=/dev/urandom", "of={device}", "bs=4096", "seek=8", "count=2")


def around_dd(*acts: Act, content: str) -> Story:
    """Dd writes blocks 8 and 9 while the shortage lasts."""
    whole = story()
    return Story(
        acts=(
            whole.act("control"),
            whole.act("control_read"),
            imposed(),
            ran("dd", Role.PROVOKE, DD),
            *acts,
            read("read_short", content),
            relieved(),
            read("read_relieved", content),
        )
    )


def test_what_a_command_wrote_is_nobody_s_to_judge() -> None:
    assert told(around_dd(content="........??....11").verdict) == set()


def test_data_beside_what_a_command_wrote_is_foreign() -> None:
    assert told(around_dd(content="........???...11").verdict) == FOREIGN


def test_a_refused_write_leaves_what_a_command_wrote_before() -> None:
    refused = write("ledger", Role.REUSE, (8, 10), [wrote(8, 2, ENOSPC), synced()], generation=2)
    assert told(around_dd(refused, content="........??....11").verdict) == set()


def test_a_write_over_what_a_command_wrote_is_judged_again() -> None:
    over = write("ledger", Role.REUSE, (8, 10), [wrote(8, 2), synced()], generation=2)
    assert told(around_dd(over, content="........22....11").verdict) == set()
    assert ("must", "acknowledged_readable", "foreign") in told(
        around_dd(over, content="........2?....11").verdict
    )


def test_a_command_that_wrote_over_acknowledged_blocks_ends_their_judgement() -> None:
    over = write("ledger", Role.SETUP, (8, 10), [wrote(8, 2), synced()], generation=2)
    whole = story()
    tale = Story(
        acts=(
            whole.act("control"),
            over,
            whole.act("control_read"),
            imposed(),
            ran("dd", Role.PROVOKE, DD),
            read("read_short", "........??....11"),
            relieved(),
            read("read_relieved", "........??....11"),
        )
    )
    assert told(tale.verdict) == set()


# -- the end of the device --------------------------------------------------------------------------


def test_an_error_beyond_the_end_of_the_device_is_no_shortage() -> None:
    """ENOSPC there is right, and so is any errno: nobody is judged by it."""
    beyond = [*stored(0, 6), wrote(15, 2, EIO), synced()]
    verdict = filled(beyond, "222222", submit=DIRECT, end=17).verdict
    assert (verdict.status, told(verdict)) == (Status.PASS, set())


def test_an_error_at_the_end_of_the_device_does_not_show_that_the_shortage_arrived() -> None:
    refused = [*stored(0, 6), wrote(15, 2, ENOSPC), synced()]
    tale = filled(refused, "222222", submit=DIRECT, end=17)
    reading = tale.observation.arms[0].steps[2].watch.reading
    plenty = reading.model_copy(update={"used": 0, "hits": 0})
    acts = tuple(
        act.watching(reading=plenty) if act.step.name in ("fill", "read_short") else act
        for act in tale.acts
    )
    verdict = tale.with_(acts=acts).verdict
    assert verdict.status is Status.BROKEN
    assert any("not shown to have arrived" in reason for reason in verdict.reasons)


@pytest.mark.parametrize(("left", "status"), [(65536, Status.PASS), (81920, Status.BROKEN)])
def test_a_filesystem_keeps_a_little_back_although_it_refuses(left: int, status: Status) -> None:
    """The gauge of a hog may stay 64 KiB from the end, and a request of two blocks more."""
    hog = Hog(kind="hog", layer="back", leave=SPACE * BLOCK)
    tale = filled([*stored(0, 6), REFUSED, synced()], "222222").with_(shortage=hog)
    short = Reading(kind="hog", used=(1 << 20) - left, limit=1 << 20)
    freed = Reading(kind="hog", used=0, limit=1 << 20)
    at_first = Reading(kind="hog", used=0, limit=1 << 20)
    told_at = {"impose": at_first, "relieve": freed, "read_relieved": freed}
    acts = tuple(act.watching(reading=told_at.get(act.step.name, short)) for act in tale.acts)
    assert tale.with_(acts=acts).verdict.status is status


def test_a_lost_byte_of_a_case_that_only_recommends_is_no_failure() -> None:
    lost = filled(ACKNOWLEDGED, "2.2222").with_(level=Level.SHOULD)
    verdict = lost.verdict
    assert verdict.status is Status.PASS
    assert {level for level, _, _ in told(verdict)} == {"should"}
