"""What is done once, before a template is taken, so that no clone has to do it anew.

A clone shares the template's memory. Modules loaded there are loaded in each clone, at no cost
(btrfs alone measures its checksums for a second), and programs in the template's page cache are
neither read nor decompressed again. They are the root cgroup's: a limited cgroup in which a tool runs
is not charged for the tool.

Nothing here may change what a case finds: no device is set up, nothing is mounted, no file is left, and no
module is loaded that takes parameters or makes devices of its own.
"""

from __future__ import annotations

import contextlib
import os
import time

from agent.basics import RigError
from agent.processes import run

MODULES = ("loop", "ext4", "xfs", "btrfs", "f2fs", "dm-mod", "dm-thin-pool", "dm-snapshot")
"""Loaded as far as the kernel has them; what a case needs is asked for by its layers all the same."""

TOOLS = (
    "blkid",
    "blockdev",
    "btrfs",
    "dd",
    "dmsetup",
    "e2fsck",
    "fio",
    "fsck.f2fs",
    "fsfreeze",
    "fstrim",
    "losetup",
    "mkfs.btrfs",
    "mkfs.ext4",
    "mkfs.f2fs",
    "mkfs.xfs",
    "modprobe",
    "mount",
    "nbd-client",
    "qemu-nbd",
    "rm",
    "setfattr",
    "sh",
    "sync",
    "umount",
    "xfs_repair",
)
_LIMIT = 20.0
_MODULE_LIMIT = 120.0
_MOST = 64 << 20
_FOLDERS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")


def warm() -> tuple[float, str]:
    """Load modules, read tools and their libraries: (the seconds it took, what is wrong).

    What a kernel or an image lacks is left out. A module that did not load in time is wrong: a
    modprobe that was killed half-way leaves a guest in which that module never loads again.
    """
    began = time.monotonic()
    for module in MODULES:
        with contextlib.suppress(RigError):
            ended = run(["modprobe", module], limit=_MODULE_LIMIT)["ended"]
            if ended["timed_out"]:
                return time.monotonic() - began, f"modprobe {module} did not end"
    files: set[str] = set()
    for tool in TOOLS:
        with contextlib.suppress(Exception):
            files |= needed(tool)
    for path in sorted(files):
        with contextlib.suppress(OSError):
            read(path)
    return time.monotonic() - began, ""


def needed(tool: str) -> set[str]:
    """The files that a program is executed from: its own, and its libraries'.

    The loader prints them, and does not run the program, if this is in the environment (ld.so(8)).
    """
    places = [f"{folder}/{tool}" for folder in _FOLDERS]
    program = next(place for place in places if os.access(place, os.X_OK))
    said = run([program], limit=_LIMIT, env={"LD_TRACE_LOADED_OBJECTS": "1"})["output"]
    words = [word for line in said.splitlines() for word in line.split()]
    return {program, *(word for word in words if word.startswith("/"))}


def read(path: str) -> int:
    """Bring a file into the page cache: its bytes."""
    with open(path, "rb", buffering=0) as file:
        buffer, size = bytearray(1 << 20), 0
        while size < _MOST and (count := file.readinto(buffer)):
            size += count
    return size
