"""Made-up kernels: a bzImage header and ELF modules that hold just what tools read."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping
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
    """A relocatable ELF file with a .modinfo section, which is what kmod reads."""
    name = path.name.split(".")[0].replace("-", "_")
    info = "".join(
        f"{line}\0"
        for line in (
            f"name={name}",
            f"vermagic={release} SMP preempt mod_unload ",
            f"depends={depends}",
            f"description={note}",
        )
    ).encode()
    names = b"\0.shstrtab\0.modinfo\0.symtab\0.strtab\0"
    symbols = bytes(24)
    bodies = [names, info, symbols, b"\0"]
    offset, placed = 64, []
    for body in bodies:
        placed.append(offset)
        offset += len(body) + (-len(body) % 8)
    table = offset

    def section(title: bytes, kind: int, index: int, link: int = 0, size: int = 0) -> bytes:
        where = names.index(b"\0" + title + b"\0") + 1
        length = len(bodies[index])
        return struct.pack(
            "<IIQQQQIIQQ", where, kind, 2 * (kind == 1), 0, placed[index], length, link, 1, 8, size
        )

    sections = [
        bytes(64),
        section(b".shstrtab", 3, 0),
        section(b".modinfo", 1, 1),
        section(b".symtab", 2, 2, link=4, size=24),
        section(b".strtab", 3, 3),
    ]
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        *(1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, len(sections), 1),
    )
    data = bytearray(header)
    for body in bodies:
        data += body + bytes(-len(body) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(data) + b"".join(sections))
    return path


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
