"""As many machines as there are processors and memory for, and never more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


MOUNT = "/sys/fs/cgroup"
V1 = 9223372036854771712
"""What version 1 has for no limit."""


def tree(own: str, limits: Mapping[str, tuple[str, int]]) -> Callable[[Path], str]:
    """A host with 64 GiB and a tree of cgroups: for some of them the limit, and MiB in use."""
    files = {"/proc/meminfo": MEMINFO.format(64 << 20), "/proc/self/cgroup": own}
    for group, (limit, used) in limits.items():
        old = group.startswith("memory")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else (
            "memory.max", "memory.current")  # fmt: skip
        cached = "total_active_file" if old else "active_file"
        folder = f"{MOUNT}/{group}".rstrip("/")
        files |= {
            f"{folder}/{names[0]}": f"{limit}\n",
            f"{folder}/{names[1]}": f"{used * MIB}\n",
            f"{folder}/memory.stat": f"anon 7\n{cached} {256 * MIB}\n",
        }

    def read(path: Path) -> str:
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    return read


@pytest.mark.parametrize(
    ("own", "limits", "mib"),
    [
        # Slurm: the job has the limit, the step that we are in has none. The host's root has no file.
        (
            "0::/slurm/job_7/step_0\n",
            {
                "slurm": ("max", 9999),
                "slurm/job_7": (str(3072 * MIB), 512),
                "slurm/job_7/step_0": ("max", 512),
                "slurm/job_8": ("1", 0),
            },
            3072 - 256,
        ),
        # The tightest counts, wherever it is.
        (
            "0::/a.slice/a.service\n",
            {
                "a.slice": (str(4096 * MIB), 3072),
                "a.service": ("1", 0),
                "a.slice/a.service": (str(2048 * MIB), 256),
            },
            4096 - 3072 + 256,
        ),
        # Version 1, beside an empty version 2; its uppermost has no limit.
        (
            "4:cpu,memory:/job\n3:cpuset:/other\n0::/\n",
            {
                "memory": (str(V1), 9999),
                "memory/job": (str(3072 * MIB), 256),
                "memory/other": ("1", 0),
            },
            3072,
        ),
        # A container that sees the host's names, and of the tree its own part only.
        ("4:memory:/docker/abc\n", {"memory": (str(2048 * MIB), 256)}, 2048),
        ("0::/../../elsewhere\n", {"": (str(2048 * MIB), 256)}, 2048),
    ],
)
def test_what_the_cgroups_above_leave(
    own: str, limits: Mapping[str, tuple[str, int]], mib: int
) -> None:
    assert capacity.available(tree(own, limits)) == mib * MIB


def test_a_quota_above_counts() -> None:
    files = {
        "/proc/self/cgroup": "0::/a.slice/a.service\n",
        f"{MOUNT}/a.slice/cpu.max": "150000 100000\n",
        f"{MOUNT}/a.slice/a.service/cpu.max": "max 100000\n",
    }

    def read(path: Path) -> str:
        try:
            return files[str(path)]
        except KeyError as error:
            raise FileNotFoundError(path) from error

    assert capacity.processors(read) == 1.5


def test_this_host_carries_one() -> None:
    assert capacity.here() >= 1
