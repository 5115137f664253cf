"""The layers of rigs: one module for each family of devices, one line here for each module."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator

from conformance.model.layers.backings import (
    BackingLayer,
    BindfsLayer,
    NfsLayer,
    OverlayLayer,
)
from conformance.model.layers.base import ABILITIES, Ability, Layer, Name, Switch
from conformance.model.layers.basic import (
    DISK_SIZE,
    BasicLayer,
    DiskLayer,
    FileLayer,
    FsLayer,
    LoopLayer,
    SubvolumeLayer,
    SwapLayer,
    TmpfsLayer,
)
from conformance.model.layers.machine import (
    AnyMachineDiskLayer,
    MachineDiskLayer,
    VirtioLayer,
)
from conformance.model.layers.md import MdRaidLayer
from conformance.model.layers.memory import AnyInMemoryLayer
from conformance.model.layers.nbd import NbdLayer, QemuNbdLayer
from conformance.model.layers.nvme import NvmeLoopLayer
from conformance.model.layers.scsi import ScsiDebugLayer
from conformance.model.layers.snapshot import AnySnapshotLayer
from conformance.model.layers.stack import AnyStackedLayer
from conformance.model.layers.thin import AnyThinLayer
from conformance.model.layers.ublk import UblkLayer
from conformance.model.layers.vdo import VdoLayer
from conformance.model.layers.zoned import ZloopLayer

AnyLayer = Annotated[
    BasicLayer
    | BackingLayer
    | NbdLayer
    | QemuNbdLayer
    | UblkLayer
    | ScsiDebugLayer
    | NvmeLoopLayer
    | AnyMachineDiskLayer
    | AnyThinLayer
    | AnySnapshotLayer
    | VdoLayer
    | AnyStackedLayer
    | MdRaidLayer
    | AnyInMemoryLayer
    | ZloopLayer,
    Discriminator("layer"),
]

__all__ = [
    "ABILITIES",
    "DISK_SIZE",
    "Ability",
    "AnyLayer",
    "BindfsLayer",
    "DiskLayer",
    "FileLayer",
    "FsLayer",
    "Layer",
    "LoopLayer",
    "MachineDiskLayer",
    "Name",
    "NfsLayer",
    "OverlayLayer",
    "SubvolumeLayer",
    "SwapLayer",
    "Switch",
    "TmpfsLayer",
    "VirtioLayer",
]
