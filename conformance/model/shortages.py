"""What runs short: imposed by the step ``impose``, taken away by the step ``relieve``.

A shortage says of itself what it is a limit on. The library checks it by that, the planner asks for
what it needs, and the judge reads whom it binds and what its gauge must show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field

from conformance.model.base import Bytes, CgroupPath, Value, format_size
from conformance.model.layers import (
    Ability,
    FsLayer,
    Layer,
    MachineDiskLayer,
    Name,
    Switch,
    TmpfsLayer,
)
from conformance.model.layers.snapshot import DmSnapshotLayer


class Shortage(Value):
    """A cause of a shortage."""

    NEEDS: ClassVar[tuple[str, ...]] = ()
    """Requirements, as a case's ``requires`` has them, that it brings along."""
    OF: ClassVar[frozenset[Ability]] = frozenset()
    """What the layer in its field ``layer`` must be able to do; empty: it has no such field."""

    @property
    def asked(self) -> int | None:
        """The limit, in what its gauge counts, that the gauge must show once it is in force; None: any."""
        return None

    OF_SPACE: ClassVar[bool] = True
    """Whether it is space for data that runs short; where not, writes into a file do not fail."""
    LATE_GAUGE: ClassVar[bool] = False
    """Whether its gauge tells what was committed last, so that space given back may show a step later."""
    RESERVED: ClassVar[int] = 0
    """Bytes that its gauge may show as left although a request was refused for want of space."""

    EXACT: ClassVar[bool] = True
    """Whether nothing passes the limit that its gauge shows, but for counters kept for each processor."""

    @property
    def binds(self) -> str | None:
        """The cgroup that it binds, with those below; None where it binds whoever submits."""
        return None

    def wrong(self, layers: Mapping[str, Layer]) -> Iterator[tuple[str, str]]:
        """What is wrong with it over these layers: the field, and what is wrong."""
        del layers
        yield from ()


class TmpfsSize(Shortage):
    """A tmpfs layer is remounted to ``size``; relief gives it its first size back."""

    OF: ClassVar[frozenset[Ability]] = frozenset({"resize"})

    kind: Literal["tmpfs_size"]
    layer: Name
    size: Bytes

    @property
    def asked(self) -> int | None:
        """See ``Shortage``."""
        return self.size

    def wrong(self, layers: Mapping[str, Layer]) -> Iterator[tuple[str, str]]:
        """See ``Shortage``."""
        layer = layers.get(self.layer)
        if isinstance(layer, TmpfsLayer) and self.size >= layer.size:
            yield "size", f"no less than the {format_size(layer.size)} that it has anyway"


class MemoryLimit(Shortage):
    """A limit on the memory of a cgroup and of those below it."""

    # memory.high is passed by what is throttled for it, and any limit by charges that cannot be refused.
    EXACT: ClassVar[bool] = False

    cgroup: CgroupPath
    limit: Bytes = Field(description="bytes of memory")
    relief: Bytes | None = Field(
        default=None, description="the limit after the relief; absent: none"
    )

    @property
    def asked(self) -> int | None:
        """See ``Shortage``."""
        return self.limit

    @property
    def binds(self) -> str | None:
        """See ``Shortage``."""
        return self.cgroup


class Memcg(MemoryLimit):
    """``memory.max`` or ``memory.high`` of a cgroup; relief sets it to ``relief``."""

    # Without +io the loop driver finds no cgroup to charge.
    NEEDS: ClassVar[tuple[str, ...]] = ("controller:memory", "controller:io")

    kind: Literal["memcg"]
    knob: Literal["max", "high"] = Field(default="max", description="memory.max or memory.high")
    oom_group: Switch = Field(default="off", description="memory.oom.group")
    swap: Bytes = Field(default=0, description="memory.swap.max: bytes of the rig's swap")


class MemcgV1(MemoryLimit):
    """``memory.limit_in_bytes`` of a cgroup in a hierarchy of cgroup v1.

    The loop driver finds the memory cgroup of a request through its block cgroup, so that it matters
    which other controllers the hierarchy has.
    """

    kind: Literal["memcg_v1"]
    hierarchy: Literal["memory", "memory+blkio"] = Field(
        description="the controllers that are mounted together"
    )


class QuotaLimit(Shortage):
    """A limit for an id on a filesystem layer; relief takes it away."""

    OF: ClassVar[frozenset[Ability]] = frozenset({"quota"})

    layer: Name
    type: Literal["user", "group", "project"]
    id: int = Field(ge=1)

    def wrong(self, layers: Mapping[str, Layer]) -> Iterator[tuple[str, str]]:
        """See ``Shortage``."""
        layer = layers.get(self.layer)
        if isinstance(layer, FsLayer | TmpfsLayer) and self.type not in layer.quota:
            yield "type", f"{self.layer!r} is not made with {self.type} quota"


class Quota(QuotaLimit):
    """A hard block limit for an id on a filesystem layer; relief takes the limit away."""

    kind: Literal["quota"]
    limit: Bytes

    @property
    def asked(self) -> int | None:
        """See ``Shortage``."""
        return self.limit


class InodeQuota(QuotaLimit):
    """A hard limit on the inodes of an id. Its gauge counts inodes, not bytes."""

    OF_SPACE: ClassVar[bool] = False

    kind: Literal["inode_quota"]
    limit: int = Field(default=1, ge=1, description="inodes")

    @property
    def asked(self) -> int | None:
        """See ``Shortage``."""
        return self.limit


class Inodes(Shortage):
    """Somebody's empty files take all inodes of a layer; relief removes them. Counted in inodes."""

    OF: ClassVar[frozenset[Ability]] = frozenset({"mount"})
    OF_SPACE: ClassVar[bool] = False

    kind: Literal["inodes"]
    layer: Name


class Qgroup(Shortage):
    """A limit on what a btrfs subvolume refers to; relief takes the limit away."""

    OF: ClassVar[frozenset[Ability]] = frozenset({"qgroup"})
    # Metadata is booked beforehand, a node of 16 KiB for each extent and one for the inode:
    # btrfs_calculate_inode_block_rsv_size() in fs/btrfs/delalloc-space.c.
    RESERVED: ClassVar[int] = 65536

    kind: Literal["qgroup"]
    layer: Name
    limit: Bytes

    @property
    def asked(self) -> int | None:
        """See ``Shortage``."""
        return self.limit


class Hog(Shortage):
    """Somebody else's file takes all space of a layer but ``leave``; relief removes it."""

    OF: ClassVar[frozenset[Ability]] = frozenset({"mount"})
    # To allocate one block, xfs reserves what its trees might need for it too, and gives that back:
    # XFS_DIOSTRAT_SPACE_RES in fs/xfs/libxfs/xfs_trans_space.h.
    RESERVED: ClassVar[int] = 65536

    kind: Literal["hog"]
    layer: Name
    leave: Bytes = Field(description="bytes that stay available, rounded to the layer's blocks")
    grows: Bytes = Field(
        default=0,
        description="bytes that are cut from that file as soon as nothing is left, again and again, "
        "until half of it is gone",
    )


class ServerSpace(Shortage):
    """A server of the suite's own has ``leave`` bytes left; relief takes its limit away."""

    OF: ClassVar[frozenset[Ability]] = frozenset({"space"})

    kind: Literal["server_space"]
    layer: Name = Field(description="a device over a server of the suite's own")
    leave: Bytes = Field(description="bytes that it can still store in blocks without space")


class ScsiSense(Shortage):
    """A SCSI device says of its writes what ``sense`` names; relief ends that.

    Nothing is counted but the writes that were answered so: every write is, new space or not.
    """

    OF: ClassVar[frozenset[Ability]] = frozenset({"sense"})
    NEEDS: ClassVar[tuple[str, ...]] = ("probe:scsi_debug_injection",)

    kind: Literal["scsi_sense"]
    layer: Name = Field(description="a SCSI disk of scsi_debug")
    sense: Literal["space_allocation_failed", "soft_threshold"] = Field(
        description="DATA PROTECT 27h/07h, or UNIT ATTENTION 38h/07h"
    )
    times: int | None = Field(default=None, ge=1, description="writes at most; absent: every write")


class BlockStatus(Shortage):
    """The block layer ends each write to a part of a device with a status; relief ends that.

    Nothing is counted but the writes that the kernel says it ended so.
    """

    OF: ClassVar[frozenset[Ability]] = frozenset({"block"})
    NEEDS: ClassVar[tuple[str, ...]] = ("probe:block_error_injection",)

    kind: Literal["block_status"]
    layer: Name = Field(description="a block layer")
    status: Literal[
        "NOSPC", "RESOURCE", "IOERR", "MEDIUM", "TIMEOUT", "TRANSPORT", "TARGET", "PROTECTION"
    ] = Field(description="BLK_STS_ of linux/blk_types.h")
    start: Bytes = Field(description="where that part begins")
    length: Bytes = Field(description="how long it is")


class HostSpace(Shortage):
    """The host has ``leave`` bytes left for the file of a disk; relief gives back all of it.

    Its gauge is the host's: what the file takes, and how many writes QEMU told of as without space.
    """

    OF: ClassVar[frozenset[Ability]] = frozenset({"machine"})

    kind: Literal["host_space"]
    layer: Name = Field(description="a disk of the machine's")
    leave: Bytes = Field(description="bytes that the file may still take, in pages of 4 KiB")
    grows: Bytes = Field(
        default=0,
        description="bytes that the host gives each time that the machine has stopped, before it "
        "lets it go on",
    )

    def wrong(self, layers: Mapping[str, Layer]) -> Iterator[tuple[str, str]]:
        """See ``Shortage``."""
        layer = layers.get(self.layer)
        if not isinstance(layer, MachineDiskLayer):
            return
        if layer.stops and not self.grows:
            yield "layer", f"{self.layer!r} would stop the machine, and nobody lets it go on: grows"
        if self.grows and not layer.stops:
            yield "grows", f"{self.layer!r} does not stop the machine when it runs short"


class ThinData(Shortage):
    """Somebody else's thin device takes all of a pool's data space but ``leave``."""

    OF: ClassVar[frozenset[Ability]] = frozenset({"pool"})
    # pool_status() in drivers/md/dm-thin.c. A discard under way counts its chunks twice, moreover
    # (process_prepared_discard_passdown_pt1()).
    LATE_GAUGE: ClassVar[bool] = True

    kind: Literal["thin_data"]
    layer: Name = Field(description="a thin pool")
    leave: Bytes = Field(description="bytes that stay free, rounded to the pool's chunks")
    relief: Literal["extend", "delete", "discard"] = Field(
        default="extend",
        description="the pool's data device grows; or the other thin device is deleted, or discarded",
    )
    grows: Bytes = Field(
        default=0,
        description="bytes that the pool gets, by somebody who watches it, each time that it is full",
    )


class ThinMetadata(Shortage):
    """Others' thin devices, which are empty, take all of a pool's metadata space but ``leave``.

    Relief takes the pool offline, checks and repairs its metadata, and extends the metadata device.
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("tool:thin_check", "tool:thin_repair")
    OF: ClassVar[frozenset[Ability]] = frozenset({"pool"})

    kind: Literal["thin_metadata"]
    layer: Name = Field(description="a thin pool")
    leave: Bytes = Field(description="bytes that stay free, in blocks of 4 KiB")


class SnapshotCow(Shortage):
    """A dm-snapshot's COW device is made ``size`` bytes long; relief gives it its first size back."""

    OF: ClassVar[frozenset[Ability]] = frozenset({"cow"})

    kind: Literal["snapshot_cow"]
    layer: Name = Field(description="a dm-snapshot")
    size: Bytes = Field(description="bytes of its COW device, with what describes the copies")

    @property
    def asked(self) -> int | None:
        """See ``Shortage``."""
        return self.size

    def wrong(self, layers: Mapping[str, Layer]) -> Iterator[tuple[str, str]]:
        """See ``Shortage``."""
        layer = layers.get(self.layer)
        if isinstance(layer, DmSnapshotLayer) and self.size >= layer.cow:
            yield "size", f"no less than the {format_size(layer.cow)} that it has anyway"


class VdoSpace(Shortage):
    """Somebody else's data takes all of a dm-vdo volume's space but ``leave``; relief discards it."""

    OF: ClassVar[frozenset[Ability]] = frozenset({"vdo"})

    kind: Literal["vdo_space"]
    layer: Name = Field(description="a dm-vdo volume")
    leave: Bytes = Field(description="bytes that stay free, in blocks of 4 KiB")


class ZramLimit(Shortage):
    """A zram device's mem_limit is what it uses already and ``leave``; relief takes it away."""

    OF: ClassVar[frozenset[Ability]] = frozenset({"zram"})
    # zs_malloc() takes a zspage of up to four pages (eight since 6.3), and zram gives it back when that
    # is beyond the limit.
    RESERVED: ClassVar[int] = 32768

    kind: Literal["zram_limit"]
    layer: Name = Field(description="a zram device")
    leave: Bytes = Field(description="bytes of memory that it may still take")


class GuestMemory(Shortage):
    """Somebody's locked memory takes all of the guest's but ``leave``; relief ends that process.

    It offers itself to the OOM killer (oom_score_adj 1000), so that a kill hits nothing that the case needs,
    and is counted all the same.
    """

    kind: Literal["guest_memory"]
    leave: Bytes = Field(description="bytes that stay available, by /proc/meminfo")
    lasts: int = Field(
        default=0,
        ge=0,
        description="seconds with half of that or less, after which that process ends by itself; 0: it "
        "does not",
    )


class NoShortage(Shortage):
    """Nothing runs short: for surveys of a rig itself."""

    kind: Literal["none"]


AnyShortage = Annotated[
    TmpfsSize
    | Memcg
    | MemcgV1
    | Quota
    | InodeQuota
    | Inodes
    | Qgroup
    | Hog
    | ServerSpace
    | ScsiSense
    | BlockStatus
    | HostSpace
    | ThinData
    | ThinMetadata
    | SnapshotCow
    | VdoSpace
    | ZramLimit
    | GuestMemory
    | NoShortage,
    Discriminator("kind"),
]
