"""Files of one size, written and synced, and what is found of them later.

Each block of a file carries the ledger's pattern; its number holds the file's own number, so that
another file's data is foreign. A file counts as synced when its own fsync (or msync) and an fsync of
its directory have both succeeded; or when one sync of the whole filesystem has, after the last file.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
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

KINDS = (
    *("create", "write", "fsync", "dirsync", "mkdir", "close", "open"),
    *("truncate", "msync", "syncfs", "freeze", "thaw"),
)
_CREATE, _WRITE, _FSYNC, _DIRSYNC, _MKDIR, _CLOSE, _OPEN = range(7)
_TRUNCATE, _MSYNC, _SYNCFS, _FREEZE, _THAW = range(7, 12)
_FIFREEZE, _FITHAW = 0xC0045877, 0xC0045878
"""include/uapi/linux/fs.h: _IOWR('X', 119, int) and _IOWR('X', 120, int)."""
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
    xattr: tuple[bytes, bytes] | None = None  # name and value
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
    submit: str = "buffered"
    sync: str = "fsync"
    owner: int = 0  # uid and gid of the process

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
        self._top = -1
        self._sync = order.sync
        self._map: mmap.mmap | None = None
        self._flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        self._flags |= os.O_DIRECT if order.submit == "direct" else 0
        self._root = os.fsencode(order.root)
        self._names: list[bytes] = []
        self._directory = b""

    def prepare(self) -> frugal.Work:
        """Touch the buffer, and rehearse on the guest's own tmpfs."""
        order = self._order
        self._view[:] = bytes(len(self._view))
        scratch = f"/run/rehearsal.{os.getpid()}"
        self._aim(scratch.encode(), _REHEARSED)
        # The guest's own tmpfs may know no O_DIRECT, and cannot be frozen.
        wanted, self._flags = self._flags, self._flags & ~os.O_DIRECT
        self._sync = "syncfs" if order.sync == "freeze" else order.sync
        self._run(_TRIAL, _REHEARSED)
        self._run(_TRIAL, 1)  # the directory is there already: an error
        for name in self._names:
            if os.path.exists(name):
                os.unlink(name)
        os.rmdir(scratch)
        self._flags, self._sync = wanted, order.sync
        self._aim(os.fsencode(f"{order.root}/{order.directory}"), order.count)
        return self.work

    def _aim(self, directory: bytes, count: int) -> None:
        if self._top >= 0:
            os.close(self._top)
        # Open before anything is written: a sync reports what failed since its file was opened.
        try:
            self._top = os.open(os.path.dirname(directory), os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            self._top = -1  # a filesystem that shut down: each call will say so
        self._directory = directory
        self._names = [directory + b"/f%05d" % index for index in range(count)]

    def work(self, tell: Callable[[], None]) -> None:  # noqa: ARG002 - nobody kills this one
        """The order itself, to its end or to the first error."""
        if self._order.owner:
            become(self._order.owner)
        self._run(self._order.size, self._order.count)

    def _run(self, size: int, count: int) -> None:
        if self._call(_MKDIR, -1, 0) < 0:
            return
        self._dir = self._call(_OPEN, -1, 0)
        if self._dir < 0:
            return
        good = True
        if self._sync == "fsync":
            # The directory's own name is durable before any file's is.
            good = self._sync_root() and self._call(_DIRSYNC, -1, 0) >= 0
        index = 0
        while good and index < count:
            good = self._file(index, size)
            index += 1
        os.close(self._dir)
        if self._sync == "syncfs":
            self._call(_SYNCFS, -1, 0)
        elif self._sync == "freeze" and self._call(_FREEZE, -1, 0) >= 0:
            self._call(_THAW, -1, 0)

    def _sync_root(self) -> bool:
        mine = self._dir
        self._dir = self._top
        done = self._call(_DIRSYNC, -1, 0) >= 0
        self._dir = mine
        return done

    def _file(self, index: int, size: int) -> bool:
        order = self._order
        self._fd = self._call(_CREATE, index, 0)
        if self._fd < 0:
            return False
        number = (order.first + index) << _NUMBER
        self._pattern.fill(self._view, 0, number, size // BLOCK, order.generation)
        mapped = order.submit == "mmap"
        good = not mapped or self._call(_TRUNCATE, index, size) >= 0
        good = good and self._call(_WRITE, index, size) >= 0
        if self._sync != "fsync":
            return self._call(_CLOSE, index, 0) >= 0 and good
        # What was written is synced even if not all of it was: a program that handles errors would.
        if not mapped:
            good = self._call(_FSYNC, index, 0) >= 0 and good
        elif self._map is not None:
            good = self._call(_MSYNC, index, 0) >= 0 and good
        self._unmap()
        good = self._call(_CLOSE, index, 0) >= 0 and good
        return good and self._call(_DIRSYNC, index, 0) >= 0

    def _unmap(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None

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
            return os.open(self._names[index], self._flags, 0o644)
        if kind == _WRITE:
            return self._put(length)
        if kind == _FSYNC:
            os.fsync(self._fd)
        elif kind == _TRUNCATE:
            os.ftruncate(self._fd, length)
        elif kind == _MSYNC:
            assert self._map is not None
            self._map.flush()
        elif kind == _SYNCFS:
            kernel.syncfs(self._top)
        elif kind in (_FREEZE, _THAW):
            fcntl.ioctl(self._top, _FIFREEZE if kind == _FREEZE else _FITHAW, 0)
        elif kind == _DIRSYNC:
            os.fsync(self._dir)
        elif kind == _CLOSE:
            os.close(self._fd)
        elif kind == _MKDIR:
            os.mkdir(self._directory)
        else:
            return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        return 0

    def _put(self, length: int) -> int:
        """The file's bytes, by one call or by stores into a mapping of it."""
        if self._order.submit != "mmap":
            return os.write(self._fd, self._view[:length])
        # A store: the kernel answers at msync, or with SIGBUS here and now.
        self._map = mmap.mmap(self._fd, length)
        self._map[:] = self._view[:length]
        return length


def become(owner: int) -> None:
    """Go on as a user without any capability. Raises OSError."""
    # What was locked stays locked; what comes after needs a limit, for want of CAP_IPC_LOCK.
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    os.setgroups([])
    os.setresgid(owner, owner, owner)
    os.setresuid(owner, owner, owner)


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
    synced_whole = False
    for record in records:
        if record.kind in (_SYNCFS, _FREEZE):
            synced_whole = record.result >= 0
        whole = record.result == record.length if record.kind == _WRITE else record.result >= 0
        if whole:
            done.setdefault(record.offset - 1, set()).add(record.kind)
    if order.sync != "fsync":
        wanted = {_WRITE} if synced_whole else {-1}
    else:
        wanted = {_WRITE, _MSYNC if order.submit == "mmap" else _FSYNC, _DIRSYNC}
    return [
        Synced(
            path=order.path(index),
            size=order.size,
            number=order.first + index,
            generation=order.generation,
        )
        for index, kinds in sorted(done.items())
        if index >= 0 and wanted <= kinds
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
            # A locked mapping of a file would be read, and given its space, in whole at once.
            lock_future=order.submit != "mmap",
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
    if one.xattr is not None:
        try:
            value = os.getxattr(path, one.xattr[0])
        except OSError as error:
            return {**state, "state": "unreadable", "errno": error.errno}
        if value != one.xattr[1]:
            state["state"] = "wrong"
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
