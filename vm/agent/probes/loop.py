"""What the loop driver, quotas and io_uring can do here."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

from agent import cgroups, kernel
from agent.basics import Clock, RigError, one_line
from agent.layers import Site
from agent.layers.loop import Loop
from agent.probes.kinds import controller
from agent.probes.kinds import fs as has_fs
from agent.probes.stack import MIB, Stack, loop_rig
from agent.processes import Child
from agent.workloads import fio

CHARGED = MIB
"""Bytes of the probe's 2 MiB that must appear in the submitter's cgroup."""
_LIMIT = 30.0


def _loop_charges_memcg(site: Site) -> str:
    """Whether a cgroup pays for the pages of 2 MiB that it writes through a loop device."""
    for name in ("memory", "io"):
        missing = controller(name, site)
        if missing:
            # Without +io loop finds no cgroup to charge, and the answer would mean nothing.
            return f"cannot tell whether loop I/O is charged: {missing}"
    tree = cgroups.Tree("probe")
    with Stack(loop_rig(4 * MIB), site) as layers:
        try:
            tree.up(["writer"])
            before = tree.events("writer")["shmem"]
            problem = _write_from(tree.procs("writer"), layers["probe_device"].path, 2 * MIB)
            grown = tree.events("writer")["shmem"] - before
        finally:
            tree.down(_LIMIT)
    if problem:
        return f"cannot tell whether loop I/O is charged: {problem}"
    if grown >= CHARGED:
        return ""
    return (
        "this kernel does not charge loop I/O to the cgroup that submitted it "
        f"(charging came with Linux 5.14); of 2 MiB it was charged {max(grown, 0)} bytes"
    )


def _write_from(procs: str, device: str, length: int) -> str:
    """Write ones by O_DIRECT from a child in a cgroup; a problem, or nothing."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            cgroups.write(procs, "0")
            buffer = mmap.mmap(-1, MIB)
            buffer.write(b"\xff" * MIB)
            fd = os.open(device, os.O_RDWR | os.O_DIRECT)
            for at in range(0, length, MIB):
                os.pwrite(fd, buffer, at)
            code = 0
        finally:
            os._exit(code)
    how = Child.adopt(pid).finish(_LIMIT)
    return "" if how["exit_code"] == 0 else f"the probe's writer ended with {how}"


def _loop_charges_memcg_v1(hierarchy: str) -> Callable[[Site], str]:
    def probe(site: Site) -> str:
        """Whether a cgroup of v1 pays for the pages that it writes through a loop device."""
        tree = cgroups.TreeV1(hierarchy, "probe")
        with Stack(loop_rig(4 * MIB), site) as layers:
            try:
                tree.up(["writer"])
                before = tree.events("writer")["shmem"]
                problem = _write_from(tree.procs("writer"), layers["probe_device"].path, 2 * MIB)
                grown = tree.events("writer")["shmem"] - before
            finally:
                tree.down(_LIMIT)
        if problem:
            return f"cannot tell whether loop I/O is charged: {problem}"
        if grown >= CHARGED:
            return ""
        return (
            f"loop I/O is not charged to a cgroup of the v1 hierarchy {hierarchy}; "
            f"of 2 MiB it was charged {max(grown, 0)} bytes"
        )

    return probe


def _tmpfs_huge_pages(site: Site) -> str:
    """Whether a tmpfs may have huge pages here."""
    spec = {"layer": "tmpfs", "name": "probe_huge", "size": 8 * MIB, "huge": "always"}
    with Stack([spec], site):
        return ""


def _tmpfs_direct_io(site: Site) -> str:
    """Whether losetup --direct-io=on stays on over a file on tmpfs."""
    with Stack(loop_rig(4 * MIB), site) as layers:
        device = layers["probe_device"]
        assert isinstance(device, Loop)
        command = site.run(["losetup", "--direct-io=on", device.path])
        if device.direct_io() == "on":
            return ""
    said = one_line(command["output"], 120)
    return (
        "a loop device over tmpfs cannot have direct I/O on this kernel (tmpfs takes O_DIRECT "
        f"since Linux 6.6){': ' + said if said else ''}"
    )


def _loop_reads_take_no_space(site: Site) -> str:
    """Whether reading a hole through a loop device leaves its tmpfs as it was."""
    with Stack(loop_rig(4 * MIB), site) as layers:
        backing = layers["probe_back"].path
        before = os.statvfs(backing).f_bfree
        fd = os.open(layers["probe_device"].path, os.O_RDONLY)
        try:
            os.preadv(fd, [bytearray(MIB)], MIB)
        finally:
            os.close(fd)
        taken = (before - os.statvfs(backing).f_bfree) * os.statvfs(backing).f_frsize
    if taken <= 0:
        return ""
    return (
        f"reading holes takes space of the tmpfs here (1 MiB took {taken} bytes; tmpfs stores no page "
        "for a loop device's read since Linux 5.18), so that what the case needs to be a hole is none"
    )


def _quota(fs: str) -> Callable[[Site], str]:
    def probe(site: Site) -> str:
        missing = has_fs(fs, site)
        if missing:
            return missing
        quota = ["user", "group", "project"]
        specs = [
            *loop_rig(64 * MIB),
            {"layer": "fs", "name": "probe_fs", "on": "probe_device", "type": fs, "quota": quota},
        ]
        with Stack(specs, site) as layers:
            for kind in quota:
                kernel.quota_limit(layers["probe_device"].path, kind, 77, MIB)
                found = kernel.quota_read(layers["probe_device"].path, kind, 77)[1]
                if found != MIB:
                    return f"{fs} does not keep a {kind} quota: {found} instead of {MIB}"
        return ""

    return probe


def _quota_tmpfs(site: Site) -> str:
    """Whether a tmpfs may be mounted with a quota: CONFIG_TMPFS_QUOTA, since Linux 6.6."""
    spec = {"layer": "tmpfs", "name": "probe_quota", "size": MIB, "quota": ["user", "group"]}
    try:
        with Stack([spec], site):
            return ""
    except RigError as error:
        return f"this kernel has no CONFIG_TMPFS_QUOTA: {one_line(error)}"


def _io_uring(_site: Site) -> str:
    return kernel.io_uring_works()


def _io_uring_iopoll(site: Site) -> str:
    """Whether a write to a loop device can be polled for: it has no queues for that of its own."""
    missing = kernel.io_uring_works()
    if missing:
        return missing
    with Stack(loop_rig(4 * MIB), site) as layers:
        order = fio.Order(
            path=layers["probe_device"].path,
            submit="fio_io_uring_iopoll",
            offset=0,
            length=MIB,
            request=MIB,
            depth=1,
            generation=1,
            sync_every=None,
        )
        submitter, problem = fio.write(order, b"probe", Clock.start(), limit=_LIMIT)
    if not problem and submitter["ended"]["exit_code"] == 0:
        return ""
    said = one_line(problem or submitter["output"], 200)
    return f"a loop device does not take requests that are polled for: {said}"


PROBES: dict[str, Callable[[Site], str]] = {
    "loop_charges_memcg": _loop_charges_memcg,
    "loop_charges_memcg_v1": _loop_charges_memcg_v1("memory+blkio"),
    "loop_charges_memcg_v1_alone": _loop_charges_memcg_v1("memory"),
    "loop_reads_take_no_space": _loop_reads_take_no_space,
    "tmpfs_direct_io": _tmpfs_direct_io,
    "tmpfs_huge_pages": _tmpfs_huge_pages,
    "quota_ext4": _quota("ext4"),
    "quota_xfs": _quota("xfs"),
    "quota_f2fs": _quota("f2fs"),
    "quota_tmpfs": _quota_tmpfs,
    "io_uring": _io_uring,
    "io_uring_iopoll": _io_uring_iopoll,
}
"""The names after ``probe:``."""
