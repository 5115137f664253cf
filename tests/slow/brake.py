"""Makes every QEMU of this process so many times slower: it runs for a part of each period, and is stopped.

By SIGSTOP and SIGCONT, which need no rights and no cgroup: a guest whose processor is taken away for nine
tenths of the time, as on a host that has too much to do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

PERIOD = 0.1
"""Seconds. Long enough for a part of it to be worth something, short enough that no answer waits for it."""


@contextlib.contextmanager
def slowed(times: float) -> Iterator[None]:
    """Within, this process's guests run for ``1 / times`` of the time."""
    over = threading.Event()
    brake = threading.Thread(target=_brake, args=(over, times), name="brake")
    brake.start()
    try:
        yield
    finally:
        over.set()
        brake.join()


def _brake(over: threading.Event, times: float) -> None:
    go = PERIOD / times
    while not over.wait(go):
        held = guests()
        _send(held, signal.SIGSTOP)
        over.wait(PERIOD - go)
        _send(held, signal.SIGCONT)


def guests() -> list[int]:
    """The QEMUs that this process started, whichever of its threads did."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                name = Path(f"/proc/{child}/comm").read_text()
                found += [int(child)] if name.startswith("qemu-system") else []
    return found


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        # It may have ended meanwhile; until its parent has waited for it, nobody else gets its id.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
