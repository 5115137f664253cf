"""Somebody who watches a device that runs short, and gives it more space, as dmeventd would."""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections.abc import Callable

from agent import kernel
from agent.basics import RigError, one_line
from agent.processes import Child, LastWords, Tick, no_tick

PAUSE = 0.05
WAIT = 1.0
"""Seconds between the shortage and the help: whoever is short is to have noticed."""
END_LIMIT = 10.0
"""Seconds for who helps to come to the end of what he is at: half of an extension is worse than none."""
_COUNT = 8


class Tally:
    """A count in memory that the agent shares with a child of its own."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def add(self) -> None:
        """Count one more."""
        self._memory[:_COUNT] = (self.value + 1).to_bytes(_COUNT, "little")

    @property
    def value(self) -> int:
        """What was counted."""
        return int.from_bytes(self._memory[:_COUNT], "little")


class Helper:
    """The child that helps, as the agent sees it. ``name`` is who it is, for errors."""

    def __init__(self, name: str, child: Child, over: Tally) -> None:
        self._name = name
        self._child = child
        self._over = over

    def check(self) -> None:
        """Raises RigError if it has ended by itself: then whoever is short gets no help."""
        if self._child.look():
            why = self._child.complaint() or self._child.how()
            raise RigError(f"{self._name} has ended: {why}")

    def end(self, *, tick: Tick = no_tick) -> None:
        """Have it end between two extensions, or end it. Raises RigError if SIGKILL does not."""
        self._over.add()
        self._child.wait(END_LIMIT, tick=tick)
        if not self._child.kill(tick=tick):
            raise RigError(f"{self._name} does not die of SIGKILL")


def watch(
    name: str,
    short: Callable[[], bool],
    extend: Callable[[], None],
    tally: Tally,
    *,
    pause: float = PAUSE,
    wait: float = WAIT,
    urgent: bool = False,
) -> Helper:
    """Start a child that looks until it is ended, and extends whatever is short, a while later.

    One that is urgent does not wait for a worker of the kernel's that is busy to be done.
    """
    over, words = Tally(), LastWords()

    def wanted() -> bool:
        return over.value == 0

    pid = os.fork()
    if pid:
        return Helper(name, Child.adopt(pid, words), over)
    code = 1
    try:
        kernel.die_with_parent()
        if urgent:
            with contextlib.suppress(PermissionError):
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        while wanted():
            if short():
                tally.add()
                time.sleep(wait)
                if wanted():
                    extend()
            time.sleep(pause)
        code = 0
    except BaseException as error:  # noqa: BLE001 - the agent is told, whatever it is
        words.complain(one_line(f"{type(error).__name__}: {error}"))
    finally:
        os._exit(code)
