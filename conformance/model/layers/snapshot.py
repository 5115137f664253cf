"""The device mapper's old snapshots: an origin, and a snapshot with space of its own to copy to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from conformance.model.base import Bytes
from conformance.model.layers.base import BLOCK_DEVICE, Ability, AsBelow, Layer, Name


class SnapshotOriginLayer(Layer):
    """A stretch of a block layer that a dm-snapshot can be taken of (target snapshot-origin)."""

    SORT: ClassVar[str] = "an origin of dm-snapshots"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"block", "reattach", "origin"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"on": BLOCK_DEVICE}
    NEEDS: ClassVar[tuple[str, ...]] = ("module:dm_snapshot", "tool:dmsetup")

    layer: Literal["snapshot_origin"]
    on: Name = Field(description="a block layer")
    size: Bytes = Field(description="bytes that the device offers")

    def device_size(self, sizes: Mapping[str, int]) -> int | None:
        """See ``Layer``."""
        del sizes
        return self.size

    def zeroed(self, layers: Mapping[str, Layer]) -> bool:
        """See ``Layer``."""
        below = layers.get(self.on)
        return below is not None and below.zeroed(layers)


class DmSnapshotLayer(AsBelow, Layer):
    """A snapshot of an origin, writable (target snapshot). A step ``snapshot`` takes it anew."""

    SORT: ClassVar[str] = "a dm-snapshot"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"block", "reattach", "snapshot", "cow"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"on": frozenset({"origin"})}
    NEEDS: ClassVar[tuple[str, ...]] = ("module:dm_snapshot", "tool:dmsetup")
    # persistent_prepare_exception() in drivers/md/dm-snap-persistent.c knows want of space; the
    # requests that need it then end with DM_MAPIO_KILL or bio_io_error() in dm-snap.c: EIO.
    CARRIES_ERRNO: ClassVar[bool] = False

    layer: Literal["dm_snapshot"]
    on: Name = Field(description="an origin of dm-snapshots")
    cow: Bytes = Field(description="bytes of its COW device at first")
    store: Literal["P", "PO", "N"] = Field(
        default="P", description="persistent, the same with the status Overflow, or transient"
    )


AnySnapshotLayer = SnapshotOriginLayer | DmSnapshotLayer
