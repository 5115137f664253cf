"""Devices of the device mapper that pass I/O on to others, or keep a part of it themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from conformance.model.base import Bytes
from conformance.model.layers.base import BLOCK_DEVICE, Ability, AsBelow, Layer, Name


class StackedLayer(AsBelow, Layer):
    """What they have in common: a device that can be let go of, over a block layer."""

    CAN: ClassVar[frozenset[Ability]] = frozenset({"block", "reattach"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"on": BLOCK_DEVICE}

    on: Name = Field(description="a block layer")


class DmLinearLayer(StackedLayer):
    """A linear device over the whole of a block layer."""

    SORT: ClassVar[str] = "a dm-linear device"
    NEEDS: ClassVar[tuple[str, ...]] = ("module:dm_mod", "tool:dmsetup")

    layer: Literal["dm_linear"]


class DmCryptLayer(StackedLayer):
    """An encrypted device (aes-xts-plain64) over the whole of a block layer."""

    SORT: ClassVar[str] = "a dm-crypt device"
    NEEDS: ClassVar[tuple[str, ...]] = ("module:dm_crypt", "tool:dmsetup")

    layer: Literal["dm_crypt"]

    def zeroed(self, layers: Mapping[str, Layer]) -> bool:
        """See ``Layer``: zeros below are no zeros once they are deciphered."""
        del layers
        return False


class DmIntegrityLayer(StackedLayer):
    """A device with a checksum for each block, all of which are computed when it is made."""

    SORT: ClassVar[str] = "a dm-integrity device"
    NEEDS: ClassVar[tuple[str, ...]] = ("module:dm_integrity", "tool:dmsetup")
    # What has failed once sets ic->failed in drivers/md/dm-integrity.c, and every request after it
    # ends with EIO.
    CARRIES_ERRNO: ClassVar[bool] = False

    layer: Literal["dm_integrity"]
    size: Bytes = Field(description="bytes that the device offers: less than the layer below has")
    mode: Literal["J", "B", "D"] = Field(
        default="J", description="with a journal, with a bitmap, or direct"
    )

    def device_size(self, sizes: Mapping[str, int]) -> int | None:
        """See ``Layer``."""
        del sizes
        return self.size


class DmWritecacheLayer(StackedLayer):
    """A device whose writes are kept on another layer, and written back from there."""

    SORT: ClassVar[str] = "a dm-writecache device"
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {
        "on": BLOCK_DEVICE,
        "cache": BLOCK_DEVICE,
    }
    NEEDS: ClassVar[tuple[str, ...]] = ("module:dm_writecache", "tool:dmsetup")
    # What it fails to write back itself ends every request with EIO from then on: writecache_error() in
    # drivers/md/dm-writecache.c.
    CARRIES_ERRNO: ClassVar[bool] = False

    layer: Literal["dm_writecache"]
    cache: Name = Field(description="a block layer, of which the beginning is the cache")
    cache_size: Bytes = Field(description="bytes of the cache")


class DmCacheLayer(StackedLayer):
    """A device of which a part is kept on another layer too (target cache)."""

    SORT: ClassVar[str] = "a dm-cache device"
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {
        "on": BLOCK_DEVICE,
        "cache": BLOCK_DEVICE,
    }
    NEEDS: ClassVar[tuple[str, ...]] = ("module:dm_cache", "module:dm_cache_smq", "tool:dmsetup")

    layer: Literal["dm_cache"]
    cache: Name = Field(description="a block layer: its metadata, and after that the cache")
    cache_size: Bytes = Field(description="bytes of the cache")
    mode: Literal["writethrough", "writeback"] = Field(
        default="writethrough", description="whether a write is done when the origin has it"
    )


class DmMirrorLayer(Layer):
    """A device that writes to each of its legs (target mirror), which hold the same at first."""

    SORT: ClassVar[str] = "a dm-mirror device"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"block", "reattach"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"legs": BLOCK_DEVICE}
    NEEDS: ClassVar[tuple[str, ...]] = ("module:dm_mirror", "tool:dmsetup")
    # do_write() in drivers/md/dm-raid1.c, write_callback() and do_failures(): bio_io_error().
    CARRIES_ERRNO: ClassVar[bool] = False

    layer: Literal["dm_mirror"]
    legs: tuple[Name, ...] = Field(min_length=2, description="block layers; the first is read from")
    size: Bytes = Field(description="bytes that the device offers")

    def device_size(self, sizes: Mapping[str, int]) -> int | None:
        """See ``Layer``."""
        del sizes
        return self.size

    def zeroed(self, layers: Mapping[str, Layer]) -> bool:
        """See ``Layer``."""
        return all(leg in layers and layers[leg].zeroed(layers) for leg in self.legs)


AnyStackedLayer = (
    DmLinearLayer
    | DmCryptLayer
    | DmIntegrityLayer
    | DmWritecacheLayer
    | DmCacheLayer
    | DmMirrorLayer
)
