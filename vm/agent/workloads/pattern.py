"""What a ledger block holds: who wrote it, which block it is, which generation; every byte checked.

A block is 4096 bytes: a header (magic, run, block number, generation, checksum) and a body that is
cut from a pool of bytes derived from the run, at a place that block number and generation choose.
The checksum covers the body and the header before it. A block is recognised only if every byte is
what its header says it must be, so that torn and misplaced data is foreign.
"""

from __future__ import annotations

import hashlib
import struct
import zlib

from agent.basics import BLOCK

MAGIC = b"LEDGER1\n"
# magic, run, block number, generation; then the checksum.
_HEAD = struct.Struct("<8s8sQI")
_SUM = struct.Struct("<I")
HEADER = _HEAD.size + _SUM.size
_BODY = BLOCK - HEADER
# A prime number of places: two blocks with one body are never a power of two apart, as misdirected
# writes are.
_PLACES = 1021
_STRIDE = 8
ZERO = bytes(BLOCK)


class Pattern:
    """The blocks of one run. ``run`` is 8 bytes, drawn anew for each run."""

    def __init__(self, run: bytes) -> None:
        if len(run) != 8:
            raise ValueError("a run's mark is 8 bytes")
        self.run = run
        self._pool = hashlib.shake_256(MAGIC + run).digest(_BODY + _PLACES * _STRIDE)
        self._view = memoryview(self._pool)
        self._mark = MAGIC + run
        self._sums: list[int] = []
        # Fixed buffers, so that filling allocates nothing that stays.
        self._head = bytearray(_HEAD.size)

    def warm(self) -> None:
        """Compute every body's checksum: once, before a writer locks its memory."""
        if not self._sums:
            places = range(0, _PLACES * _STRIDE, _STRIDE)
            self._sums = [zlib.crc32(self._view[place : place + _BODY]) for place in places]

    def fill(self, buffer: memoryview, start: int, block: int, count: int, generation: int) -> None:
        """Write ``count`` blocks from number ``block`` into ``buffer`` at byte ``start``.

        Allocates nothing that outlives the call, if ``warm`` was called before.
        """
        self.warm()
        head, view, sums = self._head, self._view, self._sums
        for number in range(block, block + count):
            place = (number * 37 + generation * 101) % _PLACES
            _HEAD.pack_into(head, 0, MAGIC, self.run, number, generation)
            buffer[start : start + _HEAD.size] = head
            _SUM.pack_into(buffer, start + _HEAD.size, zlib.crc32(head, sums[place]))
            begin = place * _STRIDE
            buffer[start + HEADER : start + BLOCK] = view[begin : begin + _BODY]
            start += BLOCK

    def block(self, number: int, generation: int) -> bytes:
        """One whole block."""
        place = (number * 37 + generation * 101) % _PLACES * _STRIDE
        body = self._pool[place : place + _BODY]
        head = _HEAD.pack(MAGIC, self.run, number, generation)
        return head + _SUM.pack(zlib.crc32(head, zlib.crc32(body))) + body

    def recognise(self, data: bytes) -> tuple[int, int] | None:
        """(number, generation) of the block that ``data`` is, to the last byte.

        ``data`` is at most 4096 bytes from a block's start. None if it is no block of this run.
        """
        if len(data) < HEADER or data[: len(self._mark)] != self._mark:
            return None
        _, _, number, generation = _HEAD.unpack_from(data)
        self.warm()
        place = (number * 37 + generation * 101) % _PLACES
        head = data[: _HEAD.size]
        begin = place * _STRIDE
        checksum = _SUM.pack(zlib.crc32(head, self._sums[place]))
        whole = head + checksum + self._pool[begin : begin + _BODY]
        if data != whole[: len(data)]:
            return None
        return number, generation
