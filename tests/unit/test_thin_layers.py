"""What thin pools, snapshots and dm-vdo volumes say of themselves, and how snapshots are judged."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conformance.library import load_library
from conformance.machine.fake import FakeMachine
from conformance.model import BLOCK, Clause, Layer, Verdict
from conformance.model.layers import DiskLayer, FileLayer, LoopLayer
from conformance.model.layers.snapshot import DmSnapshotLayer, SnapshotOriginLayer
from conformance.model.layers.thin import ThinLayer, ThinPoolLayer, ThinSnapshotLayer
from conformance.model.layers.vdo import VdoLayer
from conformance.model.shortages import SnapshotCow
from conformance.runner import Facts, run_variant
from tests.support.liars import on_step, reads
from tests.support.model_guest import Lie, ModelGuest

ROOT = Path(__file__).parents[2]
LIBRARY = load_library([ROOT / "cases"], ROOT / "fixtures")
VARIANTS = {variant.id: variant for variant in LIBRARY.variants}
MIB = 1 << 20
FILE = FileLayer.example(name="image", on="back", size=32 * MIB)
LOOP = LoopLayer.example(name="base", on="image")
DISK = DiskLayer.example(name="disk")


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"data": 24 * MIB}, []),
        ({"data": 24 * MIB + 65536}, []),
        ({"data": 24 * MIB + 4096}, ["data"]),
        ({"data": 24 * MIB + 65536, "chunk": 131072}, ["data"]),
        ({"data": 24 * MIB, "chunk": 4096}, ["chunk"]),
        ({"data": 24 * MIB, "chunk": 0}, ["chunk"]),
        ({"data": 24 * MIB, "metadata": MIB + 512}, ["metadata"]),
    ],
)
def test_a_pool_has_whole_chunks_and_blocks(values: dict[str, int], wrong: list[str]) -> None:
    layer = ThinPoolLayer.example(name="pool", on="disk", **values)
    assert [key for key, _ in layer.wrong({})] == wrong


@pytest.mark.parametrize(("size", "wrong"), [(MIB, []), (16 * MIB, ["size"])])
def test_a_cow_device_is_made_shorter(size: int, wrong: list[str]) -> None:
    snapshot = DmSnapshotLayer.example(name="snapshot", on="device", cow=16 * MIB)
    shortage = SnapshotCow(kind="snapshot_cow", layer="snapshot", size=size)
    assert [key for key, _ in shortage.wrong({"snapshot": snapshot})] == wrong


def test_what_a_pool_gives_out_is_zeroed_and_has_its_size() -> None:
    thin = ThinLayer.example(name="device", on="pool", size=MIB)
    snapshot = ThinSnapshotLayer.example(name="snapshot", on="device")
    vdo = VdoLayer.example(name="device", on="base", size=MIB)
    assert all(layer.zeroed({}) for layer in (thin, snapshot, vdo))
    assert thin.device_size({}) == vdo.device_size({}) == MIB
    assert snapshot.device_size({"device": MIB}) == MIB


def test_an_origin_and_its_snapshot_hold_what_is_below_them() -> None:
    origin = SnapshotOriginLayer.example(name="device", on="base", size=MIB)
    snapshot = DmSnapshotLayer.example(name="snapshot", on="device", cow=MIB)
    on_loop: dict[str, Layer] = {"image": FILE, "base": LOOP, "device": origin}
    assert origin.zeroed(on_loop)
    assert snapshot.zeroed(on_loop)
    assert not origin.zeroed({"base": DISK})
    assert snapshot.device_size({"device": MIB}) == MIB


def test_a_dm_snapshot_knows_only_eio() -> None:
    assert not DmSnapshotLayer.CARRIES_ERRNO
    assert ThinLayer.CARRIES_ERRNO
    assert VdoLayer.CARRIES_ERRNO


# -- how what a snapshot holds is judged ----------------------------------------------------------

SHARED_AT = 3 * MIB
"""A byte that the origin held when the snapshot was taken, and that nobody had space to overwrite."""
OWN_AT = 768 << 10
"""One that the writer had space for."""
READS = ("read_short_snapshot", "read_relieved_snapshot", "read_reattached_snapshot")


def _holds(generation: int, at: int, seen: dict[str, Any]) -> None:
    """One block reads as a generation."""
    reads("generation", at, seen)
    for extent in seen["extents"]:
        if extent[0] == at and extent[1] == BLOCK:
            extent[3] = generation


def _verdict(variant: str, lie: Lie, folder: Path) -> Verdict:
    machine = FakeMachine(lambda: ModelGuest(lie=lie).handlers(), kernel="model")
    return run_variant(VARIANTS[variant], machine, facts=Facts(), workdir=folder).verdict


FAULTS = {
    "what was acknowledged on the origin is gone from the snapshot": (
        "thin_snapshot_breaks_sharing[device-direct-64K]",
        on_step(READS, partial(reads, "zero", SHARED_AT)),
        {(Clause.ACKNOWLEDGED_READABLE, "zeros-once-stored")},
    ),
    "what the origin's writer wrote shows in the snapshot": (
        "thin_snapshot_breaks_sharing[device-direct-64K]",
        on_step(READS, partial(_holds, 2, OWN_AT)),
        {
            (Clause.ACKNOWLEDGED_READABLE, "foreign-once-stored"),
            (Clause.NO_FOREIGN_DATA, "never-submitted-generation"),
        },
    ),
    "what the snapshot's writer wrote reads as it was before": (
        "thin_snapshot_breaks_sharing[snapshot-direct-64K]",
        on_step(READS, partial(_holds, 1, OWN_AT)),
        {(Clause.ACKNOWLEDGED_READABLE, "older"), (Clause.ERROR_SURFACED, "lost-in-silence")},
    ),
    "a snapshot that became invalid": (
        "snapshot_origin_overflows[direct-P]",
        on_step(READS, partial(reads, "unreadable", SHARED_AT)),
        {(Clause.ACKNOWLEDGED_READABLE, "unreadable")},
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_snapshot_holds_what_its_origin_held(name: str, tmp_path: Path) -> None:
    variant, lie, expected = FAULTS[name]
    verdict = _verdict(variant, lie, tmp_path)
    assert {(f.clause, f.signature) for f in verdict.findings} == expected
