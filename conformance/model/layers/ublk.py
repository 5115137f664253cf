"""ublk devices over the suite's own server."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from conformance.model.layers.server import ServerLayer


class UblkLayer(ServerLayer):
    """A ublk device over a server of the suite's own."""

    SORT: ClassVar[str] = "a ublk device"
    NEEDS: ClassVar[tuple[str, ...]] = ("module:ublk_drv", "probe:io_uring")

    layer: Literal["ublk"]
    at_limit: Literal["refuse", "part", "short", "at_flush", "die"] = Field(
        default="refuse",
        description="how the server ends a write that it has no space for: with an error; with one "
        "after storing what fits; with the count of what fits; with an error of the next flush; or "
        "not at all",
    )
