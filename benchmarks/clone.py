"""How fast guests come up: QEMU's start to the first answer of a clone, and of a cold boot.

    python benchmarks/clone.py [--kernel debian/bookworm] [--clones 20] [--boots 1] [--json]

The targets, for a guest of 1 GiB: a median clone answers within 0.15 s, and holds less than 100 MB
of memory of its own. Exit status 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conformance.machine import machines
from conformance.machine.cache import Cache
from conformance.machine.guest import QemuGuest
from conformance.machine.image import prepare_boot
from conformance.machine.machines import QemuMachine, open_machine

ANSWER_TARGET = 0.15
"""Seconds."""
MEMORY_TARGET = 100.0
"""Megabytes (10^6 bytes) of private memory."""


def private_megabytes(pid: int) -> float:
    """The memory that goes when the process does."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1])
    return total * 1024 / 1e6


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


def clones(machine: QemuMachine, count: int, folder: Path) -> dict[str, object]:
    """Figures of ``count`` clones, one after another."""
    parts: dict[str, list[float]] = {}
    total, stopping, memory = [], [], []
    for _ in range(count):
        began = time.monotonic()
        with machine.guest(workdir=folder) as guest:
            assert isinstance(guest, QemuGuest)
            total.append(time.monotonic() - began)
            memory.append(private_megabytes(guest.pid))
            for name, spent in guest.timing.items():
                parts.setdefault(name, []).append(spent)
            began = time.monotonic()
        stopping.append(time.monotonic() - began)
    return {
        "clones": count,
        "answer_seconds": spread(total),
        "parts_seconds": {name: spread(spent) for name, spent in parts.items()},
        "stop_seconds": spread(stopping),
        "private_megabytes": spread(memory),
    }


def boots(machine: QemuMachine, count: int, folder: Path) -> dict[str, object]:
    """Figures of ``count`` guests that boot for themselves."""
    cold = QemuMachine(
        machine.shape, template=None, start_why="asked for", boot_seconds=None, release=""
    )
    total = []
    for _ in range(count):
        began = time.monotonic()
        with cold.guest(workdir=folder):
            total.append(time.monotonic() - began)
    cold.close()
    return {"boots": count, "boot_seconds": spread(total)} if total else {}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--kernel", default="debian/bookworm")
    parser.add_argument("--clones", type=int, default=20)
    parser.add_argument("--boots", type=int, default=1)
    parser.add_argument("--memory", type=int, default=1024, help="MiB")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    def progress(line: str) -> None:
        print(line, file=sys.stderr)

    cache = Cache.from_environ()
    boot = prepare_boot(options.kernel, cache=cache, progress=progress)
    began = time.monotonic()
    machine = open_machine(
        boot, memory_mib=options.memory, cpus=options.cpus, cache=cache, progress=progress
    )
    opened = time.monotonic() - began
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures: dict[str, object] = {
            "machine": dict(machine.describe()),
            "open_seconds": round(opened, 3),
            "reference_boot_seconds": machines.REFERENCE_BOOT,
            **clones(machine, options.clones, folder),
            **boots(machine, options.boots, folder),
        }
    machine.close()
    if options.json:
        print(json.dumps(figures, indent=1))
    else:
        for key, value in figures.items():
            print(f"{key:24} {value}")
    return 0 if met(figures) else 1


def met(figures: dict[str, object]) -> bool:
    """Whether both targets are met; those that are not are told."""
    answer, memory = figures["answer_seconds"], figures["private_megabytes"]
    assert isinstance(answer, dict)
    assert isinstance(memory, dict)
    missed = []
    if answer["median"] >= ANSWER_TARGET:
        missed.append(f"a clone answers in {answer['median']} s, the target is {ANSWER_TARGET} s")
    if memory["median"] >= MEMORY_TARGET:
        missed.append(f"a clone holds {memory['median']} MB, the target is {MEMORY_TARGET} MB")
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return not missed


if __name__ == "__main__":
    sys.exit(main())
