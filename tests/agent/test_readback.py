"""Reading back: every block lands in exactly one class, and equal neighbours are one extent."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

import pytest
from agent.basics import BLOCK
from agent.workloads import readback
from agent.workloads.pattern import Pattern
from agent.workloads.readback import CHUNK, Seen, classify, merge, read_region, recogniser
from hypothesis import given
from hypothesis import strategies as st

from conformance.model import Extent

PATTERN = Pattern(b"readback")
KNOWS = recogniser(PATTERN)

# What a block may hold: nothing, a generation, a block from elsewhere, rubbish.
kinds = st.sampled_from(["zero", "g1", "g2", "misplaced", "rubbish"])


def block_of(kind: str, number: int) -> bytes:
    if kind == "zero":
        return bytes(BLOCK)
    if kind == "misplaced":
        return PATTERN.block(number + 1, 1)
    if kind == "rubbish":
        return b"\xa5" * BLOCK
    return PATTERN.block(number, int(kind[1:]))


def meaning(kind: str) -> tuple[str, int | None]:
    if kind == "zero":
        return "zero", None
    if kind in {"misplaced", "rubbish"}:
        return "foreign", None
    return "generation", int(kind[1:])


@given(held=st.lists(kinds, min_size=1, max_size=40), first=st.integers(0, 2**30))
def test_every_block_is_in_one_class_and_neighbours_are_merged(held: list[str], first: int) -> None:
    data = b"".join(block_of(kind, first + index) for index, kind in enumerate(held))
    seen = merge(classify(data, first * BLOCK, first, KNOWS))
    assert sum(part.length for part in seen) == len(data)
    spread = [(part.content, part.generation) for part in seen for _ in range(part.length // BLOCK)]
    assert spread == [meaning(kind) for kind in held]
    for before, after in itertools.pairwise(seen):
        assert before.offset + before.length == after.offset
        assert before[2:] != after[2:]
    for part in seen:
        Extent(*part)  # type: ignore[arg-type]


def test_extents_are_merged_over_the_borders_of_chunks(tmp_path: Path) -> None:
    path = tmp_path / "device"
    count = CHUNK // BLOCK + 3
    path.write_bytes(b"".join(PATTERN.block(index, 5) for index in range(count)))
    fd = os.open(path, os.O_RDONLY)
    try:
        assert read_region(fd, 0, count * BLOCK, KNOWS) == [Seen(0, count * BLOCK, "generation", 5)]
        assert read_region(fd, BLOCK, BLOCK, KNOWS) == [Seen(BLOCK, BLOCK, "generation", 5)]
    finally:
        os.close(fd)


def test_a_read_past_the_end_says_nothing_of_what_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "device"
    path.write_bytes(bytes(BLOCK) + PATTERN.block(1, 1)[:512])
    fd = os.open(path, os.O_RDONLY)
    try:
        assert read_region(fd, 0, 1 << 20, KNOWS) == [
            Seen(0, BLOCK, "zero"),
            Seen(BLOCK, 512, "generation", 1),
        ]
    finally:
        os.close(fd)


def test_what_cannot_be_read_is_told_block_by_block_with_its_errno(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "write-only", os.O_WRONLY | os.O_CREAT)
    try:
        # 9 is EBADF: the descriptor cannot be read from.
        assert read_region(fd, 0, 4 * BLOCK, KNOWS) == [Seen(0, 4 * BLOCK, "unreadable", None, 9)]
    finally:
        os.close(fd)


def test_a_device_that_cannot_be_opened_is_unreadable(tmp_path: Path) -> None:
    seen = readback.read_device(str(tmp_path / "no"), 0, BLOCK, KNOWS, drop=None)
    assert seen == [Seen(0, BLOCK, "unreadable", None, 2)]


def test_a_file_that_takes_no_direct_io_is_read_through_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(BLOCK))
    opened = os.open

    def refuse(name: str, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return opened(name, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    seen = readback.read_device(str(path), 0, BLOCK, KNOWS, drop=())
    assert seen == [Seen(0, BLOCK, "zero")]
    # A device takes it, or there is something to tell.
    seen = readback.read_device("/dev/null", 0, BLOCK, KNOWS, drop=())
    assert seen == [Seen(0, BLOCK, "unreadable", errno=errno.EINVAL)]


def test_a_reader_that_hangs_is_a_command_that_timed_out() -> None:
    def hang() -> dict[str, object]:
        os.read(os.pipe()[0], 1)
        return {}

    found, commands, problem = readback.in_child(hang, what=["readback"], limit=0.1)
    assert (found, problem) == (None, "")
    assert commands[0]["ended"]["timed_out"]
    assert commands[0]["ended"]["killable"]


def test_a_reader_that_fails_is_a_problem_of_the_rig() -> None:
    def fail() -> dict[str, object]:
        raise ValueError("broken")

    found, _, problem = readback.in_child(fail, what=["readback"], limit=10)
    assert found is None
    assert "broken" in problem
