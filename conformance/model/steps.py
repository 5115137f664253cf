"""What a case does, with every value filled in: bystanders and steps.

These classes are the reference of the case language: the schema in cases/case.schema.json and the
page docs/case-language.md are made from them. Sizes are bytes (``64K`` and the like are read as
binary units), limits are seconds on the reference machine (scaled by measured speed).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from conformance.model.base import Bytes, CgroupPath, Value
from conformance.model.calls import Script
from conformance.model.layers import Ability, Name
from conformance.model.vocabulary import RangeKind, Role, Submit

# -- bystanders ---------------------------------------------------------------------------------


class BystanderIo(Value):
    """What a bystander writes over and over, and syncs: its own region of a block layer."""

    target: Name
    offset: Bytes
    length: Bytes
    request: Bytes = 65536
    submit: Literal[Submit.DIRECT, Submit.DSYNC] = Submit.DIRECT
    reads: bool = Field(default=False, description="after one round of writes it only reads")
    pause: float = Field(default=0.1, ge=0, description="seconds between two rounds")

    @property
    def operations(self) -> int:
        """How many operations a round is."""
        return -(-self.length // self.request)


class Bystander(Value):
    """A process that does not submit the I/O under test and must not pay for it."""

    name: Name
    cgroup: CgroupPath = Field(default="", description="empty: the root cgroup")
    memory: Bytes = Field(default=0, description="anonymous memory of its own that it touches")
    io: BystanderIo | None = None


# -- steps --------------------------------------------------------------------------------------

REGION: frozenset[Ability] = frozenset({"block", "file"})
"""What has a region that can be written and read back."""


class Step(Value):
    """One thing that the guest does, and what it is for."""

    name: Name = Field(alias="as", description="the step's name; findings speak of it by this")
    role: Role
    limit: float = Field(default=60.0, gt=0, description="seconds; past it, the step hangs")

    TARGET: ClassVar[frozenset[Ability]] = frozenset()
    """What the layer in its field ``target`` must be able to do; empty: it has no such field."""


class Moment(Value):
    """When in a writer's life something is done."""

    after: Literal["first_error", "first_sync"] | Bytes = Field(
        description="the first error, the start of the first sync, or so many bytes written: who is "
        "to be killed then writes no further, but the last request again until it is"
    )


class Kill(Moment):
    """The rig itself kills the submitter with SIGKILL: declared, so it is no finding. If nobody has killed it
    then, the run is BROKEN.
    """


class Detach(Moment):
    """The device is detached under the submitter, and attached again once it is free."""


class Write(Step):
    """The ledger or fio writes a region of a block layer, or of a file, with a checkable pattern."""

    TARGET: ClassVar[frozenset[Ability]] = REGION

    verb: Literal["write"]
    target: Name = "device"
    cgroup: CgroupPath = ""
    submit: Submit
    offset: Bytes = 0
    length: Bytes
    request: Bytes
    depth: int = Field(default=1, ge=1, le=128, description="requests in flight (fio engines)")
    order: Literal["sequential", "random"] = Field(
        default="sequential", description="each request once, in this order (random: fio engines)"
    )
    generation: int = Field(ge=1, le=255, description="kept in every block that it writes")
    sync_every: Bytes | None = Field(
        default=None, description="fsync (msync) after so many bytes; absent: once, at the end"
    )
    after_error: Literal["stop", "continue"] = "stop"
    kill: Kill | None = None
    detach: Detach | None = None
    past_end: bool = Field(default=False, description="the region may reach beyond the device")
    file_limit: Bytes | None = Field(default=None, description="the writer's RLIMIT_FSIZE")
    unkillable: bool = Field(
        default=False, description="with an oom_score_adj of -1000: the OOM killer must spare it"
    )


class Verify(Step):
    """Every block of a region of a block layer, or of a file, is read back and classified."""

    TARGET: ClassVar[frozenset[Ability]] = REGION

    verb: Literal["verify"]
    target: Name = "device"
    offset: Bytes = 0
    length: Bytes
    drop_caches: bool = True


class Calls(Step):
    """System calls on descriptors of one file or device, in order, whatever they answer."""

    TARGET: ClassVar[frozenset[Ability]] = REGION

    verb: Literal["calls"]
    target: Name = "device"
    offset: Bytes = 0
    length: Bytes
    generation: int = Field(ge=1, le=255, description="kept in every block that it writes")
    script: Script = Field(
        description="calls with their descriptors, by semicolons: `open a; write a; fsync a`"
    )


class RangeOp(Step):
    """A call on a range of a block device: a discard, zeroes, a mode of fallocate(2); then an fsync."""

    TARGET: ClassVar[frozenset[Ability]] = frozenset({"block"})

    verb: Literal["range_op"]
    target: Name = "device"
    cgroup: CgroupPath = ""
    op: RangeKind
    offset: Bytes = 0
    length: Bytes
    request: Bytes | None = Field(default=None, description="bytes of one call; absent: all")
    frees: Bytes = Field(
        default=0,
        description="bytes that must come back at least where all of it succeeds; a `write` right "
        "after it, for `reuse`, has space for as much",
    )


class Truncate(Step):
    """A file that a device stands on is cut to a size, by truncate(2), under the device."""

    TARGET: ClassVar[frozenset[Ability]] = frozenset({"file"})

    verb: Literal["truncate"]
    target: Name = "image"
    size: Bytes


class Run(Step):
    """A command as a person would type it; ``{device}`` and the like name layers' paths."""

    verb: Literal["run"]
    cgroup: CgroupPath = ""
    argv: tuple[str, ...] = Field(min_length=1)


class Files(Step):
    """Files of one size are written and synced, until an error or ``count``."""

    TARGET: ClassVar[frozenset[Ability]] = frozenset({"mount"})

    verb: Literal["files"]
    target: Name = "fs"
    cgroup: CgroupPath = ""
    directory: Name
    size: Bytes
    count: int = Field(ge=1)
    generation: int = Field(ge=1, le=255)
    owner: int = Field(default=0, ge=0, description="uid and gid of the process; 0 is root")
    submit: Literal[Submit.BUFFERED, Submit.DIRECT, Submit.MMAP] = Field(
        default=Submit.BUFFERED, description="how a file's bytes are written; mmap syncs by msync"
    )
    sync: Literal["fsync", "syncfs", "freeze"] = Field(
        default="fsync",
        description="each file and its directory; or the filesystem once, after the last file",
    )


class Metadata(Step):
    """Empty files, directories, renames and xattrs in turn, with an fsync now and then."""

    TARGET: ClassVar[frozenset[Ability]] = frozenset({"mount"})

    verb: Literal["metadata"]
    target: Name = "fs"
    cgroup: CgroupPath = ""
    directory: Name
    count: int = Field(ge=1, description="operations at most")
    sync_every: int = Field(default=100, ge=1, description="operations between two fsyncs")
    mix: Literal["all", "files", "directories", "xattrs"] = Field(
        default="all", description="files are renamed; xattrs are large, on files"
    )


class VerifyFiles(Step):
    """Every file that a step ``files`` or ``metadata`` synced is read back and classified."""

    TARGET: ClassVar[frozenset[Ability]] = frozenset({"mount"})

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

    TARGET: ClassVar[frozenset[Ability]] = frozenset({"remount"})

    verb: Literal["unmount"]
    target: Name = "fs"


class Mount(Step):
    """A filesystem layer is mounted again."""

    TARGET: ClassVar[frozenset[Ability]] = frozenset({"remount"})

    verb: Literal["mount"]
    target: Name = "fs"


class Check(Step):
    """The filesystem's own checker, read-only, on the unmounted layer."""

    TARGET: ClassVar[frozenset[Ability]] = frozenset({"remount"})

    verb: Literal["check"]
    target: Name = "fs"


class Trim(Step):
    """A directory is removed, the filesystem synced, and fstrim(8) run: its space comes back."""

    TARGET: ClassVar[frozenset[Ability]] = frozenset({"remount"})

    verb: Literal["trim"]
    target: Name = "fs"
    directory: Name
    frees: Bytes = Field(description="bytes that must come back at least where all of it succeeds")


class Mkfs(Step):
    """The unmounted layer is made anew by its mkfs; what it held is gone."""

    TARGET: ClassVar[frozenset[Ability]] = frozenset({"remount"})

    verb: Literal["mkfs"]
    target: Name = "fs"


class Reattach(Step):
    """A loop layer is detached and attached again over the same file."""

    TARGET: ClassVar[frozenset[Ability]] = frozenset({"reattach"})

    verb: Literal["reattach"]
    target: Name = "device"
    remove: bool = Field(
        default=False, description="the device itself is removed and made again in between"
    )


class Snapshot(Step):
    """A snapshot layer is taken anew: it holds what its origin holds now."""

    TARGET: ClassVar[frozenset[Ability]] = frozenset({"snapshot"})

    verb: Literal["snapshot"]
    role: Role = Role.SETUP
    target: Name = "snapshot"


class KillKeeper(Step):
    """The process that set a loop layer up, and kept it open, is ended by SIGKILL."""

    TARGET: ClassVar[frozenset[Ability]] = frozenset({"reattach"})

    verb: Literal["kill_keeper"]
    target: Name = "device"


class RemoveCgroup(Step):
    """A cgroup that no process is in is removed, as rmdir(1) does it."""

    verb: Literal["remove_cgroup"]
    cgroup: CgroupPath


def _verb(value: object) -> str:
    return value.get("verb", "") if isinstance(value, dict) else getattr(value, "verb", "")


AnyStep = Annotated[
    Annotated[Write, Tag("write")]
    | Annotated[Verify, Tag("verify")]
    | Annotated[Calls, Tag("calls")]
    | Annotated[RangeOp, Tag("range_op")]
    | Annotated[Truncate, Tag("truncate")]
    | Annotated[Run, Tag("run")]
    | Annotated[Files, Tag("files")]
    | Annotated[Metadata, Tag("metadata")]
    | Annotated[VerifyFiles, Tag("verify_files")]
    | Annotated[Impose, Tag("impose")]
    | Annotated[Relieve, Tag("relieve")]
    | Annotated[Unmount, Tag("unmount")]
    | Annotated[Mount, Tag("mount")]
    | Annotated[Check, Tag("check")]
    | Annotated[Trim, Tag("trim")]
    | Annotated[Mkfs, Tag("mkfs")]
    | Annotated[Reattach, Tag("reattach")]
    | Annotated[Snapshot, Tag("snapshot")]
    | Annotated[KillKeeper, Tag("kill_keeper")]
    | Annotated[RemoveCgroup, Tag("remove_cgroup")],
    Discriminator(_verb),
]
