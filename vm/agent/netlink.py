"""Generic netlink, as far as the nbd driver needs it: linux/genetlink.h and linux/nbd-netlink.h.

Every function raises OSError with the kernel's errno.
"""

from __future__ import annotations

import os
import socket
import struct

_GENERIC = 16
_CONTROL = 16
_GET_FAMILY = 3
_FAMILY_ID, _FAMILY_NAME = 1, 2
_REQUEST, _ACK = 1, 4
_ERROR = 2
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_VERB = struct.Struct("=BBH")  # command, version, reserved

_CONNECT, _DISCONNECT, _RECONFIGURE = 1, 2, 3
_INDEX, _SIZE, _BLOCK_SIZE, _TIMEOUT, _SERVER_FLAGS, _CLIENT_FLAGS, _SOCKETS, _DEAD = range(1, 9)
_ITEM, _FD = 1, 1


def _attribute(kind: int, data: bytes) -> bytes:
    whole = struct.pack("=HH", 4 + len(data), kind) + data
    return whole + bytes(-len(whole) % 4)


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _u64(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=Q", value))


class _Link:
    """A netlink socket, and one question at a time."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _GENERIC)
        self._socket.bind((0, 0))

    def ask(self, family: int, command: int, attributes: bytes) -> list[bytes]:
        """Send a command and wait for its end: the attributes of what came before it."""
        body = _VERB.pack(command, 1, 0) + attributes
        length = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(length, family, _REQUEST | _ACK, 1, 0) + body)
        found: list[bytes] = []
        while True:
            data = self._socket.recv(1 << 16)
            while len(data) >= _HEADER.size:
                length, kind, *_ = _HEADER.unpack_from(data)
                if kind == _ERROR:
                    code = -int(struct.unpack_from("=i", data, _HEADER.size)[0])
                    if code:
                        raise OSError(code, os.strerror(code))
                    return found
                found.append(data[_HEADER.size + _VERB.size : length])
                data = data[-(-length // 4) * 4 :]

    def close(self) -> None:
        """No more questions."""
        self._socket.close()


def _ask_nbd(command: int, attributes: bytes) -> None:
    link = _Link()
    try:
        answers = link.ask(_CONTROL, _GET_FAMILY, _attribute(_FAMILY_NAME, b"nbd\0"))
        link.ask(_family(answers), command, attributes)
    finally:
        link.close()


def _family(answers: list[bytes]) -> int:
    for data in answers:
        at = 0
        while at + 4 <= len(data):
            length, kind = struct.unpack_from("=HH", data, at)
            if kind == _FAMILY_ID:
                return int(struct.unpack_from("=H", data, at + 4)[0])
            at += -(-max(4, length) // 4) * 4
    raise OSError("the kernel has no netlink family nbd")


def _sockets(fds: list[int]) -> bytes:
    items = b"".join(_attribute(_ITEM | _NESTED, _u32(_FD, fd)) for fd in fds)
    return _attribute(_SOCKETS | _NESTED, items)


def nbd_connect(
    number: int,
    fds: list[int],
    *,
    size: int,
    block: int,
    flags: int,
    timeout: int = 0,
    dead: int = 0,
) -> None:
    """Bring /dev/nbdN into use over connected sockets. Bytes, and seconds.

    ``dead``: how long a request may wait for a connection in place of one that ended.
    """
    attributes = _u32(_INDEX, number) + _u64(_SIZE, size) + _u64(_BLOCK_SIZE, block)
    attributes += _u64(_SERVER_FLAGS, flags)
    attributes += _u64(_TIMEOUT, timeout) if timeout else b""
    attributes += _u64(_DEAD, dead) if dead else b""
    _ask_nbd(_CONNECT, attributes + _sockets(fds))


def nbd_replace(number: int, fds: list[int], *, dead: int) -> None:
    """Give /dev/nbdN connections in place of those that ended."""
    _ask_nbd(_RECONFIGURE, _u32(_INDEX, number) + _u64(_DEAD, dead) + _sockets(fds))


def nbd_disconnect(number: int) -> None:
    """Take /dev/nbdN out of use."""
    _ask_nbd(_DISCONNECT, _u32(_INDEX, number))
