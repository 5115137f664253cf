"""What devices over servers, targets and drivers of the kernel's own say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from agent.servers.conduct import AT_LIMIT, LIES, REPLIES
from agent.shortages.scsi_sense import SENSE

from conformance.library import load_library
from conformance.model import Layer, Quota, Shortage
from conformance.model.layers import FileLayer, FsLayer, SubvolumeLayer, TmpfsLayer
from conformance.model.layers.nbd import NbdLayer, QemuNbdLayer
from conformance.model.layers.nvme import NvmeLoopLayer
from conformance.model.layers.scsi import ScsiDebugLayer
from conformance.model.layers.server import ServerLayer
from conformance.model.layers.ublk import UblkLayer
from conformance.model.layers.zoned import ZloopLayer
from conformance.model.shortages import ScsiSense
from conformance.parts import SHORTAGES

LIBRARY = load_library(
    [Path(__file__).parents[2] / "cases"], Path(__file__).parents[2] / "fixtures"
)
MIB = 1 << 20
TMPFS = TmpfsLayer.example(name="back", size=MIB)
FILE = FileLayer.example(name="image", on="back", size=MIB)
BELOW: dict[str, Layer] = {"back": TMPFS, "image": FILE}


def test_only_honest_servers_are_in_the_library() -> None:
    servers = [
        layer
        for variant in LIBRARY.variants
        for arm in variant.arms
        for layer in arm.layers
        if isinstance(layer, ServerLayer)
    ]
    assert servers
    assert {server.behaviour for server in servers} == {"honest"}


def test_the_guest_knows_every_word_for_a_server() -> None:
    def words(model: type[Layer], field: str) -> set[str]:
        annotation = model.model_fields[field].annotation
        return set(getattr(annotation, "__args__", ()))

    assert words(NbdLayer, "behaviour") == {"honest", *LIES}
    assert words(NbdLayer, "reply") == set(REPLIES)
    assert words(NbdLayer, "at_limit") | words(UblkLayer, "at_limit") == set(AT_LIMIT)
    assert set(ScsiSense.model_fields["sense"].annotation.__args__) == set(SENSE)  # type: ignore[union-attr]


def test_nbd_knows_only_eio() -> None:
    assert not NbdLayer.CARRIES_ERRNO
    assert not QemuNbdLayer.CARRIES_ERRNO
    assert UblkLayer.CARRIES_ERRNO
    assert ScsiDebugLayer.CARRIES_ERRNO
    assert NvmeLoopLayer.CARRIES_ERRNO


def test_a_subvolume_is_one_of_btrfs() -> None:
    layer = SubvolumeLayer.example(name="limited", on="fs")
    for kind, wrong in (("btrfs", []), ("ext4", ["on"])):
        below = {"fs": FsLayer.example(name="fs", on="disk", type=kind)}
        assert [key for key, _ in layer.wrong(below)] == wrong


def test_a_tmpfs_with_quota_needs_a_kernel_that_has_it() -> None:
    limited = TmpfsLayer.example(name="back", size=MIB, quota=["user"])
    assert list(limited.needs({})) == ["probe:quota_tmpfs"]
    assert not list(TMPFS.needs({}))
    quota = Quota(kind="quota", layer="back", type="group", id=1, limit=MIB)
    assert [key for key, _ in quota.wrong({"back": limited})] == ["type"]


def test_what_counts_inodes_is_no_shortage_of_space() -> None:
    kinds = {k: s for k, s in SHORTAGES.items() if issubclass(s, Shortage)}
    spaceless = {kind for kind, shortage in kinds.items() if not shortage.OF_SPACE}
    assert spaceless == {"inodes", "inode_quota"}


@pytest.mark.parametrize(("attach", "wrong"), [("netlink", []), ("ioctl", ["replaced"])])
def test_a_connection_is_replaced_by_netlink_only(attach: str, wrong: list[str]) -> None:
    layer = NbdLayer.example(name="device", size=MIB, attach=attach, replaced="on")
    assert [key for key, _ in layer.wrong({})] == wrong


@pytest.mark.parametrize(("size", "wrong"), [(MIB, []), (MIB + 4096, ["size"]), (0, ["size"])])
def test_scsi_debug_has_whole_mebibytes(size: int, wrong: list[str]) -> None:
    layer = ScsiDebugLayer.example(name="device", size=size)
    assert [key for key, _ in layer.wrong({})] == wrong


@pytest.mark.parametrize(
    ("size", "zone", "wrong"),
    [
        (12 * MIB, 2 * MIB, []),
        (12 * MIB, 3 * MIB, ["zone"]),
        (12 * MIB, MIB // 2, ["zone"]),
        (11 * MIB, 2 * MIB, ["size"]),
        (0, MIB, ["size"]),
    ],
)
def test_a_zoned_device_has_whole_zones(size: int, zone: int, wrong: list[str]) -> None:
    layer = ZloopLayer.example(name="device", on="back", size=size, zone=zone)
    assert [key for key, _ in layer.wrong(BELOW)] == wrong


def test_zones_past_the_page_cache_need_direct_io_of_tmpfs() -> None:
    direct = ZloopLayer.example(name="device", on="back", size=2 * MIB)
    cached = ZloopLayer.example(name="device", on="back", size=2 * MIB, buffered_io="on")
    assert list(direct.needs(BELOW)) == ["probe:zloop", "probe:tmpfs_direct_io"]
    assert list(cached.needs(BELOW)) == ["probe:zloop"]
    assert ZloopLayer.CARRIES_ERRNO


def test_an_nvme_target_past_the_page_cache_needs_direct_io_of_tmpfs() -> None:
    cached = NvmeLoopLayer.example(name="device", on="image")
    direct = NvmeLoopLayer.example(name="device", on="image", buffered_io="off")
    assert list(cached.needs(BELOW)) == ["module:nvmet", "module:nvme_loop"]
    assert list(direct.needs(BELOW)) == [*cached.needs(BELOW), "probe:tmpfs_direct_io"]


def test_a_device_over_a_new_file_or_store_holds_zeros_and_has_its_size() -> None:
    over_file: list[Layer] = [
        NvmeLoopLayer.example(name="device", on="image"),
        QemuNbdLayer.example(name="device", on="image"),
    ]
    for layer in over_file:
        assert layer.zeroed(BELOW)
        assert not layer.zeroed({})
        assert layer.device_size({"image": 7 * MIB}) == 7 * MIB
    own: list[Layer] = [
        NbdLayer.example(name="device", size=MIB),
        UblkLayer.example(name="device", size=MIB),
        ScsiDebugLayer.example(name="device", size=MIB),
        ZloopLayer.example(name="device", on="back", size=MIB, zone=MIB),
    ]
    for layer in own:
        assert layer.zeroed({})
        assert layer.device_size({}) == MIB
