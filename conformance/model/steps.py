"""The parts a case is made of, with every value filled in: layers, shortages, bystanders, steps.

These classes are the reference of the case language: the schema in cases/case.schema.json and the
page docs/case-language.md are made from them. Sizes are bytes (``64K`` and the like are read as
binary units), limits are seconds on the reference machine (scaled by measured speed).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from conformance.model.base import BLOCK, Bytes, Value
from conformance.model.vocabulary import Role, Submit

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
CgroupPath = Annotated[str, Field(pattern=r"^$|^[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)*$")]
Switch = Literal["off", "on"]
Filesystem = Literal["ext4", "xfs", "btrfs", "f2fs"]

# -- layers: a rig is a stack of these, bottom first --------------------------------------------


class Layer(Value):
    """One layer of a rig. Later layers name it by ``name`` in their ``on``."""

    name: Name = Field(description="what later layers and steps call this layer")


class TmpfsLayer(Layer):
    """A tmpfs of its own, mounted."""

    layer: Literal["tmpfs"]
    size: Bytes = Field(description="its size= mount option")


class DiskLayer(Layer):
    """The guest's scratch disk: a virtio-blk disk of 1 GiB that is never short."""

    layer: Literal["disk"]


class FsLayer(Layer):
    """A filesystem made on a block layer, and mounted."""

    layer: Literal["fs"]
    on: Name
    type: Filesystem
    quota: tuple[Literal["user", "group", "project"], ...] = Field(
        default=(), description="quotas that are made and enforced on it"
    )
    mount_options: str = Field(default="", description="as mount -o takes them")
    mkfs_options: tuple[str, ...] = Field(default=(), description="further words for mkfs")


class FileLayer(Layer):
    """A file on a mounted layer."""

    layer: Literal["file"]
    on: Name
    size: Bytes
    allocate: bool = Field(default=False, description="with real pages or blocks, not sparse")
    owner: int = Field(default=0, ge=0, description="uid that the file belongs to")
    project: int = Field(default=0, ge=0, description="project id for project quota")


class LoopLayer(Layer):
    """A loop device over a file layer or a block layer."""

    layer: Literal["loop"]
    on: Name
    direct_io: Switch = Field(default="off", description="losetup --direct-io; checked in sysfs")


AnyLayer = Annotated[
    TmpfsLayer | DiskLayer | FsLayer | FileLayer | LoopLayer, Discriminator("layer")
]

# -- shortages: imposed by the step `impose`, taken away by the step `relieve` ------------------


class TmpfsSize(Value):
    """A tmpfs layer is remounted to ``size``; relief gives it its first size back."""

    kind: Literal["tmpfs_size"]
    layer: Name
    size: Bytes


class Memcg(Value):
    """``memory.max`` of a cgroup; relief sets it to ``relief`` (``max`` if absent)."""

    kind: Literal["memcg"]
    cgroup: CgroupPath
    limit: Bytes = Field(description="memory.max")
    relief: Bytes | None = None


class Quota(Value):
    """A hard block limit for an id on a filesystem layer; relief takes the limit away."""

    kind: Literal["quota"]
    layer: Name
    type: Literal["user", "group", "project"]
    id: int = Field(ge=1)
    limit: Bytes


class Hog(Value):
    """Somebody else's file takes all space of a layer but ``leave``; relief removes it."""

    kind: Literal["hog"]
    layer: Name
    leave: Bytes = Field(description="bytes that stay available, rounded to the layer's blocks")


class NoShortage(Value):
    """Nothing runs short: for surveys of a rig itself."""

    kind: Literal["none"]


AnyShortage = Annotated[TmpfsSize | Memcg | Quota | Hog | NoShortage, Discriminator("kind")]

# -- bystanders ---------------------------------------------------------------------------------


class BystanderIo(Value):
    """What a bystander writes over and over, and syncs: its own region of a block layer."""

    target: Name
    offset: Bytes
    length: Bytes
    request: Bytes = 65536
    submit: Literal[Submit.DIRECT, Submit.DSYNC] = Submit.DIRECT


class Bystander(Value):
    """A process that does not submit the I/O under test and must not pay for it."""

    name: Name
    cgroup: CgroupPath = Field(default="", description="empty: the root cgroup")
    memory: Bytes = Field(default=0, description="anonymous memory of its own that it touches")
    io: BystanderIo | None = None


# -- steps --------------------------------------------------------------------------------------


class Step(Value):
    """One thing that the guest does, and what it is for."""

    name: Name = Field(alias="as", description="the step's name; findings speak of it by this")
    role: Role
    limit: float = Field(default=60.0, gt=0, description="seconds; past it, the step hangs")


class Kill(Value):
    """The rig itself kills the submitter with SIGKILL: declared, so it is no finding."""

    after: Literal["first_error"] | Bytes = Field(
        description="the first error, or so many bytes written without one"
    )


class Write(Step):
    """The ledger or fio writes a region of a block layer with a checkable pattern."""

    verb: Literal["write"]
    target: Name = "device"
    cgroup: CgroupPath = ""
    submit: Submit
    offset: Bytes = 0
    length: Bytes
    request: Bytes
    depth: int = Field(default=1, ge=1, le=128, description="requests in flight (fio engines)")
    generation: int = Field(ge=1, le=255, description="kept in every block that it writes")
    sync_every: Bytes | None = Field(
        default=None, description="fsync (msync) after so many bytes; absent: once, at the end"
    )
    after_error: Literal["stop", "continue"] = "stop"
    kill: Kill | None = None


class Verify(Step):
    """Every block of a region of a block layer is read back and classified."""

    verb: Literal["verify"]
    target: Name = "device"
    offset: Bytes = 0
    length: Bytes
    drop_caches: bool = True


class Run(Step):
    """A command as a person would type it; ``{device}`` and the like name layers' paths."""

    verb: Literal["run"]
    cgroup: CgroupPath = ""
    argv: tuple[str, ...] = Field(min_length=1)


class Files(Step):
    """Files of one size are written and each fsynced, until an error or ``count``."""

    verb: Literal["files"]
    target: Name = "fs"
    cgroup: CgroupPath = ""
    directory: Name
    size: Bytes
    count: int = Field(ge=1)
    generation: int = Field(ge=1, le=255)


class Metadata(Step):
    """Empty files, directories, renames and xattrs in turn, with an fsync now and then."""

    verb: Literal["metadata"]
    target: Name = "fs"
    cgroup: CgroupPath = ""
    directory: Name
    count: int = Field(ge=1, description="operations at most")
    sync_every: int = Field(default=100, ge=1, description="operations between two fsyncs")


class VerifyFiles(Step):
    """Every file that a step ``files`` or ``metadata`` synced is read back and classified."""

    verb: Literal["verify_files"]
    target: Name = "fs"
    drop_caches: bool = True


class Impose(Step):
    """The shortage's limit is put in force."""

    verb: Literal["impose"]
    role: Role = Role.SETUP


class Relieve(Step):
    """The shortage is taken away, and the reading after it shows that."""

    verb: Literal["relieve"]
    role: Role = Role.SETUP


class Unmount(Step):
    """A filesystem layer is unmounted, as umount(8) does it; its exit status is kept."""

    verb: Literal["unmount"]
    target: Name = "fs"


class Mount(Step):
    """A filesystem layer is mounted again."""

    verb: Literal["mount"]
    target: Name = "fs"


class Check(Step):
    """The filesystem's own checker, read-only, on the unmounted layer."""

    verb: Literal["check"]
    target: Name = "fs"


class Reattach(Step):
    """A loop layer is detached and attached again over the same file."""

    verb: Literal["reattach"]
    target: Name = "device"


def _verb(value: object) -> str:
    return value.get("verb", "") if isinstance(value, dict) else getattr(value, "verb", "")


AnyStep = Annotated[
    Annotated[Write, Tag("write")]
    | Annotated[Verify, Tag("verify")]
    | Annotated[Run, Tag("run")]
    | Annotated[Files, Tag("files")]
    | Annotated[Metadata, Tag("metadata")]
    | Annotated[VerifyFiles, Tag("verify_files")]
    | Annotated[Impose, Tag("impose")]
    | Annotated[Relieve, Tag("relieve")]
    | Annotated[Unmount, Tag("unmount")]
    | Annotated[Mount, Tag("mount")]
    | Annotated[Check, Tag("check")]
    | Annotated[Reattach, Tag("reattach")],
    Discriminator(_verb),
]

__all__ = ["BLOCK", "AnyLayer", "AnyShortage", "AnyStep"]
