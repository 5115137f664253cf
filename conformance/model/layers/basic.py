"""tmpfs, the scratch disk, filesystems, files and loop devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from conformance.model.base import Bytes, CgroupPath
from conformance.model.layers.base import (
    BLOCK_DEVICE,
    FILE_OR_BLOCK,
    MOUNTED,
    Ability,
    AsBelow,
    Layer,
    Name,
    SpaceOfItsOwn,
    Switch,
)

DISK_SIZE = 1 << 30
"""Bytes of the guest's scratch disk."""

Filesystem = Literal["ext4", "xfs", "btrfs", "f2fs"]
Setting = Annotated[str, Field(pattern=r"^[a-zA-Z_]+(/[a-zA-Z_]+)*=[^=]+$")]


class TmpfsLayer(Layer):
    """A tmpfs of its own, mounted."""

    SORT: ClassVar[str] = "a tmpfs"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"mount", "resize", "quota"})

    layer: Literal["tmpfs"]
    size: Bytes = Field(description="its size= mount option")
    huge: Literal["never", "always", "within_size", "advise", "force"] = Field(
        default="never",
        description="its huge= mount option; `force` is shmem_enabled's, for every tmpfs",
    )
    inodes: int = Field(default=0, ge=0, description="its nr_inodes= mount option; 0: as it comes")
    quota: tuple[Literal["user", "group"], ...] = Field(
        default=(), description="quotas that are enforced on it"
    )

    def needs(self, below: Mapping[str, Layer]) -> Iterator[str]:
        """See ``Layer``."""
        del below
        if self.huge != "never":
            yield "probe:tmpfs_huge_pages"
        if self.quota:
            yield "probe:quota_tmpfs"

    def direct_io_needs(self, layers: Mapping[str, Layer]) -> Iterator[str]:
        """See ``Layer``."""
        del layers
        yield "probe:tmpfs_direct_io"


class DiskLayer(Layer):
    """The guest's scratch disk: a virtio-blk disk of 1 GiB that is never short."""

    SORT: ClassVar[str] = "the disk"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"block"})

    layer: Literal["disk"]

    def device_size(self, sizes: Mapping[str, int]) -> int | None:
        """See ``Layer``."""
        del sizes
        return DISK_SIZE


class FsLayer(Layer):
    """A filesystem made on a block layer, and mounted."""

    SORT: ClassVar[str] = "a filesystem"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"mount", "remount", "quota"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"on": BLOCK_DEVICE}

    layer: Literal["fs"]
    on: Name
    type: Filesystem
    quota: tuple[Literal["user", "group", "project"], ...] = Field(
        default=(), description="quotas that are made and enforced on it"
    )
    mount_options: str = Field(default="", description="as mount -o takes them")
    mkfs_options: tuple[str, ...] = Field(default=(), description="further words for mkfs")
    project: int = Field(
        default=0, ge=0, description="project id of its root, for whatever is made below it"
    )
    sysfs: tuple[Setting, ...] = Field(
        default=(), description="`path=value` below /sys/fs/TYPE/DEVICE/, set after each mount"
    )

    def needs(self, below: Mapping[str, Layer]) -> Iterator[str]:
        """See ``Layer``."""
        del below
        yield f"fs:{self.type}"
        if self.quota:
            yield f"probe:quota_{self.type}"


class SubvolumeLayer(Layer):
    """A subvolume of a btrfs, with quota enabled on it."""

    SORT: ClassVar[str] = "a subvolume"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"mount", "qgroup"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"on": frozenset({"remount"})}
    NEEDS: ClassVar[tuple[str, ...]] = ("fs:btrfs", "tool:btrfs")

    layer: Literal["subvolume"]
    on: Name

    def wrong(self, below: Mapping[str, Layer]) -> Iterator[tuple[str, str]]:
        """See ``Layer``."""
        found = below.get(self.on)
        if isinstance(found, FsLayer) and found.type != "btrfs":
            yield "on", f"{self.on!r} is no btrfs"


class FileLayer(SpaceOfItsOwn, Layer):
    """A file on a mounted layer."""

    SORT: ClassVar[str] = "a file"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"file"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"on": MOUNTED}

    layer: Literal["file"]
    on: Name
    size: Bytes
    allocate: bool = Field(default=False, description="with real pages or blocks, not sparse")
    owner: int = Field(default=0, ge=0, description="uid that the file belongs to")
    group: int = Field(default=0, ge=0, description="gid that the file belongs to")
    project: int = Field(default=0, ge=0, description="project id for project quota")


class LoopLayer(AsBelow, Layer):
    """A loop device over a file layer or a block layer."""

    SORT: ClassVar[str] = "a loop device"
    CAN: ClassVar[frozenset[Ability]] = frozenset({"block", "reattach"})
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"on": FILE_OR_BLOCK}
    NEEDS: ClassVar[tuple[str, ...]] = ("module:loop",)

    layer: Literal["loop"]
    on: Name
    direct_io: Switch = Field(default="off", description="losetup --direct-io; checked in sysfs")
    cgroup: CgroupPath = Field(
        default="", description="whose process sets it up; empty: the root cgroup"
    )
    keeper: Switch = Field(
        default="off", description="the process that sets it up lives on and keeps it open"
    )

    def needs(self, below: Mapping[str, Layer]) -> Iterator[str]:
        """See ``Layer``."""
        yield from self.NEEDS
        file = below.get(self.on)
        if self.direct_io == "on" and isinstance(file, FileLayer) and file.on in below:
            yield from below[file.on].direct_io_needs(below)


class SwapLayer(Layer):
    """A swap area on a block layer, in use."""

    SORT: ClassVar[str] = "a swap area"
    CAN: ClassVar[frozenset[Ability]] = frozenset()
    STANDS_ON: ClassVar[Mapping[str, frozenset[Ability]]] = {"on": BLOCK_DEVICE}

    layer: Literal["swap"]
    on: Name


BasicLayer = TmpfsLayer | DiskLayer | FsLayer | SubvolumeLayer | FileLayer | LoopLayer | SwapLayer
