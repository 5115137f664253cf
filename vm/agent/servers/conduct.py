"""How a server answers a write: what the rig asks of it at its limit, and how it may lie.

The library's cases use honest servers only. The lies are for plans that show what the judge sees.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from agent.basics import BLOCK, Json
from agent.servers.store import Store

AT_LIMIT = ("refuse", "part", "short", "at_flush", "die", "hang_up", "half_reply", "silence")
LIES = (
    "ack_and_drop",
    "wrong_errno",
    "corrupt_read",
    "tear",
    "overcommit",
    "never_answer",
    "late",
    "twice",
)
REPLIES = {
    "no_space": errno.ENOSPC,
    "quota": errno.EDQUOT,
    "io": errno.EIO,
    "memory": errno.ENOMEM,
    "invalid": errno.EINVAL,
    "too_big": errno.EFBIG,
}
LATE = 3.0
"""Seconds by which a server that is ``late`` delays an answer at its limit."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is said of a write: bytes stored as the server tells it, or an errno; and how it goes."""

    stored: int = 0
    error: int = 0
    way: str = "reply"  # reply, die, hang_up, half_reply, silence, late, twice


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """``at_limit`` is how an honest server ends a write that there is no space for, ``error`` the
    errno that it names, and ``lie`` empty, or what it does instead."""

    at_limit: str = "refuse"
    error: int = errno.ENOSPC
    lie: str = ""

    @classmethod
    def of(cls, spec: Json) -> Conduct:
        """As a layer of a rig asks for it."""
        behaviour = spec.get("behaviour", "honest")
        return cls(
            at_limit=spec.get("at_limit", "refuse"),
            error=REPLIES[spec.get("reply", "no_space")],
            lie="" if behaviour == "honest" else behaviour,
        )

    def write(self, store: Store, offset: int, data: memoryview) -> Answer:
        """Store what is to be stored of a write, and say what is to be answered."""
        length = len(data)
        if self.at_limit == "at_flush":
            return Answer(stored=store.write(offset, data, cached=True))
        if store.room_for(offset, length):
            store.write(offset, data)
            return Answer(stored=length)
        if self.lie:
            return self._lie(store, offset, data)
        if self.at_limit in ("part", "short"):
            stored = store.write(offset, data)
            whole = self.at_limit == "part" or not stored
            return Answer(error=self.error) if whole else Answer(stored=stored)
        store.met()
        # A server closes one connection, and answers on those that are left.
        if self.at_limit == "refuse" or (self.at_limit == "hang_up" and store.deaths):
            return Answer(error=self.error)
        store.died()
        return Answer(way=self.at_limit)

    def _lie(self, store: Store, offset: int, data: memoryview) -> Answer:
        length = len(data)
        if self.lie == "ack_and_drop":
            store.met()
            return Answer(stored=length)
        if self.lie == "overcommit":
            store.exceed(offset, data)
            return Answer(stored=length)
        if self.lie == "tear":
            # All but its last block, as far as there is space, and success for all of it.
            store.write(offset, data[: max(BLOCK, length - BLOCK)])
            return Answer(stored=length)
        store.met()
        if self.lie == "wrong_errno":
            return Answer(error=errno.EPERM)
        ways = {"never_answer": "silence", "late": "late", "twice": "twice"}
        return Answer(error=self.error, way=ways.get(self.lie, "reply"))

    def flush(self, store: Store) -> Answer:
        """What is said of a flush."""
        return Answer() if store.flush() else Answer(error=self.error)

    def read(self, store: Store, offset: int, length: int) -> bytearray | memoryview:
        """What is said to stand in a region."""
        found = store.view(offset, length)
        # Only once it was full: before, a rig that reads wrong proves nothing.
        if self.lie != "corrupt_read" or not store.hits:
            return found
        wrong = bytearray(found)
        for at in range(BLOCK // 2, length, BLOCK):
            wrong[at] ^= 0xFF
        return wrong
