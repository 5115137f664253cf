"""Parts of the judge for themselves, at their edges: what no run of a whole case comes near."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from conformance.model import Ended, FileOp, InFlight, Op, Submitter
from conformance.oracle import text

KIB, MIB, GIB = 1024, 1024**2, 1024**3


@pytest.mark.parametrize("number", text.SIGNALS)
def test_a_signal_has_the_name_that_the_system_gives_it(number: int) -> None:
    assert text.signal_name(number) == signal.Signals(number).name


def test_a_signal_without_a_name_is_a_number() -> None:
    assert text.signal_name(64) == "signal 64"


@pytest.mark.parametrize("words", text.MESSAGES)
def test_what_tools_print_is_what_the_system_says(words: str) -> None:
    number = getattr(errno, text.MESSAGES[words])
    assert os.strerror(number) == words
    assert text.errno_name(number) == text.errno_name(-number) == text.MESSAGES[words]


def test_an_errno_without_a_name_is_a_number() -> None:
    assert text.errno_name(-4000) == "errno 4000"


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("dd: error writing: Input/output error\ncp: x: No space left on device\n", "ENOSPC"),
        ("cp: x: No space left on device\ndd: error writing: Input/output error\n", "EIO"),
        ("fine", ""),
    ],
)
def test_a_tool_s_last_error_is_the_one_it_ended_with(output: str, name: str) -> None:
    assert text.printed_errno(output) == name


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 bytes"),
        (1, "1 bytes"),
        (KIB, "1 KiB"),
        (KIB + 1, "1025 bytes"),
        (3 * MIB + KIB, "3073 KiB"),
        (8 * MIB, "8 MiB"),
        (2 * GIB, "2 GiB"),
        (GIB + MIB, "1025 MiB"),
    ],
)
def test_an_amount_is_exact(count: int, told: str) -> None:
    assert text.amount(count) == told


def test_a_range_names_its_last_byte() -> None:
    assert text.span((4096, 8192)) == "bytes 4096 to 8191 (4 KiB)"


@pytest.mark.parametrize(
    ("ranges", "merged"),
    [
        ([], ()),
        ([(4, 6), (0, 2)], ((0, 2), (4, 6))),
        ([(0, 2), (2, 4)], ((0, 4),)),
        ([(0, 2), (3, 4)], ((0, 2), (3, 4))),
        ([(0, 9), (2, 4), (5, 12)], ((0, 12),)),
        ([(0, 1), (4, 5), (5, 6)], ((0, 1), (4, 6))),
        ([(0, 9), (20, 30), (21, 25)], ((0, 9), (20, 30))),
    ],
)
def test_ranges_that_touch_are_one(
    ranges: list[tuple[int, int]], merged: tuple[tuple[int, int], ...]
) -> None:
    assert text.merge(ranges) == merged


def test_three_ranges_are_told_and_the_rest_counted() -> None:
    ranges = [(0, 1), (2, 4), (6, 9), (10, 14), (20, 25)]
    assert text.spans(ranges[:3]) == (
        "bytes 0 to 0 (1 bytes), bytes 2 to 3 (2 bytes), bytes 6 to 8 (3 bytes)"
    )
    assert text.spans(ranges).endswith(" (3 bytes) and 2 more ranges, 15 bytes in all")


def test_three_names_are_told_and_the_rest_counted() -> None:
    assert text.listed(["a", "b", "c"]) == "a, b, c"
    assert text.listed(["a", "b", "c", "d"]) == "a, b, c and 1 more"


def test_one_is_not_many() -> None:
    assert [text.plural(count, "write") for count in (0, 1, 2)] == [
        "0 writes",
        "1 write",
        "2 writes",
    ]


def test_a_shortage_is_counted_in_what_runs_short() -> None:
    assert text.quantity(4096, of_space=True) == "4 KiB"
    assert text.quantity(4096, of_space=False) == "4096 inodes"
    assert text.quantity(1, of_space=False) == "1 inode"


@pytest.mark.parametrize(
    ("op", "line"),
    [
        (Op("write", 8, 4, 1, 4, 0, 1), "write(8, 4) = 4"),
        (
            Op("sync", 0, 0, 1, -28, 0, 1),
            "sync() = -1 ENOSPC",
        ),
        (Op("sync", 0, 0, 1, 0, 0, 1), "sync() = 0"),
        (Op("sync", 0, 0, 1, -1, 0, 1), "sync() = -1 EPERM"),
    ],
)
def test_an_operation_is_a_call(op: Op, line: str) -> None:
    assert text.op_line(op) == line


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (None, ""),
        (InFlight("sync", 0, 0, 1), ": sync() had not returned"),
        (InFlight("write", 8, 4, 1), ": write(8, 4) had not returned"),
    ],
)
def test_who_was_in_a_call_says_in_which(call: InFlight | None, told: str) -> None:
    submitter = Submitter(pid=1, cgroup="", ended=Ended(timed_out=True), in_flight=call)
    assert text.unreturned(submitter) == told


@pytest.mark.parametrize(("times", "line"), [(1, "fsync a = 0"), (2, "fsync a x2 = 0")])
def test_a_call_that_was_made_often_says_how_often(times: int, line: str) -> None:
    assert text.file_op_line(FileOp("fsync", "a", times, 0, 0, 0, 1)) == line


def test_a_signature_has_nothing_in_it_that_differs_from_run_to_run() -> None:
    told = text.stable("  WARNING: CPU: 3 at fs/buffer.c:1125 f+0xd8/0xe0 (x) ")
    assert told == "WARNING:-CPU:-N-at-fs/buffer.c:N-f-N/N-x"
