"""What a kernel and a guest can do: found out by looking or by trying, never by a version.

Each answer is nothing if the requirement is met, else the reason why not, in one line.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable

from agent import cgroups, kernel
from agent.basics import Json, RigError, one_line
from agent.layers import KINDS, Layer, Site
from agent.layers.base import succeeded
from agent.layers.loop import Loop
from agent.processes import PATH, Child

_MIB = 1 << 20
CHARGED = _MIB
"""Bytes of the probe's 2 MiB that must appear in the submitter's cgroup."""
_LIMIT = 30.0


def answer(requirement: str, site: Site) -> str:
    """Nothing if ``requirement`` (kind:name) is met, else why not."""
    kind, _, name = requirement.partition(":")
    probe = _KINDS.get(kind)
    if probe is None:
        return f"the guest's program knows no requirements of the kind {kind}"
    try:
        return probe(name, site)
    except (RigError, OSError) as error:
        return f"{requirement} could not be probed: {one_line(error)}"


def _module(name: str, site: Site) -> str:
    if os.path.exists(f"/sys/module/{name.replace('-', '_')}"):
        return ""
    if succeeded(site.run(["modprobe", name])):
        return ""
    return f"the kernel has no module {name}"


def _controller(name: str, _site: Site) -> str:
    cgroups.ensure_mounted()
    failed = cgroups.enable(cgroups.MOUNT)
    if name in cgroups.enabled_in_root():
        return ""
    why = failed.get(name, "not among the controllers that the suite enables")
    return f"the cgroup v2 controller {name} cannot be enabled in the root: {why}"


def _fs(name: str, site: Site) -> str:
    if _registered(name):
        return ""
    site.run(["modprobe", name])
    return "" if _registered(name) else f"the kernel has no filesystem {name}"


def _registered(name: str) -> bool:
    with open("/proc/filesystems", encoding="ascii") as file:
        return any(line.split()[-1] == name for line in file)


def _tool(name: str, _site: Site) -> str:
    return "" if shutil.which(name, path=PATH) else f"the guest has no program {name}"


class _Stack:
    """A small rig of layers for a probe, taken down whatever happens."""

    def __init__(self, specs: list[Json], site: Site) -> None:
        self._specs = specs
        self._site = site
        self.layers: dict[str, Layer] = {}

    def __enter__(self) -> dict[str, Layer]:
        try:
            for spec in self._specs:
                layer = KINDS[spec["layer"]](spec, self.layers, self._site)
                self.layers[layer.name] = layer
                layer.up()
        except BaseException:
            self.__exit__()
            raise
        return self.layers

    def __exit__(self, *_: object) -> None:
        for layer in reversed(self.layers.values()):
            layer.down()


def _loop_rig(size: int) -> list[Json]:
    return [
        {"layer": "tmpfs", "name": "probe_back", "size": 2 * size},
        {"layer": "file", "name": "probe_image", "on": "probe_back", "size": size},
        {"layer": "loop", "name": "probe_device", "on": "probe_image"},
    ]


def _loop_charges_memcg(site: Site) -> str:
    """Whether a cgroup pays for the pages of 2 MiB that it writes through a loop device."""
    for name in ("memory", "io"):
        missing = _controller(name, site)
        if missing:
            # Without +io loop finds no cgroup to charge, and the answer would mean nothing.
            return f"cannot tell whether loop I/O is charged: {missing}"
    tree = cgroups.Tree("probe")
    with _Stack(_loop_rig(4 * _MIB), site) as layers:
        try:
            tree.up(["writer"])
            before = tree.events("writer")["shmem"]
            problem = _write_from(tree.procs("writer"), layers["probe_device"].path, 2 * _MIB)
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
            buffer = mmap.mmap(-1, _MIB)
            buffer.write(b"\xff" * _MIB)
            fd = os.open(device, os.O_RDWR | os.O_DIRECT)
            for at in range(0, length, _MIB):
                os.pwrite(fd, buffer, at)
            code = 0
        finally:
            os._exit(code)
    how = Child.adopt(pid).finish(_LIMIT)
    return "" if how["exit_code"] == 0 else f"the probe's writer ended with {how}"


def _tmpfs_direct_io(site: Site) -> str:
    """Whether losetup --direct-io=on stays on over a file on tmpfs."""
    with _Stack(_loop_rig(4 * _MIB), site) as layers:
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


def _quota(fs: str) -> Callable[[Site], str]:
    def probe(site: Site) -> str:
        missing = _fs(fs, site)
        if missing:
            return missing
        quota = ["user", "project"]
        specs = [
            *_loop_rig(64 * _MIB),
            {"layer": "fs", "name": "probe_fs", "on": "probe_device", "type": fs, "quota": quota},
        ]
        with _Stack(specs, site) as layers:
            for kind in quota:
                kernel.quota_limit(layers["probe_device"].path, kind, 77, _MIB)
                found = kernel.quota_read(layers["probe_device"].path, kind, 77)[1]
                if found != _MIB:
                    return f"{fs} does not keep a {kind} quota: {found} instead of {_MIB}"
        return ""

    return probe


def _io_uring(_site: Site) -> str:
    return kernel.io_uring_works()


PROBES: dict[str, Callable[[Site], str]] = {
    "loop_charges_memcg": _loop_charges_memcg,
    "tmpfs_direct_io": _tmpfs_direct_io,
    "quota_ext4": _quota("ext4"),
    "quota_xfs": _quota("xfs"),
    "io_uring": _io_uring,
}
"""The names after ``probe:``."""


def _probe(name: str, site: Site) -> str:
    probe = PROBES.get(name)
    return probe(site) if probe else f"the guest's program knows no probe {name}"


_KINDS: dict[str, Callable[[str, Site], str]] = {
    "module": _module,
    "controller": _controller,
    "fs": _fs,
    "tool": _tool,
    "probe": _probe,
}
