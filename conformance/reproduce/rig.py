"""The rig of a reproducing script: layers, cgroups and bystanders, in shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from conformance.model import (
    Arm,
    Bystander,
    DiskLayer,
    FileLayer,
    FsLayer,
    Layer,
    LoopLayer,
    Submit,
    TmpfsLayer,
)
from conformance.model.layers.basic import SwapLayer
from conformance.reproduce.devices import BLOCK, device, later, mapped
from conformance.reproduce.shortage import Inexpressible

FLAGS = {
    Submit.BUFFERED: "''",
    Submit.DIRECT: "direct,",
    Submit.DSYNC: "dsync,",
    Submit.DIRECT_DSYNC: "direct,dsync,",
}
"""Ways to submit that dd has, each with its oflag."""

DISK = "1G"
"""Of the sparse file that stands for the guest's disk, unless the user names a disk."""

MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "--nodiscard"),
    "f2fs": ("mkfs.f2fs", "-q", "-f", "-t", "0"),
}
"""As the guest's program makes them; a test holds the two against each other."""
MKFS_ENV = {"xfs": ("TEST_DIR=/", "TEST_DEV=/", "QA_CHECK_FS=1")}
"""mkfs.xfs refuses filesystems below 300 MiB unless it believes to be run by xfstests."""
MOUNT = {"ext4": ("noinit_itable",)}
CHECK = {
    "ext4": ("e2fsck", "-fn"),
    "xfs": ("xfs_repair", "-n"),
    "btrfs": ("btrfs", "check", "--readonly"),
    "f2fs": ("fsck.f2fs", "--dry-run"),
}
SMALL_BTRFS = 120 << 20
"""Bytes below which btrfs is made with data and metadata mixed: it refuses otherwise."""
_GENERIC = {"user": "usrquota", "group": "grpquota", "project": "prjquota"}
QUOTA_OPTION = {
    "ext4": _GENERIC,
    "f2fs": _GENERIC,
    "xfs": {"user": "uquota", "group": "gquota", "project": "pquota"},
}
_RESERVED = frozenset({"PATH", "HOME", "IFS", "ENV", "PWD", "TMPDIR", "DISK", "LC_ALL"})


class Rig:
    """What an arm stands on. ``used`` and ``tools`` grow with what is asked for."""

    def __init__(self, arm: Arm) -> None:
        self.arm = arm
        self.layers: dict[str, Layer] = {layer.name: layer for layer in arm.layers}
        self._sizes: dict[str, int] = {}
        for layer in arm.layers:
            size = layer.device_size(self._sizes)
            if size is not None:
                self._sizes[layer.name] = size
        self.used = {"say", "unable", "later", "need", "finish", "deviates", "step"}
        self.tools: dict[str, None] = dict.fromkeys(("dmesg", "timeout", "cmp"))

    def lines(self) -> list[str]:
        """All of it. Raises Inexpressible."""
        made = [line for layer in self.arm.layers for line in self._layer(layer)]
        return [*made, *self._cgroups(), *self._bystanders()]

    def path(self, name: str) -> str:
        """The shell's word for where a layer is."""
        upper = name.upper()
        return f"${upper}_" if upper in _RESERVED else f"${upper}"

    def block(self, part: str, target: str) -> None:
        """Raises Inexpressible for a target that is no block device that a script makes."""
        layer = self.layers[target]
        if not isinstance(layer, (LoopLayer, DiskLayer, *BLOCK)):
            raise Inexpressible(part, f"its target is {layer.SORT}")

    def _layer(self, layer: Layer) -> Iterator[str]:
        variable = self.path(layer.name).removeprefix("$")
        match layer:
            case TmpfsLayer():
                yield from self._tmpfs(layer, variable)
            case DiskLayer():
                yield from self._disk(variable)
            case FsLayer():
                yield from self._fs(layer, variable)
            case FileLayer():
                yield from self._file(layer, variable)
            case LoopLayer():
                yield from self._loop(layer, variable)
            case SwapLayer():
                self.tools |= dict.fromkeys(("mkswap", "swapon"))
                below = self.path(layer.on)
                yield f'mkswap "{below}" >/dev/null || unable "no swap area"'
                yield f'swapon "{below}" || unable "no swap area"'
                yield later(f'swapoff "{below}"')
            case _:
                yield from self._other(layer, variable)

    def _other(self, layer: Layer, variable: str) -> Iterator[str]:
        """A layer that a tool of its own makes."""
        made = device(layer, self.path, self.layers, self._sizes)
        if made is None:
            raise Inexpressible(f"layer {layer.name}", f"{layer.SORT} is not supported")
        self.used |= set(made.functions)
        self.tools |= dict.fromkeys(made.tools)
        if "dm" in made.functions and isinstance(layer, BLOCK):
            yield f'{variable}="{mapped(layer.name)}"'
        for name, lines in (("attach", made.attach), ("detach", made.detach)):
            if lines:
                yield f"{name}_{layer.name}() {{"
                yield from (f"    {line}" for line in lines)
                yield "}"
        yield from made.rig
        if made.attach and "mdadm" not in made.tools:
            yield f'attach_{layer.name} || unable "{layer.SORT} cannot be made"'

    def _tmpfs(self, layer: TmpfsLayer, variable: str) -> Iterator[str]:
        if layer.quota:
            raise Inexpressible(f"layer {layer.name}", "no command sets a quota on a tmpfs")
        if layer.huge == "force":
            raise Inexpressible(f"layer {layer.name}", "huge=force holds for the whole machine")
        huge = "" if layer.huge == "never" else f",huge={layer.huge}"
        inodes = f",nr_inodes={layer.inodes}" if layer.inodes else ""
        yield f'{variable}=$work/{layer.name} && mkdir "${variable}"'
        yield later(f'umount "${variable}"')
        yield (
            f'mount -t tmpfs -o size={layer.size}{huge}{inodes} none "${variable}" ||'
            f" unable 'no such tmpfs'"
        )

    def _disk(self, variable: str) -> Iterator[str]:
        self.tools["losetup"] = None
        yield f"{variable}=${{DISK-}}"
        yield f'if [ -z "${variable}" ]; then'
        yield f'    truncate -s {DISK} "$work/disk"'
        yield f'    {variable}=$(losetup -f --show "$work/disk") || unable "no loop device"'
        yield "    " + later(f'losetup -d "${variable}"')
        yield "fi"

    def _fs(self, layer: FsLayer, variable: str) -> Iterator[str]:
        if layer.project:
            raise Inexpressible(f"layer {layer.name}", "project ids of directories")
        if layer.quota and layer.type not in QUOTA_OPTION:
            raise Inexpressible(f"layer {layer.name}", f"quota on {layer.type}")
        small = layer.type == "btrfs" and self._sizes.get(layer.on, SMALL_BTRFS) < SMALL_BTRFS
        mkfs = [*MKFS[layer.type], *_quota_words(layer), *(["--mixed"] if small else [])]
        mkfs += layer.mkfs_options
        options = [*MOUNT.get(layer.type, ())]
        options += [QUOTA_OPTION[layer.type][kind] for kind in layer.quota]
        options += [layer.mount_options] if layer.mount_options else []
        chosen_options = f"-o {shlex.quote(','.join(options))} " if options else ""
        below = self.path(layer.on)
        self.tools[mkfs[0]] = None
        yield f'{variable}=$work/{layer.name} && mkdir "${variable}"'
        command = shlex.join(mkfs)
        if layer.type in MKFS_ENV:
            command = f"env {' '.join(MKFS_ENV[layer.type])} {command}"
        yield f'{command} "{below}" >/dev/null || unable "{mkfs[0]} failed"'
        yield f"mount_{layer.name}() {{"
        more = " &&" if layer.sysfs else ""
        yield f'    within \'\' mount -t {layer.type} {chosen_options}"{below}" "${variable}"{more}'
        for number, setting in enumerate(layer.sysfs, 1):
            name, _, value = setting.partition("=")
            place = f'"/sys/fs/{layer.type}/${{{self.path(layer.on)[1:]}##*/}}/{name}"'
            yield f"    echo {value} >{place}{' &&' if number < len(layer.sysfs) else ''}"
        yield "}"
        self.used.add("within")
        yield later(f'umount "${variable}"')
        yield f"mount_{layer.name} || unable 'it cannot be mounted'"

    def _file(self, layer: FileLayer, variable: str) -> Iterator[str]:
        yield f"{variable}={self.path(layer.on)}/{layer.name}"
        yield f': >"${variable}"'
        if layer.owner or layer.group:
            yield f'chown {layer.owner}:{layer.group} "${variable}"'
        if layer.project:
            self.tools["chattr"] = None
            yield f'chattr -p {layer.project} "${variable}" || unable "no project ids here"'
        make = "fallocate -l" if layer.allocate else "truncate -s"
        yield f'{make} {layer.size} "${variable}" || unable "no such file"'

    def _loop(self, layer: LoopLayer, variable: str) -> Iterator[str]:
        if layer.keeper == "on":
            raise Inexpressible(f"layer {layer.name}", "a process that keeps the device open")
        if layer.cgroup:
            raise Inexpressible(f"layer {layer.name}", "it is set up from a cgroup")
        self.used.add("attach")
        self.tools["losetup"] = None
        yield f'{variable}=$(losetup -f) || unable "no loop device"'
        yield later(f'detach "${variable}" "{self.path(layer.on)}"')
        yield f'attach {self.attached(layer)} || unable "losetup failed"'

    def attached(self, layer: LoopLayer) -> str:
        """The words of ``attach``: device, file, direct I/O, cgroup."""
        return f'"{self.path(layer.name)}" "{self.path(layer.on)}" {layer.direct_io} \'\''

    def _cgroups(self) -> Iterator[str]:
        paths: dict[str, None] = {}
        for path in self.arm.cgroups:
            parts = path.split("/")
            paths |= dict.fromkeys("/".join(parts[: n + 1]) for n in range(len(parts)))
        if paths:
            self.used.add("cgroups")
            yield f"cgroups {' '.join(paths)}"

    def _bystanders(self) -> Iterator[str]:
        self.used.add("bystander")
        for one in self.arm.bystanders:
            if one.memory:
                raise Inexpressible(f"bystander {one.name}", "memory of its own")
            yield self._bystander(one)
        yield "bystander outsider ''"

    def _bystander(self, one: Bystander) -> str:
        io = one.io
        if io is None:
            return f"bystander {one.name} {shlex.quote(one.cgroup)}"
        self.block(f"bystander {one.name}", io.target)
        self.used.add("busy")
        where = f'"{self.path(io.target)}" {io.offset} {io.length} {io.request}'
        # What completes is durable, whichever way it takes.
        flags = "direct,dsync" if io.submit is Submit.DIRECT else "dsync"
        writes = 1 if io.reads else 0
        return f"busy {one.name} {shlex.quote(one.cgroup)} {writes} {where} {flags}"


def _quota_words(layer: FsLayer) -> tuple[str, ...]:
    """What mkfs has to be told of quotas; xfs takes it all by its mount options."""
    if layer.quota and layer.type == "ext4":
        types = ":".join(QUOTA_OPTION["ext4"][kind] for kind in layer.quota)
        return ("-O", "quota,project", "-E", f"quotatype={types}")
    if layer.quota and layer.type == "f2fs":
        return ("-O", "extra_attr,quota,project_quota")
    return ()
