"""What a server of a block device stores: shared memory with a limit on the blocks that have space.

The agent, which imposes the limit and reads the gauge, and the server, which stores and counts, share
it; so the gauge asks neither the server nor the device. It outlives the server, as a disk does.
"""

from __future__ import annotations

import mmap
import struct

from agent.basics import BLOCK, leave_words, words_left

_HEADER = 4096
_UNLIMITED = (1 << 63) - 1
# Offsets of words of 64 bits, and of the server's last words.
_LIMIT, _USED, _HITS, _PENDING, _PID, _DEATHS = range(0, 48, 8)
_MESSAGE = slice(512, 1024)
_ABSENT, _STORED, _CACHED = range(3)
"""What a block's byte in the map says: no space, space of its own, or only in the volatile cache."""


class Store:
    """``size`` bytes in whole blocks, all zeros at first. One server at a time writes to it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._map_at = _HEADER
        self._data_at = _HEADER + -(-(size // BLOCK) // BLOCK) * BLOCK
        # Shared and sparse: a block that nobody wrote takes no memory.
        self._memory = mmap.mmap(-1, self._data_at + size)
        self._view = memoryview(self._memory)
        self._set(_LIMIT, _UNLIMITED)

    def _get(self, at: int) -> int:
        return int(struct.unpack_from("<Q", self._memory, at)[0])

    def _set(self, at: int, value: int) -> None:
        struct.pack_into("<Q", self._memory, at, value)

    # -- the agent's side ---------------------------------------------------------------------------

    @property
    def limit(self) -> int | None:
        """Bytes that there are space for, or None."""
        found = self._get(_LIMIT)
        return None if found == _UNLIMITED else found

    @limit.setter
    def limit(self, value: int | None) -> None:
        self._set(_LIMIT, _UNLIMITED if value is None else value)

    @property
    def used(self) -> int:
        """Bytes of the blocks that have space."""
        return self._get(_USED)

    @property
    def hits(self) -> int:
        """Requests that the limit was met by."""
        return self._get(_HITS)

    @property
    def deaths(self) -> int:
        """How often a server went away because it was full."""
        return self._get(_DEATHS)

    @property
    def pid(self) -> int:
        """The server's process; 0 if none was ever started."""
        return self._get(_PID)

    def complaint(self) -> str:
        """The last words of a server that could not do its work, or nothing."""
        return words_left(self._view, _MESSAGE)

    def close(self) -> None:
        """Give the memory back, once every process that shares it has ended."""
        self._view.release()
        self._memory.close()

    # -- the server's side --------------------------------------------------------------------------

    def serving(self, pid: int) -> None:
        """A server begins. What was only in the cache of the one before it is gone."""
        for at in range(self.size // BLOCK) if self._get(_PENDING) else ():
            if self._memory[self._map_at + at] == _CACHED:
                self._memory[self._map_at + at] = _ABSENT
                self._view[self._data_at + at * BLOCK :][:BLOCK] = bytes(BLOCK)
        self._set(_PENDING, 0)
        self._set(_PID, pid)
        self.complain("")

    def complain(self, text: str) -> None:
        """Leave a message for the agent."""
        leave_words(self._view, _MESSAGE, text)

    def died(self) -> None:
        """The server is about to go away because it is full."""
        self._set(_DEATHS, self._get(_DEATHS) + 1)

    def view(self, offset: int, length: int) -> memoryview:
        """The bytes of a region, to read from."""
        return self._view[self._data_at + offset :][:length]

    def write(self, offset: int, data: memoryview, *, cached: bool = False) -> int:
        """Store whole blocks from the first on, as far as there is space: the bytes stored.

        A block that there is no space for counts as a hit. ``cached``: such blocks are kept in the
        volatile cache, and what is returned is all.
        """
        wanted = self._map()[offset // BLOCK :][: len(data) // BLOCK]
        room = _UNLIMITED if self.limit is None else max(0, self.limit - self.used) // BLOCK
        before = bytes(wanted)
        taken = fit = 0
        for number, state in enumerate(before):
            if state != _STORED and taken >= room:
                if not cached:
                    break
                wanted[number] = _CACHED
            else:
                taken += state != _STORED
                wanted[number] = _STORED
            fit = number + 1
        self._view[self._data_at + offset :][: fit * BLOCK] = data[: fit * BLOCK]
        late = bytes(wanted).count(_CACHED) - before.count(_CACHED)
        self._set(_USED, self.used + taken * BLOCK)
        self._set(_PENDING, self._get(_PENDING) + late * BLOCK)
        if fit < len(before) or late > 0:
            self.met()
        return fit * BLOCK

    def exceed(self, offset: int, data: memoryview) -> None:
        """Store a write whatever the limit is, which a server that keeps to it never does."""
        limit, self.limit = self.limit, None
        self.write(offset, data)
        self.limit = limit

    def room_for(self, offset: int, length: int) -> bool:
        """Whether a write could be stored whole."""
        wanted = bytes(self._map()[offset // BLOCK :][: length // BLOCK])
        new = (len(wanted) - wanted.count(_STORED)) * BLOCK
        return self.limit is None or self.used + new <= self.limit

    def met(self) -> None:
        """A request met the limit, and nothing of it is stored."""
        self._set(_HITS, self.hits + 1)

    def flush(self) -> bool:
        """Store what is in the volatile cache, as far as there is space: whether that was all."""
        if not self._get(_PENDING):
            return True
        blocks = self._map()
        for at in range(self.size // BLOCK):
            if blocks[at] != _CACHED:
                continue
            if not self.room_for(at * BLOCK, BLOCK):
                self.met()
                return False
            blocks[at] = _STORED
            self._set(_USED, self.used + BLOCK)
            self._set(_PENDING, self._get(_PENDING) - BLOCK)
        return True

    def discard(self, offset: int, length: int) -> None:
        """Give the space of whole blocks back; they read as zeros."""
        blocks = self._map()
        for at in range(offset // BLOCK, (offset + length) // BLOCK):
            if blocks[at] != _ABSENT:
                counter = _USED if blocks[at] == _STORED else _PENDING
                self._set(counter, self._get(counter) - BLOCK)
                blocks[at] = _ABSENT
                self._view[self._data_at + at * BLOCK :][:BLOCK] = bytes(BLOCK)

    def _map(self) -> memoryview:
        return self._view[self._map_at :][: self.size // BLOCK]
