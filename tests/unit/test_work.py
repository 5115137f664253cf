"""Counts of work: what guests are seen to take, and bounds that notice when it becomes more."""

from __future__ import annotations

from typing import Literal

import pytest

from benchmarks import work
from conformance.capacity import BESIDE, MIB
from conformance.machine.qemu import CODE_MIB, Fds, Held, Role, Spec, Version, argv, parse_smaps
from conformance.runner import add_work

SEEN = {
    "clones": 2, "boots": 0, "messages": 30, "sent": 9000, "received": 40_000, "pages": 8000,
    "private": 120 << 20, "processes": 20,
}  # fmt: skip
BOUNDS = work.bounds_of([{"v": SEEN}, {"v": {**SEEN, "pages": 8100}}])


def test_what_was_seen_is_within_its_bounds() -> None:
    assert work.beyond({"v": SEEN}, BOUNDS) == []
    assert BOUNDS["v"]["pages"] == 10_125
    assert BOUNDS["v"]["clones"] == 2


@pytest.mark.parametrize(("name", "count"), [(k, v * 13 // 10 + 1) for k, v in SEEN.items()])
def test_more_of_anything_is_a_regression(name: str, count: int) -> None:
    (line,) = work.beyond({"v": {**SEEN, name: count}}, BOUNDS)
    assert line.startswith(f"v: {name}: {count:,}, at most ")


@pytest.mark.parametrize("name", [name for name, count in SEEN.items() if count])
def test_a_count_that_is_gone_is_no_improvement(name: str) -> None:
    (line,) = work.beyond({"v": {k: v for k, v in SEEN.items() if k != name}}, BOUNDS)
    assert line.startswith(f"v: {name}: none were counted")


def test_a_variant_without_bounds_is_told() -> None:
    assert work.beyond({"w": SEEN}, BOUNDS) == ["w: there are no bounds for it"]


def test_the_bounds_that_are_kept_are_of_the_variants_that_are_counted() -> None:
    import json

    kept = json.loads(work.BOUNDS.read_text())
    assert set(kept) == set(work.VARIANTS) == {variant.id for variant in work.chosen()}
    for bounds in kept.values():
        assert set(bounds) == set(SEEN)
        assert bounds["boots"] == 0


def test_guests_follow_one_another() -> None:
    whole: dict[str, int] = {}
    add_work(whole, {"clones": 1, "private": 70, "sent": 5})
    add_work(whole, {"clones": 1, "private": 60, "sent": 6})
    assert whole == {"clones": 2, "private": 70, "sent": 11}


def accel_of(role: Role, accel: Literal["kvm", "tcg"]) -> str:
    fds = Fds(
        qmp=3, agent=4, console=5, root=6, modules=7, scratch=8, kernel=9, initrd=10, memory=11
    )
    version = Version(binary="qemu", number=(7, 2), text="QEMU")
    words = argv(Spec(version=version, accel=accel, memory_mib=64, cpus=1, role=role, fds=fds))
    return words[words.index("-accel") + 1]


def test_translated_code_is_bounded_where_code_is_translated_and_many_guests_run() -> None:
    assert accel_of("clone", "tcg") == "tcg,tb-size=64"
    assert accel_of("template", "tcg") == "tcg"
    assert accel_of("clone", "kvm") == "kvm"
    assert CODE_MIB * MIB < BESIDE


SMAPS = """\
7fba3bfff000-7fba7bfff000 rw-p 00000000 fe:00 16114824                   /cache/template/1/memory
Rss:              200000 kB
Private_Clean:     70004 kB
Private_Dirty:     91348 kB
VmFlags: rd wr mr
7fba7c000000-7fbabbfff000 rwxp 00000000 00:00 0
Private_Clean:         0 kB
Private_Dirty:     86016 kB
VmFlags: rd wr ex
"""


def test_a_clone_s_own_pages_are_told_from_qemu_s_memory() -> None:
    assert parse_smaps(SMAPS, 16114824) == Held(private=177_364 << 10, copied=91_348 << 10)
    assert parse_smaps(SMAPS, None) == Held(private=177_364 << 10, copied=0)
    assert parse_smaps("", 16114824) is None
