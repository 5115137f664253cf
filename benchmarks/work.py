"""What a few variants take, counted and not timed, held against stored bounds: a regression without a clock.

    python benchmarks/work.py [--kernel debian/trixie] [--renew]

The counts (``Verdict.work``) are those of clones made, guests booted, messages and bytes over the wire each
way, pages of the guest's memory that a clone came to have of its own, QEMU's private memory, and processes
started in the guest. No other load on the machine changes them. Exit status 1 if one is above its bound in
bounds.json, or is nothing where something was counted before.

After a change that is meant to cost more, or less, ``--renew`` runs each variant three times and writes the
bounds anew: of what is the same each time that very number, of the rest the most seen and a quarter.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conformance.bench import MachineEngine
from conformance.engine import DEFAULT_KERNEL, Bench, Setup
from conformance.model import Status, Variant
from conformance.planner import requirements
from conformance.session import open_library

BOUNDS = Path(__file__).with_name("bounds.json")
VARIANTS = (
    "loop_enospc_tmpfs_full[direct-off]",
    "loop_enospc_memcg_limit[buffered-off]",
    "fs_on_loop_mkfs_short[ext4]",
    "nbd_server_full[buffered]",
)
"""Small ones, each of another kind."""
EXACT = ("clones", "boots", "messages")
"""What is the same each time. Nothing of it is no bound of one: a guest that boots is a regression."""
SLACK = 1.25
"""For what differs from run to run: lines of the kernel's log, kernel threads, who was woken when."""
RENEWALS = 3

Work = Mapping[str, int]


def measure(bench: Bench, variants: Sequence[Variant], folder: Path) -> dict[str, Work]:
    """What each variant took. Raises ValueError if nothing is known of one."""
    seen: dict[str, Work] = {}
    # What a kernel can do is probed for the first that asks, and may be known from another run.
    bench.probe(sorted({n for v in variants for n in requirements(v)}), folder=folder / "probe")
    for variant in variants:
        verdict = bench.run(variant, folder=folder).verdict
        if verdict.status in (Status.BROKEN, Status.SKIP):
            raise ValueError(f"{variant.id}: {verdict.status}: {'; '.join(verdict.reasons)}")
        seen[variant.id] = dict.fromkeys(EXACT, 0) | verdict.work
    return seen


def beyond(seen: Mapping[str, Work], bounds: Mapping[str, Work]) -> list[str]:
    """A line for each count that is above its bound, or has become nothing; and for what has no bound."""
    wrong = [f"{name}: there are no bounds for it" for name in seen.keys() - bounds.keys()]
    for name, counts in seen.items():
        for what, most in bounds.get(name, {}).items():
            count = counts.get(what, 0)
            if count > most:
                wrong.append(f"{name}: {what}: {count:,}, at most {most:,}")
            elif most and not count:
                wrong.append(f"{name}: {what}: none were counted, at most {most:,}")
    return wrong


def bounds_of(runs: Sequence[Mapping[str, Work]]) -> dict[str, dict[str, int]]:
    """Bounds that what was seen keeps."""
    return {
        name: {
            what: most if what in EXACT else math.ceil(most * SLACK)
            for what in runs[0][name]
            for most in [max(run[name].get(what, 0) for run in runs)]
        }
        for name in runs[0]
    }


def chosen() -> tuple[Variant, ...]:
    """The variants that are counted."""
    known = {variant.id: variant for variant in open_library(()).variants}
    return tuple(known[name] for name in VARIANTS)


def main() -> int:
    """Count, and hold against the bounds or renew them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--kernel", default=DEFAULT_KERNEL)
    parser.add_argument("--renew", action="store_true")
    options = parser.parse_args()
    runs = []
    for _ in range(RENEWALS if options.renew else 1):
        with (
            tempfile.TemporaryDirectory() as name,
            closing(MachineEngine(Setup()).open(options.kernel, print)) as bench,
        ):
            runs.append(measure(bench, chosen(), Path(name)))
    for name, counts in runs[-1].items():
        print(f"{name:40}" + "".join(f"  {what} {count:,}" for what, count in counts.items()))
    if options.renew:
        BOUNDS.write_text(json.dumps(bounds_of(runs), indent=1) + "\n")
        return 0
    wrong = beyond(runs[0], json.loads(BOUNDS.read_text()))
    for line in wrong:
        print(f"beyond its bound: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
