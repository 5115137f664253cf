"""The initramfs: a newc cpio archive of busybox, /init, the disks' modules and the agent.

The archive is written here, not by cpio(1): it needs a device node, which only root may make on
disk. It is not compressed: under software emulation the guest takes longer to unpack than to read.
Format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.machine.bzimage import KernelError
from conformance.machine.kconfig import NEEDS, OPTIONAL_MODULES
from conformance.machine.kernel import Kernel, builtin_names, module_names

_DIRECTORIES = (
    "agent",
    "bin",
    "dev",
    "lower",
    "modules",
    "newroot",
    "proc",
    "sys",
    "upper",
)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member of an archive. mode includes the file type; device is (major, minor) of a node."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def newc(members: Iterable[Member]) -> bytes:
    """A cpio archive in the kernel's "newc" format. Owner is root and times are zero throughout."""
    out = bytearray()
    for inode, member in enumerate(members, start=1):
        _append(out, inode, member)
    _append(out, 0, Member(name="TRAILER!!!", mode=0))
    out += bytes(-len(out) % 512)
    return bytes(out)


def _append(out: bytearray, inode: int, member: Member) -> None:
    name = member.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(member.mode) else 1
    fields = (
        *(inode, member.mode, 0, 0, links, 0, len(member.content), 0, 0),
        *(*member.device, len(name), 0),
    )
    out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
    out += bytes(-len(out) % 4)
    out += member.content
    out += bytes(-len(out) % 4)


def boot_modules(kernel: Kernel) -> tuple[Path, ...]:
    """The modules to load before the root is up, dependencies first, each once.

    Raises KernelError when one the guest needs is neither built in nor among the kernel's modules.
    """
    if kernel.modules is None:
        return ()
    at_hand = module_names(kernel.modules)
    builtin = builtin_names(kernel.modules) or set()
    order = load_order((kernel.modules / "modules.dep").read_text())
    needed = [need.module for need in NEEDS if need.module is not None]
    chosen: dict[str, None] = {}
    for name in (*needed, *OPTIONAL_MODULES):
        if name in builtin or name not in at_hand:
            continue
        for path in order[at_hand[name].relative_to(kernel.modules).as_posix()]:
            chosen[path] = None
    found = tuple(kernel.modules / path for path in chosen)
    packed = [path.name for path in found if path.suffix != ".ko"]
    if packed:
        raise KernelError(f"modules of {kernel.release} are still compressed: {', '.join(packed)}")
    return found


def load_order(modules_dep: str) -> dict[str, tuple[str, ...]]:
    r"""Of each module of a modules.dep file, what to load in which order, itself last.

    depmod lists a module's whole closure, the nearest dependency first (modules.dep(5)).

    >>> load_order("a.ko: b.ko c.ko\nb.ko: c.ko\nc.ko:")["a.ko"]
    ('c.ko', 'b.ko', 'a.ko')
    """
    order = {}
    for line in modules_dep.splitlines():
        path, _, needs = line.partition(":")
        order[path] = (*reversed(needs.split()), path)
    return order


def agent_files(agent: Path, wire: Path) -> dict[str, bytes]:
    """The agent's package as it lies in the guest: name below /agent to content.

    wire.py, the messages, is the host's own file: both sides speak from one source. The file is
    read on every call, so that an edit takes effect at once.
    """
    files = {
        path.relative_to(agent).as_posix(): path.read_bytes()
        for path in sorted(agent.rglob("*.py"))
    }
    files["wire.py"] = wire.read_bytes()
    return files


def build(
    *,
    busybox: Path,
    init: Path,
    reaper: Path,
    agent: Mapping[str, bytes],
    modules: Sequence[Path],
) -> bytes:
    """The bytes of the initramfs."""
    members = [Member(name=name, mode=stat.S_IFDIR | 0o755) for name in _DIRECTORIES]
    # The kernel opens it for /init before anything is mounted.
    members.append(Member(name="dev/console", mode=stat.S_IFCHR | 0o600, device=(5, 1)))
    members.append(_file("bin/busybox", busybox.read_bytes(), 0o755))
    members.append(_file("init", init.read_bytes(), 0o755))
    members.append(_file("reaper", reaper.read_bytes(), 0o644))
    members += [_file(f"modules/{path.name}", path.read_bytes(), 0o644) for path in modules]
    listing = "".join(f"{path.name}\n" for path in modules)
    members.append(_file("modules/order", listing.encode(), 0o644))
    parents = sorted(
        {p.as_posix() for name in agent for p in Path(name).parents if p.as_posix() != "."}
    )
    members += [Member(name=f"agent/{name}", mode=stat.S_IFDIR | 0o755) for name in parents]
    members += [_file(f"agent/{name}", content, 0o644) for name, content in agent.items()]
    return newc(members)


def _file(name: str, content: bytes, permissions: int) -> Member:
    return Member(name=name, mode=stat.S_IFREG | permissions, content=content)
