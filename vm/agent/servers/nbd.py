"""A server of the NBD protocol's transmission phase, over connected sockets.

One process, one request at a time, so that what it stores and counts needs no lock. It ends when its
last connection ends. Protocol: doc/proto.md of the NBD project, "Transmission phase".
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Sequence

from agent import kernel
from agent.servers.conduct import LATE, Answer, Conduct
from agent.servers.store import Store

_REQUEST = struct.Struct(">IHHQQI")  # magic, flags, type, handle, offset, length
_REPLY = struct.Struct(">IIQ")  # magic, error, handle
_REQUEST_MAGIC = 0x25609513
_REPLY_MAGIC = 0x67446698
_READ, _WRITE, _DISCONNECT, _FLUSH, _TRIM = range(5)

FLAGS = 0x01 | 0x04 | 0x20
"""NBD_FLAG_HAS_FLAGS, SEND_FLUSH, SEND_TRIM: what this server can do."""
MULTI_CONN = 0x100
"""NBD_FLAG_CAN_MULTI_CONN: several connections see the same data."""
_LARGEST = 32 << 20
_FIRST_BUFFER = 2 << 20
WENT_AWAY = 3
"""Exit status of a server that went away because it was full."""


class Server:
    """Serves ``store`` until the last of ``connections`` ends."""

    def __init__(
        self, store: Store, conduct: Conduct, connections: Sequence[socket.socket]
    ) -> None:
        self._store = store
        self._conduct = conduct
        self._connections = {one.fileno(): one for one in connections}
        self._poll = select.poll()
        for fd in self._connections:
            self._poll.register(fd, select.POLLIN)
        self._buffer = memoryview(bytearray(_FIRST_BUFFER))
        self._header = memoryview(bytearray(_REQUEST.size))

    def serve(self) -> None:
        """Answer requests until nobody is connected any more."""
        while self._connections:
            for fd, _ in self._poll.poll():
                connection = self._connections.get(fd)
                if connection is not None and not self._one(connection):
                    self._hang_up(connection)

    def _hang_up(self, connection: socket.socket) -> None:
        self._poll.unregister(connection.fileno())
        del self._connections[connection.fileno()]
        connection.close()

    def _one(self, connection: socket.socket) -> bool:
        """One request: whether the connection goes on."""
        try:
            if not _receive(connection, self._header):
                return False
            magic, _, kind, handle, offset, length = _REQUEST.unpack(self._header)
            if magic != _REQUEST_MAGIC or kind == _DISCONNECT or length > _LARGEST:
                return False
            return self._answer(connection, kind, handle, offset, length)
        except OSError:
            # The kernel has closed the connection in the midst of an answer.
            return False

    def _answer(
        self, connection: socket.socket, kind: int, handle: int, offset: int, length: int
    ) -> bool:
        inside = offset + length <= self._store.size
        if kind == _READ and inside:
            connection.sendall(_REPLY.pack(_REPLY_MAGIC, 0, handle))
            connection.sendall(self._conduct.read(self._store, offset, length))
            return True
        if kind == _WRITE:
            if length > len(self._buffer):
                self._buffer = memoryview(bytearray(length))
            data = self._buffer[:length]
            if not _receive(connection, data):
                return False
            # A reply of this protocol has no count: what was not stored whole is an error.
            answer = (
                self._conduct.write(self._store, offset, data)
                if inside
                else Answer(error=errno.ENOSPC)
            )
            if answer.way == "reply" and not answer.error and answer.stored < length:
                answer = Answer(error=self._conduct.error)
            return self._say(connection, handle, answer)
        if kind == _FLUSH:
            return self._say(connection, handle, self._conduct.flush(self._store))
        if kind == _TRIM and inside:
            self._store.discard(offset, length)
            return self._say(connection, handle, Answer())
        return self._say(connection, handle, Answer(error=errno.EINVAL))

    def _say(self, connection: socket.socket, handle: int, answer: Answer) -> bool:
        reply = _REPLY.pack(_REPLY_MAGIC, answer.error, handle)
        if answer.way == "silence":
            return True
        if answer.way == "hang_up":
            return False
        if answer.way == "die":
            os._exit(WENT_AWAY)
        if answer.way == "half_reply":
            connection.sendall(reply[: len(reply) // 2])
            return False
        if answer.way == "late":
            time.sleep(LATE)
        connection.sendall(reply * (2 if answer.way == "twice" else 1))
        return True


def _receive(connection: socket.socket, into: memoryview) -> bool:
    """Fill ``into``; False at the end of the stream."""
    got = 0
    while got < len(into):
        count = connection.recv_into(into[got:], 0, socket.MSG_WAITALL)
        if count == 0:
            return False
        got += count
    return True


def run(store: Store, conduct: Conduct, connections: Sequence[socket.socket]) -> None:
    """The server's process, from its fork to its end. Never returns."""
    code = 1
    try:
        store.serving(os.getpid())
        server = Server(store, conduct, connections)
        # What it has, it keeps: a server that waits for memory would hold up what frees memory.
        kernel.mlockall(kernel.MCL_CURRENT | kernel.MCL_ONFAULT)
        server.serve()
        code = 0
    except BaseException as error:  # noqa: BLE001 - the agent is told, whatever it is
        store.complain(f"the server failed: {type(error).__name__}: {error}")
    finally:
        os._exit(code)
