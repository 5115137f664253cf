"""Disks of the scsi_debug driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from conformance.model.base import Bytes
from conformance.model.layers.base import Ability, Layer, SpaceOfItsOwn

_MEBIBYTE = 1 << 20


class ScsiDebugLayer(SpaceOfItsOwn, Layer):
    """A disk of the scsi_debug driver, in memory of its own."""

    SORT: ClassVar[str] = "a SCSI disk"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"block", "reattach", "sense"})
    NEEDS: ClassVar[tuple[str, ...]] = ("module:sd_mod", "module:scsi_debug")

    layer: Literal["scsi_debug"]
    size: Bytes = Field(description="bytes that the device offers, in whole MiB")

    def wrong(self, below: Mapping[str, Layer]) -> Iterator[tuple[str, str]]:
        """See ``Layer``."""
        del below
        if self.size % _MEBIBYTE or not self.size:
            yield "size", f"{self.size} is no number of whole MiB"
