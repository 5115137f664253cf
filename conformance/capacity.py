"""How many machines this host carries at the same time: by its processors, and by its memory.

A guest may come to use all the memory that it was given, and then QEMU's own besides; where more of
them run than the memory holds, the host's OOM killer ends one of them, which looks like a broken
kernel. So memory is never promised twice. In a container both are what its cgroup allows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

MIB = 1 << 20
GUEST = 1024 * MIB
"""What a guest is given; ``bench.MEMORY_MIB``, which a test holds it against."""
BESIDE = 256 * MIB
"""QEMU's own memory (under emulation at most 110 MB, of which ``qemu.CODE_MIB`` is translated code), and
the slot's process (40 MB; all measured with QEMU 7.2)."""
HOST = 512 * MIB
"""For the main process, which holds all results, and for whatever else runs here."""

_CGROUP = Path("/sys/fs/cgroup")


def slots(*, processors: float, available: int) -> int:
    """The number of slots for so many processors and so many bytes of memory; at least one.

    >>> slots(processors=16, available=4 << 30)
    2
    """
    fit = (available - HOST) // (GUEST + BESIDE)
    return max(1, min(int(processors), fit))


def here() -> int:
    """The number of slots for this host, now."""

    def read(path: Path) -> str:
        return path.read_text(encoding="ascii")

    return slots(
        processors=min(len(os.sched_getaffinity(0)), processors(read)), available=available(read)
    )


def available(read: Callable[[Path], str]) -> int:
    """Bytes of memory that can be had; what the cgroup leaves, if that is less. ``read`` may raise
    OSError for a file of the cgroup, but not for /proc/meminfo.
    """
    for line in read(Path("/proc/meminfo")).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            free = int(value.split()[0]) << 10
            break
    else:
        raise OSError("/proc/meminfo has no MemAvailable")
    try:
        limit = read(_CGROUP / "memory.max").strip()
        if limit == "max":
            return free
        # What is cached goes when it must.
        cached = sum(
            int(line.split()[1])
            for line in read(_CGROUP / "memory.stat").splitlines()
            if line.split()[0] in ("inactive_file", "active_file")
        )
        used = int(read(_CGROUP / "memory.current")) - cached
    except OSError:
        return free
    return min(free, max(0, int(limit) - used))


def processors(read: Callable[[Path], str]) -> float:
    """So many processors the cgroup allows; infinitely many if it sets no limit."""
    try:
        quota, period = read(_CGROUP / "cpu.max").split()
    except (OSError, ValueError):
        return float("inf")
    return float("inf") if quota == "max" else int(quota) / int(period)
