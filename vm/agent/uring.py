"""A small io_uring: linux/io_uring.h, as far as the ublk driver (URING_CMD) and FSYNC need it.

One thread uses a ring. x86 keeps stores in order, and what else it takes, the system call does.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)
_SETUP, _ENTER = 425, 426
_SQE128 = 1 << 10
_SINGLE_MMAP = 1
_GETEVENTS = 1
_SQES_AT = 0x10000000
_FSYNC = 3
_FSYNC_DATASYNC = 1
_URING_CMD = 46
_SQE = struct.Struct("=BBHiIIQIIQ")  # opcode .. user_data: the first 40 of 64 or 128 bytes
_COMMAND_AT = 48
_COMMAND_ROOM = 80
_CQE = struct.Struct("=QiI")


class Done(NamedTuple):
    """A command that has completed: what it was called, and its result (negative: an errno)."""

    tag: int
    result: int


class Ring:
    """Commands go in by ``put`` and ``fsync``, and come out of ``wait``. Raises OSError.

    ``put`` needs a ring of ``wide`` entries, which are known since 5.19.
    """

    def __init__(self, entries: int, *, wide: bool = True) -> None:
        params = bytearray(120)
        self._size = 128 if wide else 64
        struct.pack_into("=I", params, 8, _SQE128 if wide else 0)
        block = (ctypes.c_char * len(params)).from_buffer(params)
        self._fd = _checked(_libc.syscall(ctypes.c_long(_SETUP), ctypes.c_uint(entries), block))
        words = struct.unpack("=30I", params)
        if not words[5] & _SINGLE_MMAP:
            raise OSError("io_uring has no single mapping here")
        submit, complete = words[10:17], words[20:26]
        self._sq_tail, self._sq_mask, self._array = submit[1], submit[2], submit[6]
        self._cq_head, self._cq_tail, self._cq_mask = complete[0], complete[1], complete[2]
        self._cqes = complete[5]
        size = max(self._array + words[0] * 4, self._cqes + words[1] * _CQE.size)
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self._rings = mmap.mmap(self._fd, size, flags)
        self._sqes = mmap.mmap(self._fd, words[0] * self._size, flags, offset=_SQES_AT)
        self._masks = self._word(self._sq_mask), self._word(self._cq_mask)
        self._waiting = 0

    def _word(self, at: int) -> int:
        return int(struct.unpack_from("=I", self._rings, at)[0])

    def put(self, tag: int, fd: int, operation: int, command: bytes) -> None:
        """Queue a command; ``wait`` submits it. There must be room: one for each entry."""
        room = command.ljust(_COMMAND_ROOM, b"\0")
        head = _SQE.pack(_URING_CMD, 0, 0, fd, operation, 0, 0, 0, 0, tag)
        self._queue(head + bytes(_COMMAND_AT - _SQE.size) + room)

    def fsync(self, tag: int, fd: int, *, data_only: bool = False) -> None:
        """Queue an fsync of a file, or an fdatasync; ``wait`` submits it."""
        flags = _FSYNC_DATASYNC if data_only else 0
        head = _SQE.pack(_FSYNC, 0, 0, fd, 0, 0, 0, 0, flags, tag)
        self._queue(head.ljust(self._size, b"\0"))

    def _queue(self, entry: bytes) -> None:
        tail = self._word(self._sq_tail)
        index = tail & self._masks[0]
        self._sqes[index * self._size : (index + 1) * self._size] = entry
        struct.pack_into("=I", self._rings, self._array + 4 * index, index)
        struct.pack_into("=I", self._rings, self._sq_tail, (tail + 1) & 0xFFFFFFFF)
        self._waiting += 1

    def wait(self) -> Iterator[Done]:
        """Submit what is queued, wait for one completion at least, and give all that there are."""
        call = _libc.syscall(
            ctypes.c_long(_ENTER),
            ctypes.c_uint(self._fd),
            ctypes.c_uint(self._waiting),
            ctypes.c_uint(1),
            ctypes.c_uint(_GETEVENTS),
            None,
            ctypes.c_size_t(0),
        )
        self._waiting -= _checked(call)
        head = self._word(self._cq_head)
        while head != self._word(self._cq_tail):
            at = self._cqes + (head & self._masks[1]) * _CQE.size
            tag, result, _ = _CQE.unpack_from(self._rings, at)
            head = (head + 1) & 0xFFFFFFFF
            struct.pack_into("=I", self._rings, self._cq_head, head)
            yield Done(tag, result)

    def close(self) -> None:
        """No more commands."""
        self._sqes.close()
        self._rings.close()
        os.close(self._fd)


def address(memory: mmap.mmap) -> int:
    """Where memory lies, for the kernel. It must be writable, and stay."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"io_uring: {os.strerror(code)}")
    return result
