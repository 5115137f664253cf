"""Counts that tell of OOM kills and of a kernel in trouble."""

from __future__ import annotations

from agent.basics import keyed_numbers, read_text


def kills() -> int:
    """OOM kills since boot, in all cgroups, by /proc/vmstat."""
    return keyed_numbers(read_text("/proc/vmstat")).get("oom_kill", 0)


def taint() -> int:
    """The kernel's taint flags."""
    return int(read_text("/proc/sys/kernel/tainted", "0") or 0)


def shmem() -> int:
    """Bytes of shared memory and tmpfs pages in the system."""
    for line in read_text("/proc/meminfo").splitlines():
        if line.startswith("Shmem:"):
            return int(line.split()[1]) * 1024
    return 0
