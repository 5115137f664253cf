"""What a layer of a rig says of itself: what it stands on, what can be done with it, what it needs.

The library checks a rig by these, the planner asks for what they need, and the judge reads what a
device can tell and what it holds at first. So a new device family is a module of such classes here,
one in the guest's program, and a rig.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Protocol, Self

from pydantic import Field

from conformance.model.base import Value

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Switch = Literal["off", "on"]

Ability = Literal[
    "block",
    "mount",
    "file",
    "reattach",
    "remount",
    "resize",
    "space",
    "sense",
    "machine",
    "quota",
    "qgroup",
    "pool",
    "thin",
    "origin",
    "snapshot",
    "cow",
    "vdo",
    "zram",
    "zones",
]
"""What can be done with a layer; ``ABILITIES`` has what each means."""

ABILITIES: Mapping[Ability, str] = {
    "block": "a block layer",
    "mount": "a mounted layer",
    "file": "a file",
    "reattach": "a device that can be detached and attached again",
    "remount": "a filesystem on a device",
    "resize": "a tmpfs",
    "space": "a device over a server of the suite's own",
    "sense": "a SCSI device that answers as it is told",
    "machine": "a disk of the machine's in a file of the host",
    "pool": "a thin pool",
    "thin": "a thin device",
    "origin": "an origin of dm-snapshots",
    "snapshot": "a snapshot",
    "cow": "a snapshot with space of its own",
    "vdo": "a dm-vdo volume",
    "zram": "a zram device",
    "zones": "a zoned device",
    "quota": "a filesystem with quotas",
    "qgroup": "a btrfs subvolume",
}


class Layer(Value):
    """One layer of a rig. Later layers name it by ``name`` in their ``on``."""

    SORT: ClassVar[str]
    """What it is, with its article, for messages."""
    CAN: ClassVar[frozenset[Ability]]
    """What steps, shortages and other layers may do with it."""
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {}
    """For each field that names another layer: what that one must be able to do, any of these."""
    NEEDS: ClassVar[tuple[str, ...]] = ()
    """Requirements, as a case's ``requires`` has them, that it brings along whatever its values."""
    CARRIES_ERRNO: ClassVar[bool] = True
    """Whether ENOSPC can come up through it: some protocols and drivers know only EIO."""

    name: Name = Field(description="what later layers and steps call this layer")

    def needs(self, below: Mapping[str, Layer]) -> Iterator[str]:
        """Requirements that it brings along, given the layers below by their names."""
        del below
        yield from self.NEEDS

    def direct_io_needs(self, layers: Mapping[str, Layer]) -> Iterator[str]:
        """Requirements of a loop device with direct I/O over a file of this mounted layer."""
        del layers
        yield from ()

    def device_size(self, sizes: Mapping[str, int]) -> int | None:
        """Bytes that it offers, given the sizes of the layers below; None if that is not known."""
        del sizes
        return None

    def zeroed(self, layers: Mapping[str, Layer]) -> bool:
        """Whether it is known to hold nothing but zeros at first."""
        del layers
        return False

    def wrong(self, below: Mapping[str, Layer]) -> Iterator[tuple[str, str]]:
        """What is wrong with it over these layers: the field, and what is wrong."""
        del below
        yield from ()

    def supports(self) -> Iterator[tuple[str, str]]:
        """The layers that it stands on: the field, and the layer's name."""
        for key in self.STANDS_ON:
            found = getattr(self, key)
            for name in (found,) if isinstance(found, str) else found:
                yield key, name

    @classmethod
    def example(cls, **values: object) -> Self:
        """One with the word of its class filled in, for tests and for code that builds rigs."""
        word = cls.model_fields["layer"].annotation
        return cls.model_validate({"layer": getattr(word, "__args__", ("",))[0], **values})


class _Sized(Protocol):
    @property
    def size(self) -> int: ...


class SpaceOfItsOwn:
    """What a layer says that offers ``size`` bytes, and holds nothing but zeros at first."""

    def device_size(self: _Sized, sizes: Mapping[str, int]) -> int | None:
        """See ``Layer``."""
        del sizes
        return self.size

    def zeroed(self, layers: Mapping[str, Layer]) -> bool:
        """See ``Layer``."""
        del layers
        return True


class _Over(Protocol):
    @property
    def on(self) -> str: ...


class AsBelow:
    """What a layer says that offers what the one below offers, and holds what that one holds."""

    def device_size(self: _Over, sizes: Mapping[str, int]) -> int | None:
        """See ``Layer``."""
        return sizes.get(self.on)

    def zeroed(self: _Over, layers: Mapping[str, Layer]) -> bool:
        """See ``Layer``."""
        below = layers.get(self.on)
        return below is not None and below.zeroed(layers)


BLOCK_DEVICE: frozenset[Ability] = frozenset({"block"})
MOUNTED: frozenset[Ability] = frozenset({"mount"})
FILE_OR_BLOCK: frozenset[Ability] = frozenset({"file", "block"})
