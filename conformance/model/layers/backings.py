"""Filesystems over another mounted layer, for files that loop devices stand on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from conformance.model.layers.base import MOUNTED, Ability, Layer, Name


class OverMounted(Layer):
    """What every one of them says of itself: mounted, over a mounted layer."""

    CAN: ClassVar[frozenset[Ability]] = frozenset({"mount"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"on": MOUNTED}

    on: Name = Field(description="a mounted layer")


class OverlayLayer(OverMounted):
    """An overlayfs whose upper layer is on a mounted layer; the lower one is empty."""

    SORT: ClassVar[str] = "an overlayfs"
    NEEDS: ClassVar[tuple[str, ...]] = ("fs:overlay",)

    layer: Literal["overlay"]

    def direct_io_needs(self, layers: Mapping[str, Layer]) -> Iterator[str]:
        """See ``Layer``: a file of it can what the file in its upper layer can."""
        below = layers.get(self.on)
        if below is not None:
            yield from below.direct_io_needs(layers)


class BindfsLayer(OverMounted):
    """A FUSE filesystem whose server, bindfs, passes everything on to a mounted layer."""

    SORT: ClassVar[str] = "a FUSE filesystem"
    NEEDS: ClassVar[tuple[str, ...]] = ("fs:fuse", "tool:bindfs")

    layer: Literal["bindfs"]


class NfsLayer(OverMounted):
    """A mounted layer, exported and mounted again by NFSv4: client and server are the guest."""

    SORT: ClassVar[str] = "an NFS mount"
    NEEDS: ClassVar[tuple[str, ...]] = ("module:nfsd", "fs:nfs4", "tool:rpc.mountd")

    layer: Literal["nfs"]


BackingLayer = OverlayLayer | BindfsLayer | NfsLayer
