"""What the ledger makes of scripts of calls: which sync speaks for which write, and by whose word.

The expectations are those of the norm ("Acknowledged means"): ``line`` says what became of what was
acknowledged, of a device that holds nothing, and ``alien`` what nobody wrote.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest

from conformance.model import BLOCK, Role
from conformance.oracle.account import Ack
from tests.support.accounts import account_of, alien, called, line, on
from tests.support.builders import EIO, ENOSPC, read, synced, write, wrote

EPERM = -errno.EPERM
W = 2 * BLOCK
"""What a write of the whole region returns."""

SYNCED, RANGE_FIRST = "open a; write a; fsync a", "open a; write a; sync_file_range a; fsync a"
TWICE = "open a; write a; fsync a; fsync a"
CALLS: dict[str, tuple[str, list[int], str, str]] = {
    "by fsync": (SYNCED, [0, W, 0], "device", "zz"),
    "what was written alone": ("open a; write a 4K 4K; fsync a", [0, BLOCK, 0], "device", "-z"),
    "whole blocks of a count alone": (SYNCED, [0, W - 1, 0], "device", "z"),
    "nothing by an error": (SYNCED, [0, ENOSPC, 0], "device", ""),
    "nothing by fsync's error, nor by the success after it": (
        TWICE,
        [0, W, EPERM, 0],
        "device",
        "",
    ),
    "sync_file_range acknowledges nothing": (RANGE_FIRST, [0, W, 0, EIO], "device", ""),
    "sync_file_range takes nothing away": (RANGE_FIRST, [0, W, 0, 0], "device", "zz"),
    "sync_file_range tells, and fsync proves nothing": (
        RANGE_FIRST,
        [0, W, EPERM, 0],
        "device",
        "",
    ),
    "syncfs, of a file": ("open a; write a; syncfs a", [0, W, 0], "other", "zz"),
    "syncfs, of a device's node": ("open a; write a; syncfs a", [0, W, 0], "device", ""),
    "syncfs' error, of a file": (
        "open a; write a; syncfs a; fsync a",
        [0, W, EIO, 0],
        "other",
        "",
    ),
    "syncfs' error, of a device's node": (
        "open a; write a; syncfs a; fsync a",
        [0, W, EIO, 0],
        "device",
        "zz",
    ),
    "an eviction forgets the report": (
        "open a; write a; close a; evict; open b; fsync b",
        [0, W, 0, 0, 0, 0],
        "device",
        "",
    ),
    "an eviction while it is open forgets nothing": (
        "open a; write a; evict; fsync a",
        [0, W, 0, 0],
        "device",
        "zz",
    ),
    "RWF_DSYNC itself": ("open a; write a dsync", [0, W], "device", "zz"),
    "nothing by RWF_DSYNC's error": ("open a; write a dsync; fsync a", [0, EIO, 0], "device", ""),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_calls_acknowledge(name: str) -> None:
    script, results, target, lost = CALLS[name]
    acts = (on(target, called(script, results)), on(target, read("look", "..")))
    assert line(account_of(*acts, target=target)) == lost


NAMED: dict[str, tuple[str, list[int], str, bool]] = {
    "fsync": (SYNCED, [0, W, 0], "write() and fsync()", False),
    "msync": ("open a; store a; msync a", [0, W, 0], "write() and msync()", False),
    "itself": ("open a; write a dsync", [0, W], "write() that syncs itself", False),
    "itself, and an error later": (
        "open a; write a dsync; fsync a",
        [0, W, EIO],
        "write() that syncs itself",
        True,
    ),
    "fsync, and an error later": (TWICE, [0, W, 0, EIO], "write() and fsync()", True),
    "fsync, and an error before": (
        "open a; fsync a; write a; fsync a",
        [0, EIO, W, 0],
        "write() and fsync()",
        False,
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_call_s_acknowledgement_names_what_gave_it(name: str) -> None:
    script, results, by, told = NAMED[name]
    account = account_of(called(script, results), read("look", "22"))
    ack = Ack(order=1, generation=2, step=0, by=by, told=told)
    assert [one.ack for one in account.found] == [ack, ack]


@pytest.mark.parametrize("how", [{"signal": 9}, {"timed_out": True, "exit_code": 0}])
def test_calls_that_were_cut_short_may_have_stored_any_of_the_region(how: dict[str, Any]) -> None:
    cut = called("open a; write a 0 4K; fsync a; write a", [0, BLOCK, 0], blocks=(4, 7), **how)
    again = write("again", Role.RECOVER, (8, 9), [wrote(8, 1), synced()], generation=3)
    account = account_of(cut, again, read("look", "...222223"))
    assert alien(account) == [3, 7]
    assert [(one.ack.told, one.ack.order) for one in account.found] == [(True, 1), (False, 3)]


def test_calls_that_ended_have_stored_no_more_than_they_say() -> None:
    account = account_of(called(SYNCED, [0, W, 0], blocks=(4, 6)), read("look", "....222"))
    assert alien(account) == [6]


def test_of_calls_without_a_submitter_it_is_not_said_that_they_were_cut_short() -> None:
    act = called("open a; write a 0 4K; fsync a", [0, BLOCK, 0])
    del act.seen["submitter"]
    account = account_of(act, read("look", "22"))
    assert ([one.ack.told for one in account.found], alien(account)) == ([False], [1])


@pytest.mark.parametrize(("script", "foreign"), [("open a direct", [2]), ("open a", [0, 1, 2])])
def test_a_refused_call_leaves_its_range_open_under_o_direct(
    script: str, foreign: list[int]
) -> None:
    act = called(f"{script}; write a", [0, ENOSPC])
    assert alien(account_of(act, read("look", "???"))) == foreign
