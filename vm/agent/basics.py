"""What every part of the agent shares: the clock, errors of the rig, bounded polling, small reads.

Times are microseconds of the monotonic clock since the rig was built.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
"""The JSON form of one of the host's values: the guest has no pydantic, so it builds dicts."""

BLOCK = 4096
"""Bytes in one ledger block."""

PAUSE = 0.004
"""Seconds between two looks of a bounded poll."""


class RigError(Exception):
    """The rig or the agent failed to do what was asked: one line, for ``problem``."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Microseconds since ``epoch_ns``, a reading of the monotonic clock."""

    epoch_ns: int

    @classmethod
    def start(cls) -> Clock:
        """A clock that begins now."""
        return cls(epoch_ns=time.monotonic_ns())

    def us(self) -> int:
        """Microseconds since the start."""
        return (time.monotonic_ns() - self.epoch_ns) // 1000

    def of_boot_us(self, boot_us: int) -> int:
        """A time stamp of the kernel log (microseconds since boot) on this clock."""
        return boot_us - self.epoch_ns // 1000


def poll_until(condition: Callable[[], bool], limit: float) -> bool:
    """Look until ``condition`` holds or ``limit`` seconds are over; say whether it held."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(PAUSE)
    return True


def leave_words(memory: mmap.mmap | memoryview, place: slice, text: str) -> None:
    """Leave a text in shared memory, for another process; it is cut to its place."""
    room = place.stop - place.start
    memory[place] = text.encode("utf-8", "replace")[:room].ljust(room, b"\0")


def words_left(memory: mmap.mmap | memoryview, place: slice) -> str:
    """The text that was left there, or nothing."""
    return bytes(memory[place]).rstrip(b"\0").decode("utf-8", "replace")


def read_text(path: str, missing: str = "") -> str:
    """A small file of procfs or sysfs, stripped; ``missing`` if it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(1 << 20).decode("utf-8", "replace").strip()
    except OSError:
        return missing


def keyed_numbers(text: str) -> dict[str, int]:
    """Lines of ``key number`` (memory.stat, memory.events, vmstat) as a mapping."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            found[key] = int(value)
    return found


def chosen(text: str) -> str:
    """The choice in ``always [madvise] never``."""
    for word in text.split():
        if word.startswith("["):
            return word.strip("[]")
    return text


def one_line(text: object, most: int = 400) -> str:
    """Any text as one line of at most ``most`` characters."""
    return " ".join(str(text).split())[:most]
