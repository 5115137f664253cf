"""Devices that keep their data in the kernel's memory: zram, brd, null_blk."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from conformance.model.base import Bytes
from conformance.model.layers.base import Ability, Layer, SpaceOfItsOwn


class InMemoryLayer(SpaceOfItsOwn, Layer):
    """What they have in common. To let such a device go is to lose what it holds."""

    CAN: ClassVar[frozenset[Ability]] = frozenset({"block"})

    size: Bytes = Field(description="bytes that the device offers")


class ZramLayer(InMemoryLayer):
    """A zram device, which keeps its pages compressed."""

    SORT: ClassVar[str] = "a zram device"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"block", "zram"})
    NEEDS: ClassVar[tuple[str, ...]] = ("module:zram",)
    # zram_bio_write() in drivers/block/zram/zram_drv.c: BLK_STS_IOERR, whatever was short.
    CARRIES_ERRNO: ClassVar[bool] = False

    layer: Literal["zram"]


class BrdLayer(InMemoryLayer):
    """A RAM disk of the brd driver."""

    SORT: ClassVar[str] = "a RAM disk"
    NEEDS: ClassVar[tuple[str, ...]] = ("module:brd",)

    layer: Literal["brd"]


class NullBlkLayer(InMemoryLayer):
    """A null_blk device that is backed by memory."""

    SORT: ClassVar[str] = "a null_blk device"
    NEEDS: ClassVar[tuple[str, ...]] = ("module:null_blk",)

    layer: Literal["null_blk"]


AnyInMemoryLayer = ZramLayer | BrdLayer | NullBlkLayer
