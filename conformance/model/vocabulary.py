"""The closed vocabularies: statuses, levels, clauses, claims, and how a write is submitted."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum


class Status(StrEnum):
    """What is known of one case variant on one kernel. Every result starts as BROKEN."""

    PASS = "PASS"  # noqa: S105 - a verdict
    FAIL = "FAIL"
    BROKEN = "BROKEN"
    SKIP = "SKIP"
    RECORDED = "RECORDED"


ROLL_UP = (Status.FAIL, Status.BROKEN, Status.PASS, Status.RECORDED, Status.SKIP)
"""Worst first: the status of a group is the first of these that occurs in it."""


def spread(statuses: Sequence[Status]) -> str:
    """``FAIL 1 of 5, PASS 4 of 5``: how often each occurs, worst first."""
    counts = ((status, statuses.count(status)) for status in ROLL_UP)
    return ", ".join(f"{status} {count} of {len(statuses)}" for status, count in counts if count)


HERE = "here"
"""What the kernel is called that runs on this machine already: no ``--kernel`` names it."""


class Level(StrEnum):
    """How strongly a clause or a case is claimed. Only ``must`` makes a FAIL."""

    MUST = "must"
    SHOULD = "should"
    MAY = "may"
    SURVEY = "survey"


class Disposition(StrEnum):
    """How a verdict stands to the rows in results/known/."""

    UNEXPECTED = "unexpected"  # a FAIL that no row tells of
    AS_KNOWN = "as-known"  # a FAIL, each must finding of which a row tells of
    FIXED = "fixed"  # a row tells of a FAIL that did not happen
    NONE = "none"  # nothing to say


class Clause(StrEnum):
    """The clauses of the norm that the oracle judges; docs/norm.md has their text."""

    ERROR_SURFACED = "error_surfaced"
    ERRNO_PRECISE = "errno_precise"
    LIMIT_ENFORCED = "limit_enforced"
    NO_OOM_KILL = "no_oom_kill"
    SUBMITTER_SURVIVES = "submitter_survives"
    BYSTANDERS_UNHARMED = "bystanders_unharmed"
    ACKNOWLEDGED_READABLE = "acknowledged_readable"
    NO_FOREIGN_DATA = "no_foreign_data"
    OVERWRITE_IN_PLACE = "overwrite_in_place"
    # Before what follows from it: what never ends is not reusable, nor let go of.
    BOUNDED = "bounded"
    REUSABLE = "reusable"
    RESOLVED_BY_WAITING = "resolved_by_waiting"
    INDEPENDENT_PROGRESS = "independent_progress"
    EQUIVALENT = "equivalent"
    ATTRIBUTED = "attributed"
    REPORTED_ONCE = "reported_once"
    FILESYSTEM_CONSISTENT = "filesystem_consistent"
    KERNEL_SOUND = "kernel_sound"
    NOTHING_LEAKED = "nothing_leaked"


STARRED = frozenset(
    {
        Clause.NO_OOM_KILL,
        Clause.SUBMITTER_SURVIVES,
        Clause.BYSTANDERS_UNHARMED,
        Clause.ACKNOWLEDGED_READABLE,
        Clause.NO_FOREIGN_DATA,
        Clause.BOUNDED,
        Clause.KERNEL_SOUND,
    }
)
"""Clauses that hold for every case, whatever it claims itself."""

CLAUSE_LEVEL = {Clause.ERRNO_PRECISE: Level.SHOULD}
"""Clauses that are less than ``must`` wherever they are judged."""

CLAUSE_CLAIMS: dict[Clause, tuple[str, ...]] = {
    Clause.ERROR_SURFACED: ("S1", "S7", "S8", "S9"),
    Clause.ERRNO_PRECISE: ("S2", "S3", "S9"),
    Clause.LIMIT_ENFORCED: ("S3", "S2"),
    Clause.NO_OOM_KILL: ("S1", "S2", "S6", "S8", "S9"),
    Clause.SUBMITTER_SURVIVES: ("S12", "S1", "S6", "S8"),
    Clause.BYSTANDERS_UNHARMED: ("S11", "S14"),
    Clause.ACKNOWLEDGED_READABLE: ("S5", "S7"),
    Clause.NO_FOREIGN_DATA: ("S5",),
    Clause.OVERWRITE_IN_PLACE: ("S12",),
    Clause.REUSABLE: ("S4", "S12"),
    Clause.BOUNDED: ("S13",),
    Clause.RESOLVED_BY_WAITING: ("S13", "S1", "S12"),
    Clause.INDEPENDENT_PROGRESS: ("S14",),
    Clause.EQUIVALENT: ("S10",),
    Clause.ATTRIBUTED: ("S11", "S14"),
    Clause.REPORTED_ONCE: ("S1", "S7"),
    Clause.FILESYSTEM_CONSISTENT: ("S7", "S8"),
    Clause.KERNEL_SOUND: (),
    Clause.NOTHING_LEAKED: ("S4",),
}
"""The seed's claims (S1 to S14) that each clause speaks to, the most general first.

A finding speaks to those of them that its case covers; where that is none, to the first.
"""

CLAIMS: dict[str, str] = {
    "S1": "A storage shortage is an I/O error to the submitter, not an OOM kill.",
    "S2": "A memory limit on the pages behind a loop device is thin provisioning: ENOSPC.",
    "S3": "A quota on the backing file is ENOSPC or EDQUOT.",
    "S4": "After a kill, further I/O to the device gets data or errors, never another kill.",
    "S5": "What was written through the device stays, and everybody reads it back.",
    "S6": "Metadata I/O in a process's context that crosses the limit does not kill it.",
    "S7": "Each I/O of a filesystem on the device has one definite outcome that its users hear of.",
    "S8": "A load that is all metadata is no exception.",
    "S9": "tmpfs run full by such metadata is ENOSPC from the loop device.",
    "S10": "The same shortage from different causes gets the same kind of answer.",
    "S11": "Nobody who did not submit the I/O is killed.",
    "S12": "The submitter survives, can handle the error, and can go on using the device.",
    "S13": "Blocking is right only while it can resolve the shortage; else the error is bounded.",
    "S14": "One cgroup at its limit does not stall or fail another's I/O on the same device.",
}


class Submit(StrEnum):
    """How a write reaches the kernel: the ledger's own ways, and fio's engines."""

    BUFFERED = "buffered"
    DIRECT = "direct"
    DSYNC = "dsync"
    RWF_DSYNC = "rwf_dsync"  # pwritev2 with RWF_DSYNC, on a descriptor without O_DSYNC
    DIRECT_DSYNC = "direct_dsync"  # O_DIRECT and O_DSYNC: FUA where the device has it
    MMAP = "mmap"
    FIO_LIBAIO = "fio_libaio"
    FIO_IO_URING = "fio_io_uring"
    FIO_IO_URING_FIXED = "fio_io_uring_fixed"  # from buffers that the ring has registered
    FIO_IO_URING_IOPOLL = "fio_io_uring_iopoll"  # whose completion is polled for
    FIO_IO_URING_BUFFERED = "fio_io_uring_buffered"  # through the page cache
    FIO_IO_URING_WQ = "fio_io_uring_wq"  # every request by one of io_uring's workers
    FIO_IO_URING_SQPOLL = "fio_io_uring_sqpoll"  # submitted by a kernel thread
    FIO_IO_URING_DSYNC = "fio_io_uring_dsync"  # through the page cache, under O_DSYNC


BY_IO_URING = frozenset(
    {
        Submit.FIO_IO_URING,
        Submit.FIO_IO_URING_FIXED,
        Submit.FIO_IO_URING_IOPOLL,
        Submit.FIO_IO_URING_BUFFERED,
        Submit.FIO_IO_URING_WQ,
        Submit.FIO_IO_URING_SQPOLL,
        Submit.FIO_IO_URING_DSYNC,
    }
)
BY_FIO = BY_IO_URING | {Submit.FIO_LIBAIO}
THROUGH_CACHE = frozenset(
    {
        Submit.BUFFERED,
        Submit.DSYNC,
        Submit.RWF_DSYNC,
        Submit.MMAP,
        Submit.FIO_IO_URING_BUFFERED,
        Submit.FIO_IO_URING_DSYNC,
    }
)
"""Ways through the page cache, whose errors may be told to whoever syncs next."""
SYNCS_ITSELF = frozenset(
    {Submit.DSYNC, Submit.RWF_DSYNC, Submit.DIRECT_DSYNC, Submit.FIO_IO_URING_DSYNC}
)
"""Ways on which the success of a write is its acknowledgement."""
CARRIES_STATUS = (BY_FIO | {Submit.DIRECT, Submit.DIRECT_DSYNC}) - THROUGH_CACHE
"""Ways on which a block device's status reaches the submitter as its errno.

Elsewhere the page cache stands between: mark_buffer_write_io_error() in fs/buffer.c records EIO
whatever the status of the bio was (5.10 to 7.3).
"""


class RangeKind(StrEnum):
    """What can be asked of a range of a block device, besides reading and writing it."""

    DISCARD = "discard"  # ioctl BLKDISCARD
    ZEROOUT = "zeroout"  # ioctl BLKZEROOUT
    ZERO_RANGE = "zero_range"  # fallocate(2) with FALLOC_FL_ZERO_RANGE
    PUNCH_HOLE = "punch_hole"  # fallocate(2) with FALLOC_FL_PUNCH_HOLE
    WRITE_ZEROES = "write_zeroes"  # fallocate(2) with FALLOC_FL_WRITE_ZEROES, since Linux 6.17
    ALLOCATE = "allocate"  # fallocate(2) with mode 0
    ZONE_RESET = "zone_reset"  # ioctl BLKRESETZONE, on whole zones


ZEROES = frozenset(
    {RangeKind.ZEROOUT, RangeKind.ZERO_RANGE, RangeKind.PUNCH_HOLE, RangeKind.WRITE_ZEROES}
)
"""After one of these has succeeded, the range reads as zeros: fallocate(2), and the ioctl's name."""
TAKES_SPACE_AWAY = frozenset({RangeKind.DISCARD, RangeKind.PUNCH_HOLE, RangeKind.ZONE_RESET})
"""After one of these the range may be without space."""
PROMISES_SPACE = frozenset({RangeKind.ZERO_RANGE, RangeKind.WRITE_ZEROES, RangeKind.ALLOCATE})
"""After one of these has succeeded, writes into the range do not want for space: fallocate(2)."""
MAY_BE_UNKNOWN = frozenset({RangeKind.PUNCH_HOLE, RangeKind.WRITE_ZEROES, RangeKind.ALLOCATE})
"""For these EOPNOTSUPP is an answer at any time: a device need not have them. The others fall back to
writing, or are what every loop device has."""


class Role(StrEnum):
    """What a step is for. It tells the judge which clause a step's outcome speaks to."""

    SETUP = "setup"  # prepares; must work, or the run is BROKEN
    CONTROL = "control"  # the same operation without the shortage; must work, or BROKEN
    PROVOKE = "provoke"  # runs into the shortage
    OVERWRITE = "overwrite"  # rewrites blocks that already have physical space, during the shortage
    REUSE = "reuse"  # uses the device again during the shortage, or after a kill
    RECOVER = "recover"  # after relief: must work again
    OBSERVE = "observe"  # looks; changes nothing
