"""Calls on a range of a block device: discards, zeroes, modes of fallocate(2); and a sync.

The process that makes them is as frugal as the ledger's writer: see there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from agent import kernel
from agent.basics import BLOCK, Clock, Json
from agent.processes import Tick, no_tick
from agent.workloads import frugal
from agent.workloads.frugal import Record, Results

_ROUNDS = 6


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be asked for. Bytes."""

    path: str
    op: str
    offset: int
    length: int
    request: int

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the calls, by the numbers that they are noted with."""
        return (self.op, "sync", "close", "open")


_OP, _SYNC, _CLOSE, _OPEN = range(4)


def order_of(step: Json, path: str) -> Order:
    """A step ``range_op`` as an order."""
    return Order(
        path=path,
        op=step["op"],
        offset=step["offset"],
        length=step["length"],
        request=step.get("request") or step["length"],
    )


class Asker:
    """The process that asks, from within. ``work`` allocates nothing that stays."""

    def __init__(self, order: Order, clock: Clock, results: Results) -> None:
        self._order = order
        self._clock = clock
        self._results = results
        self._fd = -1
        self._open_error = 0

    def prepare(self) -> frugal.Work:
        """Open the device, and rehearse on a memory file, which knows some of the calls."""
        try:
            self._fd = os.open(self._order.path, os.O_RDWR)
        except OSError as error:
            self._open_error = error.errno or 0
        fd, self._fd = self._fd, os.memfd_create("rehearsal")
        os.ftruncate(self._fd, 4 * BLOCK)
        for _ in range(_ROUNDS):
            self._span(0, 4 * BLOCK, BLOCK)
        self._call(_CLOSE, 0, 0)
        self._fd = fd
        return self.work

    def work(self, tell: Callable[[], None]) -> None:  # noqa: ARG002 - nobody waits for a moment of it
        """The order itself, to its end or to the first error; then a sync."""
        order = self._order
        if self._fd < 0:
            now = self._clock.us()
            self._results.end(_OPEN, 0, 0, 0, result=-self._open_error, start_us=now, end_us=now)
            return
        self._span(order.offset, order.length, order.request)
        self._call(_CLOSE, 0, 0)

    def _span(self, offset: int, length: int, request: int) -> None:
        end = offset + length
        while offset < end:
            size = min(request, end - offset)
            if self._call(_OP, offset, size) < 0:
                break
            offset += size
        self._call(_SYNC, 0, 0)

    def _call(self, kind: int, offset: int, length: int) -> int:
        results, clock = self._results, self._clock
        start = clock.us()
        results.begin(kind, 0, offset, length, start)
        result = 0
        try:
            if kind == _OP:
                kernel.range_op(self._fd, self._order.op, offset, length)
            elif kind == _SYNC:
                os.fsync(self._fd)
            else:
                os.close(self._fd)
        except OSError as error:
            result = -(error.errno or 0)
        results.end(kind, 0, offset, length, result=result, start_us=start, end_us=clock.us())
        return result


def as_op(record: Record, kinds: tuple[str, ...]) -> list[object]:
    """A noted call as the host's ``Op``."""
    return [
        kinds[record.kind],
        record.offset,
        record.length,
        0,
        record.result,
        record.start_us,
        record.end_us,
    ]


def ask(
    order: Order,
    clock: Clock,
    *,
    limit: float,
    cgroup: str = "",
    procs: str = "",
    anon: Callable[[], int | None] = lambda: None,
    tick: Tick = no_tick,
) -> tuple[Json, str]:
    """Ask for it, for ``limit`` seconds at most: (the host's ``Submitter``, a problem)."""
    results = Results(max(4, -(-order.length // order.request)) * _ROUNDS + 8)
    try:
        run = frugal.start(
            lambda: Asker(order, clock, results).prepare(),
            results,
            cgroup=cgroup,
            procs=procs,
            anon=anon,
        )
        run.drive(limit, tick=tick)
        ops = [as_op(record, order.kinds) for record in results.records()]
        return {**run.submitter("ranges", order.kinds), "ops": ops}, run.problem
    finally:
        results.close()
