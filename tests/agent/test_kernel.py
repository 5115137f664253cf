"""System calls that the standard library does not have."""

from __future__ import annotations

import pytest
from agent import kernel


def test_memory_of_a_long_request_is_as_long_where_there_are_no_huge_pages() -> None:
    for size in (4096, 512 << 10, 1 << 20, (1 << 20) + 4096):
        memory = kernel.contiguous_memory(size)
        assert len(memory) >= size
        memory[size - 1] = 7


def test_only_a_request_that_may_be_split_takes_a_huge_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, bool]] = []

    def taken(_fd: int, size: int, flags: int) -> bytearray:
        asked.append((size, bool(flags & 0x40000)))
        return bytearray(size)

    monkeypatch.setattr("agent.kernel.mmap.mmap", taken)
    kernel.contiguous_memory(512 << 10)
    kernel.contiguous_memory((512 << 10) + 4096)
    assert asked == [(512 << 10, False), (2 << 20, True)]
