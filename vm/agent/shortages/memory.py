"""Memory that runs short: a zram device's, by its limit, and the guest's."""

from __future__ import annotations

import mmap
import os
import signal
import time
from collections.abc import Callable, Mapping

from agent import kernel
from agent.basics import Json, RigError, one_line, poll_until, read_text
from agent.cgroups import Tree
from agent.layers.base import Layer
from agent.layers.memory import Zram
from agent.processes import Child, LastWords
from agent.shortages.base import Shortage
from agent.shortages.watched import PAUSE, Tally
from agent.watchers import oom

_START_LIMIT = 60.0
_FREED_LIMIT = 10.0
_SLACK = 8 << 20
_NEAR = 1 << 20
_FAR = 4 << 20
_ROUNDS = 32
_STEADY = 4
"""Looks at what is available, a pause apart, that have to agree."""
_MAP_LOCKED = 0x2000
"""MAP_LOCKED of linux/mman.h: all of it is there when mmap(2) is back, and stays."""
_VICTIM = "1000"
_MEMINFO = "/proc/meminfo"
_ROOM = 4096


class ZramLimit(Shortage):
    """The gauge is the device's own mm_stat."""

    _limit: int | None = None

    def _zram(self) -> Zram:
        layer = self.layer()
        if not isinstance(layer, Zram):
            raise RigError(f"{layer.name} is no zram device")
        return layer

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        zram = self._zram()
        limit = zram.used() + int(self.spec["leave"])
        zram.limit(limit)
        self._limit = limit

    def relieve(self) -> None:
        """Take the shortage away. Raises RigError."""
        self._zram().limit(0)
        self._limit = None

    def reading(self) -> Json:
        """The gauge. Bytes."""
        return self.gauge(self._zram().used(), self._limit)


class GuestMemory(Shortage):
    """The gauge is /proc/meminfo. OOM kills count as hits: with each there was no memory, and then there
    was some again. So does what the process that has the memory saw, if it is to give it back.
    """

    def __init__(self, spec: Json, layers: Mapping[str, Layer], cgroups: Tree) -> None:
        super().__init__(spec, layers, cgroups)
        self._hog: Child | None = None
        self._tally = Tally()

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        leave = int(self.spec["leave"])
        if _available() <= leave:
            raise RigError(f"the guest has less than {leave} bytes already")
        ready, words = mmap.mmap(-1, mmap.PAGESIZE), LastWords()
        pid = os.fork()
        if pid == 0:
            _live(leave, ready, float(self.spec.get("lasts", 0)), self._tally, words)
        self._hog = hog = Child.adopt(pid, words)
        poll_until(lambda: ready[0] == 1 or hog.look(), _START_LIMIT)
        self.check()
        if ready[0] != 1:
            raise RigError("who takes the guest's memory did not come up")
        found = _available()
        if abs(found - leave) > max(_SLACK, leave // 2):
            raise RigError(f"the guest has {found} bytes left, not {leave}")

    def check(self) -> None:
        """Raises RigError if whoever takes the memory gave up. That he is killed, or ends when he was to,
        is the case's.
        """
        if self._hog is not None and self._hog.look() and self._hog.complaint():
            raise RigError(f"who takes the guest's memory gave up: {self._hog.complaint()}")

    def end(self) -> None:
        """End whoever has the memory, which is free then. Raises RigError."""
        hog, self._hog = self._hog, None
        if hog is not None and not hog.kill():
            raise RigError("who takes the guest's memory does not die of SIGKILL")

    def relieve(self) -> None:
        """Take the shortage away. Raises RigError."""
        self.check()
        if self._hog is None:
            raise RigError("nobody takes the guest's memory")
        self.end()
        poll_until(lambda: _available() > 2 * int(self.spec["leave"]), _FREED_LIMIT)

    def reading(self) -> Json:
        """The gauge. Bytes, and kills."""
        total = _meminfo("MemTotal")
        limit = None if self._hog is None else total
        return self.gauge(total - _available(), limit, oom.kills() + self._tally.value)


class Meminfo:
    """/proc/meminfo, kept open: to read it again needs no memory of the kernel's, whose buffer stays."""

    def __init__(self, path: str = _MEMINFO) -> None:
        self._fd = os.open(path, os.O_RDONLY)
        self._text = bytearray(_ROOM)
        try:
            self.available()
        except RigError:
            os.close(self._fd)
            raise

    def available(self) -> int:
        """Bytes that are available, as the kernel estimates it. Raises RigError."""
        size = os.preadv(self._fd, [self._text], 0)
        return _field(self._text[:size].decode("ascii"), "MemAvailable")


def _field(text: str, name: str) -> int:
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RigError(f"{_MEMINFO} has no {name}")


def _meminfo(name: str) -> int:
    return _field(read_text(_MEMINFO), name)


def _available() -> int:
    return _meminfo("MemAvailable")


def _live(leave: int, ready: mmap.mmap, lasts: float, tally: Tally, words: LastWords) -> None:
    """Take memory, and wait for the end: somebody else's signal, or what was agreed on."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_LOCKED
    taken: list[mmap.mmap] = []
    try:
        kernel.die_with_parent()
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(_VICTIM)
        meminfo = Meminfo()
        # Whoever is to give memory back must not need any for it.
        kernel.mlockall(kernel.MCL_CURRENT)
        come_to(
            leave,
            _available,
            take=lambda size: taken.append(mmap.mmap(-1, size, flags=flags)),
            give=lambda: taken.pop().close(),
        )
        ready[0] = 1
        if lasts:
            # Slabs and pages in use count as available by half, so that nothing is seldom told.
            _sit_out(meminfo, lasts, leave // 2)
            tally.add()
            return
        while taken:
            signal.pause()
    except BaseException as error:  # noqa: BLE001 - the agent is told, whatever it is
        words.complain(one_line(f"{type(error).__name__}: {error}"))
    finally:
        os._exit(1)


def come_to(
    leave: int,
    available: Callable[[], int],
    *,
    take: Callable[[int], None],
    give: Callable[[], object],
    pause: float = PAUSE,
) -> None:
    """Take memory, in pieces of so many bytes, until ``leave`` bytes are available and stay so.

    ``give`` gives the last piece back.
    """
    steady = pieces = 0
    for _ in range(_ROUNDS):
        over = available() - leave
        # What counts as available moves with the page cache: in steps.
        excess = over * 3 // 4 // mmap.PAGESIZE * mmap.PAGESIZE
        if excess > _NEAR:
            take(excess)
            steady, pieces = 0, pieces + 1
        elif over < -_FAR and pieces:
            give()
            steady, pieces = 0, pieces - 1
        elif steady == _STEADY:
            return
        else:
            # It grows while kswapd works at what the last piece woke it for, and shrinks when pages that
            # were dropped are read again.
            time.sleep(pause)
            steady += 1


def _sit_out(meminfo: Meminfo, lasts: float, least: int) -> None:
    """Until there were no more than ``least`` bytes for so many seconds on end."""
    since: float | None = None
    while since is None or time.monotonic() - since < lasts:
        time.sleep(PAUSE)
        short = meminfo.available() <= least
        since = (since or time.monotonic()) if short else None
