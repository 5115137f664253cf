"""Templates: a guest that has booted, frozen at the moment its agent is ready, to be copied.

A template is a directory of the cache: ``memory`` (the guest's memory, sparse), ``state`` (the rest:
devices, CPU), ``console`` (what was said during the boot) and ``manifest.json``. QEMU's
docs/system/vm-templating.rst describes the way; ``x-ignore-shared`` keeps the memory out of the state.

A clone maps the memory file copy-on-write, so clones share what they do not change. A template holds
its files open: removing the directory does not hurt it or its clones.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from conformance.machine.cache import Cache

KIND = "template"
FORMAT = 2
KEPT = 6
"""So many templates stay in the cache, the last used; each is as large as what its guest touched."""

_PAGE = 4096
_CHUNK = 1 << 20


class TemplateError(Exception):
    """A template cannot be made or is damaged. One line."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a whole template consists of; written last. ``boot_seconds``: from QEMU's start to the
    agent's greeting. ``facts``: what the agent said of itself."""

    format: int
    memory_bytes: int
    memory_blocks: int
    memory_crc32: int
    state_sha256: str
    console_sha256: str
    boot_seconds: float
    facts: dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """What a template is written from. ``memory`` is a descriptor that stays the maker's."""

    memory: int
    state: bytes
    console: bytes
    boot_seconds: float
    facts: Mapping[str, object]


class Template:
    """A template whose files are open. Raises TemplateError if it is not whole."""

    def __init__(self, directory: Path) -> None:
        try:
            manifest = Manifest(**json.loads((directory / "manifest.json").read_text()))
            self.state = (directory / "state").read_bytes()
            self.console = (directory / "console").read_bytes()
            self.memory = os.open(directory / "memory", os.O_RDWR | os.O_CLOEXEC)
            Cache.hold(self.memory)
        except (OSError, ValueError, TypeError) as error:
            raise TemplateError(f"the template is damaged: {error}") from error
        self._close = weakref.finalize(self, os.close, self.memory)
        self.manifest = manifest
        if problem := self._problem():
            self._close()
            raise TemplateError(f"the template is damaged: {problem}")

    def _problem(self) -> str:
        manifest = self.manifest
        if manifest.format != FORMAT:
            return f"its format is {manifest.format}"
        if _digest(self.state) != manifest.state_sha256:
            return "its state is not what was written"
        if _digest(self.console) != manifest.console_sha256:
            return "its console is not what was written"
        status = os.fstat(self.memory)
        if status.st_size != manifest.memory_bytes:
            return f"its memory has {status.st_size} bytes, not {manifest.memory_bytes}"
        if status.st_blocks * 2 < manifest.memory_blocks:
            # Half, since a file system may count its own overhead, or pack more tightly later.
            return "much of its memory is missing"
        # Against a disk that fails, not against an enemy: crc32 takes 21 ms of 85 MB, sha256 49 ms.
        if _crc32(self.memory, status.st_size) != manifest.memory_crc32:
            return "its memory is not what was written"
        return ""

    def open_state(self) -> int:
        """A descriptor of the state at its beginning, for one clone; the caller closes it."""
        fd = os.memfd_create("template-state")
        _write_at(fd, self.state, 0)
        return fd

    def close(self) -> None:
        """Close the files. Clones that run have their own."""
        self._close()


def obtain(cache: Cache, key: str, build: Callable[[Path], None]) -> Template:
    """The template ``key``; if it is not there, ``build(directory)`` makes one with ``write``.

    A damaged one is made anew, once. Raises TemplateError, and what ``build`` and the cache raise.
    """
    for last in (False, True):
        fresh = not cache.entry(KIND, key).is_dir()
        entry = cache.build_once(KIND, key, build)
        try:
            template = Template(entry)
        except TemplateError:
            if last:
                raise
            cache.discard(KIND, key)
            continue
        if fresh:
            cache.keep_newest(KIND, KEPT)
        return template
    raise AssertionError("unreachable")


def write(directory: Path, frozen: Frozen) -> None:
    """Write a template's files into ``directory``, the manifest last. Raises OSError."""
    size = os.fstat(frozen.memory).st_size
    crc32 = _crc32(frozen.memory, size)
    _copy_sparse(frozen.memory, directory / "memory", size)
    (directory / "state").write_bytes(frozen.state)
    (directory / "console").write_bytes(frozen.console)
    manifest = Manifest(
        format=FORMAT,
        memory_bytes=size,
        memory_blocks=(directory / "memory").stat().st_blocks,
        memory_crc32=crc32,
        state_sha256=_digest(frozen.state),
        console_sha256=_digest(frozen.console),
        boot_seconds=round(frozen.boot_seconds, 3),
        facts=dict(frozen.facts),
    )
    (directory / "manifest.json").write_text(json.dumps(asdict(manifest), indent=1))


def _copy_sparse(source: int, target: Path, size: int) -> None:
    """Copy without the pages that are all zero: a hole reads the same."""
    zero = bytes(_CHUNK)
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size)
        at = 0
        while at < size:
            try:
                at = os.lseek(source, at, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole is left
                break
            end = os.lseek(source, at, os.SEEK_HOLE)
            while at < end:
                chunk = os.pread(source, min(_CHUNK, end - at), at)
                if chunk != zero[: len(chunk)]:
                    _write_pages(fd, chunk, at, zero[:_PAGE])
                at += len(chunk)
        # st_blocks is not final before that, where blocks are allocated late.
        os.fsync(fd)
    finally:
        os.close(fd)


def _crc32(fd: int, size: int) -> int:
    """The checksum of all that is not zero, and of where it is: holes and zeros count the same."""
    zero = bytes(_CHUNK)
    sum_ = at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA) // _CHUNK * _CHUNK
        except OSError:  # ENXIO: nothing but a hole is left
            break
        chunk = os.pread(fd, _CHUNK, at)
        if chunk != zero[: len(chunk)]:
            sum_ = zlib.crc32(chunk, zlib.crc32(at.to_bytes(8, "big"), sum_))
        at += _CHUNK
    return sum_


def _write_pages(fd: int, chunk: bytes, at: int, zero: bytes) -> None:
    start: int | None = None
    for offset in range(0, len(chunk) + _PAGE, _PAGE):
        page = chunk[offset : offset + _PAGE]
        if page and page != zero:
            start = offset if start is None else start
        elif start is not None:
            _write_at(fd, memoryview(chunk)[start:offset], at + start)
            start = None


def _write_at(fd: int, data: bytes | memoryview, at: int) -> None:
    left = memoryview(data)
    while left:
        done = os.pwrite(fd, left, at)
        left, at = left[done:], at + done


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
