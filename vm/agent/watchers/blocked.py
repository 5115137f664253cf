"""Tasks in uninterruptible sleep that stay there: threads too, each under its own number and name.

A task that is caught asleep in D is looked at again: only one that has not run in between (its
count of voluntary switches is the same) is told. Who waits for a disk is in D for a moment; the
judge decides what a longer stay means.
"""

from __future__ import annotations

import contextlib
import os
import time

from agent.basics import PAUSE, Json, read_text
from agent.processes import state_in, state_of, threads_in

SETTLE = 0.5
"""Seconds that a task gets to leave D."""


def _stuck() -> dict[int, str]:
    found: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        pid = int(entry)
        stat = read_text(f"/proc/{pid}/stat")
        asleep = [pid] if state_in(stat) == "D" else []
        # A thread is not listed in /proc, and yet has its folder there.
        asleep += [tid for tid in threads_in(pid, stat) if state_of(tid) == "D"]
        found.update((task, _switches(task)) for task in asleep)
    return found


def _switches(pid: int) -> str:
    for line in read_text(f"/proc/{pid}/status").splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return line
    return ""


def blocked(settle: float = SETTLE) -> list[Json]:
    """The tasks that are in D and stay in it, as the host's ``Blocked``."""
    asleep = _stuck()
    deadline = time.monotonic() + settle
    while asleep and time.monotonic() < deadline:
        time.sleep(PAUSE)
        asleep = {
            pid: switches
            for pid, switches in asleep.items()
            if state_of(pid) == "D" and _switches(pid) == switches
        }
    return [
        {
            "pid": pid,
            "comm": read_text(f"/proc/{pid}/comm"),
            "stack": read_text(f"/proc/{pid}/stack"),
        }
        for pid in sorted(asleep)
    ]


def tell(path: str = "/proc/sysrq-trigger") -> None:
    """Have the kernel list its blocked tasks with their stacks, in its log and on the console."""
    with contextlib.suppress(OSError), open(path, "w") as trigger:
        trigger.write("w")
