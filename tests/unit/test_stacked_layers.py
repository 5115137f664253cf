"""What stacked devices, arrays and devices in memory say of themselves, and how they are judged."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from conformance.library import load_library
from conformance.machine.fake import FakeMachine
from conformance.model import Clause, Layer, Verdict
from conformance.model.layers import FileLayer, LoopLayer
from conformance.model.layers.md import MdRaidLayer
from conformance.model.layers.memory import BrdLayer, NullBlkLayer, ZramLayer
from conformance.model.layers.stack import (
    DmCacheLayer,
    DmCryptLayer,
    DmIntegrityLayer,
    DmLinearLayer,
    DmMirrorLayer,
    DmWritecacheLayer,
)
from conformance.model.layers.thin import ThinLayer
from conformance.runner import Facts, run_variant
from tests.support.liars import on_step, reads
from tests.support.model_guest import Lie, ModelGuest

ROOT = Path(__file__).parents[2]
LIBRARY = load_library([ROOT / "cases"], ROOT / "fixtures")
VARIANTS = {variant.id: variant for variant in LIBRARY.variants}
MIB = 1 << 20
BELOW: dict[str, Layer] = {
    "leg": ThinLayer.example(name="leg", on="pool", size=16 * MIB),
    "image": FileLayer.example(name="image", on="back", size=16 * MIB),
    "spare": LoopLayer.example(name="spare", on="image"),
}


def test_what_only_passes_on_has_the_size_of_what_is_below() -> None:
    for layer in (
        DmLinearLayer.example(name="device", on="leg"),
        DmCryptLayer.example(name="device", on="leg"),
        DmCacheLayer.example(name="device", on="leg", cache="spare", cache_size=MIB),
        DmWritecacheLayer.example(name="device", on="leg", cache="spare", cache_size=MIB),
    ):
        assert layer.device_size({"leg": 7 * MIB}) == 7 * MIB
        assert layer.zeroed(BELOW) is not isinstance(layer, DmCryptLayer)
        assert not layer.zeroed({})


def test_what_has_notes_of_its_own_says_its_size() -> None:
    own: list[Layer] = [
        DmIntegrityLayer.example(name="device", on="leg", size=MIB),
        DmMirrorLayer.example(name="device", legs=["leg", "spare"], size=MIB),
        MdRaidLayer.example(name="device", legs=["leg", "spare"], personality="raid1", size=MIB),
        ZramLayer.example(name="device", size=MIB),
        BrdLayer.example(name="device", size=MIB),
        NullBlkLayer.example(name="device", size=MIB),
    ]
    for layer in own:
        assert layer.device_size({"leg": 7 * MIB}) == MIB
        assert layer.zeroed(BELOW)


def test_an_array_stands_on_each_of_its_legs() -> None:
    array = MdRaidLayer.example(name="device", legs=["leg", "spare"], personality="raid1", size=MIB)
    assert list(array.supports()) == [("legs", "leg"), ("legs", "spare")]
    assert not array.zeroed({"leg": BELOW["leg"]})


@pytest.mark.parametrize(
    ("level", "legs", "size", "wrong"),
    [
        ("raid1", ["leg", "spare"], MIB, []),
        ("raid5", ["leg", "spare", "third"], MIB, []),
        ("raid5", ["leg", "spare"], MIB, ["legs"]),
        ("raid5", ["leg", "spare", "third"], MIB + 65536, ["size"]),
        ("raid1", ["leg", "spare"], MIB + 4096, ["size"]),
    ],
)
def test_an_array_has_legs_enough_and_whole_chunks(
    level: str, legs: list[str], size: int, wrong: list[str]
) -> None:
    array = MdRaidLayer.example(name="device", legs=legs, personality=level, size=size)
    assert [key for key, _ in array.wrong({})] == wrong
    need = "module:raid456" if level == "raid5" else "module:raid1"
    assert list(array.needs({})) == [need, "tool:mdadm"]


def test_who_passes_the_status_on_carries_the_errno() -> None:
    assert DmLinearLayer.CARRIES_ERRNO
    assert DmCryptLayer.CARRIES_ERRNO
    assert DmCacheLayer.CARRIES_ERRNO
    own = (DmMirrorLayer, DmIntegrityLayer, DmWritecacheLayer, MdRaidLayer, ZramLayer)
    assert not any(layer.CARRIES_ERRNO for layer in own)


# -- planted faults -------------------------------------------------------------------------------

READS = ("read_short", "read_relieved", "read_reattached")


def _refuses(step: dict[str, object]) -> None:
    """The last write of a step fails, although another leg has space for it."""
    submitter = step["submitter"]
    assert isinstance(submitter, dict)
    writes = [op for op in submitter["ops"] if op[0] == "write"]
    writes[-1][4] = -5


def _verdict(variant: str, lie: Lie, folder: Path) -> Verdict:
    machine = FakeMachine(lambda: ModelGuest(lie=lie).handlers(), kernel="model")
    return run_variant(VARIANTS[variant], machine, facts=Facts(), workdir=folder).verdict


FAULTS = {
    "an array reads from the leg that was short": (
        "raid_leg_short[raid1-1.2]",
        on_step(READS, partial(reads, "zero", 2 * MIB)),
        {(Clause.ACKNOWLEDGED_READABLE, "zeros"), (Clause.ERROR_SURFACED, "lost-in-silence")},
    ),
    "an array fails although it has a leg left": (
        "raid_leg_short[raid5-0.90]",
        on_step(("fill",), _refuses),
        {(Clause.RESOLVED_BY_WAITING, "main:error")},
    ),
    "zram forgets what it acknowledged": (
        "zram_full[direct]",
        on_step(("read_short", "read_relieved", "read_again"), partial(reads, "zero", MIB + 65536)),
        {(Clause.ACKNOWLEDGED_READABLE, "zeros"), (Clause.ERROR_SURFACED, "lost-in-silence")},
    ),
    "a RAM disk fails although memory comes back": (
        "ram_disk_waits_for_memory[brd-direct]",
        on_step(("fill",), _refuses),
        {(Clause.RESOLVED_BY_WAITING, "main:error")},
    ),
    "a RAM disk has forgotten what it acknowledged": (
        "ram_disk_small_limit[null_blk-buffered]",
        on_step(("read_relieved",), partial(reads, "zero", 2 * MIB)),
        {(Clause.ACKNOWLEDGED_READABLE, "zeros")},
    ),
    "a block is stored in the place of another": (
        "loop_enospc_space_appears[buffered]",
        on_step(READS, partial(reads, "foreign", 5 * MIB)),
        {(Clause.NO_FOREIGN_DATA, "foreign")},
    ),
    "a zone that was reset is refused": (
        "zloop_reset[off]",
        on_step(("anew",), _refuses),
        {(Clause.REUSABLE, "refused-for-nothing:EIO"), (Clause.ERRNO_PRECISE, "EIO")},
    ),
    "a zone tells of no error and stores nothing": (
        "zloop_full[64K-off]",
        on_step(READS, partial(reads, "zero", 2 * MIB)),
        {(Clause.ACKNOWLEDGED_READABLE, "zeros"), (Clause.ERROR_SURFACED, "lost-in-silence")},
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_devices_do_wrong_is_found(name: str, tmp_path: Path) -> None:
    variant, lie, expected = FAULTS[name]
    verdict = _verdict(variant, lie, tmp_path)
    found = {(f.clause, f.signature) for f in verdict.findings}
    # A loss is a lost acknowledgement in any case; whether it is said twice is the clauses' matter.
    assert found & expected, found
    assert found <= expected | {(Clause.LIMIT_ENFORCED, "limit-not-enforced")}, found
