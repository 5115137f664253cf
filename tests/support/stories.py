"""Observations and stories, short to write: for tests of what reports tell of a run's course."""

from __future__ import annotations

from typing import Any

from conformance.model import (
    ArmSeen,
    Built,
    Ended,
    KernelLine,
    Observation,
    Op,
    Reading,
    StepSeen,
    Submitter,
    Variant,
    Watch,
)

MIB = 1 << 20
OOM = (
    "kworker/u4:0 invoked oom-killer: gfp_mask=0xc00(GFP_NOIO), order=0, oom_score_adj=0",
    "Memory cgroup out of memory: Killed process 183 (python3) total-vm:25900kB, anon-rss:11932kB",
)


def watch(t_us: int, used: int, limit: int | None = None, *log: str) -> Watch:
    """The gauge at a time, and kernel lines a microsecond apart before it."""
    lines = tuple(KernelLine(n, 6, t_us - len(log) + n, text) for n, text in enumerate(log))
    reading = Reading(kind="memcg", used=used, limit=limit)
    return Watch(t_us=t_us, reading=reading, oom_kill=0, kernel_log=lines)


def step(name: str, verb: str, start_us: int, seen: Watch, **more: Any) -> StepSeen:
    """A step that ended when it was looked at."""
    return StepSeen(name=name, verb=verb, start_us=start_us, end_us=seen.t_us, watch=seen, **more)


def writer(*ops: Op, **ended: Any) -> Submitter:
    """A submitter that did some operations."""
    how = Ended(**(ended or {"exit_code": 0}))
    return Submitter(pid=183, cgroup="limited", ops=ops, ended=how, tool="ledger")


def observed(of: Variant, *log: str, kernel: str = "debian/trixie") -> Observation:
    """A write that runs into a limit of 4 MiB, is told of it, and is killed; then relief."""
    ops = [
        Op("write", n * MIB, MIB, 1, MIB, 2_000_000 + n * 1000, 2_000_900 + n * 1000)
        for n in range(4)
    ]
    ops.append(Op("write", 4 * MIB, MIB, 1, -28, 2_005_000, 2_005_900))
    ops.append(Op("write", 5 * MIB, MIB, 1, -28, 2_006_000, 2_006_900))
    return Observation(
        case=of.case,
        values=of.values,
        kernel=kernel,
        release="6.12.117",
        arms=(
            ArmSeen(
                name="main",
                built=Built(facts={"cpus": "1"}, watch=watch(1_000_000, 0, None, "loop: loaded")),
                steps=(
                    step("impose", "impose", 1_100_000, watch(1_200_000, 0, 4 * MIB)),
                    step(
                        "fill",
                        "write",
                        1_900_000,
                        watch(2_500_000, 4 * MIB, 4 * MIB, *OOM, *log),
                        submitter=writer(*ops, signal=9),
                    ),
                    step("relieve", "relieve", 2_600_000, watch(2_700_000, 4 * MIB)),
                ),
                console="consoles/main/console.log",
            ),
        ),
    )
