"""dm-vdo: a device that gives out space, removes duplicates, and formats itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from conformance.model.base import Bytes
from conformance.model.layers.base import BLOCK_DEVICE, Ability, Layer, Name, SpaceOfItsOwn


class VdoLayer(SpaceOfItsOwn, Layer):
    """The beginning of a dm-vdo volume that takes the whole of a block layer.

    What comes after ``size`` of its logical space is somebody else's. Duplicates are not looked for, so
    that every block that is written takes one of the volume's.
    """

    SORT: ClassVar[str] = "a dm-vdo volume"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"block", "reattach", "vdo"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"on": BLOCK_DEVICE}
    NEEDS: ClassVar[tuple[str, ...]] = ("module:dm_vdo", "probe:vdo_formats", "tool:dmsetup")

    layer: Literal["vdo"]
    on: Name = Field(
        description="a block layer that begins with zeros, of 2850 MiB or more: its index takes most"
    )
    size: Bytes = Field(description="bytes that the device offers")
