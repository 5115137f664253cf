"""How many machines this host carries at the same time: by its processors, and by its memory.

A guest may come to use all the memory that it was given, and then QEMU's own besides; where more of
them run than the memory holds, the host's OOM killer ends one of them, which looks like a broken
kernel. So memory is never promised twice. Both are what this process's cgroup allows, and every one
above it: a container's, a Slurm job's, a systemd slice's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
GUEST = 1024 * MIB
"""What a guest is given; ``bench.MEMORY_MIB``, which a test holds it against."""
BESIDE = 256 * MIB
"""QEMU's own memory (under emulation at most 110 MB, of which ``qemu.CODE_MIB`` is translated code), and
the slot's process (40 MB; all measured with QEMU 7.2)."""
HOST = 512 * MIB
"""For the main process, which holds all results, and for whatever else runs here."""

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class _Memory:
    """Where a version of cgroups tells of memory, and in which files, all in bytes."""

    controller: str  # as /proc/self/cgroup has it; version 2 has one hierarchy, without a name
    mount: Path
    limit: str
    used: str
    cached: tuple[str, ...]  # in memory.stat: what goes when it must


_MEMORY = (
    _Memory(
        controller="",
        mount=_CGROUPS,
        limit="memory.max",
        used="memory.current",
        cached=("inactive_file", "active_file"),
    ),
    _Memory(
        controller="memory",
        mount=_CGROUPS / "memory",
        limit="memory.limit_in_bytes",
        used="memory.usage_in_bytes",
        cached=("total_inactive_file", "total_active_file"),
    ),
)


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
        return path.read_text(encoding="utf-8", errors="surrogateescape")

    return slots(
        processors=min(len(os.sched_getaffinity(0)), processors(read)), available=available(read)
    )


def available(read: Callable[[Path], str]) -> int:
    """Bytes of memory that can be had: what the tightest of the cgroups leaves, if that is less.

    ``read`` may raise OSError for a file of a cgroup, but not for /proc/meminfo.
    """
    for line in read(Path("/proc/meminfo")).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            free = int(value.split()[0]) << 10
            break
    else:
        raise OSError("/proc/meminfo has no MemAvailable")
    left = [_left(read, memory, group) for memory in _MEMORY for group in _groups(read, memory)]
    return int(max(0, min(free, *left)))


def processors(read: Callable[[Path], str]) -> float:
    """So many processors the cgroups allow; infinitely many if none sets a limit."""
    return min(_quota(read, group) for group in _groups(read, _MEMORY[0]))


def _groups(read: Callable[[Path], str], memory: _Memory) -> list[Path]:
    """The folder of this process's cgroup, and of each above it.

    In a container without a namespace of cgroups some are not to be seen; the uppermost is its own then.
    """
    try:
        lines = read(Path("/proc/self/cgroup")).splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if memory.controller in controllers.split(",") and "/.." not in path:
            own = memory.mount / path.lstrip("/")
            return [own, *own.parents[: len(own.parts) - len(memory.mount.parts)]]
    return [memory.mount]


def _left(read: Callable[[Path], str], memory: _Memory, group: Path) -> float:
    """Bytes that a cgroup leaves; infinitely many if it sets no limit."""
    try:
        limit = read(group / memory.limit).strip()
        if limit == "max":
            return float("inf")
        cached = sum(
            int(line.split()[1])
            for line in read(group / "memory.stat").splitlines()
            if line.split()[0] in memory.cached
        )
        return int(limit) - (int(read(group / memory.used)) - cached)
    except OSError:
        return float("inf")


def _quota(read: Callable[[Path], str], group: Path) -> float:
    try:
        quota, period = read(group / "cpu.max").split()
    except (OSError, ValueError):
        return float("inf")
    return float("inf") if quota == "max" else int(quota) / int(period)
