"""The NBD server over a socket: each way to be full, and each lie, as a client sees it."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from agent.basics import BLOCK
from agent.servers import conduct, nbd
from agent.servers.conduct import AT_LIMIT, LIES, Conduct
from agent.servers.nbd import Server
from agent.servers.store import Store

READ, WRITE, DISCONNECT, FLUSH, TRIM = range(5)
DATA = b"\x5a" * BLOCK
SPACE = 2


class Client:
    """A kernel's end of one connection."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        end.settimeout(5)

    def send(self, kind: int, offset: int = 0, length: int = 0, data: bytes = b"") -> None:
        self.end.sendall(struct.pack(">IHHQQI", 0x25609513, 0, kind, 77, offset, length) + data)

    def reply(self) -> int:
        """The errno of one reply; EOFError if the connection ends before it is whole."""
        magic, error, handle = struct.unpack(">IIQ", self.take(16))
        assert (magic, handle) == (0x67446698, 77)
        return int(error)

    def take(self, length: int) -> bytes:
        found = b""
        while len(found) < length:
            more = self.end.recv(length - len(found))
            if not more:
                raise EOFError(found)
            found += more
        return found

    def ask(self, kind: int, offset: int = 0, length: int = 0, data: bytes = b"") -> int:
        self.send(kind, offset, length, data)
        return self.reply()

    def write(self, block: int, count: int = 1) -> int:
        return self.ask(WRITE, block * BLOCK, count * BLOCK, DATA * count)

    def read(self, block: int, count: int = 1) -> bytes:
        assert self.ask(READ, block * BLOCK, count * BLOCK) == 0
        return self.take(count * BLOCK)


@contextmanager
def served(how: Conduct, connections: int = 1) -> Iterator[tuple[Store, list[Client]]]:
    """A server at work, with space for two blocks of sixteen."""
    store = Store(16 * BLOCK)
    store.limit = SPACE * BLOCK
    pairs = [socket.socketpair() for _ in range(connections)]
    server = Server(store, how, [theirs for _, theirs in pairs])
    thread = threading.Thread(target=server.serve)
    thread.start()
    clients = [Client(ours) for ours, _ in pairs]
    try:
        yield store, clients
    finally:
        for client in clients:
            client.end.close()
        thread.join(10)
        assert not thread.is_alive()
        store.close()


def test_an_honest_server_stores_refuses_and_goes_on() -> None:
    with served(Conduct()) as (store, [client]):
        assert client.write(3, 2) == 0
        assert client.write(5) == errno.ENOSPC
        assert client.write(3, 2) == 0
        assert client.read(3, 3) == DATA * 2 + bytes(BLOCK)
        assert client.ask(FLUSH) == 0
        assert (store.used, store.hits) == (2 * BLOCK, 1)
        assert client.ask(TRIM, 3 * BLOCK, BLOCK) == 0
        assert client.write(5) == 0
        assert client.ask(READ, 16 * BLOCK, BLOCK) == errno.EINVAL
        assert client.ask(WRITE, 16 * BLOCK, BLOCK, DATA) == errno.ENOSPC


def test_it_stores_a_part_and_names_an_error() -> None:
    with served(Conduct(at_limit="part", error=errno.EDQUOT)) as (store, [client]):
        assert client.write(0, 4) == errno.EDQUOT
        assert client.read(0, 4) == DATA * 2 + bytes(2 * BLOCK)
        assert store.hits == 1


def test_it_tells_of_its_cache_at_every_flush() -> None:
    with served(Conduct(at_limit="at_flush")) as (store, [client]):
        assert client.write(0, 4) == 0
        assert client.read(0, 4) == DATA * 4
        assert client.ask(FLUSH) == errno.ENOSPC
        assert client.ask(FLUSH) == errno.ENOSPC
        assert store.hits > 0
        store.limit = None
        assert client.ask(FLUSH) == 0
        assert store.used == 4 * BLOCK


@pytest.mark.parametrize(("way", "got"), [("hang_up", 0), ("half_reply", 8)])
def test_it_closes_the_connection(way: str, got: int) -> None:
    with served(Conduct(at_limit=way)) as (store, [client]):
        with pytest.raises(EOFError) as gone:
            client.write(0, 3)
        assert len(gone.value.args[0]) == got
        assert (store.hits, store.deaths) == (1, 1)


def test_a_server_that_hung_up_refuses_on_what_is_left() -> None:
    with served(Conduct(at_limit="hang_up"), connections=2) as (_, [first, second]):
        with pytest.raises(EOFError):
            first.write(0, 3)
        assert second.write(0, 3) == errno.ENOSPC
        assert second.write(0, 2) == 0


def test_silence_is_no_answer_to_that_request_only() -> None:
    with served(Conduct(at_limit="silence")) as (_, [client]):
        client.send(WRITE, 0, 3 * BLOCK, DATA * 3)
        assert client.ask(FLUSH) == 0


def test_it_dies_of_being_full() -> None:
    store = Store(16 * BLOCK)
    store.limit = 0
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        nbd.run(store, Conduct(at_limit="die"), [theirs])
    theirs.close()
    with pytest.raises(EOFError):
        Client(ours).write(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == nbd.WENT_AWAY
    assert (store.pid, store.deaths) == (pid, 1)
    ours.close()
    store.close()


def test_each_lie_is_seen_by_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "LATE", 0.01)
    monkeypatch.setattr(nbd, "LATE", 0.01)
    seen = {}
    for lie in LIES:
        with served(Conduct(lie=lie)) as (_, [client]):
            client.write(0, 2)
            client.send(WRITE, 2 * BLOCK, 2 * BLOCK, DATA * 2)
            told = -1 if lie == "never_answer" else client.reply()
            if lie == "twice":
                assert client.reply() == told
            held = client.read(0, 4)
            blocks = [held[at * BLOCK :][:BLOCK] == DATA for at in range(4)]
            seen[lie] = told, blocks
    nothing = [True, True, False, False]
    assert seen == {
        "ack_and_drop": (0, nothing),
        "wrong_errno": (errno.EPERM, nothing),
        "corrupt_read": (errno.ENOSPC, [False] * 4),
        "tear": (0, nothing),
        "overcommit": (0, [True] * 4),
        "never_answer": (-1, nothing),
        "late": (errno.ENOSPC, nothing),
        "twice": (errno.ENOSPC, nothing),
    }


def test_a_torn_write_holds_its_first_part_where_there_is_space() -> None:
    with served(Conduct(lie="tear")) as (store, [client]):
        assert client.write(0, 4) == 0
        assert client.read(0, 4) == DATA * 2 + bytes(2 * BLOCK)
        assert store.used == 2 * BLOCK


def test_a_rig_says_how_a_server_behaves() -> None:
    assert Conduct.of({}) == Conduct()
    asked = Conduct.of({"at_limit": "part", "reply": "quota", "behaviour": "late"})
    assert asked == Conduct(at_limit="part", error=errno.EDQUOT, lie="late")
    assert set(AT_LIMIT).isdisjoint(LIES)
