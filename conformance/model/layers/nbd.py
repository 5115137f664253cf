"""nbd devices: over the suite's own server, and over qemu-nbd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from conformance.model.layers.base import Ability, AsBelow, Layer, Name, Switch
from conformance.model.layers.server import ServerLayer


class NbdLayer(ServerLayer):
    """An nbd device over a server of the suite's own."""

    SORT: ClassVar[str] = "an nbd device"
    NEEDS: ClassVar[tuple[str, ...]] = ("module:nbd",)
    # nbd_handle_reply() in drivers/block/nbd.c makes BLK_STS_IOERR of any error in a reply.
    CARRIES_ERRNO: ClassVar[bool] = False

    layer: Literal["nbd"]
    attach: Literal["netlink", "ioctl"] = Field(
        default="netlink", description="how the kernel is given the connection"
    )
    connections: int = Field(default=1, ge=1, le=8, description="to the one server")
    timeout: int = Field(default=0, ge=0, description="seconds that a reply may take; 0: any time")
    at_limit: Literal["refuse", "part", "at_flush", "die", "hang_up", "half_reply", "silence"] = (
        Field(
            default="refuse",
            description="how the server ends a write that it has no space for: with an error; with one "
            "after storing what fits; with an error of the next flush; or not at all",
        )
    )
    replaced: Switch = Field(
        default="off", description="a new server comes in place of one that died"
    )

    def wrong(self, below: Mapping[str, Layer]) -> Iterator[tuple[str, str]]:
        """See ``Layer``."""
        del below
        if self.replaced == "on" and self.attach != "netlink":
            yield "replaced", "only by netlink can a connection be replaced"


class QemuNbdLayer(AsBelow, Layer):
    """An nbd device over qemu-nbd, which stores in a file."""

    SORT: ClassVar[str] = "an nbd device"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"block", "reattach"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"on": frozenset({"file"})}
    NEEDS: ClassVar[tuple[str, ...]] = ("module:nbd", "tool:qemu-nbd")
    CARRIES_ERRNO: ClassVar[bool] = False

    layer: Literal["qemu_nbd"]
    on: Name = Field(description="a file")
    cache: Literal["writeback", "writethrough"] = Field(
        default="writeback", description="as qemu-nbd --cache takes it"
    )
