"""What the norm allows, and where it draws its lines: one edit of a conforming run each.

The expectation beside each edit is the norm's (NORMS of the project, "What the norm allows" and "Who
invoked the OOM killer"), written before the judge was asked.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from conformance.library import load_library
from conformance.model import Status, Verdict
from conformance.runner import Facts, run_variant
from tests.support.liars import (
    AFTER,
    BUFFERED,
    DIRECT,
    EARLY,
    KWORKER_KILLS,
    LOST_AT,
    MEMCG,
    Liar,
    LiarsMachine,
    log,
    on_step,
    reads,
    telling,
)

ROOT = Path(__file__).parents[3]
VARIANTS = {v.id: v for v in load_library([ROOT / "cases"], ROOT / "fixtures").variants}
MMAP = "loop_enospc_tmpfs_full[mmap-off]"
SWAP = "loop_memcg_swap_absorbs[direct]"
NEIGHBOUR = "isolation_neighbour_cgroup[max-direct]"
READER = "isolation_reader_memcg[limited-direct]"
REFUSED_AT = 3 << 20
"""Where ``fill`` of loop_enospc_tmpfs_full is refused: 4 MiB less the control's one."""
PID = 200
"""The process id of every submitter of the model."""

Edit = Callable[[dict[str, Any]], None]
Edits = Mapping[tuple[str, ...], Edit]
Told = set[tuple[str, str, str]]


def verdict_on(variant: str, edits: Edits, folder: Path) -> Verdict:
    """What is said of a conforming run after some edits, each of the answers to some steps."""

    def lie(verb: str, asked: dict[str, Any], honest: dict[str, Any]) -> dict[str, Any]:
        for names, edit in edits.items():
            honest = on_step(names, edit)(verb, asked, honest)
        return honest

    liar = Liar(name="", variant=variant, guest=telling(lie))
    return run_variant(VARIANTS[variant], LiarsMachine(liar), facts=Facts(), workdir=folder).verdict


def told(verdict: Verdict) -> Told:
    return {(f.level.value, f.clause.value, f.signature) for f in verdict.findings}


def results(change: Callable[[int], int]) -> Edit:
    def edit(seen: dict[str, Any]) -> None:
        for op in seen["submitter"]["ops"]:
            op[4] = change(op[4])

    return edit


def refused_as(code: int) -> Edit:
    return results(lambda result: -code if result < 0 else result)


def ended(*, signal: int) -> Edit:
    def edit(seen: dict[str, Any]) -> None:
        seen["submitter"]["ended"] = {"exit_code": None, "signal": signal}

    return edit


def cut_at_refusal(seen: dict[str, Any]) -> None:
    """What came after the last write that succeeded was in flight when the writer was killed."""
    ops = seen["submitter"]["ops"]
    at = next(number for number, op in enumerate(ops) if op[4] < 0)
    del ops[at:]
    seen["submitter"] |= {"ended": {"exit_code": None, "signal": 9}, "killed_by_rig": True}


def second_sync_fails(seen: dict[str, Any]) -> None:
    syncs = [op for op in seen["submitter"]["ops"] if op[0] == "sync"]
    syncs[1][4] = -errno.EIO


def reading(content: str, at: int) -> Edit:
    return lambda seen: reads(content, at, seen)


def oom(lines: Iterable[str], *, kills: int = 1) -> Edit:
    def edit(seen: dict[str, Any]) -> None:
        if seen["name"] == "fill":
            log(lines, seen)
        if seen["name"] not in EARLY:
            seen["watch"]["oom_kill"] = kills

    return edit


def slow(microseconds: int, name: str, *, before: bool = False) -> Edit:
    def edit(seen: dict[str, Any]) -> None:
        for one in seen["watch"]["bystanders"]:
            if one["name"] == name and (before or seen["name"] not in EARLY):
                one["io_stall_us"] = microseconds

    return edit


def killed(pid: int, comm: str) -> str:
    return (
        f"Memory cgroup out of memory: Killed process {pid} ({comm}) total-vm:1kB, anon-rss:1kB, "
        "file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0"
    )


def by_worker(victim: int) -> list[str]:
    return [*KWORKER_KILLS[:-1], killed(victim, "python3")]


def by_submitter(victim: int) -> list[str]:
    return [
        "python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        f"CPU: 0 PID: {PID} Comm: python3 Not tainted 6.1.0 #1",
        "Call Trace:",
        " mem_cgroup_out_of_memory+0x134/0x150",
        " charge_memcg+0x39/0xf0",
        " do_anonymous_page+0x2f/0x3c0",
        " asm_exc_page_fault+0x22/0x30",
        killed(victim, "python3"),
    ]


DIED: Edits = {("fill",): ended(signal=9)}

ALLOWED: dict[str, tuple[str, Edits]] = {
    "a neighbour's operation of four seconds": (NEIGHBOUR, {(): slow(4_000_000, "neighbour")}),
    "a slow neighbour that was as slow before": (
        NEIGHBOUR,
        {(): slow(20_000_000, "neighbour", before=True)},
    ),
    "a slow reader in the cgroup that is short": (READER, {(): slow(20_000_000, "reader")}),
    "a SIGBUS for a store into a mapping": (MMAP, {("fill",): ended(signal=7)}),
    "ENOMEM for a memory limit": (MEMCG, {("fill",): refused_as(errno.ENOMEM)}),
    "EDQUOT for a full device": (DIRECT, {("fill",): refused_as(errno.EDQUOT)}),
    "EIO where the page cache stands between": (BUFFERED, {("fill",): refused_as(errno.EIO)}),
    "a short count in place of an error": (
        DIRECT,
        {("fill",): results(lambda result: max(result, 0))},
    ),
    "any content in the range of a failed O_DIRECT write": (
        DIRECT,
        {("read_short", *AFTER): reading("foreign", REFUSED_AT)},
    ),
    "old content where a write was refused": (
        BUFFERED,
        {("read_short", *AFTER): reading("zero", REFUSED_AT)},
    ),
    "a torn page where a store was in flight at the kill": (
        MMAP,
        {("fill",): cut_at_refusal, ("read_short", *AFTER): reading("foreign", REFUSED_AT)},
    ),
    "a loss that the sync before a successful one told of": (
        BUFFERED,
        {("fill",): second_sync_fails, ("read_short", *AFTER): reading("zero", LOST_AT - 4096)},
    ),
}
"""What is no deviation."""


@pytest.mark.parametrize("name", ALLOWED)
def test_the_norm_allows(name: str, tmp_path: Path) -> None:
    variant, edits = ALLOWED[name]
    verdict = verdict_on(variant, edits, tmp_path)
    assert (verdict.status, told(verdict)) == (Status.PASS, set()), verdict.reasons


LINES: dict[str, tuple[str, Edits, Status, Told]] = {
    "a kill that the submitter invoked itself, where it could have waited for room": (
        SWAP,
        {("fill",): ended(signal=9), (): oom(by_submitter(PID))},
        Status.FAIL,
        {
            ("should", "no_oom_kill", "invoked-by-submitter"),
            ("should", "submitter_survives", "killed-by-oom"),
            ("must", "resolved_by_waiting", "main:kill"),
        },
    ),
    "a neighbour's operation of ten seconds, none of which took so long before": (
        NEIGHBOUR,
        {(): slow(10_000_000, "neighbour")},
        Status.FAIL,
        {("must", "independent_progress", "io-slowed:neighbour")},
    ),
    "a worker's kill of the submitter": (
        MEMCG,
        {**DIED, (): oom(by_worker(PID))},
        Status.FAIL,
        {
            ("must", "no_oom_kill", "invoked-by-kworker"),
            ("must", "submitter_survives", "killed-by-oom"),
        },
    ),
    "a kill that the submitter invoked itself": (
        MEMCG,
        {**DIED, (): oom(by_submitter(PID))},
        Status.PASS,
        {
            ("should", "no_oom_kill", "invoked-by-submitter"),
            ("should", "submitter_survives", "killed-by-oom"),
        },
    ),
    "a kill by each of them": (
        MEMCG,
        {**DIED, (): oom([*by_submitter(PID), *by_worker(998)], kills=2)},
        Status.FAIL,
        {
            ("must", "no_oom_kill", "invoked-by-kworker"),
            ("should", "no_oom_kill", "invoked-by-submitter"),
            ("must", "submitter_survives", "killed-by-oom"),
        },
    ),
    "a worker that finds nobody left to kill after the submitter's own": (
        MEMCG,
        {**DIED, (): oom([*by_submitter(PID), *KWORKER_KILLS[:-1]])},
        Status.FAIL,
        {
            ("must", "no_oom_kill", "invoked-by-kworker"),
            ("should", "no_oom_kill", "invoked-by-submitter"),
            ("must", "submitter_survives", "killed-by-oom"),
        },
    ),
    "a worker that invokes the killer and kills nobody at all": (
        MEMCG,
        {(): oom(KWORKER_KILLS[:-1], kills=0)},
        Status.FAIL,
        {("must", "no_oom_kill", "invoked-by-kworker")},
    ),
    "a kill that only the counters tell of": (
        MEMCG,
        {(): oom([])},
        Status.FAIL,
        {("must", "no_oom_kill", "invoked-by-unknown")},
    ),
    "a kill of the submitter that nobody sent": (
        DIRECT,
        {("fill",): ended(signal=9)},
        Status.FAIL,
        {("must", "submitter_survives", "signal-9")},
    ),
    "a SIGBUS for who has no mapping": (
        DIRECT,
        {("fill",): ended(signal=7)},
        Status.FAIL,
        {("must", "submitter_survives", "signal-7")},
    ),
    "EIO where the status can be carried": (
        DIRECT,
        {("fill",): refused_as(errno.EIO)},
        Status.PASS,
        {("should", "errno_precise", "EIO")},
    ),
    "foreign data where a buffered write was refused": (
        BUFFERED,
        {("read_short",): reading("foreign", REFUSED_AT)},
        Status.FAIL,
        {("must", "no_foreign_data", "foreign")},
    ),
    "a torn page where nothing was in flight": (
        MMAP,
        {("fill",): cut_at_refusal, ("read_short",): reading("foreign", REFUSED_AT + (1 << 20))},
        Status.FAIL,
        {("must", "no_foreign_data", "foreign")},
    ),
    "a loss that no sync told of": (
        BUFFERED,
        {("read_short", *AFTER): reading("zero", LOST_AT)},
        Status.FAIL,
        {
            ("must", "error_surfaced", "lost-in-silence"),
            ("must", "acknowledged_readable", "zeros"),
        },
    ),
    "a block that cannot be read while the shortage lasts": (
        DIRECT,
        {("read_short",): reading("unreadable", LOST_AT)},
        Status.PASS,
        {("should", "acknowledged_readable", "unreadable-during-shortage")},
    ),
    "a block that cannot be read any more": (
        DIRECT,
        {AFTER: reading("unreadable", LOST_AT)},
        Status.FAIL,
        {("must", "acknowledged_readable", "unreadable")},
    ),
}
"""Where a deviation begins, and how much it weighs."""


@pytest.mark.parametrize("name", LINES)
def test_the_norm_draws_the_line(name: str, tmp_path: Path) -> None:
    variant, edits, status, wanted = LINES[name]
    verdict = verdict_on(variant, edits, tmp_path)
    assert (verdict.status, told(verdict)) == (status, wanted), verdict.reasons


def test_a_documented_deviation_fails_and_names_the_other_position(tmp_path: Path) -> None:
    verdict = verdict_on(MEMCG, {**DIED, (): oom(by_worker(PID))}, tmp_path)
    assert verdict.status is Status.FAIL
    for finding in verdict.findings:
        assert "cgroup-v2.rst" in finding.documented_by


def test_the_finding_names_who_invoked_the_killer_and_shows_the_log(tmp_path: Path) -> None:
    verdict = verdict_on(MEMCG, {**DIED, (): oom(by_worker(PID))}, tmp_path)
    kill = next(f for f in verdict.findings if f.clause.value == "no_oom_kill")
    assert "kworker/u2:1 invoked the OOM killer" in kill.observed
    assert "loop_process_work" in kill.observed
    assert any("invoked oom-killer" in line for line in kill.evidence)


@pytest.mark.parametrize(
    ("queue", "told"),
    [
        ("loop0 loop_workfn [loop]", "invoked-by-kworker"),
        ("erofs_unzipd z_erofs_decompressqueue_work [erofs]", "invoked-by-other"),
    ],
)
def test_a_worker_of_the_guests_own_root_is_not_the_devices(
    queue: str, told: str, tmp_path: Path
) -> None:
    lines = [line.replace("loop0 loop_workfn [loop]", queue) for line in by_worker(PID)]
    verdict = verdict_on(MEMCG, {**DIED, (): oom(lines)}, tmp_path)
    kills = [f for f in verdict.findings if f.clause.value == "no_oom_kill"]
    assert {f.signature for f in kills} == {told}, verdict.reasons


def test_a_lost_range_is_named_in_bytes(tmp_path: Path) -> None:
    verdict = verdict_on(BUFFERED, {("read_short", *AFTER): reading("zero", LOST_AT)}, tmp_path)
    lost = next(f for f in verdict.findings if f.clause.value == "acknowledged_readable")
    assert f"bytes {LOST_AT} to {LOST_AT + 4095}" in lost.observed
