"""What benchmarks/run measures: each part by itself, as figures that are JSON.

``clone``: a clone's first answer against ``vng --exec true`` on the same kernel, in turn. ``one`` and
``two``: a sample of the library on one slot and on two.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance.bench import CPUS, MEMORY_MIB, MachineEngine
from conformance.engine import DEFAULT_KERNEL, Setup
from conformance.exits import Refused
from conformance.machine.cache import Cache
from conformance.machine.guest import QemuGuest
from conformance.machine.image import prepare_boot
from conformance.machine.machines import open_machine
from conformance.machine.qemu import PAGE, parse_smaps
from conformance.model import Status, Variant
from conformance.report.timing import GUEST
from conformance.runner import Outcome
from conformance.scheduler import run_jobs
from conformance.session import DURATIONS, open_library
from conformance.shards import Durations, longest_first
from conformance.task import Job

Figures = dict[str, Any]
Say = Callable[[str], None]

PLAIN = "debian/trixie/full"
"""For ``vng``: Debian's cloud kernels have no 9p, which is how it shares the host's files where there is no
virtiofsd in Rust."""
CLONES = 20
VNGS = 3
SAMPLE = 60
"""Variants. One in sixteen: two minutes on one slot."""
LONGEST = 20.0
"""Recorded seconds of the longest that is in the sample: one that takes minutes would be half of it."""
_VNG_LIMIT = 300.0
MB = 1e6


def clone(say: Say, *, clones: int = CLONES, vngs: int = VNGS) -> Figures:
    """Seconds to the first answer of a clone and of ``vng --exec true``. Raises Refused."""
    vng = shutil.which("vng")
    if vng is None:
        raise Refused("there is no vng here: benchmarks/run installs it")
    cache = Cache.from_environ()
    boot = prepare_boot(PLAIN, cache=cache, progress=say)
    answers: list[float] = []
    used: list[float] = []
    others: list[float] = []
    others_used: list[float] = []
    shape = {"memory_mib": MEMORY_MIB, "cpus": CPUS}
    with (
        closing(open_machine(boot, **shape, cache=cache, progress=say)) as machine,
        tempfile.TemporaryDirectory() as name,
    ):
        slow = machine.describe()["accelerator"] != "kvm"
        # The same machine on both sides.
        command = [vng, "--run", str(boot.vmlinuz), "--memory", f"{MEMORY_MIB}M"]
        command += ["--cpus", str(CPUS), "--force-9p", *(["--disable-kvm"] if slow else [])]
        for round_ in range(vngs):
            say(f"clone: round {round_ + 1} of {vngs}")
            for _ in range(math.ceil(clones / vngs)):
                began = time.monotonic()
                with machine.guest(workdir=Path(name)) as guest:
                    answers.append(time.monotonic() - began)
                    assert isinstance(guest, QemuGuest)
                    used.append(guest.cpu_seconds)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            began = time.monotonic()
            done = subprocess.run(
                [*command, "--exec", "true"],
                env={**os.environ, "HOME": name, "XDG_CACHE_HOME": name},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_VNG_LIMIT,
                check=False,
                cwd=name,
            )
            others.append(time.monotonic() - began)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            others_used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            if done.returncode:
                raise Refused(f"vng failed: {done.stderr[-300:].decode(errors='replace')!r}")
    return {
        "kernel": PLAIN,
        "clone_seconds": _spread(answers),
        "vng_seconds": _spread(others),
        "clone_cpu_seconds": _spread(used),
        "vng_cpu_seconds": _spread(others_used),
    }


def one(say: Say, *, count: int = SAMPLE) -> Figures:
    """The sample on one slot."""
    return _sample(1, say, count)


def two(say: Say, *, count: int = SAMPLE) -> Figures:
    """The sample on two slots."""
    return _sample(2, say, count)


def sample(variants: Sequence[Variant], durations: Durations, count: int) -> list[Variant]:
    """So many variants, spread evenly over all that are no longer than ``LONGEST``, by how long they take."""
    known = [v for v in variants if durations.seconds.get(v.id, math.inf) <= LONGEST]
    known.sort(key=lambda v: (durations.seconds[v.id], v.id))
    count = min(count, len(known))
    return [known[(2 * number + 1) * len(known) // (2 * count)] for number in range(count)]


@dataclass(kw_only=True)
class _Seen:
    """What came of a sample."""

    folder: Path
    outcomes: list[Outcome] = field(default_factory=list)
    slot_bytes: int = 0

    def take(self, _job: Job, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        for process in multiprocessing.active_children():
            try:
                text = Path(f"/proc/{process.pid}/smaps").read_text()
            except OSError:
                continue
            if held := parse_smaps(text, None):
                self.slot_bytes = max(self.slot_bytes, held.private)


def _sample(slots: int, say: Say, count: int) -> Figures:
    library = open_library(())
    durations = Durations.load(DURATIONS)
    variants = sample(library.variants, durations, count)
    jobs = [Job(variant=variant, kernel=DEFAULT_KERNEL) for variant in variants]
    engine = MachineEngine(Setup())
    engine.prepare(DEFAULT_KERNEL, say)
    with tempfile.TemporaryDirectory() as name:
        idle = _idle_pages(engine, Path(name))
        seen = _Seen(folder=Path(name))
        say(f"{len(jobs)} variants on {slots} slots")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        complete = run_jobs(
            longest_first(jobs, durations),
            slots=slots,
            setup=engine.prepared(),
            folder=Path(name),
            started=lambda job: None,
            finished=seen.take,
        )
        wall = time.monotonic() - began
        multiprocessing.active_children()  # waits for those that have ended
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not complete:
        raise KeyboardInterrupt
    recorded = sum(durations.seconds[variant.id] for variant in variants)
    whole = [Job(variant=variant, kernel=DEFAULT_KERNEL) for variant in library.variants]
    return {
        "kernel": DEFAULT_KERNEL,
        "slots": slots,
        "variants": len(jobs),
        "broken": sum(o.verdict.status is Status.BROKEN for o in seen.outcomes),
        "wall_seconds": round(wall, 2),
        # QEMU's are the workers' children, and counted when they are waited for.
        "cpu_seconds": round(
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2
        ),
        "guest_seconds": round(guest_seconds([o.verdict.seconds for o in seen.outcomes]), 2),
        "parts_seconds": _parts([o.verdict.seconds for o in seen.outcomes]),
        "library_variants": len(whole),
        "library_times_the_sample": round(sum(map(durations.of, whole)) / recorded, 3),
        "slot_megabytes": round(seen.slot_bytes / MB, 1),
        "qemu_megabytes": _spread([own_bytes(w, idle) / MB for w in _works(seen.outcomes)]),
        "guest_and_qemu_megabytes": _spread([w["private"] / MB for w in _works(seen.outcomes)]),
    }


def guest_seconds(spent: Sequence[Mapping[str, float]]) -> float:
    """The guests' own work: rig, steps, observation."""
    return sum(seconds.get(part, 0.0) for seconds in spent for part in GUEST)


def own_bytes(work: Mapping[str, int], idle: int) -> float:
    """QEMU's private memory but for the guest's pages that a case came to use. ``idle``: pages of a guest
    that has said hello, and done nothing."""
    return work["private"] - max(0, work["pages"] - idle) * PAGE


def _works(outcomes: Sequence[Outcome]) -> list[Mapping[str, int]]:
    """Of each guest that was seen to its end."""
    return [
        arm.work
        for outcome in outcomes
        if outcome.observation is not None
        for arm in outcome.observation.arms
        if {"private", "pages"} <= arm.work.keys()
    ]


def _idle_pages(engine: MachineEngine, folder: Path) -> int:
    with (
        closing(engine.open(DEFAULT_KERNEL, lambda line: None)) as bench,
        bench.machine.guest(workdir=folder / "idle") as guest,
    ):
        return guest.work.get("pages", 0)


def _parts(spent: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for seconds in spent for name in seconds)
    return {name: round(sum(seconds.get(name, 0.0) for seconds in spent), 2) for name in names}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


PARTS: Mapping[str, Callable[[Say], Figures]] = {"clone": clone, "one": one, "two": two}
"""In the order in which they are measured."""
