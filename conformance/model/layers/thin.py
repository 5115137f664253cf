"""Thin pools of the device mapper, thin devices on them, and their snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from conformance.model.base import Bytes
from conformance.model.layers.base import BLOCK_DEVICE, Ability, Layer, Name

_CHUNK = 65536
_METADATA_BLOCK = 4096


class ThinPoolLayer(Layer):
    """A thin pool, with its data and its metadata on stretches of a block layer.

    The layer below has to be large enough for three times ``data`` and eight times ``metadata``: for
    what the pool has, and for what relief gives it.
    """

    SORT: ClassVar[str] = "a thin pool"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"pool"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"on": BLOCK_DEVICE}
    NEEDS: ClassVar[tuple[str, ...]] = ("module:dm_thin_pool", "tool:dmsetup")

    layer: Literal["thin_pool"]
    on: Name = Field(description="a block layer")
    data: Bytes = Field(description="bytes of its data device at first")
    metadata: Bytes = Field(default=1 << 20, description="bytes of its metadata device at first")
    chunk: Bytes = Field(default=_CHUNK, description="the unit in which it gives out space")
    no_space: Literal["error", "queue"] = Field(
        default="error",
        description="error_if_no_space, or the default: such writes wait in a queue",
    )
    timeout: int = Field(
        default=60, ge=0, description="no_space_timeout: seconds in the queue; 0: for ever"
    )

    def wrong(self, below: Mapping[str, Layer]) -> Iterator[tuple[str, str]]:
        """See ``Layer``."""
        del below
        if not self.chunk or self.chunk % _CHUNK:
            yield "chunk", f"{self.chunk} is no multiple of 64 KiB"
        elif self.data % self.chunk:
            yield "data", f"{self.data} is no number of whole chunks"
        if self.metadata % _METADATA_BLOCK:
            yield "metadata", f"{self.metadata} is no multiple of {_METADATA_BLOCK}"


class OnPool(Layer):
    """What thin devices and their snapshots have in common. The pool zeroes what it gives out."""

    NEEDS: ClassVar[tuple[str, ...]] = ("module:dm_thin_pool", "tool:dmsetup")

    def zeroed(self, layers: Mapping[str, Layer]) -> bool:
        """See ``Layer``."""
        del layers
        return True


class ThinLayer(OnPool):
    """A thin device on a pool. Detached with the last of its devices, the pool goes too."""

    SORT: ClassVar[str] = "a thin device"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"block", "reattach", "thin"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"on": frozenset({"pool"})}

    layer: Literal["thin"]
    on: Name = Field(description="a thin pool")
    size: Bytes = Field(description="bytes that the device offers")

    def device_size(self, sizes: Mapping[str, int]) -> int | None:
        """See ``Layer``."""
        del sizes
        return self.size


class ThinSnapshotLayer(OnPool):
    """A snapshot of a thin device, writable, in the same pool. A step ``snapshot`` takes it anew."""

    SORT: ClassVar[str] = "a snapshot of a thin device"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"block", "reattach", "snapshot"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"on": frozenset({"thin"})}

    layer: Literal["thin_snapshot"]
    on: Name = Field(description="a thin device")

    def device_size(self, sizes: Mapping[str, int]) -> int | None:
        """See ``Layer``."""
        return sizes.get(self.on)


AnyThinLayer = ThinPoolLayer | ThinLayer | ThinSnapshotLayer
