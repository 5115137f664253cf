"""Discards, zeroes, truncation, detaching and reading: one edit of a conforming run each.

What is expected beside each edit is the norm's: fallocate(2), write(2), losetup(8), and S5 and S12.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from conformance.library import load_library
from conformance.model import BLOCK, Status, Verdict
from conformance.runner import Facts, run_variant
from tests.support.liars import Liar, LiarsMachine, on_step, reads, telling

ROOT = Path(__file__).parents[3]
VARIANTS = {v.id: v for v in load_library([ROOT / "cases"], ROOT / "fixtures").variants}
ZERO = "loop_enospc_zeroing[zeroout]"
ZERO_RANGE = "loop_enospc_zeroing[zero_range]"
PUNCH = "loop_enospc_zeroing[punch_hole]"
NEWER = "loop_enospc_zeroing[write_zeroes]"
DISCARD = "loop_enospc_discard[discard-off]"
CUT = "loop_enospc_truncated_backing[direct-off]"
END = "loop_enospc_end_of_device[direct]"
DETACH = "loop_enospc_detach_failing[direct-off]"
THIN_TRIM = "thin_fs_trim[ext4]"
READS = "loop_enospc_reads[true-off]"
NO_INODES = "loop_quota_inodes_used_up[tmpfs-direct]"
USER = "quota_direct_write[ext4-user-buffered]"

Edit = Callable[[dict[str, Any]], None]
Edits = Mapping[tuple[str, ...], Edit]


def verdict_on(variant: str, edits: Edits, folder: Path) -> Verdict:
    def lie(verb: str, asked: dict[str, Any], honest: dict[str, Any]) -> dict[str, Any]:
        for names, edit in edits.items():
            honest = on_step(names, edit)(verb, asked, honest)
        return honest

    liar = Liar(name="", variant=variant, guest=telling(lie))
    return run_variant(VARIANTS[variant], LiarsMachine(liar), facts=Facts(), workdir=folder).verdict


def told(verdict: Verdict) -> set[tuple[str, str, str]]:
    return {(f.level.value, f.clause.value, f.signature) for f in verdict.findings}


def result(code: int, *, kind: str = "") -> Edit:
    """The first operation of a kind gives something else, and so the last of what was asked for."""

    def edit(seen: dict[str, Any]) -> None:
        op = next(op for op in seen["submitter"]["ops"] if not kind or op[0] == kind)
        op[4] = code

    return edit


def holds(content: str, at: int, generation: int | None = None) -> Edit:
    def edit(seen: dict[str, Any]) -> None:
        reads(content, at, seen)
        for extent in seen["extents"]:
            if extent[0] == at and extent[1] == BLOCK:
                extent[3] = generation
                extent[4] = errno.EIO if content == "unreadable" else None

    return edit


def used(more: int) -> Edit:
    def edit(seen: dict[str, Any]) -> None:
        seen["watch"]["reading"]["used"] += more

    return edit


def held_on(seen: dict[str, Any]) -> None:
    how = {"exit_code": None, "timed_out": True}
    seen["commands"].append({"argv": ["detached", "/dev/loop0"], "ended": how, "output": ""})


def no_commands(seen: dict[str, Any]) -> None:
    seen["commands"] = []


def refused_as(code: int) -> Edit:
    def edit(seen: dict[str, Any]) -> None:
        for op in seen["file_ops"]:
            op[4] = -code if op[4] < 0 else op[4]

    return edit


LOST = {
    ("must", "error_surfaced", "lost-in-silence"),
    ("must", "acknowledged_readable", "older"),
    ("must", "overwrite_in_place", "not-stored"),
}

FOUND: dict[str, tuple[str, Edits, set[tuple[str, str, str]]]] = {
    "zeroes that were told and not written": (
        ZERO,
        {("read_old",): holds("generation", 64 << 10, 2)},
        LOST,
    ),
    "a hole that was told and not made": (
        PUNCH,
        {("read_old",): holds("generation", 64 << 10, 2)},
        LOST,
    ),
    "zeroes of a failing zeroout told as another errno": (
        ZERO,
        {("op_new",): result(-errno.EIO)},
        {("should", "errno_precise", "EIO")},
    ),
    "space that fallocate promised and did not have": (
        ZERO_RANGE,
        {("op_new",): result(0)},
        {("must", "overwrite_in_place", "write-failed:ENOSPC")},
    ),
    "zeroing what has space is refused": (
        ZERO,
        {("op_old",): result(-errno.ENOSPC), ("read_old",): lambda _: None},
        {("must", "overwrite_in_place", "zeroout-failed:ENOSPC")},
    ),
    "a mode of fallocate that the block device does not have changes a block": (
        NEWER,
        {("read_old",): holds("zero", 64 << 10)},
        {("must", "acknowledged_readable", "zeros-once-stored")},
    ),
    "a discard that gives nothing back": (
        DISCARD,
        {("discard",): used(2 << 20)},
        {("must", "reusable", "space-not-given-back")},
    ),
    "a trim on a thin pool that gives nothing back, then or later": (
        THIN_TRIM,
        {("trim_short", "more"): used(64 << 20)},
        {("must", "reusable", "space-not-given-back")},
    ),
    "a trim after relief that gives nothing back": (
        THIN_TRIM,
        {("trim_relieved", "unmount_relieved"): used(64 << 20)},
        {("must", "reusable", "space-not-given-back")},
    ),
    "a write refused although a discard made room": (
        DISCARD,
        {
            ("elsewhere",): result(-errno.ENOSPC, kind="write"),
            ("read_elsewhere", "read_full"): lambda _: None,
        },
        {("must", "reusable", "refused-for-nothing:ENOSPC")},
    ),
    "a discard that is refused": (
        DISCARD,
        {("discard",): result(-errno.EIO)},
        {
            ("must", "overwrite_in_place", "discard-failed:EIO"),
            ("should", "errno_precise", "EIO"),
        },
    ),
    "what lies before the cut is lost": (
        CUT,
        {("read_cut", "read_beyond"): holds("zero", 64 << 10)},
        {("must", "acknowledged_readable", "zeros-once-stored")},
    ),
    "a write past the end told as a whole one": (
        END,
        {("across_short",): result(128 << 10, kind="write")},
        {("must", "error_surfaced", "past-end-acknowledged")},
    ),
    "a device that stays when its last user has gone": (
        DETACH,
        {("fill",): held_on},
        {("must", "bounded", "timed-out:detached")},
    ),
    "a hole that cannot be read": (
        READS,
        {("read_full",): holds("unreadable", 9 << 20)},
        {("must", "reusable", "unreadable:EIO")},
    ),
    "reading that takes space": (
        READS,
        {
            ("read_full", "read_full_again"): used(1 << 20),
        },
        {("should", "reusable", "reading-takes-space")},
    ),
    "a write refused for want of an inode": (
        NO_INODES,
        {("fill",): result(-errno.ENOSPC, kind="write")},
        {("must", "reusable", "refused-for-nothing:ENOSPC")},
    ),
    "a user told EIO at his quota": (
        USER,
        {("fill",): refused_as(errno.EIO)},
        {("should", "errno_precise", "EIO")},
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_fault_is_found(name: str, tmp_path: Path) -> None:
    variant, edits, expected = FOUND[name]
    verdict = verdict_on(variant, edits, tmp_path)
    assert told(verdict) == expected, verdict.reasons
    must = any(level == "must" for level, _, _ in expected)
    assert verdict.status is (Status.FAIL if must else Status.PASS), verdict.reasons


ALLOWED: dict[str, tuple[str, Edits]] = {
    "anything after a discard": (DISCARD, {("read_elsewhere",): holds("foreign", 64 << 10)}),
    "a trim that the pool counts a step later": (THIN_TRIM, {("trim_relieved",): used(64 << 20)}),
    "anything after a zeroing that failed": (
        ZERO,
        {("op_new",): result(-errno.ENOSPC), ("read_new",): holds("foreign", 8 << 20)},
    ),
    "anything beyond the cut": (CUT, {("read_cut",): holds("unreadable", 3 << 20)}),
    "an error in place of a short count": (END, {("across_first",): result(-errno.ENOSPC)}),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_the_norm_allows_is_no_finding(name: str, tmp_path: Path) -> None:
    variant, edits = ALLOWED[name]
    verdict = verdict_on(variant, edits, tmp_path)
    assert (verdict.status, told(verdict)) == (Status.PASS, set()), verdict.reasons


BROKEN: dict[str, tuple[str, Edits, str]] = {
    "a control that is refused": (
        ZERO,
        {("control_op",): result(-errno.ENOSPC)},
        "control step control_op",
    ),
    "a zeroout that the device does not have": (
        ZERO,
        {("control_op",): result(-errno.EOPNOTSUPP)},
        "control step control_op",
    ),
    "no detaching": (DETACH, {("fill",): no_commands}, "no command was seen"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_where_nothing_is_known_the_verdict_is_broken(name: str, tmp_path: Path) -> None:
    variant, edits, reason = BROKEN[name]
    verdict = verdict_on(variant, edits, tmp_path)
    assert verdict.status is Status.BROKEN
    assert any(reason in text for text in verdict.reasons), verdict.reasons
