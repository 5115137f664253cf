"""What a region reads back as: each block is a generation of this run, zero, foreign, unreadable.

Reading is done with O_DIRECT where caches are to be left out: of a device's page cache, the kernel
first writes back what is dirty in the range, and the read sees the medium. That write-back can fail
for data that nobody was promised, and then the read fails although the medium is readable; so a
block that cannot be read is read once more. Nothing here calls fsync: it would take away an error
that belongs to a writer.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from agent.basics import BLOCK, Json, one_line
from agent.processes import Child, Tick, no_tick
from agent.workloads.pattern import Pattern

CHUNK = 1 << 20
_ZEROS = bytes(CHUNK)

Recogniser = Callable[[bytes, int], int | None]
"""(a block's bytes, the block's number) -> its generation, or None if it is no block of ours."""


class Seen(NamedTuple):
    """A run of blocks that read alike, field by field the host's ``Extent``. Bytes."""

    offset: int
    length: int
    content: str
    generation: int | None = None
    errno: int | None = None


def recogniser(pattern: Pattern, *others: Recogniser) -> Recogniser:
    """Knows the ledger's blocks, and whatever else ``others`` know."""

    def recognise(data: bytes, number: int) -> int | None:
        ours = pattern.recognise(data)
        if ours is not None:
            return ours[1] if ours[0] == number else None
        for other in others:
            generation = other(data, number)
            if generation is not None:
                return generation
        return None

    return recognise


def classify(data: bytes, offset: int, first: int, recognise: Recogniser) -> Iterator[Seen]:
    """The runs in ``data``, which was read at ``offset``; its first block has number ``first``.

    A tail shorter than a block is classified by what there is of it.
    """
    if data == _ZEROS[: len(data)]:
        yield Seen(offset, len(data), "zero")
        return
    zero = _ZEROS[:BLOCK]
    # One object for a run and not for a block: an emulated guest has many blocks to look at.
    begun, generation, content = offset, None, ""
    for at in range(0, len(data), BLOCK):
        block = data[at : at + BLOCK]
        if block == zero or not any(block):
            now, found = "zero", None
        else:
            found = recognise(block, first + at // BLOCK)
            now = "foreign" if found is None else "generation"
        if now != content or found != generation:
            if content:
                yield Seen(begun, offset + at - begun, content, generation)
            begun, generation, content = offset + at, found, now
    yield Seen(begun, offset + len(data) - begun, content, generation)


def merge(parts: Iterable[Seen]) -> list[Seen]:
    """Neighbours that read alike become one."""
    merged: list[Seen] = []
    for part in parts:
        last = merged[-1] if merged else None
        if last and last.offset + last.length == part.offset and last[2:] == part[2:]:
            merged[-1] = last._replace(length=last.length + part.length)
        else:
            merged.append(part)
    return merged


def read_region(
    fd: int, offset: int, length: int, recognise: Recogniser, *, first: int | None = None
) -> list[Seen]:
    """Read and classify a region. ``first``: the number of its first block, if it is not that of
    its offset. A read past the end yields nothing.
    """
    buffer = mmap.mmap(-1, CHUNK)
    view = memoryview(buffer)
    base = offset // BLOCK if first is None else first

    def parts() -> Iterator[Seen]:
        at = offset
        while at < offset + length:
            size = min(CHUNK, offset + length - at)
            number = base + (at - offset) // BLOCK
            try:
                got = os.preadv(fd, [view[:size]], at)
            except OSError:
                yield from _block_by_block(fd, at, view[:size], number, recognise)
                at += size
                continue
            if got == 0:
                return
            if got < size:
                # The rest of the last block may be to be had by another read.
                got = got // BLOCK * BLOCK or got
            yield from classify(bytes(view[:got]), at, number, recognise)
            at += got

    try:
        return merge(parts())
    finally:
        view.release()
        buffer.close()


def _block_by_block(
    fd: int, offset: int, view: memoryview, number: int, recognise: Recogniser
) -> Iterator[Seen]:
    for at in range(0, len(view), BLOCK):
        size = min(BLOCK, len(view) - at)
        try:
            got = _twice(fd, view[:size], offset + at)
        except OSError as error:
            yield Seen(offset + at, size, "unreadable", errno=error.errno)
            continue
        if got:
            data = bytes(view[:got])
            yield from classify(data, offset + at, number + at // BLOCK, recognise)


def _twice(fd: int, view: memoryview, offset: int) -> int:
    try:
        return os.preadv(fd, [view], offset)
    except OSError:
        return os.preadv(fd, [view], offset)


def forget_caches(paths: Iterable[str]) -> None:
    """Drop the clean cached pages of files and devices, and of nothing else: the guest's own
    programs stay in memory.
    """
    for path in paths:
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def read_device(
    path: str, offset: int, length: int, recognise: Recogniser, *, drop: Iterable[str] | None
) -> list[Seen]:
    """A region of a block device or a file: past every cache if ``drop`` (files whose caches are
    dropped first) is given, else as an ordinary reader sees it.
    """
    if drop is not None:
        forget_caches(drop)
    try:
        fd = _open(path, direct=drop is not None)
    except OSError as error:
        return [Seen(offset, length, "unreadable", errno=error.errno)]
    try:
        return read_region(fd, offset, length, recognise)
    finally:
        os.close(fd)


def _open(path: str, *, direct: bool) -> int:
    try:
        return os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
    except OSError as error:
        # A file of tmpfs: what others call its cache is all there is of it. (It takes O_DIRECT since
        # commit e88e0d366f9c, "tmpfs: trivial support for direct IO", first in 6.6.)
        if not direct or error.errno != errno.EINVAL or not os.path.isfile(path):
            raise
        return os.open(path, os.O_RDONLY)


def in_child(
    look: Callable[[], Json], *, what: list[str], limit: float, tick: Tick = no_tick
) -> tuple[Json | None, list[Json], str]:
    """Look from a child, because a read may hang: (its answer, commands, a problem).

    A reader that had to be ended is told as a command ``what`` that timed out: the kernel did that,
    not the rig.
    """
    answer = os.memfd_create("answer")
    pid = os.fork()
    if pid == 0:
        _look(look, answer)
    how = Child.adopt(pid).finish(limit, tick=tick)
    text = os.pread(answer, os.fstat(answer).st_size, 0).decode()
    os.close(answer)
    if how["exit_code"] == 0:
        found: Json = json.loads(text)
        return found, [], ""
    command = {"argv": what, "ended": how, "output": text}
    problem = f"the reader failed: {text}" if how["exit_code"] is not None else ""
    return None, [command], problem


def _look(look: Callable[[], Json], answer: int) -> None:
    code = 70
    try:
        data = json.dumps(look()).encode()
        code = 0
    except BaseException as error:  # noqa: BLE001 - the parent is told, whatever it is
        data = one_line(f"{type(error).__name__}: {error}").encode()
    try:
        while data:
            data = data[os.write(answer, data) :]
    finally:
        os._exit(code)
