"""What every test of a fault has: nothing may be left behind, and the page says what is told."""

from __future__ import annotations

import ctypes
import os
import re
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.page import rows

_END_LIMIT = 10.0
"""Seconds that a process gets which has let go of its memory already."""
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, linux/prctl.h


def processes() -> set[str]:
    """The processes below this one that live, but for Python's own tracker of shared memory."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            pids = (task / "children").read_text().split()
        except OSError:
            return processes()  # the thread has ended, and its children are another's
        for pid in pids:
            base = Path("/proc", pid)
            try:
                state = (base / "stat").read_text().rpartition(")")[2].split()[0]
                words = (base / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if not words and _ends(int(pid)):
                continue
            if state != "Z" and "resource_tracker" not in words:
                found.add(f"{pid} {words}")
    return found


def _ends(pid: int) -> bool:
    """Whether a process that has no command line any more is on its way out, and gets there."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], _END_LIMIT)[0])
    finally:
        os.close(fd)


def descriptors() -> set[str]:
    """What this process has open, by number and target."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue  # that of the listing
    return found


def mounts() -> set[str]:
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def locks() -> set[str]:
    mine = str(os.getpid())
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {" ".join(words[1:]) for words in lines if mine in words}


def shared_memory() -> set[str]:
    """What lies in /dev/shm and no process has mapped: what others use there is their business."""
    found = set(os.listdir("/dev/shm"))
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            found -= set(re.findall(r" /dev/shm/(\S+)", maps.read_text()))
        except OSError:
            continue  # it has ended
    return {name for name in found if Path("/dev/shm", name).exists()}


KINDS = {
    "processes": processes,
    "descriptors": descriptors,
    "mounts": mounts,
    "locks": locks,
    "shared memory": shared_memory,
}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Processes (also orphans), descriptors, mounts, locks, shared memory: as they were."""
    # Orphans of what a test started come to this process, and are seen.
    assert ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0) == 0
    before = {kind: look() for kind, look in KINDS.items()}
    yield
    left = {kind: look() - before[kind] for kind, look in KINDS.items()}
    assert {kind: found for kind, found in left.items() if found} == {}


class Told:
    """What docs/survival.md promises that the run says of this test's fault."""

    def __init__(self, promised: tuple[str, ...]) -> None:
        self._promised = promised
        self.used = False

    def __call__(self, text: str) -> None:
        """Fails unless ``text`` holds all that is promised, in one line; ``…`` stands for anything."""
        self.used = True
        for said in self._promised:
            pattern = ".*".join(re.escape(part) for part in said.split("…"))
            assert re.search(pattern, text), f"promised: {said}\ntold: {text}"


@pytest.fixture
def told(request: pytest.FixtureRequest) -> Iterator[Told]:
    """Compares what a run says with what the page promises for this test."""
    name = f"{Path(request.node.fspath).name}::{request.node.name}"
    promised = [row.says for row in rows() if row.test == name]
    assert promised, f"docs/survival.md has no row for {name}"
    one = Told(promised[0])
    yield one
    assert one.used, "the test compared nothing with the page"
