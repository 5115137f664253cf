"""Files of one size, each written and fsynced, and what is found of them later.

Each block of a file carries the ledger's pattern; its number holds the file's own number, so that
another file's data is foreign. A file counts as synced when its own fsync and one of its directory
have both succeeded.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent import kernel
from agent.basics import BLOCK, Clock, Json
from agent.processes import Tick, no_tick
from agent.workloads import frugal
from agent.workloads.frugal import Record, Results
from agent.workloads.pattern import Pattern
from agent.workloads.readback import Recogniser, forget_caches, read_region

KINDS = ("create", "write", "fsync", "dirsync", "mkdir", "close", "open", "syncfs")
_CREATE, _WRITE, _FSYNC, _DIRSYNC, _MKDIR, _CLOSE, _OPEN, _SYNCFS = range(8)
_NUMBER = 32
"""A block's number is the file's number shifted by so many bits, and its place in the file."""
_REHEARSED = 6
_TRIAL = 2 * BLOCK


@dataclass(frozen=True, kw_only=True)
class Synced:
    """A file (or, with no ``number``, a name) that the kernel said is on the medium.

    ``told`` is False for names that are reported only if they are not as they should be.
    """

    path: str  # relative to the mount point
    size: int = 0
    number: int | None = None
    generation: int = 0
    told: bool = True


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be written. Bytes; ``first`` is the number of the first file."""

    root: str
    directory: str
    size: int
    count: int
    generation: int
    first: int
    syncfs: bool = False  # after each file, the whole filesystem too

    def path(self, index: int) -> str:
        """The path of a file relative to the mount point; -1 is the directory itself."""
        return self.directory if index < 0 else f"{self.directory}/f{index:05d}"


class Filer:
    """The writer inside its process. Names and buffers are made beforehand."""

    def __init__(self, order: Order, pattern: Pattern, clock: Clock, results: Results) -> None:
        self._order = order
        self._pattern = pattern
        self._clock = clock
        self._results = results
        self._buffer = mmap.mmap(-1, max(order.size, _TRIAL), mmap.MAP_PRIVATE)
        self._view = memoryview(self._buffer)
        self._fd = -1
        self._dir = -1
        self._root = os.fsencode(order.root)
        self._names: list[bytes] = []
        self._directory = b""

    def prepare(self) -> frugal.Work:
        """Touch the buffer, and rehearse on the guest's own tmpfs."""
        order = self._order
        self._view[:] = bytes(len(self._view))
        scratch = f"/run/rehearsal.{os.getpid()}"
        self._aim(scratch.encode(), _REHEARSED)
        self._run(_TRIAL, _REHEARSED)
        self._run(_TRIAL, 1)  # the directory is there already: an error
        for name in self._names:
            if os.path.exists(name):
                os.unlink(name)
        os.rmdir(scratch)
        self._aim(os.fsencode(f"{order.root}/{order.directory}"), order.count)
        return self.work

    def _aim(self, directory: bytes, count: int) -> None:
        self._directory = directory
        self._names = [directory + b"/f%05d" % index for index in range(count)]

    def work(self, tell: Callable[[], None]) -> None:  # noqa: ARG002 - nobody kills this one
        """The order itself, to its end or to the first error."""
        self._run(self._order.size, self._order.count)

    def _run(self, size: int, count: int) -> None:
        if self._call(_MKDIR, -1, 0) < 0:
            return
        self._dir = self._call(_OPEN, -1, 0)
        if self._dir < 0:
            return
        # The directory's own name is durable before any file's is.
        good = self._sync_root() and self._call(_DIRSYNC, -1, 0) >= 0
        index = 0
        while good and index < count:
            good = self._file(index, size)
            index += 1
        os.close(self._dir)

    def _sync_root(self) -> bool:
        mine = self._dir
        self._dir = os.open(os.path.dirname(self._directory), os.O_RDONLY | os.O_DIRECTORY)
        done = self._call(_DIRSYNC, -1, 0) >= 0
        os.close(self._dir)
        self._dir = mine
        return done

    def _file(self, index: int, size: int) -> bool:
        order = self._order
        self._fd = self._call(_CREATE, index, 0)
        if self._fd < 0:
            return False
        number = (order.first + index) << _NUMBER
        self._pattern.fill(self._view, 0, number, size // BLOCK, order.generation)
        good = self._call(_WRITE, index, size) >= 0
        # What was written is synced even if not all of it was: a program that handles errors would.
        good = self._call(_FSYNC, index, 0) >= 0 and good
        good = self._call(_CLOSE, index, 0) >= 0 and good
        good = good and self._call(_DIRSYNC, index, 0) >= 0
        return good and (not order.syncfs or self._call(_SYNCFS, index, 0) >= 0)

    def _call(self, kind: int, index: int, length: int) -> int:
        clock, results = self._clock, self._results
        start = clock.us()
        results.begin(kind, 0, index + 1, length, start)
        try:
            result = self._do(kind, index, length)
        except OSError as error:
            result = -(error.errno or 0)
        # A descriptor is no byte count; 0 is what the record says of a call that worked.
        shown = result if kind == _WRITE or result < 0 else 0
        end = clock.us()
        results.end(kind, 0, index + 1, length, result=shown, start_us=start, end_us=end)
        return result

    def _do(self, kind: int, index: int, length: int) -> int:
        if kind == _CREATE:
            return os.open(self._names[index], os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        if kind == _WRITE:
            return os.write(self._fd, self._view[:length])
        if kind == _FSYNC:
            os.fsync(self._fd)
        elif kind == _DIRSYNC:
            os.fsync(self._dir)
        elif kind == _SYNCFS:
            kernel.syncfs(self._dir)
        elif kind == _CLOSE:
            os.close(self._fd)
        elif kind == _MKDIR:
            os.mkdir(self._directory)
        else:
            return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        return 0


def as_file_op(record: Record, kinds: tuple[str, ...], path: str) -> list[object]:
    """A noted call as the host's ``FileOp``."""
    return [
        kinds[record.kind],
        path,
        record.times,
        record.length,
        record.result,
        record.start_us,
        record.end_us,
    ]


def synced(records: Iterable[Record], order: Order) -> list[Synced]:
    """The files of an order that are durable by what the kernel said."""
    done: dict[int, set[int]] = {}
    for record in records:
        whole = record.result == record.length if record.kind == _WRITE else record.result >= 0
        if whole:
            done.setdefault(record.offset - 1, set()).add(record.kind)
    return [
        Synced(
            path=order.path(index),
            size=order.size,
            number=order.first + index,
            generation=order.generation,
        )
        for index, kinds in sorted(done.items())
        if index >= 0 and {_WRITE, _FSYNC, _DIRSYNC} <= kinds
    ]


def write(
    order: Order,
    pattern: Pattern,
    clock: Clock,
    *,
    limit: float,
    cgroup: str = "",
    procs: str = "",
    anon: Callable[[], int | None] = lambda: None,
    tick: Tick = no_tick,
) -> tuple[Json, list[Synced]]:
    """Write the files in a frugal child: (parts of the host's ``StepSeen``, what was synced)."""
    results = Results(6 * order.count + 8)
    try:
        run = frugal.start(
            lambda: Filer(order, pattern, clock, results).prepare(),
            results,
            cgroup=cgroup,
            procs=procs,
            anon=anon,
        )
        run.drive(limit, tick=tick)
        records = results.records()
        ops = [as_file_op(record, KINDS, order.path(record.offset - 1)) for record in records]
        seen = {"submitter": run.submitter("files", KINDS), "file_ops": ops, "problem": run.problem}
        return seen, synced(records, order)
    finally:
        results.close()


def recogniser(pattern: Pattern, number: int) -> Recogniser:
    """Knows the blocks of one file."""

    def recognise(data: bytes, place: int) -> int | None:
        ours = pattern.recognise(data)
        if ours is None or ours[0] != (number << _NUMBER) + place:
            return None
        return ours[1]

    return recognise


def look_at(root: str, one: Synced, pattern: Pattern, *, drop: bool) -> Json:
    """One file as it is found now: the host's ``FileState``."""
    path = f"{root}/{one.path}"
    state: Json = {"path": one.path, "state": "whole", "size": 0, "errno": None, "wrong": []}
    try:
        found = os.lstat(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        return {**state, "state": "missing" if missing else "unreadable", "errno": error.errno}
    if one.number is None or stat.S_ISDIR(found.st_mode):
        return {**state, "size": found.st_size if stat.S_ISREG(found.st_mode) else 0}
    state["size"] = found.st_size
    if drop:
        forget_caches([path])
    try:
        # Reading must not write: an access time is metadata I/O, which may fail.
        fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
    except OSError as error:
        return {**state, "state": "unreadable", "errno": error.errno}
    try:
        seen = read_region(fd, 0, one.size, recogniser(pattern, one.number), first=0)
    finally:
        os.close(fd)
    wrong = [
        part for part in seen if (part.content, part.generation) != ("generation", one.generation)
    ]
    if any(part.content == "unreadable" for part in wrong):
        code = next(part.errno for part in wrong if part.content == "unreadable")
        state.update(state="unreadable", errno=code)
    elif wrong or found.st_size != one.size:
        state["state"] = "wrong"
    return {**state, "wrong": wrong}
