"""What a run needs of this machine, checked one by one: what is wrong, and the command that mends it.

Each check is a function of ``Here``, by which everything is asked; a test plants a fault by putting
another answer in its place. A check that finds nothing wrong says what it found.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from conformance.engine import DEFAULT_KERNEL
from conformance.machine import accel, qemu
from conformance.machine.apt import KEYRING, host_mirrors
from conformance.machine.cache import Cache
from conformance.machine.image import Sources, root_key
from conformance.machine.kernel import cached_kernel
from conformance.machine.protocol import LaunchFailed
from conformance.machine.tool import PACKAGE_OF, ArtifactError, environment

GIB = 1 << 30
LEAST_SPACE = GIB
"""Bytes in the cache: an image, a kernel and a template have no room in less."""
COLD_SPACE = 3 * GIB
"""Bytes in the cache that a first run on several kernels takes."""
LEAST_SHM = 16 << 20
"""Bytes: what the slots' processes synchronise by lies in /dev/shm."""
LEAST_MEMORY = GIB + GIB // 2
"""Bytes: a template boots in a gigabyte of its own."""
OLDEST_QEMU = (7, 2)
OLDEST_PYTHON = (3, 11)
_EROFS_MAGIC, _EROFS_AT = b"\xe2\xe1\xf5\xe0", 1024


class State(StrEnum):
    """How a thing stands."""

    GOOD = "good"
    NOTICE = "notice"  # a run works, but is slower or has something to make first
    WRONG = "wrong"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at. ``mend``: a command, where there is something to mend."""

    subject: str
    state: State = State.GOOD
    text: str
    mend: str = ""


@dataclass(frozen=True, kw_only=True)
class Here:
    """A machine, as far as a run needs it."""

    python: tuple[int, int]
    system: str
    processor: str
    which: Callable[[str], str | None]
    """Where a program is, on the path that tools are run with."""
    installed: Callable[[str], str | None]
    """The version of a Python package."""
    qemu: Callable[[], qemu.Version]
    """Raises LaunchFailed."""
    kvm: Path
    free: Callable[[Path], int]
    """Bytes that are free where a path is. Raises OSError."""
    memory: int
    """Bytes that are available."""
    shm: Path
    keyring: Path
    mirrors: Callable[[], object]
    """Raises ArtifactError."""
    cache: Cache
    root: Path
    """The checkout."""


def here(root: Path) -> Here:
    """The machine that this runs on."""
    path = environment()["PATH"]
    return Here(
        python=sys.version_info[:2],
        system=platform.system(),
        processor=platform.machine(),
        which=lambda name: shutil.which(name, path=path),
        installed=_installed,
        qemu=qemu.find_qemu,
        kvm=Path("/dev/kvm"),
        free=lambda place: shutil.disk_usage(place).free,
        memory=_available(Path("/proc/meminfo").read_text(encoding="ascii")),
        shm=Path("/dev/shm"),  # noqa: S108 - looked at, not written to
        keyring=KEYRING,
        mirrors=host_mirrors,
        cache=Cache.from_environ(),
        root=root,
    )


def examine(machine: Here) -> tuple[Finding, ...]:
    """What every check says."""
    return tuple(finding for check in CHECKS for finding in check(machine))


# -- the checks -----------------------------------------------------------------------------------


def host(machine: Here) -> Iterator[Finding]:
    """The guests are x86-64 Linux, and what makes them is Linux too."""
    told = f"{machine.system} on {machine.processor}"
    if (machine.system, machine.processor) == ("Linux", "x86_64"):
        yield Finding(subject="host", text=told)
    else:
        yield Finding(
            subject="host",
            state=State.WRONG,
            text=f"{told}: guests, their tools and their kernels are x86-64 Linux",
            mend="ssh SOME-X86-64-LINUX-MACHINE",
        )


def python(machine: Here) -> Iterator[Finding]:
    """The interpreter's version."""
    told = ".".join(map(str, machine.python))
    if machine.python >= OLDEST_PYTHON:
        yield Finding(subject="python", text=told)
    else:
        needed = ".".join(map(str, OLDEST_PYTHON))
        yield Finding(
            subject="python",
            state=State.WRONG,
            text=f"{told} is older than {needed}",
            mend=f"apt install python{needed} python{needed}-venv",
        )


def packages(machine: Here) -> Iterator[Finding]:
    """What is installed is what the lock names."""
    lock = (machine.root / "requirements.lock").read_text(encoding="utf-8")
    wanted = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s\\;]+)", lock, re.MULTILINE)
    differing = []
    for name, version in wanted:
        found = machine.installed(name)
        if found != version:
            differing.append(f"{name} is {found or 'missing'}, not {version}")
    if not differing:
        yield Finding(subject="packages", text=f"{len(wanted)}, as requirements.lock has them")
    else:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        yield Finding(
            subject="packages",
            state=State.WRONG,
            text="; ".join(differing[:3]) + more,
            mend=f"rm -f {machine.root}/.venv/conform.stamp && {machine.root}/conform doctor",
        )


def emulator(machine: Here) -> Iterator[Finding]:
    """QEMU is there, and not older than what was tried."""
    try:
        version = machine.qemu()
    except LaunchFailed as error:
        yield Finding(
            subject="qemu",
            state=State.WRONG,
            text=str(error),
            mend="apt install qemu-system-x86",
        )
        return
    old = version.number < OLDEST_QEMU
    oldest = ".".join(map(str, OLDEST_QEMU))
    yield Finding(
        subject="qemu",
        state=State.NOTICE if old else State.GOOD,
        text=version.text + (f": older than {oldest}, with which nothing was tried" if old else ""),
        mend="apt install -t stable-backports qemu-system-x86" if old else "",
    )


def kvm(machine: Here) -> Iterator[Finding]:
    """Whether a guest runs on KVM: what a run found out, since finding out takes a guest."""
    slow = "guests are emulated: slower, with the same answers"
    if not machine.kvm.exists():
        yield Finding(
            subject="kvm",
            state=State.NOTICE,
            text=f"there is no {machine.kvm}; {slow}",
            mend="modprobe -a kvm_intel kvm_amd",
        )
        return
    if not os.access(machine.kvm, os.R_OK | os.W_OK):
        yield Finding(
            subject="kvm",
            state=State.NOTICE,
            text=f"{machine.kvm} may not be opened by this user; {slow}",
            mend='usermod --append --groups kvm "$USER"',
        )
        return
    try:
        note = accel.note_of(machine.qemu().text)
    except LaunchFailed:
        return  # told by another check
    match machine.cache.note(note):
        case "kvm":
            yield Finding(subject="kvm", text="a guest runs on it")
        case "tcg":
            yield Finding(
                subject="kvm",
                state=State.NOTICE,
                text=f"{machine.kvm} opens, but no guest came up on it; {slow}",
                mend=f"rm {machine.cache.root}/notes/{note}  # the next run tries again",
            )
        case _:
            yield Finding(
                subject="kvm",
                state=State.NOTICE,
                text=f"{machine.kvm} opens; the first run tries whether a guest runs on it",
                mend="./conform run -k 'loop_enospc_short_write[4K-off]'",
            )


def tools(machine: Here) -> Iterator[Finding]:
    """The host's tools by which images and kernels are made."""
    wanted = {**PACKAGE_OF, "setpriv": "util-linux", "unshare": "util-linux"}
    missing = [name for name in sorted(wanted) if machine.which(name) is None]
    lacking = sorted({wanted[name] for name in missing})
    if not machine.keyring.exists():
        missing.append(str(machine.keyring))
        lacking.append("debian-archive-keyring")
    if missing:
        yield Finding(
            subject="tools",
            state=State.WRONG,
            text=f"missing: {', '.join(missing)}",
            mend=f"apt install {' '.join(lacking)}",
        )
    else:
        yield Finding(subject="tools", text=f"{len(wanted)} programs and the archive's keyring")
    busybox = machine.which("busybox")
    if busybox is not None and b"/lib64/ld-linux" in Path(busybox).read_bytes():
        yield Finding(
            subject="tools",
            state=State.WRONG,
            text=f"{busybox} is not statically linked: it would find no libraries in a guest",
            mend="apt install busybox-static",
        )


def cache(machine: Here) -> Iterator[Finding]:
    """The cache can be written, and has room."""
    root = machine.cache.root
    try:
        with machine.cache.scratch() as place:
            (place / "trial").write_text("x")
        free = machine.free(root)
    except OSError as error:
        yield Finding(
            subject="cache",
            state=State.WRONG,
            text=f"{root} cannot be written: {error.strerror}",
            mend='export CONFORM_CACHE="$HOME/conform-cache"',
        )
        return
    told = f"{root} has {free / GIB:.1f} GiB free"
    if free < LEAST_SPACE:
        yield Finding(
            subject="cache",
            state=State.WRONG,
            text=f"{told}: too little for an image, a kernel and a template",
            mend="./conform gc --keep 0  # or CONFORM_CACHE=/a/larger/disk",
        )
    elif free < COLD_SPACE:
        yield Finding(
            subject="cache",
            state=State.NOTICE,
            text=f"{told}: enough for one or two kernels",
            mend="./conform gc --keep 0  # or CONFORM_CACHE=/a/larger/disk",
        )
    else:
        yield Finding(subject="cache", text=told)


def shared_memory(machine: Here) -> Iterator[Finding]:
    """What the processes of a run synchronise by."""
    try:
        free = machine.free(machine.shm)
    except OSError as error:
        free, told = 0, f"{machine.shm}: {error.strerror}"
    else:
        told = f"{machine.shm} has {free >> 20} MiB free"
    if free < LEAST_SHM:
        yield Finding(
            subject="shm",
            state=State.WRONG,
            text=f"{told}: the slots' processes need some",
            mend=f"mount -o remount,size=64m {machine.shm}  # in a container: --shm-size=64m",
        )
    else:
        yield Finding(subject="shm", text=told)


def memory(machine: Here) -> Iterator[Finding]:
    """Room for a guest."""
    told = f"{machine.memory / GIB:.1f} GiB available"
    if machine.memory < LEAST_MEMORY:
        yield Finding(
            subject="memory",
            state=State.WRONG,
            text=f"{told}: a guest has 1 GiB, which its template takes whole",
            mend="./conform run -n 1  # after closing other programs",
        )
    else:
        yield Finding(subject="memory", text=told)


def image(machine: Here) -> Iterator[Finding]:
    """The guest's root."""
    recipe = Sources(image=machine.root / "vm" / "image.toml").image
    entry = machine.cache.entry("root", root_key(machine.cache, recipe))
    if not entry.is_dir():
        yield Finding(
            subject="image",
            state=State.NOTICE,
            text="not built yet: the first run does, in a minute or two",
            mend="./conform run -k 'loop_enospc_short_write[4K-off]'",
        )
        yield from _mirror(machine)
        return
    try:
        with (entry / "root.erofs").open("rb") as file:
            file.seek(_EROFS_AT)
            whole = file.read(4) == _EROFS_MAGIC
    except OSError:
        whole = False
    if whole:
        yield Finding(subject="image", text=f"{entry / 'root.erofs'}")
    else:
        yield Finding(
            subject="image",
            state=State.WRONG,
            text=f"{entry} is damaged",
            mend=f"rm -r {entry}  # the next run builds it anew",
        )


def kernels(machine: Here) -> Iterator[Finding]:
    """The default kernel; others come when they are asked for."""
    names = machine.root / "vm" / "kernels.toml"
    try:
        kernel = cached_kernel(DEFAULT_KERNEL, cache=machine.cache, names=names)
    except (OSError, ValueError) as error:
        yield Finding(
            subject="kernels",
            state=State.WRONG,
            text=f"what the cache has of {DEFAULT_KERNEL} is damaged: {error}",
            mend=f"rm -r {machine.cache.root}/kernel  # the next run fetches what it needs",
        )
        return
    if kernel is None:
        yield Finding(
            subject="kernels",
            state=State.NOTICE,
            text=f"{DEFAULT_KERNEL} is not here yet: the first run fetches it",
            mend="./conform run -k 'loop_enospc_short_write[4K-off]'",
        )
        yield from _mirror(machine)
        return
    modules = kernel.modules
    if kernel.vmlinuz.exists() and modules is not None and (modules / "modules.dep").exists():
        yield Finding(subject="kernels", text=f"{DEFAULT_KERNEL} is {kernel.release}")
    else:
        yield Finding(
            subject="kernels",
            state=State.WRONG,
            text=f"{kernel.vmlinuz.parent} is damaged",
            mend=f"rm -r {kernel.vmlinuz.parent}  # the next run fetches it anew",
        )


def _mirror(machine: Here) -> Iterator[Finding]:
    """Where packages are fetched from, asked only if some have to be."""
    try:
        machine.mirrors()
    except ArtifactError as error:
        yield Finding(
            subject="mirror",
            state=State.WRONG,
            text=str(error),
            mend="export CONFORM_DEBIAN_MIRROR=https://deb.debian.org/debian",
        )


def results(machine: Here) -> Iterator[Finding]:
    """Runs write below the checkout."""
    place = machine.root / "results" / "runs"
    nearest = next(path for path in (place, *place.parents) if path.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK):
        yield Finding(subject="results", text=str(place))
    else:
        yield Finding(
            subject="results",
            state=State.WRONG,
            text=f"{nearest} is no directory that may be written to",
            mend='./conform run --out "$HOME/run"',
        )


CHECKS: tuple[Callable[[Here], Iterator[Finding]], ...] = (
    host,
    python,
    packages,
    tools,
    emulator,
    kvm,
    memory,
    shared_memory,
    cache,
    image,
    kernels,
    results,
)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _available(meminfo: str) -> int:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
