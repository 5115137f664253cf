"""The bystanders: processes that do not submit the I/O under test, and must not pay for it.

Each is readied outside the measured path and locks its memory before it enters its cgroup, except
for the memory that it was given to have there. Their I/O goes round and round in a region of its
own; blocks carry the ledger's pattern with generation 0, which no writer of a step may use. Who
reads holds each byte against what it has stored.
"""

from __future__ import annotations

import gc
import mmap
import os
import struct
from collections.abc import Callable
from typing import Any

from agent import kernel
from agent.basics import BLOCK, Clock, Json, RigError, leave_words, poll_until, words_left
from agent.cgroups import Tree
from agent.processes import Child, state_of
from agent.workloads.frugal import sleep_on
from agent.workloads.pattern import Pattern

START_LIMIT = 30.0
"""Seconds for a bystander to be where it belongs, on the reference machine."""
PAUSE_LIMIT = 10.0
STOP_LIMIT = 5.0
GENERATION = 0

_AREA = 8192
# The parent's wish, the child's state, operations done, longest operation, start of the one in
# flight (0: none), number of errors, number of operations without an error that went wrong.
_STATE = struct.Struct("<IIQQQII")
_COUNTS_AT = 32
_NOTE = struct.Struct("<IIQQ")  # kind; errno, or bytes that were done; offset, time
_NOTES_AT = (512, 4096)
_NOTES = 64
_MESSAGE = slice(64, _NOTES_AT[0])
_RUN, _PAUSE, _STOP = range(3)
_STARTING, _RUNNING, _PAUSED, _FAILED = range(4)
_ERRORS, _WRONGS = range(2)
_KINDS = (("write", "open", "sync", "read"), ("short-write", "short-read", "data"))
_WRITE, _OPEN, _, _READ = range(4)
_SHORT_WRITE, _SHORT_READ, _DATA = range(3)


class Bystander:
    """One bystander, as its parent sees it."""

    def __init__(
        self,
        spec: Json,
        target: str,
        cgroups: Tree,
        pattern: Pattern,
        clock: Clock,
    ) -> None:
        self.name: str = spec["name"]
        self.cgroup: str = spec.get("cgroup", "")
        self._clock = clock
        self._area = mmap.mmap(-1, _AREA)
        self._area.write(bytes(_AREA))
        self._bell = os.eventfd(0)
        procs = cgroups.procs(self.cgroup)
        try:
            door = os.open(procs, os.O_WRONLY) if procs else -1
        except OSError as error:
            raise RigError(f"bystander {self.name}: no cgroup {self.cgroup}: {error}") from error
        pid = os.fork()
        if pid == 0:
            _live(
                lambda: _Life(
                    io=spec.get("io"),
                    target=target,
                    pattern=pattern,
                    clock=clock,
                    area=self._area,
                    bell=self._bell,
                ),
                spec.get("memory", 0),
                self._area,
                door,
            )
        if door >= 0:
            os.close(door)
        self._child = Child.adopt(pid)

    def settled(self) -> bool:
        """Whether it is where it belongs, or has failed to get there."""
        return self._child.look() or self._state()[1] != _STARTING

    def problem(self) -> str:
        """Why it could not be started, or nothing. To be asked once it has settled."""
        if self._state()[1] == _FAILED or self._child.look():
            said = words_left(self._area, _MESSAGE)
            return f"bystander {self.name} did not start: {said or self._child.result}"
        return ""

    def _state(self) -> tuple[int, ...]:
        return _STATE.unpack_from(self._area)

    def _wish(self, wish: int) -> None:
        struct.pack_into("<I", self._area, 0, wish)
        os.eventfd_write(self._bell, 1)

    def pause(self, limit: float) -> bool:
        """Have it close its device after the operation that it is in. Whether it did in time."""
        self._wish(_PAUSE)
        return poll_until(lambda: self._child.look() or self._state()[1] == _PAUSED, limit)

    def resume(self, limit: float) -> bool:
        """Have it open its device again and go on."""
        self._wish(_RUN)
        return poll_until(lambda: self._child.look() or self._state()[1] != _PAUSED, limit)

    def seen(self) -> Json:
        """The host's ``BystanderState``."""
        _, _, done, longest, since, *counts = self._state()
        gone = self._child.look()
        stall = longest
        if since and not gone:
            stall = max(stall, self._clock.us() - since)
        errors, wrongs = (self._notes(table, count) for table, count in enumerate(counts))
        state = "" if gone else state_of(self._child.pid)
        how = self._child.result or {}
        return {
            "name": self.name,
            "pid": self._child.pid,
            "cgroup": self.cgroup,
            "alive": not gone and state not in ("", "Z", "X"),
            "state": state,
            "signal": how.get("signal"),
            "io_done": done,
            "io_errors": errors,
            "io_wrong": wrongs,
            "io_stall_us": stall,
        }

    def _notes(self, table: int, count: int) -> list[Json]:
        found: list[Any] = []
        for index in range(min(count, _NOTES)):
            kind, number, offset, when = _NOTE.unpack_from(
                self._area, _NOTES_AT[table] + index * _NOTE.size
            )
            found.append([_KINDS[table][kind], offset, number, when])
        return found

    def end(self, limit: float) -> str:
        """Have it end, or end it. Its name if it cannot be ended, else nothing."""
        if not self._child.look():
            self._wish(_STOP)
            self._child.wait(limit)
        left = "" if self._child.kill() else f"bystander {self.name} (pid {self._child.pid})"
        os.close(self._bell)
        self._area.close()
        return left


class Crew:
    """All bystanders of a case."""

    def __init__(self, pace: float = 1.0) -> None:
        self.pace = pace  # how many times slower the machine is than the reference machine
        self._all: list[Bystander] = []

    def start(
        self,
        specs: list[Json],
        path_of: Callable[[str], str],
        cgroups: Tree,
        pattern: Pattern,
        clock: Clock,
    ) -> None:
        """Start what is listed, and wait until each is where it belongs. Raises RigError."""
        for spec in specs:
            target = path_of(spec["io"]["target"]) if spec.get("io") else ""
            self._all.append(Bystander(spec, target, cgroups, pattern, clock))
        poll_until(lambda: all(one.settled() for one in self._all), START_LIMIT * self.pace)
        for one in self._all:
            if not one.settled():
                raise RigError(f"bystander {one.name} did not start in time")
            if one.problem():
                raise RigError(one.problem())

    def seen(self) -> list[Json]:
        """The state of each."""
        return [one.seen() for one in self._all]

    def pause(self) -> list[str]:
        """Have all close their devices; the names of those that do not in time."""
        return [one.name for one in self._all if not one.pause(PAUSE_LIMIT * self.pace)]

    def resume(self) -> None:
        """Have all go on."""
        for one in self._all:
            one.resume(PAUSE_LIMIT * self.pace)

    def end(self) -> list[str]:
        """End all; what could not be ended."""
        left = [one.end(STOP_LIMIT * self.pace) for one in self._all]
        self._all = []
        return [text for text in left if text]


def _live(make: Callable[[], _Life], memory: int, area: mmap.mmap, door: int) -> None:
    """The bystander's process, with so many bytes of memory of its own. Never returns."""
    code = 70
    try:
        gc.disable()
        kernel.no_huge_pages()
        life = make()
        life.rehearse()
        kernel.mlockall(kernel.MCL_CURRENT | kernel.MCL_FUTURE)
        if door >= 0:
            os.write(door, b"0")
        if memory:
            # Its own memory in its cgroup: locked mappings are populated when they are made.
            own = mmap.mmap(-1, memory, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            for at in range(0, memory, BLOCK):
                own[at] = 1
        life.live()
        code = 0
    except BaseException as error:  # noqa: BLE001 - the parent is told, whatever it is
        leave_words(area, _MESSAGE, f"{type(error).__name__}: {error}")
        struct.pack_into("<I", area, 4, _FAILED)
    finally:
        os._exit(code)


class _Life:
    """Goes round in its region until told otherwise, and notes what happens in shared memory."""

    def __init__(
        self,
        *,
        io: Json | None,
        target: str,
        pattern: Pattern,
        clock: Clock,
        area: mmap.mmap,
        bell: int,
    ) -> None:
        self._io = io
        self._clock = clock
        self._area = area
        self._bell = bell
        self._path = target
        self._done = self._longest = 0
        self._noted = [0, 0]
        self._fd = -1
        self._reading = False
        self._flags = os.O_RDWR
        self._pause_ms = 0
        if io is not None:
            # So that one processor has time for the others.
            self._pause_ms = int(io["pause"] * 1000)
            # What completes is durable, whichever way it takes.
            self._flags |= os.O_DSYNC | (os.O_DIRECT if io["submit"] == "direct" else 0)
            self._memory = mmap.mmap(-1, io["length"], mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._view = memoryview(self._memory)
            pattern.warm()
            pattern.fill(self._view, 0, io["offset"] // BLOCK, io["length"] // BLOCK, GENERATION)
            # Reads go to memory of their own. Of each request: whether it was stored.
            self._read = mmap.mmap(-1, io["request"], mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._read_view = memoryview(self._read)
            self._blank = memoryview(bytes(io["request"]))
            self._stored = bytearray(-(-io["length"] // io["request"]))
            self._at = kernel.address(self._memory)
            self._read_at = kernel.address(self._read)

    def rehearse(self) -> None:
        """The same code on a memory file, with errors, and with what was never stored."""
        if self._io is None:
            return
        reads = bool(self._io.get("reads"))
        scratch, full = os.memfd_create("rehearsal"), os.open("/dev/full", os.O_RDWR)
        deaf = os.open("/dev/null", os.O_WRONLY)  # which cannot be read
        for self._fd, self._reading in (
            (full, False),
            (scratch, False),
            (full, reads),  # which reads as zeros
            (scratch, reads),
            (deaf, reads),
        ):
            self._round(0)
        for fd in (scratch, full, deaf):
            os.close(fd)
        self._done = self._longest = 0
        self._noted = [0, 0]
        self._reading = False
        self._fd = -1
        self._area[8 : _MESSAGE.start] = bytes(_MESSAGE.start - 8)
        self._open()

    def live(self) -> None:
        """Until told to stop."""
        while True:
            wish = struct.unpack_from("<I", self._area, 0)[0]
            if wish == _STOP:
                return
            if wish == _PAUSE:
                if self._fd >= 0:
                    os.close(self._fd)
                    self._fd = -1
                struct.pack_into("<I", self._area, 4, _PAUSED)
            else:
                if self._io is not None and self._fd < 0:
                    self._open()
                struct.pack_into("<I", self._area, 4, _RUNNING)
                if self._fd >= 0 and self._io is not None:
                    self._round(self._io["offset"])
            idle = wish == _PAUSE or self._io is None
            if sleep_on(self._bell, 1000 if idle else self._pause_ms):
                os.eventfd_read(self._bell)

    def _open(self) -> None:
        start = self._begin()
        try:
            self._fd = os.open(self._path, self._flags)
        except OSError as error:
            self._note(_ERRORS, _OPEN, 0, error.errno or 0)
        self._end(start)

    def _begin(self) -> int:
        """An operation is in flight from now on; when that is."""
        start = self._clock.us()
        struct.pack_into("<Q", self._area, 24, start)
        return start

    def _end(self, start: int) -> None:
        self._longest = max(self._longest, self._clock.us() - start)
        struct.pack_into("<QQ", self._area, 16, self._longest, 0)

    def _round(self, base: int) -> None:
        io = self._io
        assert io is not None
        for at in range(0, io["length"], io["request"]):
            size = min(io["request"], io["length"] - at)
            if self._reading:
                # So that what a call left out is not what an earlier one has read.
                self._read_view[:size] = self._blank[:size]
            else:
                # After a write that failed nothing is known of what its range holds.
                self._stored[at // io["request"]] = 0
            count = -1
            start = self._begin()
            try:
                count = self._go(at, size, base + at)
            except OSError as error:
                kind = _READ if self._reading else _WRITE
                self._note(_ERRORS, kind, base + at, error.errno or 0)
            self._end(start)
            if count >= 0:
                self._weigh(at, size, base + at, count)
            if struct.unpack_from("<I", self._area, 0)[0] != _RUN:
                return
        self._reading = bool(io.get("reads"))

    def _go(self, at: int, size: int, where: int) -> int:
        """One operation; how many bytes it did."""
        if self._reading:
            return os.preadv(self._fd, [self._read_view[:size]], where)
        return os.pwrite(self._fd, self._view[at : at + size], where)

    def _weigh(self, at: int, size: int, where: int, count: int) -> None:
        """An operation without an error: whether it did all, and read what was stored."""
        assert self._io is not None
        number = at // self._io["request"]
        if count != size:
            self._note(_WRONGS, _SHORT_READ if self._reading else _SHORT_WRITE, where, count)
            return
        if not self._reading:
            self._stored[number] = 1
        elif self._stored[number] and not kernel.same(self._at + at, self._read_at, size):
            self._note(_WRONGS, _DATA, where + self._first_wrong(at, size), count)
            return
        self._done += 1
        struct.pack_into("<Q", self._area, 8, self._done)

    def _first_wrong(self, at: int, size: int) -> int:
        """Where in a request the first block begins that is not as it was stored."""
        block = 0
        while kernel.same(self._at + at + block, self._read_at + block, min(BLOCK, size - block)):
            block += BLOCK
        return block

    def _note(self, table: int, kind: int, offset: int, number: int) -> None:
        noted = self._noted[table]
        if noted < _NOTES:
            at = _NOTES_AT[table] + noted * _NOTE.size
            _NOTE.pack_into(self._area, at, kind, number, offset, self._clock.us())
        self._noted[table] = noted + 1
        struct.pack_into("<II", self._area, _COUNTS_AT, *self._noted)
