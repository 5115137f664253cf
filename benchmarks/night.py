"""A night of 1,000 kernels x 1,000 variants, simulated: slots, memory, bytes, losses.

    python benchmarks/night.py [--kernels 1000] [--variants 1000] [--hours 8] [--mtbf 200] [--seed 1]

Durations are drawn from results/durations.tsv, as measured under software emulation; ``--faster`` divides
them. A slot takes the next variant of the kernel that it has, longest first, as a worker does; it dies at
random, and what it ran is run elsewhere. Nothing is started: the figures are sums over a made-up clock.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conformance.capacity import BESIDE, GUEST
from conformance.session import DURATIONS
from conformance.shards import Durations

TEMPLATE = 15.0
"""Seconds for a machine to make a kernel's template."""
BYTES = {"root image, once a machine": 160e6, "a kernel with its modules": 70e6}
RESULT = 29e3
"""Bytes of a variant's share of a record, uncompressed: 24.7 MB for 864 variants; with xz it is 1.8e3."""
SLOTS_A_MACHINE = 32
REPLACED = 60.0
"""Seconds until a lost slot is there again."""


def night(
    durations: list[float], *, kernels: int, machines: int, mtbf: float, chance: random.Random
) -> Mapping[str, float]:
    """One night: each machine takes kernel after kernel. ``mtbf``: a slot's, in hours."""
    ready = [0.0] * machines
    heapq.heapify(ready)
    lost = 0
    wasted = 0.0
    for _ in range(kernels):
        slots = [heapq.heappop(ready) + TEMPLATE] * SLOTS_A_MACHINE
        heapq.heapify(slots)
        for duration in durations:
            at = heapq.heappop(slots)
            while chance.random() < 1 - math.exp(-duration / (mtbf * 3600)):
                lost += 1
                part = chance.random() * duration
                wasted += part + REPLACED
                heapq.heappush(slots, at + part + REPLACED)
                at = heapq.heappop(slots)
            heapq.heappush(slots, at + duration)
        heapq.heappush(ready, max(slots))
    return {"seconds": max(ready), "lost": lost, "wasted": wasted}


def main() -> int:
    """Simulate, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--kernels", type=int, default=1000)
    parser.add_argument("--variants", type=int, default=1000)
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--mtbf", type=float, default=200.0, help="hours, of a slot")
    parser.add_argument("--faster", type=float, default=1.0, help="than software emulation")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)  # noqa: S311 - not a secret
    known = sorted(Durations.load(DURATIONS).seconds.values())
    drawn = chance.choices(known, k=options.variants)
    durations = sorted((seconds / options.faster for seconds in drawn), reverse=True)
    work = options.kernels * sum(durations)
    machines = math.ceil(work / (options.hours * 3600 * SLOTS_A_MACHINE))
    while True:
        done = night(
            durations, kernels=options.kernels, machines=machines, mtbf=options.mtbf, chance=chance
        )
        if done["seconds"] <= options.hours * 3600:
            break
        machines += max(1, machines // 50)
    slots = machines * SLOTS_A_MACHINE
    sent = machines * BYTES["root image, once a machine"]
    sent += options.kernels * BYTES["a kernel with its modules"]
    runs = options.kernels * options.variants
    hours = done["seconds"] / 3600
    for name, figure in (
        ("work", f"{work / 3600:,.0f} slot hours"),
        ("machines", f"{machines:,} of {SLOTS_A_MACHINE} slots, {slots:,} slots"),
        ("took", f"{hours:.2f} h, slots busy {work / (done['seconds'] * slots):.0%}"),
        (
            "memory",
            f"{SLOTS_A_MACHINE * (GUEST + BESIDE) / 2**30:.0f} GiB a machine, if all is used",
        ),
        ("losses", f"{done['lost']:,.0f} slots, {done['wasted'] / 3600:,.0f} slot hours lost"),
        ("sent", f"{sent / 1e9:,.0f} GB if each kernel goes to one machine"),
        (
            "",
            f"{machines * options.kernels * BYTES['a kernel with its modules'] / 1e12:,.1f} TB if to all",
        ),
        (
            "results",
            f"{runs * RESULT / 1e9:,.0f} GB, {runs * RESULT / done['seconds'] / 1e6:,.1f} MB/s",
        ),
        ("answers", f"{runs / done['seconds']:,.0f} a second to the client"),
    ):
        print(f"{name:10} {figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
