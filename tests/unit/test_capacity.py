"""As many machines as there are processors and memory for, and never more."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance import capacity
from conformance.bench import MEMORY_MIB
from conformance.capacity import BESIDE, GUEST, HOST, MIB, slots

MEMINFO = "MemTotal:       24000000 kB\nMemAvailable:   {} kB\n"


def test_a_guest_is_as_large_as_it_is_made() -> None:
    assert GUEST == MEMORY_MIB * MIB


@given(st.integers(1, 512), st.integers(0, 1 << 42))
def test_memory_is_never_promised_twice(processors: int, available: int) -> None:
    count = slots(processors=processors, available=available)
    assert 1 <= count <= processors
    assert count == 1 or count * (GUEST + BESIDE) + HOST <= available


@pytest.mark.parametrize(
    ("processors", "gib", "count"), [(2, 24, 2), (16, 4, 2), (16, 1, 1), (64, 64, 50), (0.5, 64, 1)]
)
def test_slots(processors: float, gib: int, count: int) -> None:
    assert slots(processors=processors, available=gib << 30) == count


def reader(**files: str) -> object:
    def read(path: Path) -> str:
        if path.name not in files:
            raise FileNotFoundError(path)
        return files[path.name]

    return read


@pytest.mark.parametrize(
    ("files", "mib"),
    [
        ({}, 4096),
        ({"memory.max": "max"}, 4096),
        # A container: half of its 2 GiB is in use, but for what is cached.
        (
            {
                "memory.max": str(2048 * MIB),
                "memory.current": str(1024 * MIB),
                "memory.stat": f"anon 5\ninactive_file {256 * MIB}\nactive_file {256 * MIB}\n",
            },
            1536,
        ),
        ({"memory.max": "1", "memory.current": "9", "memory.stat": "anon 5\n"}, 0),
    ],
)
def test_what_is_available(files: dict[str, str], mib: int) -> None:
    read = reader(meminfo=MEMINFO.format(4096 << 10), **files)
    assert capacity.available(read) == mib * MIB  # type: ignore[arg-type] # a fake


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, float("inf")),
        ({"cpu.max": "max 100000"}, float("inf")),
        ({"cpu.max": "150000 100000"}, 1.5),
    ],
)
def test_what_the_cgroup_allows(files: dict[str, str], count: float) -> None:
    assert capacity.processors(reader(**files)) == count  # type: ignore[arg-type] # a fake


def test_this_host_carries_one() -> None:
    assert capacity.here() >= 1
