"""A thin pool whose data space, or metadata space, others have taken."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Mapping
from dataclasses import replace

from agent.basics import Json, RigError, one_line, poll_until
from agent.cgroups import Tree
from agent.layers import dm
from agent.layers.base import Layer, said, succeeded
from agent.layers.command import in_child
from agent.layers.thin import METADATA_BLOCK, State, Thin, ThinPool, mapped_bytes
from agent.processes import no_tick
from agent.shortages.base import Shortage
from agent.shortages.watched import Helper, Tally, watch

LIMIT = 60.0
"""Seconds for somebody else to take what there is."""
FREED_LIMIT = 10.0
"""Seconds for space that was given back to be counted: the pool commits every second."""
SETTLED = 1.5
"""Seconds without a commit after which the pool commits at the next change: COMMIT_PERIOD (dm-thin.c) is one.
A discard right after a commit might find its two halves in one second, and so in one commit."""
_HOG = "somebody-else"
_MOST = 1 << 20


class PoolShortage(Shortage):
    """What both have in common: the gauge is the pool's own status, which is asked by ioctl(2)."""

    _last: Json | None = None

    def pool(self) -> ThinPool:
        """The pool. Raises RigError."""
        layer = self.layer()
        if not isinstance(layer, ThinPool):
            raise RigError(f"{layer.name} is no thin pool")
        return layer

    def state(self) -> State:
        """Its status. Raises RigError."""
        try:
            return self.pool().state()
        except OSError as error:
            raise RigError(f"the pool has no status: {one_line(error)}") from error


class ThinData(PoolShortage):
    """Somebody else's thin device takes the space, which is given back in one of three ways."""

    def __init__(self, spec: Json, layers: Mapping[str, Layer], cgroups: Tree) -> None:
        super().__init__(spec, layers, cgroups)
        self._number = -1
        self._taken = 0
        self._uncounted = 0
        self._tally = Tally()
        self._helper: Helper | None = None

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        pool, state = self.pool(), self.state()
        free = state.chunks - state.used
        self._taken = (free - self.spec["leave"] // pool.chunk) * pool.chunk
        if self._taken <= 0:
            raise RigError(f"the pool has {free * pool.chunk} bytes left already")
        self._number = pool.next_id()
        pool.tell(f"create_thin {self._number}")
        path = self._hog_up()
        command = in_child(["fill", path], lambda: _fill(path, self._taken), LIMIT, pool.site)
        self._hog_down()
        if not succeeded(command):
            raise RigError(f"cannot fill {pool.name}: {said(command)}")
        state = self.state()
        left = (state.chunks - state.used) * pool.chunk
        leave = self.spec["leave"] // pool.chunk * pool.chunk
        # What a cache above the pool writes back meanwhile takes of it.
        if not leave // 2 <= left <= leave:
            raise RigError(f"{pool.name} has {left} bytes left, not {self.spec['leave']}")
        if self.spec.get("grows"):
            self._watch(pool, int(self.spec["grows"]))

    def _watch(self, pool: ThinPool, by: int) -> None:
        def short() -> bool:
            try:
                return pool.state().mode == "out_of_data_space"
            except OSError:
                return False  # it is out of use, or has failed: no space would help

        def extend() -> None:
            # In a process of his own, who must not take the kernel's lines from the agent.
            pool.site = replace(pool.site, tick=no_tick)
            pool.grow(by)

        self._helper = watch("who extends the pool", short, extend, self._tally)

    def check(self) -> None:
        """Raises RigError if whoever extends the pool has ended by himself."""
        if self._helper is not None:
            self._helper.check()

    def end(self) -> None:
        """End whoever extends the pool. Raises RigError."""
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.end(tick=self.pool().site.tick)

    def _hog_up(self) -> str:
        pool = self.pool()
        size = -(-self._taken // pool.chunk) * pool.chunk
        return dm.create(pool.site, _HOG, [(size, "thin", f"{pool.path} {self._number}")])

    def _hog_down(self) -> None:
        command = dm.remove(self.pool().site, _HOG)
        if not succeeded(command):
            raise RigError(f"the other thin device stays: {said(command)}")

    def relieve(self) -> None:
        """Take the shortage away. Raises RigError."""
        self.check()
        self.end()
        pool, before = self.pool(), self._free(self.state())
        match self.spec.get("relief", "extend"):
            case "extend":
                pool.grow()
            case "delete":
                pool.tell(f"delete {self._number}")
            case _:
                self._discard()

        # Of what is discarded the pool makes use from its next commit on, which is a second away at
        # most (check_for_data_space() in dm-thin.c).
        poll_until(lambda: self.state().mode == "rw", FREED_LIMIT)
        if self._free(self.state()) <= before:
            raise RigError(f"{pool.name} has no more space than before")

    def _discard(self) -> None:
        """Discard the other device. Raises RigError.

        The pool's status counts what was committed last. A pool that does not commit after a discard
        has the space and does not say so: which is for the judge, not a relief that failed. That it
        was given back is seen at the device, which maps the less.
        """
        pool, path = self.pool(), self._hog_up()
        mapped = mapped_bytes(_HOG)
        time.sleep(SETTLED)
        pool.site.must(["blkdiscard", path], LIMIT)
        self._uncounted = (mapped - mapped_bytes(_HOG)) // pool.chunk
        self._hog_down()

    def _free(self, state: State) -> int:
        """Chunks that are free, counted by the pool or not."""
        return state.chunks - self._used(state)

    def _used(self, state: State) -> int:
        if self._uncounted and state.mode != "rw" and state.used == state.chunks:
            return state.used - self._uncounted
        return state.used

    def reading(self) -> Json:
        """The gauge. Bytes, and how often somebody extended the pool. Of a pool that is not in use
        the last that was read.
        """
        pool = self.pool()
        if self._last is None or pool.active():
            state, hits = pool.state(), self._tally.value if self.spec.get("grows") else None
            used = self._used(state)
            self._last = self.gauge(used * pool.chunk, state.chunks * pool.chunk, hits)
        return self._last


class ThinMetadata(PoolShortage):
    """Others' thin devices that hold nothing take one block of metadata each.

    A pool that has met its end of metadata says so by its mode, which counts as one hit.
    """

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        pool = self.pool()
        leave = self.spec["leave"] // METADATA_BLOCK
        for _ in range(_MOST):
            state = self.state()
            excess = state.metadata - state.metadata_used - leave
            if excess <= 0:
                break
            # One takes a block of its own, and now and then one more of the trees that hold them all.
            numbers = [pool.next_id() for _ in range(max(1, excess // 2))]
            pool.tell(*(f"create_thin {number}" for number in numbers))
        state = self.state()
        if state.mode != "rw" or state.needs_check:
            raise RigError(f"{pool.name} went {state.mode} before anybody wrote")

    def relieve(self) -> None:
        """Take the pool offline, check it, repair it if need be, and extend its metadata device, as
        the documentation wants it. Raises RigError.
        """
        pool = self.pool()
        users = [layer for layer in pool_users(self._layers, pool) if layer.attached()]
        for layer in users:
            layer.detach()
        if pool.active():
            raise RigError(f"{pool.name} cannot be taken offline")
        pool.repair()
        pool.grow_metadata()
        for layer in users:
            layer.attach()

    def reading(self) -> Json:
        """The gauge. Bytes, and whether the pool has met the end."""
        pool = self.pool()
        if self._last is None or pool.active():
            state = pool.state()
            hits = int(state.mode == "ro" or state.needs_check)
            used, total = state.metadata_used, state.metadata
            self._last = self.gauge(used * METADATA_BLOCK, total * METADATA_BLOCK, hits)
        return self._last


def pool_users(layers: Mapping[str, Layer], pool: ThinPool) -> list[Thin]:
    """The thin devices of a pool, as they were made."""
    found = [layer for layer in layers.values() if isinstance(layer, Thin)]
    return [layer for layer in found if layer.pool() is pool]


def _fill(path: str, length: int) -> None:
    """Write a device from its beginning. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    zeros = memoryview(mmap.mmap(-1, _MOST))
    at = 0
    while at < length:
        at += os.pwrite(fd, zeros[: min(_MOST, length - at)], at)
    os.fsync(fd)
    os.close(fd)
