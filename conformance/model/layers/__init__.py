"""The layers of rigs: one module for each family of devices, one line here for each module."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator

from conformance.model.layers.base import ABILITIES, Ability, Layer, Name, Switch
from conformance.model.layers.basic import (
    DISK_SIZE,
    BasicLayer,
    DiskLayer,
    FileLayer,
    FsLayer,
    LoopLayer,
    SwapLayer,
    TmpfsLayer,
)

AnyLayer = Annotated[
    BasicLayer,
    Discriminator("layer"),
]

__all__ = [
    "ABILITIES",
    "DISK_SIZE",
    "Ability",
    "AnyLayer",
    "DiskLayer",
    "FileLayer",
    "FsLayer",
    "Layer",
    "LoopLayer",
    "Name",
    "SwapLayer",
    "Switch",
    "TmpfsLayer",
]
