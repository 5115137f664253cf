"""Zoned block devices: zloop, which keeps each zone in a file of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from conformance.model.base import Bytes
from conformance.model.layers.base import (
    MOUNTED,
    Ability,
    Layer,
    Name,
    SpaceOfItsOwn,
    Switch,
)
from conformance.model.layers.basic import TmpfsLayer

_MEBIBYTE = 1 << 20


class ZloopLayer(SpaceOfItsOwn, Layer):
    """A zoned device whose sequential zones are files on a mounted layer: each is written in order.

    What follows a zone's write pointer reads as zeros.
    """

    SORT: ClassVar[str] = "a zoned device"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"block", "reattach", "zones"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"on": MOUNTED}
    NEEDS: ClassVar[tuple[str, ...]] = ("probe:zloop",)

    layer: Literal["zloop"]
    on: Name = Field(description="a mounted layer")
    size: Bytes = Field(description="bytes that the device offers, in whole zones")
    zone: Bytes = Field(
        default=2 * _MEBIBYTE, description="bytes of a zone: a power of two, in MiB"
    )
    buffered_io: Switch = Field(
        default="off", description="whether it uses the page cache of the files' filesystem"
    )

    def needs(self, below: Mapping[str, Layer]) -> Iterator[str]:
        """See ``Layer``."""
        yield from self.NEEDS
        if self.buffered_io == "off" and isinstance(below.get(self.on), TmpfsLayer):
            yield "probe:tmpfs_direct_io"

    def wrong(self, below: Mapping[str, Layer]) -> Iterator[tuple[str, str]]:
        """See ``Layer``."""
        del below
        if self.zone < _MEBIBYTE or self.zone.bit_count() != 1:
            yield "zone", f"{self.zone} is no power of two of MiB"
        elif not self.size or self.size % self.zone:
            yield "size", f"{self.size} is no number of whole zones"
