"""What a bzImage says of itself: that it is one, its release, and perhaps its configuration.

The header's fields are those of Documentation/arch/x86/boot.rst of the kernel.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from conformance.machine.tool import ArtifactError, run

_SETUP_SECTS = 0x1F1
_BOOT_FLAG = 0x1FE
_HDRS = 0x202
_KERNEL_VERSION = 0x20E
_PAYLOAD = 0x248  # offset and length of the compressed kernel; boot protocol 2.08, since 2.6.26
_SECTOR = 512
_HEADER_BYTES = 64 * 1024

# CONFIG_IKCONFIG puts a gzip file between these two marks (kernel/configs.c).
_IKCONFIG_START = b"IKCFG_ST"
_IKCONFIG_END = b"IKCFG_ED"


class KernelError(ArtifactError):
    """The kernel asked for is not there, is no kernel, or cannot boot the guest."""


def read_release(path: Path) -> str:
    """The release (what `uname -r` will say) in a bzImage's header.

    Raises KernelError when the file cannot be read or is not a bzImage.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEADER_BYTES)
    except FileNotFoundError as error:
        raise KernelError(f"{path} does not exist: name a kernel, or build one") from error
    except OSError as error:
        raise KernelError(f"{path} cannot be read ({error.strerror})") from error
    if head[_HDRS : _HDRS + 4] != b"HdrS" or head[_BOOT_FLAG : _BOOT_FLAG + 2] != b"\x55\xaa":
        raise KernelError(f"{path} is not a bzImage{_hint(head)}")
    (offset,) = struct.unpack_from("<H", head, _KERNEL_VERSION)
    banner = head[offset + 0x200 :].split(b"\0", 1)[0].decode("ascii", "replace")
    if not offset or not banner.strip():
        raise KernelError(f"{path} has no release in its header: it was not built by kbuild")
    return banner.split()[0]


def _hint(head: bytes) -> str:
    if head.startswith(b"\x7fELF"):
        return " but an ELF file: give arch/x86/boot/bzImage, not vmlinux"
    if head.startswith(b"!<arch>"):
        return " but a package: its name must end in .deb"
    return ": give the file `make bzImage` leaves in arch/x86/boot/"


def embedded_config(path: Path) -> str | None:
    """The .config inside a kernel built with CONFIG_IKCONFIG=y; None when there is none to be had.

    None also when the kernel is compressed in a way nothing here can undo.
    """
    data = path.read_bytes()
    offset, length = struct.unpack_from("<II", data, _PAYLOAD)
    start = (data[_SETUP_SECTS] + 1) * _SECTOR + offset
    kernel = _decompress(data[start : start + length])
    begin = kernel.find(_IKCONFIG_START + b"\x1f\x8b")
    end = kernel.find(_IKCONFIG_END, begin)
    if begin < 0 or end < 0:
        return None
    return gzip.decompress(kernel[begin + len(_IKCONFIG_START) : end]).decode()


def _decompress(payload: bytes) -> bytes:
    ways: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
        (b"\x1f\x8b", lambda data: zlib.decompressobj(wbits=31).decompress(data)),
        (b"\xfd7zXZ", lambda data: lzma.LZMADecompressor().decompress(data)),
        (b"BZh", lambda data: bz2.BZ2Decompressor().decompress(data)),
        (b"\x5d\x00\x00", lambda data: lzma.LZMADecompressor().decompress(data)),
        # kbuild appends the unpacked size, 4 bytes, to every compressed kernel but gzip's.
        (b"\x28\xb5\x2f\xfd", lambda data: run(["zstd", "-dcq"], stdin=data[:-4])),
    )
    for magic, way in ways:
        if payload.startswith(magic):
            try:
                return way(payload)
            except (ArtifactError, zlib.error, lzma.LZMAError, OSError, EOFError):
                return b""
    return b""
