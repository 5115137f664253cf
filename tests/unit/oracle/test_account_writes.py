"""What the ledger makes of writes and their syncs: block by block.

The expectations are those of the norm ("Acknowledged means", and of what it allows): who reads them sees a
device of which ``line`` says what became of what was acknowledged, and ``alien`` what nobody wrote.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from conformance.model import BLOCK, Op, Role, Submit, Write
from conformance.oracle.account import UNSPECIFIED, Account, Ack, Found, cached
from tests.support.accounts import account_of, alien, line
from tests.support.builders import EIO, ENOSPC, Act, ran, read, stored, synced, write, wrote

EPERM = -errno.EPERM
W = 2 * BLOCK
DIRECT, DSYNC, FIO, MMAP = Submit.DIRECT, Submit.DSYNC, Submit.FIO_LIBAIO, Submit.MMAP


def fill(
    ops: Sequence[Op],
    *,
    submit: Submit = Submit.BUFFERED,
    blocks: tuple[int, int] = (0, 12),
    generation: int = 2,
    name: str = "fill",
    **ended: Any,
) -> Act:
    act = write(name, Role.PROVOKE, blocks, ops, generation=generation, submit=submit)
    return act.ended(**ended) if ended else act


def at_byte(offset: int, length: int, result: int | None = None) -> Op:
    return Op("write", offset, length, 2, length if result is None else result, 0, 0)


def between(start_us: int, end_us: int, op: Op) -> Op:
    return op._replace(start_us=start_us, end_us=end_us)


# -- what is acknowledged -------------------------------------------------------------------------


def test_an_acknowledgement_names_its_write_its_step_and_what_gave_it() -> None:
    account = account_of(
        ran("before", Role.SETUP, ["true"]),
        fill([wrote(0, 1), wrote(1, 1), synced()]),
        read("look", "2."),
    )
    first = Ack(order=1, generation=2, step=1, by="write() and fsync()", told=False)
    second = Ack(order=2, generation=2, step=1, by="write() and fsync()", told=False)
    assert account.found == (
        Found(verify=2, block=0, ack=first, kind=None),
        Found(verify=2, block=1, ack=second, kind="zeros"),
    )


HALF = [wrote(0, 2), wrote(2, 2, BLOCK), wrote(4, 2, ENOSPC)]
"""A request that is stored, one by half, and one that is refused."""

ACKNOWLEDGED: dict[str, tuple[Submit, list[Op], str]] = {
    "nothing without a sync": (Submit.BUFFERED, HALF, ""),
    "by fsync, whole requests and halves": (Submit.BUFFERED, [*HALF, synced()], "zzz"),
    "nothing by an fsync that failed": (Submit.BUFFERED, [*HALF, synced(EPERM)], ""),
    "nothing by an fsync before": (Submit.BUFFERED, [synced(), *HALF], ""),
    "nothing by a success after a failure": (Submit.DIRECT, [*HALF, synced(EIO), synced()], ""),
    "by O_DSYNC itself": (DSYNC, HALF, "zzz"),
    "by RWF_DSYNC itself": (Submit.RWF_DSYNC, HALF, "zzz"),
    "by O_DIRECT and O_DSYNC": (Submit.DIRECT_DSYNC, HALF, "zzz"),
    "nothing by the completion of an engine": (FIO, HALF, ""),
    "what is written after a failure": (
        Submit.BUFFERED,
        [wrote(0, 2), synced(EIO), wrote(2, 2), synced()],
        "--zz",
    ),
    "what ended when the sync began": (
        DIRECT,
        [between(1, 50, wrote(0, 1)), between(50, 60, synced())],
        "z",
    ),
    "not what ended after the sync began": (
        DIRECT,
        [between(1, 51, wrote(0, 1)), between(50, 60, synced())],
        "",
    ),
    "what ended after a sync began, by the next": (
        DIRECT,
        [between(1, 51, wrote(0, 1)), between(50, 60, synced()), between(70, 80, synced())],
        "z",
    ),
    "what was in flight when a sync failed": (
        DIRECT,
        [between(1, 51, wrote(0, 1)), between(50, 60, synced(EIO)), between(70, 80, synced())],
        "z",
    ),
    "not what had just ended when a sync failed": (
        DIRECT,
        [between(1, 50, wrote(0, 1)), between(50, 60, synced(EIO)), between(70, 80, synced())],
        "",
    ),
    "whole blocks alone": (DIRECT, [at_byte(512, 3 * BLOCK), synced()], "-zz"),
    "whole blocks of a count alone": (DIRECT, [at_byte(0, W, W - 1), synced()], "z"),
}


@pytest.mark.parametrize("name", ACKNOWLEDGED)
def test_what_is_acknowledged(name: str) -> None:
    submit, ops, lost = ACKNOWLEDGED[name]
    assert line(account_of(fill(ops, submit=submit), read("look", "......"))) == lost


def test_of_two_in_flight_on_one_block_the_later_counts() -> None:
    """What was written first may not come back, though it was acknowledged last."""
    account = account_of(
        fill(
            [
                between(1, 90, wrote(0, 1, generation=3)),
                between(2, 20, wrote(0, 1, generation=4)),
                between(30, 40, synced()),
                between(95, 99, synced()),
            ],
            submit=DIRECT,
        ),
        read("look", "3"),
    )
    assert line(account) == "o"


def test_the_later_acknowledgement_of_a_block_takes_the_place_of_the_earlier() -> None:
    ops = [wrote(0, 1), synced(), wrote(0, 1, generation=3), synced()]
    assert line(account_of(fill(ops), read("look", "2"))) == "o"


def test_what_is_written_over_and_not_synced_may_hold_either() -> None:
    ops = [wrote(0, 3), synced(), wrote(0, 3, generation=3)]
    assert line(account_of(fill(ops), read("look", "32."))) == "++z"


LATER = [wrote(0, 1), synced(), wrote(1, 1), synced(EIO)]
TOLD: dict[str, tuple[Act, bool]] = {
    "an error of a later fsync": (fill(LATER), True),
    "an error of an earlier fsync": (fill([synced(EIO), wrote(0, 1), synced()]), False),
    "an error of an fsync after a write under O_DSYNC": (
        fill([wrote(0, 1), synced(EIO)], submit=DSYNC),
        True,
    ),
    "an error of an fsync before a write under O_DSYNC": (
        fill([synced(EIO), wrote(0, 1)], submit=DSYNC),
        False,
    ),
    "a signal": (fill(LATER[:2], signal=9), True),
    "the end of its time": (fill(LATER[:2], timed_out=True, exit_code=0), True),
    "a SIGKILL that it outlived": (fill(LATER[:2], killable=False), True),
    "nothing": (fill(LATER[:2]), False),
    "an exit status": (fill(LATER[:2], exit_code=1), False),
}


@pytest.mark.parametrize("name", TOLD)
def test_whether_a_submitter_was_told_or_did_not_live_to_be(name: str) -> None:
    act, told = TOLD[name]
    assert [one.ack.told for one in account_of(act, read("look", ".")).found] == [told]


# -- what a write leaves open ---------------------------------------------------------------------

OPEN: dict[str, tuple[Submit, list[Op], list[int]]] = {
    "a refused O_DIRECT write: its range": (DIRECT, [wrote(1, 2, ENOSPC)], [0, 3, 4]),
    "a refused buffered write: nothing": (Submit.BUFFERED, [wrote(1, 2, ENOSPC)], [0, 1, 2, 3, 4]),
    "a short O_DIRECT write: what is after the count": (DIRECT, [wrote(0, 4, W)], [0, 1, 4]),
    "a short buffered write: nothing": (Submit.BUFFERED, [wrote(0, 4, W)], [0, 1, 2, 3, 4]),
    "a short buffered write: the block in which it ended": (
        Submit.BUFFERED,
        [wrote(0, 4, W + 1)],
        [0, 1, 3, 4],
    ),
    "a write from the midst of a block to the midst of another: these": (
        Submit.BUFFERED,
        [at_byte(512, W)],
        [1, 3, 4],
    ),
    "an O_DIRECT write that was stored: nothing": (DIRECT, [wrote(0, 5)], [0, 1, 2, 3, 4]),
    "a write of nothing: nothing": (DIRECT, [at_byte(512, 0)], [0, 1, 2, 3, 4]),
}


@pytest.mark.parametrize("name", OPEN)
def test_what_a_write_leaves_open(name: str) -> None:
    submit, ops, foreign = OPEN[name]
    account = account_of(fill(ops, submit=submit), read("look", "?????"))
    assert alien(account) == foreign


def test_a_write_of_nothing_submits_nothing() -> None:
    account = account_of(fill([at_byte(512, 0)]), read("look", "2"))
    assert alien(account) == [0]


@pytest.mark.parametrize("submit", Submit)
def test_where_the_page_cache_is_passed_by_a_refused_range_is_open(submit: Submit) -> None:
    through_cache = {
        "buffered",
        "dsync",
        "rwf_dsync",
        "mmap",
        "fio_io_uring_buffered",
        "fio_io_uring_dsync",
    }
    act = fill([wrote(0, 1, ENOSPC)], submit=submit, blocks=(0, 1))
    assert alien(account_of(act, read("look", "?"))) == ([0] if submit in through_cache else [])
    assert (submit in UNSPECIFIED) is (submit not in through_cache)
    assert isinstance(act.step, Write)
    assert cached(act.step) is (submit in through_cache)


def test_an_open_block_is_judged_again_once_it_is_acknowledged_anew() -> None:
    ops = [wrote(0, 2, ENOSPC), wrote(0, 1), synced()]
    account = account_of(fill(ops, submit=DIRECT), read("look", "??"))
    assert (line(account), alien(account)) == ("f", [0])


# -- who did not end by itself --------------------------------------------------------------------


def deeper(act: Act, depth: int = 2, **how: Any) -> Act:
    """The act's step with so many requests in flight."""
    return replace(act, step=act.step.model_copy(update={"depth": depth, **how}))


DONE = stored(0, 6)
UNRECORDED: dict[str, tuple[Act, str, list[int]]] = {
    "who ended well has nothing in flight": (fill(DONE), "2" * 12, [6, 7, 8, 9, 10, 11]),
    "who ended with a status has nothing in flight": (
        fill([*DONE, wrote(6, 2, ENOSPC)], exit_code=1),
        "2" * 12,
        [8, 9, 10, 11],
    ),
    "who was killed has one request in flight": (
        fill(DONE, signal=9),
        "2" * 12,
        [8, 9, 10, 11],
    ),
    "who was ended in time has one request in flight": (
        fill(DONE, timed_out=True, exit_code=0),
        "2" * 12,
        [8, 9, 10, 11],
    ),
    "of whose end nothing is known has one request in flight": (
        fill(DONE, exit_code=None),
        "2" * 12,
        [8, 9, 10, 11],
    ),
    "the request in flight follows the last, however long that was": (
        fill([wrote(0, 1), wrote(1, 2)], signal=9),
        "222222",
        [5],
    ),
    "as many requests as it may have": (
        deeper(fill(DONE, signal=9)),
        "2" * 12,
        [10, 11],
    ),
    "the request ends with the region": (
        fill(DONE, blocks=(0, 7), signal=9),
        "2" * 12,
        [7, 8, 9, 10, 11],
    ),
    "the first request": (fill([], blocks=(2, 12), signal=9), "2222222", [0, 1, 4, 5, 6]),
    "a sync after the last request": (fill([*DONE, synced()], signal=9), "2" * 9, [8]),
    "a page cache tears no block": (fill(DONE, signal=9), "222222??", [6, 7]),
    "O_DIRECT may leave anything": (
        fill(DONE, submit=DIRECT, signal=9),
        "??????????",
        [*range(6), 8, 9],
    ),
    "a mapping's page may be torn": (fill(DONE, submit=MMAP, signal=9), "222222???", [8]),
    "fio may have stored what it did not log before the last that it did, and a request more": (
        fill(stored(4, 6), submit=FIO, blocks=(2, 10), signal=9),
        "2" * 12,
        [0, 1, 8, 9, 10, 11],
    ),
    "fio may have torn that, and not what it logged": (
        fill(stored(4, 6), submit=FIO, blocks=(2, 10), signal=9),
        "?" * 12,
        [0, 1, 4, 5, 8, 9, 10, 11],
    ),
    "fio may have as many requests more as it keeps in flight": (
        deeper(fill(stored(4, 6), submit=FIO, blocks=(2, 12), signal=9)),
        "2" * 14,
        [0, 1, 10, 11, 12, 13],
    ),
    "fio that logged nothing may have stored any of the region": (
        fill([], submit=FIO, blocks=(2, 10), signal=9),
        "2" * 12,
        [0, 1, 10, 11],
    ),
    "fio in no order may have stored any of the region": (
        deeper(fill(stored(4, 6), submit=FIO, blocks=(2, 10), signal=9), 1, order="random"),
        "2" * 12,
        [0, 1, 10, 11],
    ),
    "fio through the page cache tears nothing": (
        fill(stored(4, 6), submit=Submit.FIO_IO_URING_BUFFERED, blocks=(4, 8), signal=9),
        "....22??",
        [6, 7],
    ),
    "fio that ended well has logged all": (
        fill([*stored(4, 6), synced()], submit=FIO, blocks=(4, 8)),
        "....2222",
        [6, 7],
    ),
    "fio that ended with a status may not have": (
        fill(stored(4, 6), submit=FIO, blocks=(4, 8), exit_code=1),
        "....2222",
        [],
    ),
    "fio that was refused may not have": (
        fill([*stored(4, 6), wrote(8, 1, EPERM)], submit=FIO, blocks=(4, 8)),
        "....2222",
        [],
    ),
}


@pytest.mark.parametrize("name", UNRECORDED)
def test_what_may_have_been_in_flight(name: str) -> None:
    act, content, foreign = UNRECORDED[name]
    assert alien(account_of(act, read("look", content))) == foreign


def orders(account: Account) -> list[int]:
    return [one.ack.order for one in account.found]


def test_what_was_in_flight_has_one_place_in_the_order() -> None:
    killed = fill([wrote(0, 1), synced()], signal=9)
    again = fill([wrote(4, 1), synced()], generation=3, name="again")
    assert orders(account_of(killed, again, read("look", "2...3"))) == [1, 3]


def test_a_step_without_a_submitter_wrote_nothing() -> None:
    account = account_of(Act(step=fill([]).step), read("look", "2"))
    assert (account.found, alien(account), account.stored) == ((), [0], {})
