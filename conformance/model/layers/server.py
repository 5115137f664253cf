"""What devices over a server of the suite's own have in common."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from conformance.model.base import Bytes
from conformance.model.layers.base import Ability, Layer, SpaceOfItsOwn

Behaviour = Literal[
    "honest",
    "ack_and_drop",
    "wrong_errno",
    "corrupt_read",
    "tear",
    "overcommit",
    "never_answer",
    "late",
    "twice",
]


class ServerLayer(SpaceOfItsOwn, Layer):
    """A device whose server has its space in memory of its own, which outlives the server."""

    CAN: ClassVar[frozenset[Ability]] = frozenset({"block", "reattach", "space"})

    size: Bytes = Field(description="bytes that the device offers")
    reply: Literal["no_space", "quota", "io", "memory", "invalid", "too_big"] = Field(
        default="no_space", description="the error that the server names when it has no space"
    )
    behaviour: Behaviour = Field(
        default="honest", description="all else is a lie, for tests of the judge"
    )
