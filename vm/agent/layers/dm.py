"""Device-mapper devices: made, changed and removed by dmsetup; status and messages by ioctl(2).

There is no udev in the guest: without DM_DISABLE_UDEV dmsetup would wait for it, or make plain files
in /dev. Status is asked without a fork, and without a flush, since a gauge is read after every step.
A message is sent without a fork because there may be hundreds of them.
"""

from __future__ import annotations

import fcntl
import os
import struct

from agent.basics import Json, RigError
from agent.layers.base import Layer, Site, said, succeeded

SECTOR = 512
ENV = {"DM_DISABLE_UDEV": "1"}
LIMIT = 30.0
"""Seconds for any of these commands. A suspension waits for requests in flight."""
_CONTROL = "/dev/mapper/control"

# linux/dm-ioctl.h: struct dm_ioctl, struct dm_target_spec, DM_TABLE_STATUS and DM_TARGET_MSG.
_HEAD = struct.Struct("=3I4i3IQ128s129s7s")
_TARGET = struct.Struct("=QQiI16s")
_TABLE_STATUS = 3 << 30 | _HEAD.size << 16 | 0xFD << 8 | 12
_TARGET_MESSAGE = 3 << 30 | _HEAD.size << 16 | 0xFD << 8 | 14
_VERSION = (4, 0, 0)
_NOFLUSH = 1 << 11
_ROOM = 16384

Table = list[tuple[int, str, str]]
"""(bytes, target, its arguments) of each stretch of a device, in order."""


def device(name: str) -> str:
    """The node of a device."""
    return f"/dev/mapper/{name}"


def text(table: Table) -> str:
    """A table as dmsetup reads it."""
    lines, start = [], 0
    for length, target, words in table:
        lines.append(f"{start} {length // SECTOR} {target} {words}".rstrip())
        start += length // SECTOR
    return "\n".join(lines)


def linear(base: Layer | str, offset: int, length: int) -> tuple[int, str, str]:
    """A stretch of another device, in bytes, for a table."""
    path = base if isinstance(base, str) else base.path
    return length, "linear", f"{path} {offset // SECTOR}"


def create(site: Site, name: str, table: Table) -> str:
    """Make a device: its path. Raises RigError."""
    command = try_create(site, name, table)
    if not succeeded(command):
        raise RigError(f"dmsetup create {name}: {said(command)}")
    return device(name)


def try_create(site: Site, name: str, table: Table, limit: float = LIMIT) -> Json:
    """Make a device; the command, whatever came of it."""
    return site.run(["dmsetup", "create", name, "--table", text(table)], limit, ENV)


def remove(site: Site, name: str, limit: float = LIMIT) -> Json:
    """Remove a device; the command. ``exists`` tells whether it went."""
    return site.run(["dmsetup", "remove", "--retry", name], limit, ENV)


def reload(site: Site, name: str, table: Table, *, flush: bool = True) -> None:
    """Give a device another table: load, suspend, resume. Raises RigError.

    Without ``flush`` requests that wait are handed to the new table, and neither waited for nor
    flushed first: what a device needs whose requests wait for its new table.
    """
    site.must(["dmsetup", "reload", name, "--table", text(table)], LIMIT, ENV)
    suspend(site, name, flush=flush)
    site.must(["dmsetup", "resume", name], LIMIT, ENV)


def suspend(site: Site, name: str, *, flush: bool = True) -> None:
    """Suspend a device. Raises RigError."""
    words = ["--nolockfs"] + ([] if flush else ["--noflush"])
    site.must(["dmsetup", "suspend", *words, name], LIMIT, ENV)


def message(name: str, *messages: str) -> None:
    """Send a device messages, one after the other. May wait in the kernel. Raises OSError."""
    for words in messages:
        # struct dm_target_msg: the sector, and the text.
        _ask(_TARGET_MESSAGE, name, 0, bytes(8) + words.encode())


def exists(name: str) -> bool:
    """Whether there is a device of that name."""
    try:
        status(name)
    except OSError:
        return False
    return True


def status(name: str) -> list[tuple[str, str]]:
    """(target, status line) of each stretch of a device. Raises OSError: there is none."""
    return parse_status(_ask(_TABLE_STATUS, name, _NOFLUSH))


def _ask(command: int, name: str, flags: int, payload: bytes = b"") -> bytes:
    head = _HEAD.pack(*_VERSION, _ROOM, _HEAD.size, 0, 0, flags, 0, 0, 0, name.encode(), b"", b"")
    buffer = bytearray((head + payload).ljust(_ROOM, b"\0"))
    fd = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, command, buffer)
    finally:
        os.close(fd)
    return bytes(buffer)


def parse_status(answer: bytes) -> list[tuple[str, str]]:
    """What DM_TABLE_STATUS answered."""
    fields = _HEAD.unpack_from(answer)
    start, count = fields[4], fields[5]
    found, place = [], start
    for _ in range(count):
        *_, following, target = _TARGET.unpack_from(answer, place)
        line = answer[place + _TARGET.size :].partition(b"\0")[0]
        found.append((target.rstrip(b"\0").decode(), line.decode("utf-8", "replace").strip()))
        place = start + following
    return found
