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


@dataclass(frozen=True, kw_only=True)
class BootModule:
    """A module to load before the root is up; without `required` a failure is let pass."""

    path: Path
    required: bool = True


def boot_modules(kernel: Kernel) -> tuple[BootModule, ...]:
    """The modules to load before the root is up, dependencies first, each once.

    Raises KernelError when one is in a form the initramfs cannot load.
    """
    if kernel.modules is None:
        return ()
    choice = _Choice(tree=kernel.modules)
    for need in NEEDS:
        if need.module is not None:
            choice.add(need.module, required=True)
    for name in OPTIONAL_MODULES:
        choice.add(name, required=False)
    packed = [path for path in choice.chosen if not path.endswith(".ko")]
    if packed:
        raise KernelError(f"modules of {kernel.release} are still compressed: {', '.join(packed)}")
    return tuple(
        BootModule(path=kernel.modules / path, required=required)
        for path, required in choice.chosen.items()
    )


class _Choice:
    """Modules of a kernel chosen for loading, in order: path in its tree to "must load"."""

    def __init__(self, *, tree: Path) -> None:
        builtin = builtin_names(tree) or set()
        self._files = {
            name: path.relative_to(tree).as_posix()
            for name, path in module_names(tree).items()
            if name not in builtin
        }
        self._order = load_order((tree / "modules.dep").read_text())
        self._soft = soft_dependencies(
            softdep=_text(tree / "modules.softdep"), alias=_text(tree / "modules.alias")
        )
        self._entered: set[str] = set()
        self.chosen: dict[str, bool] = {}

    def add(self, name: str, *, required: bool) -> None:
        """Choose a module and what it needs, if this kernel has it as a module."""
        for path in self._order.get(self._files.get(name, ""), ()):
            if path not in self._entered:
                self._entered.add(path)
                # libcrc32c, which erofs needs, finds its checksum only if that was loaded before
                # ("pre: crc32c"); which of several modules it is, is the processor's matter.
                for wanted in self._soft.get(Path(path).stem.replace("-", "_"), ()):
                    self.add(wanted, required=False)
            self.chosen[path] = required or self.chosen.get(path, False)


def soft_dependencies(*, softdep: str, alias: str) -> dict[str, tuple[str, ...]]:
    r"""Of each module, the names of those that modules.softdep wants loaded before it.

    They are often given by an alias that several modules have; plain ones (`*_generic`) come first.

    >>> soft_dependencies(
    ...     softdep="softdep libcrc32c pre: crc32c",
    ...     alias="alias crc32c crc32c_intel\nalias crc32c crc32c_generic",
    ... )
    {'libcrc32c': ('crc32c_generic', 'crc32c_intel')}
    """
    meant: dict[str, list[str]] = {}
    for line in alias.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "alias":
            meant.setdefault(words[1].replace("-", "_"), []).append(words[2])
    found = {}
    for line in softdep.splitlines():
        words = line.split()
        if len(words) < 3 or words[0] != "softdep" or words[2] != "pre:":
            continue
        wanted: list[str] = []
        for word in words[3:]:
            if word == "post:":
                break
            name = word.replace("-", "_")
            wanted += sorted(meant.get(name, [name]), key=lambda one: not one.endswith("_generic"))
        found[words[1].replace("-", "_")] = tuple(wanted)
    return found


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


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
    modules: Sequence[BootModule],
) -> bytes:
    """The bytes of the initramfs."""
    members = [Member(name=name, mode=stat.S_IFDIR | 0o755) for name in _DIRECTORIES]
    # The kernel opens it for /init before anything is mounted.
    members.append(Member(name="dev/console", mode=stat.S_IFCHR | 0o600, device=(5, 1)))
    members.append(_file("bin/busybox", busybox.read_bytes(), 0o755))
    members.append(_file("init", init.read_bytes(), 0o755))
    members.append(_file("reaper", reaper.read_bytes(), 0o644))
    members += [_file(f"modules/{one.path.name}", one.path.read_bytes(), 0o644) for one in modules]
    # A line for each, in order: `NAME.ko` or `NAME.ko optional`.
    listing = "".join(f"{one.path.name}{'' if one.required else ' optional'}\n" for one in modules)
    members.append(_file("modules/order", listing.encode(), 0o644))
    parents = sorted(
        {p.as_posix() for name in agent for p in Path(name).parents if p.as_posix() != "."}
    )
    members += [Member(name=f"agent/{name}", mode=stat.S_IFDIR | 0o755) for name in parents]
    members += [_file(f"agent/{name}", content, 0o644) for name, content in agent.items()]
    return newc(members)


def _file(name: str, content: bytes, permissions: int) -> Member:
    return Member(name=name, mode=stat.S_IFREG | permissions, content=content)
