"""Children that are ready before they enter their cgroup, and need nothing of it afterwards.

The order: open what is to be written, allocate, rehearse the same code on a scratch file, with an
error, lock all memory (which makes every page that the fork shares the child's own), and only then
enter the cgroup and begin. Results go to shared memory that was touched before, not to a pipe: a
pipe's page would be charged to the cgroup.
"""

from __future__ import annotations

import gc
import mmap
import os
import select
import signal
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from agent import kernel
from agent.basics import Json, RigError, leave_words, words_left
from agent.processes import Child, Tick, no_tick

READY_LIMIT = 60.0
"""Seconds that a child gets to prepare itself, on the reference machine."""

_COUNTS = struct.Struct("<QQQ")  # records, errors, bytes written without an error
_MESSAGE = slice(64, 576)
_FIRST = 1024
IN_FLIGHT = -(1 << 63)
"""The result of a call that has begun and not returned."""

RECORD = struct.Struct("<BB2xIQQqqq")
"""kind, generation, times, offset, length, result, start and end in microseconds."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One call, as a child noted it. ``kind`` indexes a list of names that the workload has."""

    kind: int
    generation: int
    times: int
    offset: int
    length: int
    result: int
    start_us: int
    end_us: int


class Results:
    """Shared memory that a child notes its calls in, and its parent reads at any time."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        size = _FIRST + (capacity + 1) * RECORD.size
        self.memory = mmap.mmap(-1, size)
        # Touched here, in the agent's cgroup: the pages are never charged to the child's.
        self.memory.write(bytes(size))
        self._records = 0
        self._errors = 0
        self._written = 0
        self._last_kind = self._last_result = self._times = 0

    def begin(self, kind: int, generation: int, offset: int, length: int, start_us: int) -> None:
        """A call starts: it is in flight until ``end``."""
        at = _FIRST + self._records * RECORD.size
        RECORD.pack_into(
            self.memory, at, kind, generation, 1, offset, length, IN_FLIGHT, start_us, 0
        )

    def end(
        self,
        kind: int,
        generation: int,
        offset: int,
        length: int,
        *,
        result: int,
        start_us: int,
        end_us: int,
    ) -> None:
        """The call returned. Notes that do not fit are dropped: ``capacity`` is computed to fit."""
        if self._records < self.capacity:
            at = _FIRST + self._records * RECORD.size
            RECORD.pack_into(
                self.memory, at, kind, generation, 1, offset, length, result, start_us, end_us
            )
            self._records += 1
        if result < 0:
            self._errors += 1
        else:
            self._written += result
        _COUNTS.pack_into(self.memory, 0, self._records, self._errors, self._written)

    def row(self, kind: int, offset: int, result: int, start_us: int, end_us: int) -> None:
        """A call that returned; like ones in a row become one record, which tells of the first.

        The row's time is from the start of its first call to the end of its last.
        """
        at = _FIRST + (self._records - 1) * RECORD.size
        if self._records and (kind, result) == (self._last_kind, self._last_result):
            self._times += 1
            struct.pack_into("<I", self.memory, at + 4, self._times)
            struct.pack_into("<q", self.memory, at + RECORD.size - 8, end_us)
            return
        self._last_kind, self._last_result, self._times = kind, result, 1
        self.end(kind, 0, offset, 0, result=result, start_us=start_us, end_us=end_us)

    def forget(self) -> None:
        """Start anew: what was noted so far was a rehearsal."""
        self._records = self._errors = self._written = 0
        self.memory[0:_FIRST] = bytes(_FIRST)

    @property
    def errors(self) -> int:
        """Calls that failed, as the child counts them."""
        return self._errors

    @property
    def written(self) -> int:
        """Bytes written without an error, as the child counts them."""
        return self._written

    def complain(self, text: str) -> None:
        """The child itself went wrong: a message for the parent."""
        leave_words(self.memory, _MESSAGE, text)

    def complaint(self) -> str:
        """What the child complained of, or nothing."""
        return words_left(self.memory, _MESSAGE)

    def records(self) -> list[Record]:
        """The calls that returned, in order."""
        count = min(_COUNTS.unpack_from(self.memory)[0], self.capacity)
        return [self._record(index) for index in range(count)]

    def in_flight(self) -> Record | None:
        """The call that had begun and not returned when this is asked."""
        count = _COUNTS.unpack_from(self.memory)[0]
        if count > self.capacity:
            return None
        found = self._record(count)
        return found if found.result == IN_FLIGHT else None

    def _record(self, index: int) -> Record:
        words = RECORD.unpack_from(self.memory, _FIRST + index * RECORD.size)
        return Record(
            kind=words[0],
            generation=words[1],
            times=words[2],
            offset=words[3],
            length=words[4],
            result=words[5],
            start_us=words[6],
            end_us=words[7],
        )

    def close(self) -> None:
        """Give the memory back."""
        self.memory.close()


Work = Callable[[Callable[[], None]], None]
"""The child's work; it calls its argument once when a declared condition for its kill holds."""


@dataclass(kw_only=True)
class Frugal:
    """A frugal child, as its parent sees it."""

    child: Child
    results: Results
    cgroup: str
    anon: Callable[[], int | None]
    ready: int
    go: int
    mark: int
    done: int
    leave: int
    anon_before: int | None = None
    anon_after: int | None = None
    killed_by_rig: bool = False
    problem: str = ""
    ended: Json = field(default_factory=dict)

    def drive(
        self,
        limit: float,
        *,
        kill_at_mark: bool = False,
        at_mark: Callable[[], None] | None = None,
        tick: Tick = no_tick,
    ) -> Json:
        """Let it work, for ``limit`` seconds at most, and see it end: the host's ``Ended``.

        At its mark it is killed, or something else is done while it goes on.
        """
        deadline = time.monotonic() + READY_LIMIT + limit
        if self.child.wait(READY_LIMIT + limit, tick=tick, also=[self.ready]) is None:
            return self._over(tick, "the writer did not get ready")
        self.anon_before = self.anon()
        os.eventfd_write(self.go, 1)
        deadline = time.monotonic() + limit
        # Who is to be killed is killed, also if it was done by the time that anybody looked: the host sees
        # then that it had come too far. A detachment is for a writer that still has the device open.
        wanted = [self.mark, self.done] if kill_at_mark else [self.done]
        wanted += [self.mark] if at_mark else []
        said = self.child.wait(limit, tick=tick, also=wanted)
        if said == self.mark and at_mark is not None:
            at_mark()
            said = self.child.wait(
                max(1.0, deadline - time.monotonic()), tick=tick, also=[self.done]
            )
        elif said == self.mark:
            self.ended = self.child.how() or self.child.cut_short(timed_out=False, tick=tick)
            # It may have ended by itself while the evidence was taken.
            self.killed_by_rig = self.child.killed and self.ended["signal"] == signal.SIGKILL
            return self._over(tick, "")
        if said == self.done:
            self.anon_after = self.anon()
            os.eventfd_write(self.leave, 1)
            self.child.wait(max(1.0, deadline - time.monotonic()), tick=tick)
        return self._over(tick, "")

    def _over(self, tick: Tick, problem: str) -> Json:
        """It has ended, or is ended now with evidence taken first."""
        if not self.ended:
            self.ended = self.child.how() or self.child.cut_short(tick=tick)
        said = self.results.complaint()
        self.problem = said or (problem if self.ended["timed_out"] else "")
        for fd in (self.ready, self.go, self.mark, self.done, self.leave):
            os.close(fd)
        return self.ended

    def submitter(self, tool: str, kinds: tuple[str, ...]) -> Json:
        """The host's ``Submitter``, without operations. To be asked once it has ended."""
        return {
            "pid": self.child.pid,
            "cgroup": self.cgroup,
            "ops": [],
            "ended": self.ended,
            "killed_by_rig": self.killed_by_rig,
            "in_flight": self._in_flight(kinds),
            "own_memory": self.anon_before,
            "tool": tool,
            "output": self._remarks(),
        }

    def _in_flight(self, kinds: tuple[str, ...]) -> list[object] | None:
        """Its unfinished call, as the host's ``InFlight``."""
        call = self.results.in_flight()
        if call is None:
            return None
        return [kinds[call.kind], call.offset, call.length, call.start_us]

    def _remarks(self) -> str:
        """What the host's values have no field for: its memory at the end."""
        if self.anon_before is None or self.anon_after is None:
            return ""
        return (
            f"anonymous memory in its cgroup: {self.anon_before} at the start, "
            f"{self.anon_after} at the end"
        )


def start(
    prepare: Callable[[], Work],
    results: Results,
    *,
    cgroup: str = "",
    procs: str = "",
    anon: Callable[[], int | None] = lambda: None,
    lock_future: bool = True,
    unkillable: bool = False,
) -> Frugal:
    """Fork a frugal child. ``prepare`` runs in it before its memory is locked, and returns what it
    then does inside the cgroup whose cgroup.procs is ``procs``.

    ``lock_future`` is off for work that maps a device: a locked mapping would be read in whole.
    ``unkillable`` is against the OOM killer.
    Raises RigError if the cgroup cannot be opened.
    """
    try:
        door = os.open(procs, os.O_WRONLY) if procs else -1
    except OSError as error:
        raise RigError(f"cannot open the cgroup {cgroup}: {error}") from error
    ready, go, mark, done, leave = (os.eventfd(0) for _ in range(5))
    pid = os.fork()
    if pid == 0:
        if unkillable:
            write_oom_score(-1000)
        _work(prepare, results, door, lock_future, (ready, go, mark, done, leave))
    if door >= 0:
        os.close(door)
    return Frugal(
        child=Child.adopt(pid),
        results=results,
        cgroup=cgroup,
        anon=anon,
        ready=ready,
        go=go,
        mark=mark,
        done=done,
        leave=leave,
    )


def _work(
    prepare: Callable[[], Work],
    results: Results,
    door: int,
    lock_future: bool,
    gates: tuple[int, int, int, int, int],
) -> None:
    """The child. Never returns."""
    ready, go, mark, done, leave = gates
    code = 70
    try:
        # A collection would touch every object, and free memory only to take it again.
        gc.disable()
        kernel.no_huge_pages()
        work = prepare()
        tell = _teller(mark)
        results.forget()
        kernel.mlockall(kernel.MCL_CURRENT | (kernel.MCL_FUTURE if lock_future else 0))
        if door >= 0:
            os.write(door, b"0")
        os.eventfd_write(ready, 1)
        os.eventfd_read(go)
        work(tell)
        os.eventfd_write(done, 1)
        os.eventfd_read(leave)
        code = 0
    except BaseException as error:  # noqa: BLE001 - the parent is told, whatever it is
        results.complain(f"{type(error).__name__}: {error}")
    finally:
        os._exit(code)


def write_oom_score(score: int) -> None:
    """How readily the OOM killer takes this process: -1000 is never. Raises OSError."""
    with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(str(score).encode())


def _teller(mark: int) -> Callable[[], None]:
    def tell() -> None:
        os.eventfd_write(mark, 1)

    return tell


def sleep_on(fd: int, milliseconds: int) -> bool:
    """Wait until ``fd`` is readable or the time is over; whether it is readable."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(milliseconds))
