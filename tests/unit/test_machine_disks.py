"""Disks of the machine's: what they say of themselves, what the host does for a case, what QEMU is told."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conformance.library import load_library
from conformance.machine.disks import commands, refused, stopped_by_another
from conformance.machine.fake import FakeMachine
from conformance.machine.protocol import DiskOrder
from conformance.model import (
    Clause,
    HostSpace,
    Layer,
    MachineDiskLayer,
    Observation,
    Status,
    Verdict,
    VirtioLayer,
)
from conformance.model.layers.machine import NvmeLayer, VirtioBlkLayer, VirtioScsiLayer
from conformance.runner import Facts, Outcome, run_variant
from tests.support.liars import on_step, reads
from tests.support.model_guest import Lie, ModelGuest

ROOT = Path(__file__).parents[2]
LIBRARY = load_library([ROOT / "cases", ROOT / "tests" / "planted" / "cases"], ROOT / "fixtures")
VARIANTS = {variant.id: variant for variant in LIBRARY.variants}
MIB = 1 << 20
FULL = "virtio_blk_host_full[direct]"
STOPS = "machine_disk_stops[virtio_scsi-enospc-direct]"


def run(
    variant: str,
    folder: Path,
    *,
    lie: Lie | None = None,
    lacks: str = "",
) -> Outcome:
    machine = FakeMachine(
        ModelGuest(lie=lie).handlers,
        kernel="model",
        lacks={"short_file": lacks},
    )
    return run_variant(VARIANTS[variant], machine, facts=Facts(), workdir=folder)


def seen(outcome: Outcome) -> Observation:
    assert outcome.observation is not None
    return outcome.observation


def test_the_library_asks_no_machine_to_lie() -> None:
    of_library = [v for v in LIBRARY.variants if v.family != "planted"]
    disks = [
        layer
        for variant in of_library
        for arm in variant.arms
        for layer in arm.layers
        if isinstance(layer, VirtioLayer)
    ]
    assert disks
    assert {disk.on_error for disk in disks} == {"report", "stop", "enospc"}


def test_what_can_name_the_shortage_to_a_guest() -> None:
    assert not VirtioBlkLayer.CARRIES_ERRNO
    assert not NvmeLayer.CARRIES_ERRNO
    assert VirtioScsiLayer.CARRIES_ERRNO


@pytest.mark.parametrize(
    ("layer", "grows", "wrong"),
    [
        (VirtioBlkLayer.example(name="d", size=MIB), 0, []),
        (VirtioBlkLayer.example(name="d", size=MIB), MIB, ["grows"]),
        (VirtioBlkLayer.example(name="d", size=MIB, on_error="ignore"), 0, []),
        (VirtioScsiLayer.example(name="d", size=MIB, on_error="stop"), 0, ["layer"]),
        (VirtioScsiLayer.example(name="d", size=MIB, on_error="enospc"), MIB, []),
        (NvmeLayer.example(name="d", size=MIB), MIB, ["grows"]),
    ],
)
def test_a_machine_that_stops_must_be_let_go_on(
    layer: MachineDiskLayer, grows: int, wrong: list[str]
) -> None:
    shortage = HostSpace(kind="host_space", layer="d", leave=4096, grows=grows)
    assert [key for key, _ in shortage.wrong({"d": layer})] == wrong


def test_there_is_one_place_for_a_disk() -> None:
    disk: Layer = NvmeLayer.example(name="one", size=MIB)
    other = VirtioBlkLayer.example(name="other", size=MIB)
    assert not list(other.wrong({}))
    assert [key for key, _ in other.wrong({"one": disk})] == ["name"]


# -- what QEMU is told, and tells ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("bus", "drivers"),
    [
        ("virtio_blk", ["virtio-blk-pci"]),
        ("virtio_scsi", ["virtio-scsi-pci", "scsi-hd"]),
        ("nvme", ["nvme"]),
    ],
)
def test_a_disk_is_plugged_into_the_port(bus: Any, drivers: list[str]) -> None:
    order = DiskOrder(name="short", bus=bus, size=MIB, on_error="stop")
    (block, file), *devices = commands(order, "there")
    assert block == "blockdev-add"
    assert file["node-name"] == "short"
    assert [told["driver"] for _, told in devices] == drivers
    assert devices[0][1]["bus"] == "there"
    disk = devices[-1][1]
    assert (disk["drive"], disk["serial"]) == ("short", "short")
    assert disk.get("werror") == (None if bus == "nvme" else "stop")


def test_an_event_counts_if_it_tells_of_a_write_without_space() -> None:
    def event(**data: object) -> dict[str, object]:
        told = {"node-name": "short", "operation": "write", "action": "report", **data}
        return {"event": "BLOCK_IO_ERROR", "data": told}

    events: list[dict[str, object]] = [
        event(reason="No space left on device"),
        event(reason="No space left on device", nospace=True),
        event(reason="Input/output error", nospace=False),
        event(reason="No space left on device", **{"node-name": "scratch"}),
        event(reason="No space left on device", operation="read"),
        {"event": "STOP"},
    ]
    assert refused(events, "short") == 2


def test_only_another_disk_s_stop_is_the_host_s_fault() -> None:
    def event(node: str, action: str) -> dict[str, object]:
        data = {"node-name": node, "action": action, "reason": f"{node} is full"}
        return {"event": "BLOCK_IO_ERROR", "data": data}

    helped: list[dict[str, object]] = [
        event("short", "stop"),
        event("scratch", "report"),
        {"event": "STOP"},
    ]
    assert stopped_by_another(helped, "short") is None
    assert stopped_by_another([*helped, event("scratch", "stop")], "short") == "scratch is full"
    assert stopped_by_another(helped, "") == "short is full"


# -- what the host does for a case ---------------------------------------------------------------


def test_the_guest_hears_of_a_disk_and_of_no_host(tmp_path: Path) -> None:
    model = ModelGuest()
    heard: list[dict[str, Any]] = []
    handlers = model.handlers()

    def listening(args: dict[str, Any]) -> object:
        heard.append(args)
        return handlers["build"](args)

    machine = FakeMachine(lambda: {**handlers, "build": listening}, kernel="model")
    run_variant(VARIANTS[STOPS], machine, facts=Facts(), workdir=tmp_path)
    (asked,) = heard
    assert asked["shortage"] == {"kind": "none"}
    assert asked["layers"] == [{"name": "device", "layer": "virtio_scsi", "size": 12 * MIB}]


def test_the_gauge_is_the_host_s(tmp_path: Path) -> None:
    outcome = run(FULL, tmp_path)
    assert outcome.verdict.status is Status.PASS, outcome.verdict
    (arm,) = seen(outcome).arms
    readings = {step.name: step.watch.reading for step in arm.steps}
    assert {reading.kind for reading in readings.values()} == {"host_space"}
    assert readings["control"].limit is None
    assert readings["impose"].limit == MIB + 3 * MIB
    assert readings["relieve"].limit is None
    assert readings["fill"].hits


def test_a_machine_that_stops_is_helped_each_time(tmp_path: Path) -> None:
    outcome = run(STOPS, tmp_path)
    assert outcome.verdict.status is Status.PASS, outcome.verdict
    (arm,) = seen(outcome).arms
    fill = next(step for step in arm.steps if step.name == "fill")
    assert fill.watch.reading.hits == 6
    assert fill.submitter is not None
    assert all(op.result >= 0 for op in fill.submitter.ops)


def test_a_host_that_has_no_such_file_is_a_reason_to_skip(tmp_path: Path) -> None:
    verdict = run(FULL, tmp_path, lacks="no namespaces here").verdict
    assert verdict.status is Status.SKIP
    assert verdict.reasons == ("host:short_file: no namespaces here",)


def test_a_disk_that_cannot_be_had_is_the_rig_s_failure(tmp_path: Path) -> None:
    handlers = ModelGuest().handlers()
    del handlers["host:plug"]
    machine = FakeMachine(lambda: handlers, kernel="model")
    verdict = run_variant(VARIANTS[FULL], machine, facts=Facts(), workdir=tmp_path).verdict
    assert verdict.status is Status.BROKEN
    assert "the rig could not be built: there is no place for device" in verdict.reasons[0]


@pytest.mark.parametrize("what", ["squeeze", "give", "reading"])
def test_what_the_host_cannot_do_breaks_the_step(what: str, tmp_path: Path) -> None:
    handlers = ModelGuest().handlers()

    def fail(_args: dict[str, Any]) -> object:
        raise OSError(5, "the host's own trouble")

    machine = FakeMachine(lambda: {**handlers, f"host:{what}": fail}, kernel="model")
    verdict = run_variant(VARIANTS[FULL], machine, facts=Facts(), workdir=tmp_path).verdict
    assert verdict.status is Status.BROKEN
    assert any("the host's own trouble" in reason for reason in verdict.reasons)


# -- the negative control: werror=ignore ---------------------------------------------------------


def _swallow(answer: dict[str, Any]) -> None:
    """What had no space is told of as done, and the writer, who hears of nothing, goes on to the end."""
    ops = answer["submitter"]["ops"]
    failed = next(op for op in ops if op[4] < 0)
    kind, offset, length, generation, _, start, end = failed
    rest = [
        [kind, at, length, generation, length, start, end] for at in range(offset, 8 * MIB, length)
    ]
    place = ops.index(failed)
    answer["submitter"]["ops"] = [*ops[:place], *rest, *ops[place + 1 :]]


def _verdict(variant: str, lie: Lie, folder: Path) -> Verdict:
    return run(variant, folder, lie=lie).verdict


def test_a_write_that_was_dropped_and_told_of_as_done_is_caught(tmp_path: Path) -> None:
    verdict = _verdict(
        "planted_machine_disk[virtio_blk-ignore]", on_step(["fill"], _swallow), tmp_path
    )
    assert verdict.status is Status.FAIL
    found = {finding.clause for finding in verdict.findings}
    assert {Clause.ERROR_SURFACED, Clause.ACKNOWLEDGED_READABLE} <= found


def test_a_write_that_got_lost_while_the_machine_was_stopped_is_caught(tmp_path: Path) -> None:
    later = ("read_short", "read_relieved")
    verdict = _verdict(STOPS, on_step(later, partial(reads, "zero", 3 * MIB)), tmp_path)
    assert verdict.status is Status.FAIL
    assert Clause.ACKNOWLEDGED_READABLE in {finding.clause for finding in verdict.findings}
