"""The bystanders: what they write, what they hold what they read against, and how they tell of it."""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from agent.basics import BLOCK, Clock, Json, poll_until
from agent.cgroups import Tree
from agent.workloads.crew import Crew, _Life
from agent.workloads.pattern import Pattern

from conformance.model import BystanderState

PATTERN = Pattern(b"beside!!")
IO: Json = {
    "target": "device",
    "offset": 2 * BLOCK,
    "length": 6 * BLOCK,
    "request": 2 * BLOCK,
    "submit": "dsync",
    "reads": True,
    "pause": 0.01,
}


@contextmanager
def reader(device: Path, **more: object) -> Iterator[Crew]:
    """One that has gone round its region of a file more than once, and has let go of it."""
    crew = Crew()
    spec = {"name": "r", "io": {**IO, **more}}
    try:
        crew.start([spec], lambda _: str(device), Tree(), PATTERN, Clock.start())
        assert poll_until(lambda: crew.seen()[0]["io_done"] > 4, 30)
        assert crew.pause() == []
        yield crew
    finally:
        assert crew.end() == []


def fares(crew: Crew) -> BystanderState:
    return BystanderState.model_validate(crew.seen()[0])


def after_more(crew: Crew, tells: Callable[[BystanderState], object]) -> BystanderState:
    """How it fares when it has gone on until it tells so."""
    crew.resume()
    assert poll_until(lambda: bool(tells(fares(crew))), 30)
    assert crew.pause() == []
    return fares(crew)


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "device"
    path.write_bytes(bytes(10 * BLOCK))
    return path


def test_a_reader_writes_once_and_only_reads_from_then_on(device: Path) -> None:
    with reader(device) as crew:
        before = fares(crew)
        stored = device.read_bytes()
        assert stored[2 * BLOCK : 8 * BLOCK] == b"".join(PATTERN.block(n, 0) for n in range(2, 8))
        written = device.stat().st_mtime_ns
        after = after_more(crew, lambda seen: seen.io_done > before.io_done + 6)
        assert (after.io_errors, after.io_wrong) == ((), ())
        assert device.stat().st_mtime_ns == written


@pytest.mark.parametrize(("block", "of"), [(2, 2), (3, 3), (7, 7)])
def test_a_reader_tells_of_a_byte_that_is_not_as_it_was_stored(
    device: Path, block: int, of: int
) -> None:
    with reader(device) as crew:
        with device.open("r+b") as file:
            file.seek((block + 1) * BLOCK - 1)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        told = after_more(crew, lambda seen: seen.io_wrong)
        assert told.io_errors == ()
        assert {one[:3] for one in told.io_wrong} == {("data", of * BLOCK, 2 * BLOCK)}
        assert told.io_wrong[0].t_us > 0


def test_a_wrong_read_is_not_done_and_the_first_ones_are_kept(device: Path) -> None:
    with reader(device, length=2 * BLOCK) as crew:
        before = fares(crew)
        device.write_bytes(bytes(10 * BLOCK))
        told = after_more(crew, lambda seen: len(seen.io_wrong) == 64)
        told = after_more(crew, lambda _: True)
        assert len(told.io_wrong) == 64
        assert told.io_done == before.io_done
        assert list(told.io_wrong) == sorted(told.io_wrong, key=lambda one: one.t_us)


def test_a_read_that_is_short_is_told_and_not_compared(device: Path) -> None:
    with reader(device) as crew:
        os.truncate(device, 7 * BLOCK)
        told = after_more(crew, lambda seen: seen.io_wrong)
        assert {one[:3] for one in told.io_wrong} == {("short-read", 6 * BLOCK, BLOCK)}
        assert told.io_errors == ()


TICKS = count(1_000_000, 1_000_000)


class Step(Clock):
    """A clock that goes on by a second whenever it is asked."""

    def us(self) -> int:
        return next(TICKS)


class Short(_Life):
    """A device that does a byte less than it is asked for, after the first request."""

    def _go(self, at: int, size: int, where: int) -> int:
        return super()._go(at, size, where) - bool(at)


class Watched:
    """A path that looks at the time in flight while it is opened."""

    def __init__(self, area: mmap.mmap, path: str) -> None:
        self.area, self.path = area, path
        self.since = 0

    def __fspath__(self) -> str:
        self.since = struct.unpack_from("<Q", self.area, 24)[0]
        return self.path


def life(kind: type[_Life], target: Any) -> tuple[_Life, mmap.mmap]:
    """One that lives in this process, with a device that is not open, and what it tells."""
    area = target.area if isinstance(target, Watched) else mmap.mmap(-1, 8192)
    clock = Step.start()
    return kind(io=IO, target=target, pattern=PATTERN, clock=clock, area=area, bell=-1), area


def notes(area: mmap.mmap, table: int) -> list[tuple[int, ...]]:
    """Kind, errno or bytes, and offset of each."""
    count = struct.unpack_from("<II", area, 32)[table]
    return [
        struct.unpack_from("<IIQ", area, (512, 4096)[table] + 24 * number)
        for number in range(count)
    ]


def test_what_could_not_be_written_is_not_compared() -> None:
    one, area = life(_Life, "/dev/full")
    one._open()
    one._round(0)
    one._round(0)
    assert notes(area, 0) == [(0, errno.ENOSPC, at * BLOCK) for at in (0, 2, 4)]
    assert notes(area, 1) == []
    assert struct.unpack_from("<Q", area, 8)[0] == 3  # the reads


def test_what_could_not_be_written_again_is_not_compared(device: Path) -> None:
    one, area = life(_Life, str(device))
    one._open()
    one._round(0)
    # It was told to let go in its round of writes, and begins that anew.
    good, one._fd, one._reading = one._fd, os.open("/dev/full", os.O_RDWR), False
    one._round(0)
    assert len(notes(area, 0)) == 3
    device.write_bytes(bytes(10 * BLOCK))
    one._fd = good
    one._round(0)
    assert notes(area, 1) == []


def test_of_many_notes_the_first_are_kept_and_no_other_is_written_over() -> None:
    one, area = life(_Life, "/dev/full")
    one._open()
    for _ in range(60):
        one._reading = False
        one._round(0)
    assert struct.unpack_from("<II", area, 32) == (180, 0)
    assert not any(area[512 + 64 * 24 :])


def test_a_write_that_is_short_is_told_and_what_it_wrote_not_compared(device: Path) -> None:
    one, area = life(Short, str(device))
    one._open()
    one._round(0)
    assert notes(area, 1) == [(0, 2 * BLOCK - 1, at * BLOCK) for at in (2, 4)]
    assert notes(area, 0) == []
    assert struct.unpack_from("<Q", area, 8)[0] == 1
    device.write_bytes(bytes(10 * BLOCK))
    one._round(0)
    assert notes(area, 1)[2:] == [
        (2, 2 * BLOCK, 0),
        *((1, 2 * BLOCK - 1, at * BLOCK) for at in (2, 4)),
    ]


def test_what_a_read_leaves_out_is_not_what_an_earlier_one_has_read(device: Path) -> None:
    class Lazy(_Life):
        """A device that says that it has read, and has not."""

        def _go(self, at: int, size: int, where: int) -> int:
            return size if self._reading and at else super()._go(at, size, where)

    one, area = life(Lazy, str(device))
    # Each request holds the same, so that what was read before would do.
    one._view[: len(one._view)] = bytes(range(1, 129)) * (IO["length"] // 128)
    one._open()
    one._round(0)
    one._round(0)
    assert notes(area, 1) == [(2, 2 * BLOCK, at * BLOCK) for at in (2, 4)]


@pytest.mark.parametrize("missing", [False, True])
def test_an_open_is_an_operation_that_takes_time(device: Path, missing: bool) -> None:
    path = Watched(mmap.mmap(-1, 8192), str(device) + "gone" * missing)
    one, area = life(_Life, path)
    one._open()
    _, longest, since = struct.unpack_from("<QQQ", area, 8)
    assert path.since > 0
    assert longest >= 1_000_000
    assert since == 0
    assert [note[:2] for note in notes(area, 0)] == [(1, errno.ENOENT)] * missing
