"""Arrays of the md driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from conformance.model.base import Bytes
from conformance.model.layers.base import BLOCK_DEVICE, Ability, Layer, Name

_LEAST = {"raid1": 2, "raid5": 3}
_CHUNK = 65536


class MdRaidLayer(Layer):
    """An array whose legs all hold zeros at first, so that it is in sync when it is made.

    Attached anew it is assembled from the legs that it has then, and a leg that it has lost is added
    and rebuilt, as an administrator would do it.
    """

    SORT: ClassVar[str] = "an md array"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"block", "reattach"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"legs": BLOCK_DEVICE}
    # raid_end_bio_io() and raid5's handle_failed_stripe() in drivers/md make BLK_STS_IOERR of
    # whatever the legs said.
    CARRIES_ERRNO: ClassVar[bool] = False

    layer: Literal["md_raid"]
    legs: tuple[Name, ...] = Field(min_length=2, description="block layers")
    personality: Literal["raid1", "raid5"] = Field(description="what the legs are to each other")
    size: Bytes = Field(
        description="bytes that the device offers, in chunks of 64 KiB for each leg"
    )
    metadata: Literal["1.2", "0.90"] = Field(
        default="1.2", description="the superblock: 1.2 has room for a list of bad blocks"
    )

    def needs(self, below: Mapping[str, Layer]) -> Iterator[str]:
        """See ``Layer``."""
        del below
        yield f"module:{'raid456' if self.personality == 'raid5' else 'raid1'}"
        yield "tool:mdadm"

    def device_size(self, sizes: Mapping[str, int]) -> int | None:
        """See ``Layer``."""
        del sizes
        return self.size

    def zeroed(self, layers: Mapping[str, Layer]) -> bool:
        """See ``Layer``."""
        return all(leg in layers and layers[leg].zeroed(layers) for leg in self.legs)

    def wrong(self, below: Mapping[str, Layer]) -> Iterator[tuple[str, str]]:
        """See ``Layer``."""
        del below
        if len(self.legs) < _LEAST[self.personality]:
            yield "legs", f"{self.personality} needs {_LEAST[self.personality]} or more"
        data = len(self.legs) - 1 if self.personality == "raid5" else 1
        if self.size % (_CHUNK * data):
            yield "size", f"{self.size} is no number of whole chunks on {data} legs"
