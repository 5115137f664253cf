"""A script of system calls on descriptors of one file: each is made, and what it returned is noted.

A call on a descriptor that could not be opened is noted as EBADF and not made. A descriptor that a
``fork`` gave belongs to another process, which makes the calls on it when it is told to. At the end a
file is created beside the one under test and removed again, if that is on a filesystem: that fails
where the filesystem has shut itself down.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass

from agent import kernel
from agent.basics import BLOCK, Clock, Json
from agent.processes import Tick, no_tick
from agent.uring import Ring
from agent.workloads import frugal
from agent.workloads.frugal import Record, Results
from agent.workloads.pattern import Pattern

KINDS = (
    *("open", "dup", "fork", "close", "write", "store", "fsync", "fdatasync", "msync"),
    *("uring_fsync", "uring_fdatasync", "sync_file_range", "syncfs", "sync", "evict", "create"),
)
_FLAGS = {"direct": os.O_DIRECT, "dsync": os.O_DSYNC}
_DROP = "/proc/sys/vm/drop_caches"
_RESULT = struct.Struct("<q")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be done. ``script`` has the host's ``Call`` values; offset and length are bytes."""

    path: str
    offset: int
    length: int
    generation: int
    script: tuple[Json, ...]
    beside: str = ""


@dataclass(frozen=True, kw_only=True)
class _Descriptor:
    """A descriptor by its number, in this process or in another."""

    number: int
    process: _Process | None = None


class _Process:
    """Another process, that makes a call of the script when it is told its place."""

    def __init__(self, call: Callable[[int], int]) -> None:
        self._answer = mmap.mmap(-1, _RESULT.size)
        self._go, self._done = os.eventfd(0), os.eventfd(0)
        self.pid = os.fork()
        if self.pid == 0:
            self._serve(call)

    def _serve(self, call: Callable[[int], int]) -> None:
        """In the other process. Never returns."""
        try:
            kernel.die_with_parent()
            while True:
                result = call(os.eventfd_read(self._go) - 1)
                _RESULT.pack_into(self._answer, 0, result)
                os.eventfd_write(self._done, 1)
        finally:
            os._exit(70)

    def make(self, place: int) -> int:
        """The call at a place of the script: its result."""
        os.eventfd_write(self._go, place + 1)
        os.eventfd_read(self._done)
        return int(_RESULT.unpack_from(self._answer)[0])

    def end(self) -> None:
        """No more calls."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Caller:
    """Makes the calls, in its process."""

    def __init__(self, order: Order, pattern: Pattern, clock: Clock, results: Results) -> None:
        self._order = order
        self._pattern = pattern
        self._clock = clock
        self._results = results
        self._open: dict[str, _Descriptor] = {}
        self._memory = mmap.mmap(-1, order.length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._view = memoryview(self._memory)
        self._ring: Ring | None = None

    def prepare(self) -> frugal.Work:
        """Make what is to be written, and the ring if one is needed."""
        order = self._order
        first, count = order.offset // BLOCK, order.length // BLOCK
        self._pattern.fill(self._view, 0, first, count, order.generation)
        if any(call["do"].startswith("uring") for call in order.script):
            self._ring = Ring(2, wide=False)
        return self.work

    def work(self, tell: Callable[[], None]) -> None:  # noqa: ARG002 - nobody kills this one
        """The script from its start to its end."""
        for place, call in enumerate(self._order.script):
            self._noted(place, call["do"], self._make)
        if self._order.beside:
            self._noted(len(self._order.script), "create", self._create)
        for process in {one.process for one in self._open.values() if one.process is not None}:
            process.end()

    def _noted(self, place: int, do: str, make: Callable[[int], int]) -> None:
        kind, clock = KINDS.index(do), self._clock
        start = clock.us()
        self._results.begin(kind, 0, place, 0, start)
        result = make(place)
        end = clock.us()
        self._results.end(kind, 0, place, 0, result=result, start_us=start, end_us=end)

    def _make(self, place: int) -> int:
        """A call: what it returned, or minus the errno."""
        call = self._order.script[place]
        found = self._open.get(call["fd"])
        if call["fd"] and call["do"] != "open" and found is None:
            return -errno.EBADF
        if found is not None and found.process is not None and call["do"] not in ("dup", "fork"):
            result = found.process.make(place)
            if call["do"] == "close":
                found.process.end()
                del self._open[call["fd"]]
            return result
        return self._here(place)

    def _here(self, place: int) -> int:
        call = self._order.script[place]
        number = self._open[call["fd"]].number if call["fd"] in self._open else -1
        try:
            return self._do(call, number)
        except OSError as error:
            return -(error.errno or errno.EIO)

    def _do(self, call: Json, fd: int) -> int:
        do, name = call["do"], call["fd"]
        if do == "open":
            flags = os.O_RDWR
            for word in call["how"]:
                flags |= _FLAGS[word]
            self._open[name] = _Descriptor(number=os.open(self._order.path, flags))
        elif do == "dup":
            self._open[call["to"]] = _Descriptor(number=os.dup(fd))
        elif do == "fork":
            # What the child knows by now is all that it needs of this process.
            self._open[call["to"]] = _Descriptor(number=fd)
            process = _Process(self._in_child(call["to"], fd))
            self._open[call["to"]] = _Descriptor(number=fd, process=process)
        elif do == "close":
            del self._open[name]
            os.close(fd)
        elif do in ("write", "store"):
            return self._put(call, fd)
        elif do.startswith("uring"):
            return self._by_ring(fd, data_only=do == "uring_fdatasync")
        elif do == "msync":
            with mmap.mmap(fd, self._order.length, offset=self._order.offset) as mapping:
                mapping.flush()
        elif do == "evict":
            with open(_DROP, "wb", buffering=0) as file:
                file.write(b"3")
        elif do == "sync":
            os.sync()
        else:
            {
                "fsync": os.fsync,
                "fdatasync": os.fdatasync,
                "syncfs": kernel.syncfs,
                "sync_file_range": kernel.sync_file_range,
            }[do](fd)
        return 0

    def _in_child(self, name: str, fd: int) -> Callable[[int], int]:
        def call(place: int) -> int:
            self._open = {name: _Descriptor(number=fd)}
            return self._here(place)

        return call

    def _put(self, call: Json, fd: int) -> int:
        """Bytes of the region, by a call or by stores into a mapping."""
        start = call["offset"]
        length = self._order.length if call["length"] is None else call["length"]
        data, at = self._view[start : start + length], self._order.offset + start
        if call["do"] == "store":
            with mmap.mmap(fd, length, offset=at) as mapping:
                mapping[:] = data
            return length
        if "dsync" in call["how"]:
            return os.pwritev(fd, [data], at, os.RWF_DSYNC)
        return os.pwrite(fd, data, at)

    def _by_ring(self, fd: int, *, data_only: bool) -> int:
        assert self._ring is not None
        self._ring.fsync(1, fd, data_only=data_only)
        return next(iter(self._ring.wait())).result

    def _create(self, place: int) -> int:  # noqa: ARG002 - it is no call of the script
        try:
            os.close(os.open(self._order.beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            os.unlink(self._order.beside)
        except OSError as error:
            return -(error.errno or errno.EIO)
        return 0


def as_file_op(record: Record, order: Order) -> list[object]:
    """A noted call as the host's ``FileOp``: the descriptor stands for the path."""
    made = order.script[record.offset] if record.offset < len(order.script) else {}
    length = made.get("length")
    stores = made.get("do") in ("write", "store")
    return [
        KINDS[record.kind],
        made.get("fd", ""),
        1,
        (order.length if length is None else length) if stores else 0,
        record.result,
        record.start_us,
        record.end_us,
    ]


def make(
    order: Order, pattern: Pattern, clock: Clock, *, limit: float, tick: Tick = no_tick
) -> Json:
    """Make the calls in a frugal child: parts of the host's ``StepSeen``."""
    results = Results(len(order.script) + 2)
    try:
        run = frugal.start(
            lambda: Caller(order, pattern, clock, results).prepare(),
            results,
            # A locked mapping of the file would be read, and given its space, in whole at once.
            lock_future=False,
        )
        run.drive(limit, tick=tick)
        ops = [as_file_op(record, order) for record in results.records()]
        seen = {"submitter": run.submitter("calls", KINDS), "file_ops": ops}
        return {**seen, "problem": run.problem}
    finally:
        results.close()
