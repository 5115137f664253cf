"""The suite's own writer: it knows of every block whether it was acknowledged.

Each request is noted with what the system call returned, and each block carries the pattern of
``agent.workloads.pattern``. After a write that failed, the writer still syncs what it wrote before,
as a program does that handles errors.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass

from agent import kernel
from agent.basics import BLOCK, Clock, Json
from agent.processes import Tick, no_tick
from agent.workloads import frugal
from agent.workloads.frugal import Record, Results
from agent.workloads.pattern import Pattern

KINDS = ("write", "sync", "close", "open")
_WRITE, _SYNC, _CLOSE, _OPEN = range(4)
_FLAGS = {
    "buffered": os.O_RDWR,
    "direct": os.O_RDWR | os.O_DIRECT,
    "dsync": os.O_RDWR | os.O_DSYNC,
    "rwf_dsync": os.O_RDWR,
    "direct_dsync": os.O_RDWR | os.O_DIRECT | os.O_DSYNC,
    "mmap": os.O_RDWR,
}
WAYS = tuple(_FLAGS)
_SELF_SYNCING = ("dsync", "rwf_dsync", "direct_dsync")
_TRIAL = 2 * BLOCK
"""Bytes of a rehearsed request: the code is the same for any size."""
_ROUNDS = 12
"""Rehearsals: the interpreter adapts its code to what it meets in the first few."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one writer is to do. Offsets, lengths and ``sync_every`` are bytes."""

    path: str
    submit: str
    offset: int
    length: int
    request: int
    generation: int
    sync_every: int | None = None
    go_on: bool = False
    sync_only: bool = False  # no write: an fsync of the device, and no more
    mark_bytes: int | None = None  # tell the parent after so many bytes without an error
    mark_error: bool = False  # tell the parent at the first error
    mark_sync: bool = False  # tell the parent when the first sync begins
    lingers: bool = False  # after so many bytes it writes no further, until it is killed
    unkillable: bool = False
    file_limit: int | None = None  # RLIMIT_FSIZE

    def capacity(self) -> int:
        """The most calls that there can be."""
        requests = -(-self.length // self.request)
        return 2 * requests + 4


def order_of(step: Json, path: str) -> Order:
    """A step ``write`` as the writer's order."""
    moment = step.get("kill") or step.get("detach") or {}
    after = moment.get("after")
    return Order(
        path=path,
        submit=step["submit"],
        offset=step["offset"],
        length=step["length"],
        request=step["request"],
        generation=step["generation"],
        sync_every=step.get("sync_every"),
        go_on=step.get("after_error") == "continue",
        mark_bytes=after if isinstance(after, int) else None,
        mark_error=after == "first_error",
        mark_sync=after == "first_sync",
        lingers=isinstance(after, int) and "kill" in step and step["kill"] is not None,
        unkillable=step.get("unkillable", False),
        file_limit=step.get("file_limit"),
    )


class Writer:
    """The writer inside its process. Everything is allocated here; ``work`` allocates nothing."""

    def __init__(self, order: Order, pattern: Pattern, clock: Clock, results: Results) -> None:
        self._order = order
        self._pattern = pattern
        self._clock = clock
        self._results = results
        size = max(order.request, _TRIAL)
        self._buffer = kernel.contiguous_memory(size)
        self._view = memoryview(self._buffer)[:size]
        self._map: mmap.mmap | None = None
        self._map_view = memoryview(bytearray(BLOCK))
        self._fd = -1
        self._open_error = 0
        self._origin = 0
        # Under O_DSYNC each write is its own sync.
        self._syncs = order.submit not in _SELF_SYNCING
        self._every = order.sync_every or 0 if self._syncs else 0
        self._flags = os.RWF_DSYNC if order.submit == "rwf_dsync" else 0

    def prepare(self) -> frugal.Work:
        """Open the device, touch all memory, and rehearse on a scratch file."""
        order = self._order
        self._pattern.warm()
        self._pattern.fill(self._view, 0, 0, len(self._view) // BLOCK, order.generation)
        try:
            self._fd = os.open(order.path, _FLAGS[order.submit])
        except OSError as error:
            self._open_error = error.errno or 0
        self._rehearse()
        if order.file_limit is not None:
            # Python ignores SIGXFSZ: what is refused is refused with EFBIG.
            resource.setrlimit(resource.RLIMIT_FSIZE, (order.file_limit, order.file_limit))
        return self.work

    def _rehearse(self) -> None:
        """The same code on a memory file, and on a device that is always full."""
        order, fd, full = self._order, self._fd, os.open("/dev/full", os.O_RDWR)
        scratch = os.memfd_create("rehearsal")
        os.ftruncate(scratch, 3 * _TRIAL)
        if order.submit == "mmap":
            self._map = mmap.mmap(scratch, 3 * _TRIAL)
            self._map_view = memoryview(self._map)
        for _ in range(_ROUNDS):
            self._fd = scratch
            self._span(0, 3 * _TRIAL, 0, _TRIAL, _nothing)
            self._call(_SYNC, 0, 0)
            if self._map is None:
                self._fd = full
                self._span(0, _TRIAL, 0, _TRIAL, _nothing)
            self._results.forget()
        self._unmap()
        self._fd = scratch
        self._call(_CLOSE, 0, 0)
        os.close(full)
        self._fd = fd

    def work(self, tell: Callable[[], None]) -> None:
        """The order itself; every call is noted as it returns."""
        order = self._order
        if self._fd < 0:
            now = self._clock.us()
            code = self._open_error
            self._results.end(_OPEN, 0, 0, 0, result=-code, start_us=now, end_us=now)
            return
        if order.submit == "mmap":
            self._map = mmap.mmap(self._fd, order.length, offset=order.offset)
            self._map_view = memoryview(self._map)
        self._span(order.offset, order.length, order.offset, order.request, tell)
        self._unmap()
        self._call(_CLOSE, 0, 0)

    def _unmap(self) -> None:
        if self._map is not None:
            self._map_view.release()
            self._map.close()
            self._map = None

    def _span(
        self, offset: int, length: int, origin: int, request: int, tell: Callable[[], None]
    ) -> None:
        """Write a region request by request, with the syncs between and after.

        ``origin`` is the place on the device that a mapping begins at.
        """
        order, results = self._order, self._results
        end = offset + length
        unsynced = 0
        told = failed = False
        self._origin = origin
        while offset < end:
            size = min(request, end - offset)
            self._pattern.fill(self._view, 0, offset // BLOCK, size // BLOCK, order.generation)
            failed = self._call(_WRITE, offset, size) < 0
            offset += size
            unsynced += size
            if not failed and 0 < self._every <= unsynced:
                told = told or self._about_to_sync(tell)
                failed = self._call(_SYNC, 0, 0) < 0
                unsynced = 0
            if not told and (
                (order.mark_error and results.errors)
                or (order.mark_bytes is not None and results.written >= order.mark_bytes)
            ):
                told = True
                tell()
                if order.lingers:
                    self._linger(offset - size, size)
            if failed and not order.go_on:
                break
        if (unsynced or order.sync_only) and self._syncs:
            if not told:
                self._about_to_sync(tell)
            self._call(_SYNC, 0, 0)

    def _linger(self, offset: int, length: int) -> None:
        """Be killed. That takes a moment to come. Meanwhile it is within a write, but of what it has
        written already: how far it came is no matter of chance. Never returns.
        """
        start = self._clock.us()
        while (result := self._try(_WRITE, offset, length)) == length:
            start = self._clock.us()
        # What was written is refused now: that is noted, once.
        generation, end = self._order.generation, self._clock.us()
        self._results.end(
            _WRITE, generation, offset, length, result=result, start_us=start, end_us=end
        )
        while True:
            signal.pause()

    def _about_to_sync(self, tell: Callable[[], None]) -> bool:
        """Tell the parent, if that is what it waits for. Whether it was told."""
        if self._order.mark_sync:
            tell()
        return self._order.mark_sync

    def _call(self, kind: int, offset: int, length: int) -> int:
        """One system call, noted. What it returned, or minus the errno."""
        results, clock = self._results, self._clock
        generation = self._order.generation if kind == _WRITE else 0
        start = clock.us()
        results.begin(kind, generation, offset, length, start)
        result = self._try(kind, offset, length)
        end = clock.us()
        results.end(kind, generation, offset, length, result=result, start_us=start, end_us=end)
        return result

    def _try(self, kind: int, offset: int, length: int) -> int:
        """What a system call returned, or minus the errno."""
        try:
            return self._do(kind, offset, length)
        except OSError as error:
            return -(error.errno or 0)

    def _do(self, kind: int, offset: int, length: int) -> int:
        if kind == _WRITE:
            if self._map is not None:
                # A store: the kernel answers at msync, or with SIGBUS here and now.
                at = offset - self._origin
                self._map_view[at : at + length] = self._view[:length]
                return length
            if self._flags:
                return os.pwritev(self._fd, [self._view[:length]], offset, self._flags)
            return os.pwrite(self._fd, self._view[:length], offset)
        if kind == _SYNC:
            if self._map is not None:
                self._map.flush()
            else:
                os.fsync(self._fd)
            return 0
        os.close(self._fd)
        return 0


def _nothing() -> None:
    """Nobody is told during a rehearsal."""


def as_op(record: Record) -> list[object]:
    """A noted call as the host's ``Op``."""
    return [
        KINDS[record.kind],
        record.offset,
        record.length,
        record.generation,
        record.result,
        record.start_us,
        record.end_us,
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
    at_mark: Callable[[], None] | None = None,
) -> tuple[Json, str]:
    """Run one writer to its end, or for ``limit`` seconds: (the host's ``Submitter``, a problem).

    At the order's moment it is killed, unless there is something else to do then. A call that never
    returned is no ``Op``: it is what was in flight.
    """
    results = Results(order.capacity())
    try:
        run = frugal.start(
            lambda: Writer(order, pattern, clock, results).prepare(),
            results,
            cgroup=cgroup,
            procs=procs,
            anon=anon,
            # A locked mapping of the device would be read in whole at once.
            lock_future=order.submit != "mmap",
            unkillable=order.unkillable,
        )
        kill = order.mark_error or order.mark_sync or order.mark_bytes is not None
        run.drive(limit, kill_at_mark=kill and at_mark is None, at_mark=at_mark, tick=tick)
        ops = [as_op(record) for record in results.records()]
        return {**run.submitter("ledger", KINDS), "ops": ops}, run.problem
    finally:
        results.close()
