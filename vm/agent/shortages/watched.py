"""Somebody who watches a device that runs short, and gives it more space, as dmeventd would."""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections.abc import Callable

from agent.processes import Child

PAUSE = 0.05
WAIT = 1.0
"""Seconds between the shortage and the help: whoever is short is to have noticed."""
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


def watch(
    short: Callable[[], bool],
    extend: Callable[[], None],
    tally: Tally,
    *,
    pause: float = PAUSE,
    wait: float = WAIT,
    urgent: bool = False,
) -> Child:
    """Start a child that looks until it is ended, and extends whatever is short, a while later.

    One that is urgent does not wait for a worker of the kernel's that is busy to be done.
    """
    pid = os.fork()
    if pid:
        return Child.adopt(pid)
    try:
        if urgent:
            with contextlib.suppress(PermissionError):
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        while True:
            if short():
                tally.add()
                time.sleep(wait)
                extend()
            time.sleep(pause)
    finally:
        os._exit(1)
