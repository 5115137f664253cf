"""Made-up kernels: a bzImage header and ELF modules that hold just what tools read."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RELEASE = "6.9.0-made-up"

CONFIG = """\
CONFIG_64BIT=y
CONFIG_BINFMT_ELF=y
CONFIG_BINFMT_SCRIPT=y
CONFIG_BLK_DEV_INITRD=y
CONFIG_PROC_FS=y
CONFIG_SYSFS=y
CONFIG_DEVTMPFS=y
CONFIG_TMPFS=y
CONFIG_SERIAL_8250_CONSOLE=y
CONFIG_PCI=y
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_BLK=y
CONFIG_VIRTIO_CONSOLE=y
CONFIG_EROFS_FS=y
CONFIG_EROFS_FS_ZIP=y
CONFIG_OVERLAY_FS=y
# CONFIG_DM_DUST is not set
"""


def bzimage(path: Path, release: str = RELEASE, config: str | None = None) -> Path:
    """A file with a bzImage's header, and CONFIG_IKCONFIG's section when a config is given."""
    payload = gzip.compress(
        b"vmlinux" + (b"IKCFG_ST" + gzip.compress(config.encode()) + b"IKCFG_ED" if config else b"")
    )
    setup = bytearray(4 * 512)
    setup[0x1F1] = 3
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x20E, 0x300)
    struct.pack_into("<II", setup, 0x248, 0, len(payload))
    banner = f"{release} (someone@somewhere) #1 SMP\0".encode()
    setup[0x500 : 0x500 + len(banner)] = banner
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(setup) + payload)
    return path


def module(path: Path, release: str = RELEASE, depends: str = "", note: str = "") -> Path:
    """A relocatable ELF file with what kmod reads of one: .modinfo, exports and undefined symbols.

    depmod goes by symbols, so the module NAME exports sym_NAME and wants those of what it depends
    on (names separated by commas).
    """
    name = path.name.split(".")[0].replace("-", "_")
    info = (
        f"name={name}\0vermagic={release} SMP mod_unload \0depends={depends}\0description={note}\0"
    )
    strings, symbols = b"\0", bytes(24)
    for wanted in filter(None, depends.split(",")):
        # A global symbol (bind 1) of no section: undefined.
        symbols += struct.pack("<IBBHQQ", len(strings), 1 << 4, 0, 0, 0, 0)
        strings += f"sym_{wanted}\0".encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        _elf(
            _Section(name=".modinfo", kind=1, content=info.encode()),
            _Section(name="__ksymtab_strings", kind=1, content=f"sym_{name}\0".encode()),
            _Section(name=".symtab", kind=2, content=symbols, link=4, entry=24),
            _Section(name=".strtab", kind=3, content=strings),
        )
    )
    return path


@dataclass(frozen=True, kw_only=True)
class _Section:
    name: str
    kind: int
    content: bytes
    link: int = 0
    entry: int = 0


def _elf(*sections: _Section) -> bytes:
    """An x86-64 relocatable file with these sections, numbered from 1, and their names last."""
    titles = "\0".join(["", *(section.name for section in sections), ".shstrtab", ""]).encode()
    everything = [*sections, _Section(name=".shstrtab", kind=3, content=titles)]
    body, table = b"", bytes(64)
    for section in everything:
        title = titles.index(f"\0{section.name}\0".encode()) + 1
        flags = 2 if section.kind == 1 else 0
        place, size = 64 + len(body), len(section.content)
        table += struct.pack("<IIQQQQ", title, section.kind, flags, 0, place, size)
        table += struct.pack("<IIQQ", section.link, 0, 1, section.entry)
        body += section.content + bytes(-size % 8)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQI", 1, 62, 1, 0, 0, 64 + len(body), 0)
    header += struct.pack("<HHHHHH", 64, 0, 0, 64, len(everything) + 1, len(everything))
    return header + body + table


def tree(
    top: Path,
    *,
    release: str = RELEASE,
    config: str = CONFIG,
    modules: Mapping[str, str] | None = None,
    order_prefix: str = "",
    order_suffix: str = ".o",
) -> Path:
    """A kernel build tree; modules maps a .ko's path in the tree to what it depends on."""
    bzimage(top / "arch/x86/boot/bzImage", release)
    (top / ".config").write_text(config)
    (top / "include/config").mkdir(parents=True)
    (top / "include/config/kernel.release").write_text(f"{release}\n")
    (top / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    lines = []
    for name, depends in (modules or {}).items():
        module(top / name, release, depends)
        lines.append(f"{order_prefix}{name.removesuffix('.ko')}{order_suffix}\n")
    (top / "modules.order").write_text("".join(lines))
    return top
