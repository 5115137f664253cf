"""A load that is all metadata: empty files, directories, renames, xattrs; an fsync now and then.

Between two syncs each kind of operation comes in a row, so that a row is one record. A sync is an
fsync of the file that was made last, and then one of the directory: both are durable then by the
letter of fsync(2), and every name in the directory too. The synced file's xattr is read back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent.basics import Clock, Json
from agent.processes import Tick, no_tick
from agent.workloads import frugal
from agent.workloads.files import Synced, as_file_op
from agent.workloads.frugal import Record, Results

KINDS = ("create", "mkdir", "rename", "setxattr", "fsync", "dirsync", "open", "close")
_CREATE, _MKDIR, _RENAME, _SETXATTR, _FSYNC, _DIRSYNC, _OPEN, _CLOSE = range(8)
_XATTR = b"user.ledger"
_VALUE = b"v" * 64
_LARGE = b"V%07d" + b"V" * 792
"""More than an inode has room for, so that it gets a block of its own; less than a block of 1 KiB,
which is the most that ext4 takes and what mke2fs makes on a small device. No two alike: ext4 lets
equal ones share a block.
"""
_REHEARSED = 8
MIXES = {
    "all": (_CREATE, _MKDIR, _RENAME, _SETXATTR),
    "files": (_CREATE, _RENAME),
    "directories": (_MKDIR,),
    "xattrs": (_CREATE, _RENAME, _SETXATTR),
}
"""The rows of a round. Without files, a sync is one of the directory alone."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be done: ``count`` operations at most, a sync after every ``sync_every``."""

    root: str
    directory: str
    count: int
    sync_every: int
    mix: str = "all"

    @property
    def kinds(self) -> tuple[int, ...]:
        """The kinds of operations in a round."""
        return MIXES[self.mix]

    def value(self, index: int) -> bytes:
        """What the xattr of a file holds."""
        return _LARGE % index if self.mix == "xattrs" else _VALUE

    @property
    def row(self) -> int:
        """Operations of one kind in a row: their share of what lies between two syncs."""
        return max(1, self.sync_every // len(self.kinds))

    @property
    def rounds(self) -> int:
        """Rounds that it takes to make ``count`` operations."""
        return -(-self.count // (len(self.kinds) * self.row))


class Storm:
    """The load inside its process. Every name is made beforehand.

    In each round, ``row`` files are created, as many directories are made, the files are renamed,
    and get an xattr; or those of these that the order's mix has.
    """

    def __init__(self, order: Order, clock: Clock, results: Results) -> None:
        self._order = order
        self._clock = clock
        self._results = results
        self._dir = self._fd = -1
        self._kinds = order.kinds
        self._directory = b""
        self._new: list[bytes] = []
        self._values: list[bytes] = []
        self._names: list[bytes] = []
        self._dirs: list[bytes] = []

    def prepare(self) -> frugal.Work:
        """Make the names, and rehearse on the guest's own tmpfs."""
        order = self._order
        scratch = f"/run/rehearsal.{os.getpid()}"
        self._aim(scratch.encode(), _REHEARSED)
        self._run(2, _REHEARSED // 2)
        self._run(1, 1)  # the directory is there already: an error
        for name in (*self._new, *self._names):
            if os.path.exists(name):
                os.unlink(name)
        for name in self._dirs:
            if os.path.exists(name):
                os.rmdir(name)
        os.rmdir(scratch)
        self._aim(os.fsencode(f"{order.root}/{order.directory}"), order.rounds * order.row)
        return self.work

    def _aim(self, directory: bytes, count: int) -> None:
        self._directory = directory
        self._new = [directory + b"/n%06d" % index for index in range(count)]
        self._names = [directory + b"/f%06d" % index for index in range(count)]
        self._dirs = [directory + b"/d%06d" % index for index in range(count)]
        self._values = [self._order.value(index) for index in range(count)]

    def work(self, tell: Callable[[], None]) -> None:  # noqa: ARG002 - nobody kills this one
        """The order itself, to its end or to the first error."""
        self._run(self._order.row, self._order.rounds)

    def _run(self, row: int, rounds: int) -> None:
        if self._call(_MKDIR, -1) < 0:
            return
        self._dir = self._call(_OPEN, -1)
        if self._dir < 0:
            return
        mine = self._dir
        self._dir = os.open(os.path.dirname(self._directory), os.O_RDONLY | os.O_DIRECTORY)
        good = self._call(_DIRSYNC, -1) >= 0
        os.close(self._dir)
        self._dir = mine
        done = 0
        while good and done < rounds:
            good = self._round(done * row, row)
            done += 1
        os.close(self._dir)

    def _round(self, first: int, row: int) -> bool:
        for kind in self._kinds:
            index = first
            while index < first + row:
                if self._call(kind, index) < 0:
                    return False
                index += 1
        last = first + row - 1
        if _CREATE not in self._kinds:
            return self._call(_DIRSYNC, last) >= 0
        self._fd = self._call(_OPEN, last)
        if self._fd < 0:
            return False
        synced = self._call(_FSYNC, last) >= 0
        closed = self._call(_CLOSE, last) >= 0
        return synced and closed and self._call(_DIRSYNC, last) >= 0

    def _call(self, kind: int, index: int) -> int:
        clock, results = self._clock, self._results
        start = clock.us()
        try:
            result = self._do(kind, index)
        except OSError as error:
            result = -(error.errno or 0)
        results.row(kind, index + 1, min(result, 0), start, clock.us())
        return result

    def _do(self, kind: int, index: int) -> int:
        if kind == _CREATE:
            os.close(os.open(self._new[index], os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644))
        elif kind == _MKDIR:
            os.mkdir(self._directory if index < 0 else self._dirs[index])
        elif kind == _RENAME:
            os.rename(self._new[index], self._names[index])
        elif kind == _SETXATTR:
            os.setxattr(self._names[index], _XATTR, self._values[index])
        elif kind == _FSYNC:
            os.fsync(self._fd)
        elif kind == _DIRSYNC:
            os.fsync(self._dir)
        elif kind == _CLOSE:
            os.close(self._fd)
        elif index < 0:
            return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        else:
            return os.open(self._names[index], os.O_RDONLY)
        return 0


def name_of(order: Order, kind: int, index: int) -> str:
    """The name that an operation was on, relative to the mount point."""
    if index < 0:
        return order.directory
    prefix = {_MKDIR: "d", _CREATE: "n"}.get(kind, "f")
    return order.directory if kind == _DIRSYNC else f"{order.directory}/{prefix}{index:06d}"


def synced(records: Iterable[Record], order: Order) -> list[Synced]:
    """What is durable by what the kernel said: the files that were fsynced themselves, then the
    other names in the directory, which are told only if they are not there.
    """
    fsynced: list[int] = []
    last = -1
    for record in records:
        index = record.offset - 1
        if index < 0 or record.result < 0:
            continue
        if record.kind == _FSYNC:
            fsynced.append(index)
        elif record.kind == _DIRSYNC:
            last = index
    told = {index for index in fsynced if index <= last}
    made = range(last + 1)
    valued = _SETXATTR in order.kinds
    files = [
        Synced(
            path=f"{order.directory}/f{index:06d}",
            xattr=(_XATTR, order.value(index)) if valued and index in told else None,
            told=index in told,
        )
        for index in (made if _CREATE in order.kinds else ())
    ]
    directories = [
        Synced(path=f"{order.directory}/d{index:06d}", told=False)
        for index in (made if _MKDIR in order.kinds else ())
    ]
    return [*files, *directories]


def storm(
    order: Order,
    clock: Clock,
    *,
    limit: float,
    cgroup: str = "",
    procs: str = "",
    anon: Callable[[], int | None] = lambda: None,
    tick: Tick = no_tick,
) -> tuple[Json, list[Synced]]:
    """Run the load in a frugal child: (parts of the host's ``StepSeen``, what was synced)."""
    results = Results(8 * max(order.rounds, _REHEARSED) + 8)
    try:
        run = frugal.start(
            lambda: Storm(order, clock, results).prepare(),
            results,
            cgroup=cgroup,
            procs=procs,
            anon=anon,
        )
        run.drive(limit, tick=tick)
        records = results.records()
        ops = [
            as_file_op(record, KINDS, name_of(order, record.kind, record.offset - 1))
            for record in records
        ]
        seen = {
            "submitter": run.submitter("metadata", KINDS),
            "file_ops": ops,
            "problem": run.problem,
        }
        return seen, synced(records, order)
    finally:
        results.close()
