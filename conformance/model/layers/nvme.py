"""NVMe devices over the kernel's own target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from conformance.model.layers.base import Ability, AsBelow, Layer, Name, Switch
from conformance.model.layers.basic import FileLayer, TmpfsLayer


class NvmeLoopLayer(AsBelow, Layer):
    """An NVMe namespace that the kernel's target has in a file, over its loop transport."""

    SORT: ClassVar[str] = "an NVMe device"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"block", "reattach"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"on": frozenset({"file"})}
    NEEDS: ClassVar[tuple[str, ...]] = ("module:nvmet", "module:nvme_loop")

    layer: Literal["nvme_loop"]
    on: Name = Field(description="a file")
    buffered_io: Switch = Field(
        default="on", description="whether the target uses the page cache of the file's filesystem"
    )

    def needs(self, below: Mapping[str, Layer]) -> Iterator[str]:
        """See ``Layer``."""
        yield from self.NEEDS
        file = below.get(self.on)
        on_tmpfs = isinstance(file, FileLayer) and isinstance(below.get(file.on), TmpfsLayer)
        if self.buffered_io == "off" and on_tmpfs:
            yield "probe:tmpfs_direct_io"
