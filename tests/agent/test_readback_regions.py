"""Reading a region back from a medium that gives less or fails: what is asked of it, what is told."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import pytest
from agent.workloads.pattern import Pattern
from agent.workloads.readback import Recogniser, Seen, classify, merge, read_region, recogniser

MIB = 1 << 20
FD = -1  # no file's: the medium stands for os.preadv
OURS = Pattern(b"regions!")
KNOWS = recogniser(OURS)
ZERO, RUBBISH = bytes(4096), b"\xa5" * 4096
ALWAYS = [5] * 9
EIO, ENODATA = 5, 61


class Medium:
    """What is read: ``data``, but for blocks that fail and for places that give so many bytes."""

    def __init__(
        self,
        data: bytes,
        *,
        failing: Mapping[int, Sequence[int]] | None = None,
        gives: Mapping[int, int] | None = None,
    ) -> None:
        self._data = data
        self._failing = {number: list(codes) for number, codes in (failing or {}).items()}
        self._gives = gives or {}
        self.reads: list[tuple[int, int]] = []

    def preadv(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        """A failing block fails with one errno after the other, and then can be read."""
        (buffer,) = buffers
        self.reads.append((offset, len(buffer)))
        assert fd == FD
        assert len(self.reads) < 1000, "it reads on and on"
        for number, codes in self._failing.items():
            if offset < (number + 1) * 4096 and number * 4096 < offset + len(buffer) and codes:
                raise OSError(codes.pop(0), "no")
        most = min(len(buffer), self._gives.get(offset, len(buffer)))
        found = self._data[offset : offset + most]
        buffer[: len(found)] = found
        return len(found)


def read(
    medium: Medium, offset: int, length: int, know: Recogniser = KNOWS, first: int | None = None
) -> list[Seen]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", medium.preadv)
        return read_region(FD, offset, length, know, first=first)


def ours(*blocks: tuple[int, int]) -> bytes:
    return b"".join(OURS.block(number, generation) for number, generation in blocks)


@pytest.mark.parametrize(
    ("data", "runs"),
    [
        (ZERO * 3, [(0, 12288, "zero")]),
        (ZERO[:512], [(0, 512, "zero")]),
        (RUBBISH * 2, [(0, 8192, "foreign")]),
        (
            ours((10, 1), (11, 1), (12, 2)),
            [(0, 8192, "generation", 1), (8192, 4096, "generation", 2)],
        ),
        (
            ZERO * 2 + RUBBISH + ours((13, 4)) + ZERO,
            [
                (0, 8192, "zero"),
                (8192, 4096, "foreign"),
                (12288, 4096, "generation", 4),
                (16384, 4096, "zero"),
            ],
        ),
        (RUBBISH + ZERO[:512], [(0, 4096, "foreign"), (4096, 512, "zero")]),
        (RUBBISH + RUBBISH[:512], [(0, 4608, "foreign")]),
        (ZERO + ours((11, 7))[:512], [(0, 4096, "zero"), (4096, 512, "generation", 7)]),
        # One byte is enough, and so is a block's number.
        (ZERO[:-1] + b"\x01", [(0, 4096, "foreign")]),
        (ours((11, 1)), [(0, 4096, "foreign")]),
    ],
)
def test_blocks_that_hold_alike_are_one_run(data: bytes, runs: list[tuple[int, int, str]]) -> None:
    # Read at byte 81920, where the block of number 10 stands.
    wanted = [Seen(81920 + offset, *rest) for offset, *rest in runs]  # type: ignore[arg-type]
    assert list(classify(data, 81920, 10, KNOWS)) == wanted


def test_others_are_asked_in_turn_for_what_is_no_block_of_the_ledger() -> None:
    asked: list[tuple[str, int]] = []

    def other(name: str, answer: int | None) -> Recogniser:
        def recognise(_data: bytes, number: int) -> int | None:
            asked.append((name, number))
            return answer

        return recognise

    know = recogniser(OURS, other("none", None), other("zero", 0), other("never", 9))
    assert know(RUBBISH, 3) == 0
    assert asked == [("none", 3), ("zero", 3)]
    assert recogniser(OURS, other("none", None))(RUBBISH, 3) is None
    # A ledger's block is the ledger's, in its place or not.
    del asked[:]
    assert know(ours((3, 2)), 3) == 2
    assert know(ours((4, 3)), 3) is None
    assert asked == []


@pytest.mark.parametrize(
    ("parts", "merged"),
    [
        ([], []),
        ([(0, 512, "zero")], [(0, 512, "zero")]),
        (
            [(0, 1, "zero"), (1, 2, "foreign"), (3, 4, "zero"), (7, 8, "zero"), (15, 1, "zero")],
            [(0, 1, "zero"), (1, 2, "foreign"), (3, 13, "zero")],
        ),
        ([(0, 4, "zero"), (5, 4, "zero")], [(0, 4, "zero"), (5, 4, "zero")]),
        (
            [(0, 4, "generation", 1), (4, 4, "generation", 2)],
            [(0, 4, "generation", 1), (4, 4, "generation", 2)],
        ),
        (
            [(0, 4, "unreadable", None, 5), (4, 4, "unreadable", None, 61)],
            [(0, 4, "unreadable", None, 5), (4, 4, "unreadable", None, 61)],
        ),
        (
            [(0, 4, "unreadable", None, 5), (4, 4, "unreadable", None, 5)],
            [(0, 8, "unreadable", None, 5)],
        ),
    ],
)
def test_neighbours_that_read_alike_become_one(
    parts: list[tuple[int, int, str]], merged: list[tuple[int, int, str]]
) -> None:
    assert merge(Seen(*part) for part in parts) == [Seen(*part) for part in merged]


def test_a_region_is_read_a_mebibyte_at_a_time_and_no_further_than_its_end() -> None:
    medium = Medium(bytes(4 * MIB))
    assert read(medium, 8192, 2 * MIB + 4096) == [Seen(8192, 2 * MIB + 4096, "zero")]
    assert medium.reads == [(8192, MIB), (8192 + MIB, MIB), (8192 + 2 * MIB, 4096)]


@pytest.mark.parametrize("failing", [{}, {3: ALWAYS[:2], 260: ALWAYS[:2]}])
@pytest.mark.parametrize(("first", "begin"), [(None, 3), (0, 0), (100, 100)])
def test_blocks_are_numbered_from_the_region_s_first(
    first: int | None, begin: int, failing: dict[int, list[int]]
) -> None:
    numbers: list[int] = []

    def know(_data: bytes, number: int) -> None:
        numbers.append(number)

    medium = Medium(RUBBISH * 300, failing=failing)
    seen = read(medium, 3 * 4096, 260 * 4096, know, first)
    assert seen == [Seen(3 * 4096, 260 * 4096, "foreign")]
    assert numbers == list(range(begin, begin + 260))


def test_after_a_block_that_cannot_be_read_the_others_are_read() -> None:
    medium = Medium(bytes(2 * MIB), failing={1: ALWAYS})
    assert read(medium, 0, MIB + 8192) == [
        Seen(0, 4096, "zero"),
        Seen(4096, 4096, "unreadable", errno=EIO),
        Seen(8192, MIB, "zero"),
    ]


@pytest.mark.parametrize(
    ("codes", "seen"),
    [
        # The first is for the read of both blocks.
        ([EIO], [Seen(4096, 8192, "zero")]),
        ([EIO, EIO], [Seen(4096, 8192, "zero")]),
        (
            [EIO, EIO, ENODATA],
            [Seen(4096, 4096, "unreadable", errno=ENODATA), Seen(8192, 4096, "zero")],
        ),
    ],
)
def test_a_block_that_cannot_be_read_is_read_once_more(codes: list[int], seen: list[Seen]) -> None:
    medium = Medium(bytes(MIB), failing={1: codes})
    assert read(medium, 4096, 8192) == seen


def test_a_tail_that_cannot_be_read_is_as_long_as_it_is() -> None:
    medium = Medium(bytes(MIB), failing={0: ALWAYS, 1: ALWAYS})
    assert read(medium, 0, 4608) == [Seen(0, 4608, "unreadable", errno=EIO)]
    assert medium.reads == [(0, 4608), (0, 4096), (0, 4096), (4096, 512), (4096, 512)]


def test_past_a_block_that_cannot_be_read_the_end_is_the_end() -> None:
    medium = Medium(bytes(4608), failing={0: ALWAYS})
    assert read(medium, 0, 5 * 4096) == [
        Seen(0, 4096, "unreadable", errno=EIO),
        Seen(4096, 512, "zero"),
    ]


def test_a_block_that_was_read_in_part_is_read_anew_as_a_whole() -> None:
    medium = Medium(ours((0, 1), (1, 1), (2, 1), (3, 1)), gives={0: 8292})
    assert read(medium, 0, 4 * 4096) == [Seen(0, 4 * 4096, "generation", 1)]
    assert medium.reads == [(0, 16384), (8192, 8192)]


def test_a_tail_is_told_by_what_there_is_of_it_and_then_is_the_end() -> None:
    medium = Medium(ZERO + ours((1, 6))[:100])
    assert read(medium, 0, 4 * 4096) == [
        Seen(0, 4096, "zero"),
        Seen(4096, 100, "generation", 6),
    ]
    assert medium.reads == [(0, 16384), (4096, 12288), (4196, 12188)]


def test_a_tail_of_one_byte_is_no_end() -> None:
    assert read(Medium(b"\x01"), 0, 4096) == [Seen(0, 1, "foreign")]


def test_a_region_that_ends_within_a_block_is_read_in_one() -> None:
    medium = Medium(ours((0, 1), (1, 1)))
    assert read(medium, 0, 4608) == [Seen(0, 4608, "generation", 1)]
    assert medium.reads == [(0, 4608)]


def test_a_region_of_nothing_is_not_read() -> None:
    medium = Medium(ZERO)
    assert read(medium, 0, 0) == []
    assert medium.reads == []
