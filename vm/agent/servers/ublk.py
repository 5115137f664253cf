"""A ublk server: linux/ublk_cmd.h over io_uring, one queue, one process.

The driver copies the data of a write into the buffer of its tag before the server hears of it, and the
data of a read out of it when the server commits.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import time

from agent import kernel
from agent.basics import BLOCK
from agent.servers.conduct import LATE, Answer, Conduct
from agent.servers.store import Store
from agent.uring import Ring, address

CONTROL = "/dev/ublk-control"
DEPTH = 16
LARGEST = 512 << 10
"""Bytes of the largest request."""

_ADD, _DELETE, _START, _STOP, _SET_PARAMS = 0x04, 0x05, 0x06, 0x07, 0x08
_FETCH, _COMMIT = 0x20, 0x21
_COMMAND = struct.Struct("=IHHQQHHI")  # dev_id, queue_id, len, addr, data, path_len, pad, reserved
_INFO = struct.Struct("=HHHHIIiIQQIIQQ")
# len, types; attrs, shifts of block sizes, max_sectors, chunk_sectors, dev_sectors, boundary
_PARAMS = struct.Struct("=IIIBBBBIIQQ")
_BASIC = 1
_VOLATILE_CACHE = 1 << 2
_IO = struct.Struct("=HHiQ")  # q_id, tag, result, addr
_DESCRIPTOR = struct.Struct("=IIQQ")  # op and flags, sectors, first sector, addr
_READ, _WRITE, _FLUSH, _DISCARD = range(4)
_NO_QUEUE = 0xFFFF
_STARTED = 1 << 32
"""What the command START_DEV is called in the ring: no tag of a request."""


def _operation(number: int, size: int) -> int:
    """_IOWR('u', number, a struct of so many bytes)."""
    return 3 << 30 | size << 16 | ord("u") << 8 | number


def control(number: int, word: int, *, data: int = 0, buffer: bytes = b"") -> bytes:
    """One control command for /dev/ublkcN, to its end; the buffer as the driver left it."""
    fd = os.open(CONTROL, os.O_RDWR)
    ring = Ring(4)
    memory = mmap.mmap(-1, BLOCK)
    memory[: len(buffer)] = buffer
    command = _command(number, memory, len(buffer), data)
    ring.put(0, fd, _operation(word, _COMMAND.size), command)
    for done in ring.wait():
        if done.result < 0:
            raise OSError(-done.result, f"ublk command {word}: {os.strerror(-done.result)}")
    found = memory[: len(buffer)]
    ring.close()
    os.close(fd)
    return found


def _command(number: int, memory: mmap.mmap, length: int, data: int) -> bytes:
    where = address(memory) if length else 0
    return _COMMAND.pack(number, _NO_QUEUE, length, where, data, 0, 0, 0)


def stop(number: int) -> None:
    """Take the disk away: waits for its requests to end. Raises OSError."""
    control(number, _STOP)


def delete(number: int) -> None:
    """Take the device away: waits for its server to end. Raises OSError."""
    control(number, _DELETE)


class Server:
    """Makes /dev/ublkbN of ``store`` and serves it until it is stopped."""

    def __init__(self, number: int, store: Store, conduct: Conduct) -> None:
        self._number = number
        self._store = store
        self._conduct = conduct
        info = _INFO.pack(1, DEPTH, 0, 0, LARGEST, number, 0, 0, 0, 0, 0, 0, 0, 0)
        control(number, _ADD, buffer=info)
        shift = BLOCK.bit_length() - 1
        sectors = store.size // 512
        params = _PARAMS.pack(
            *(_PARAMS.size, _BASIC, _VOLATILE_CACHE, shift, shift, shift, shift),
            *(LARGEST // 512, 0, sectors, 0),
        )
        control(number, _SET_PARAMS, buffer=params)
        self._fd = os.open(f"/dev/ublkc{number}", os.O_RDWR)
        length = -(-DEPTH * _DESCRIPTOR.size // BLOCK) * BLOCK
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self._descriptors = mmap.mmap(self._fd, length, flags, mmap.PROT_READ)
        self._buffers = mmap.mmap(-1, DEPTH * LARGEST, mmap.MAP_PRIVATE)
        self._view = memoryview(self._buffers)
        self._at = address(self._buffers)
        self._ring = Ring(2 * DEPTH + 2)
        self._fetching = DEPTH

    def serve(self) -> None:
        """Bring the disk into use, and answer requests until it is stopped."""
        for tag in range(DEPTH):
            self._put(_FETCH, tag, 0)
        # It looks for partitions, by requests that are answered below.
        memory = mmap.mmap(-1, BLOCK)
        fd = os.open(CONTROL, os.O_RDWR)
        start = _command(self._number, memory, 0, os.getpid())
        self._ring.put(_STARTED, fd, _operation(_START, _COMMAND.size), start)
        while self._fetching:
            for done in self._ring.wait():
                if done.tag == _STARTED:
                    if done.result < 0:
                        raise OSError(-done.result, f"START_DEV: {os.strerror(-done.result)}")
                elif done.result == 0:
                    self._one(done.tag)
                elif done.result == -errno.ENODEV:
                    self._fetching -= 1
                # Else a command that came twice: the driver refuses the second.

    def _put(self, word: int, tag: int, result: int) -> None:
        command = _IO.pack(0, tag, result, self._at + tag * LARGEST)
        self._ring.put(tag, self._fd, _operation(word, _IO.size), command)

    def _one(self, tag: int) -> None:
        word, sectors, first, _ = _DESCRIPTOR.unpack_from(self._descriptors, tag * _DESCRIPTOR.size)
        kind, offset, length = word & 0xFF, first * 512, sectors * 512
        answer = Answer(error=errno.EOPNOTSUPP)
        if kind == _READ:
            data = self._conduct.read(self._store, offset, length)
            self._view[tag * LARGEST :][:length] = data
            answer = Answer(stored=length)
        elif kind == _WRITE:
            answer = self._conduct.write(self._store, offset, self._view[tag * LARGEST :][:length])
        elif kind == _FLUSH:
            answer = self._conduct.flush(self._store)
        elif kind == _DISCARD:
            self._store.discard(offset, length)
            answer = Answer()
        self._say(tag, answer)

    def _say(self, tag: int, answer: Answer) -> None:
        if answer.way == "die":
            os._exit(0)
        if answer.way == "silence":
            return
        if answer.way == "late":
            time.sleep(LATE)
        result = -answer.error if answer.error else answer.stored
        for _ in range(2 if answer.way == "twice" else 1):
            self._put(_COMMIT, tag, result)


def run(number: int, store: Store, conduct: Conduct) -> None:
    """The server's process, from its fork to its end. Never returns."""
    code = 1
    try:
        store.serving(os.getpid())
        server = Server(number, store, conduct)
        kernel.mlockall(kernel.MCL_CURRENT | kernel.MCL_ONFAULT)
        server.serve()
        code = 0
    except BaseException as error:  # noqa: BLE001 - the agent is told, whatever it is
        store.complain(f"the server failed: {type(error).__name__}: {error}")
    finally:
        os._exit(code)
