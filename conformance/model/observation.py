"""What was seen in the guest: facts without opinions, as the agent sends them and records keep them.

Times are microseconds of the guest's monotonic clock since the rig was built. A result is what the
system call returned, or minus the errno.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from conformance.model.base import Value

Whole = Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)]
"""A number of 64 bits, signed or not, as kernels have them: a guest that tells of more sends garbage."""

RangeWord = Literal[
    "discard", "zeroout", "zero_range", "punch_hole", "write_zeroes", "allocate", "zone_reset"
]
"""The words of ``RangeKind``, as records have them."""
PLACELESS = ("sync", "close", "open")
"""Kinds of calls that are about no range."""


class Op(NamedTuple):
    """One system call or completion of a submitter: ``write``, ``sync`` or ``close``, or one of the
    ``RangeKind`` words, whose result is 0 where it succeeded.

    ``sync`` covers every earlier write of the same step; a ``write`` under O_DSYNC covers itself.
    """

    kind: Literal["write", "sync", "close", "open"] | RangeWord
    offset: Whole
    length: Whole
    generation: Whole
    result: Whole
    start_us: Whole
    end_us: Whole

    @property
    def placed(self) -> bool:
        """Whether it is about a range of the device, as a write is and a sync is not."""
        return self.kind not in PLACELESS


class Ended(Value):
    """How a process ended. ``signal`` is what killed it; ``timed_out`` that it had to be ended."""

    exit_code: Whole | None = None
    signal: Whole | None = None
    timed_out: bool = False
    killable: bool = True
    state: str = ""
    stack: str = ""


class InFlight(NamedTuple):
    """A call of a submitter that had begun, and not returned when it ended."""

    kind: str
    offset: Whole
    length: Whole
    start_us: Whole

    @property
    def placed(self) -> bool:
        """See ``Op``."""
        return self.kind not in PLACELESS


class Submitter(Value):
    """One process that submitted I/O: what it asked for, what it was told, how it ended."""

    pid: Whole
    cgroup: str
    ops: tuple[Op, ...] = ()
    ended: Ended
    killed_by_rig: bool = False
    in_flight: InFlight | None = None  # older records tell of it in ``output``
    own_memory: Whole | None = None  # bytes of anonymous memory in its cgroup when it began
    threads: tuple[Whole, ...] = ()  # their ids when it began, where it has several
    tool: str = ""  # "ledger", or the tool's name and version
    output: str = ""  # the tail of what a tool printed


class Extent(NamedTuple):
    """A run of blocks that read alike. ``zero``: all zero bytes; ``generation``: as written."""

    offset: Whole
    length: Whole
    content: Literal["generation", "zero", "foreign", "unreadable"]
    generation: Whole | None
    errno: Whole | None


class FileOp(NamedTuple):
    """An operation on files, or ``times`` like ones in a row that all gave ``result``."""

    kind: str  # create write fsync dirsync mkdir rename setxattr close open syncfs
    path: str
    times: Whole
    length: Whole
    result: Whole
    start_us: Whole
    end_us: Whole


class FileState(Value):
    """A file as it was found: ``whole`` is every byte as it was written and fsynced."""

    path: str
    state: Literal["whole", "wrong", "missing", "unreadable"]
    size: Whole = 0
    errno: Whole | None = None
    wrong: tuple[Extent, ...] = ()


class Command(Value):
    """A command of the rig or of a case, and how it ended."""

    argv: tuple[str, ...]
    ended: Ended
    output: str = ""


class Reading(Value):
    """The shortage's own gauge, read without regard to any error: bytes used of bytes there are.

    ``hits`` counts how often a limit was run into, where the kernel counts that.
    """

    kind: str
    used: Whole
    limit: Whole | None = None  # None: no limit in force
    hits: Whole | None = None


class MemoryEvents(Value):
    """memory.events, memory.current and the like of one cgroup. Bytes and counts."""

    max: Whole = 0
    oom: Whole = 0
    oom_kill: Whole = 0
    oom_group_kill: Whole = 0
    high: Whole = 0
    current: Whole = 0
    anon: Whole = 0
    shmem: Whole = 0
    file: Whole = 0


class IoError(NamedTuple):
    """An error that a bystander's own I/O got."""

    kind: str
    offset: Whole
    errno: Whole
    t_us: Whole


class IoWrong(NamedTuple):
    """An operation of a bystander that got no error, and yet went wrong: its count was short, or it
    read other ``data`` than the bystander had stored there.
    """

    kind: Literal["data", "short-write", "short-read"]
    offset: Whole  # of ``data``: of the first block that is not as it was stored
    done: Whole  # bytes
    t_us: Whole


class BystanderState(Value):
    """How a bystander fares; a zombie is not alive."""

    name: str
    pid: Whole
    cgroup: str
    alive: bool
    state: str = ""
    signal: Whole | None = None
    io_done: Whole = 0  # operations that did all that was asked
    io_errors: tuple[IoError, ...] = ()
    io_wrong: tuple[IoWrong, ...] = ()  # the first ones, as of errors
    io_stall_us: Whole = 0  # the longest that one of its operations took, or is taking


class Blocked(Value):
    """A task in uninterruptible sleep when nothing should be."""

    pid: Whole
    comm: str
    stack: str = ""


class KernelLine(NamedTuple):
    """A line of the kernel log since the last look."""

    seq: Whole
    level: Whole
    t_us: Whole
    text: str


class Watch(Value):
    """What the watchers saw after a step."""

    t_us: Whole
    reading: Reading
    oom_kill: Whole  # /proc/vmstat
    cgroups: dict[str, MemoryEvents] = {}
    bystanders: tuple[BystanderState, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    taint: Whole = 0
    kernel_log: tuple[KernelLine, ...] = ()


class StepSeen(Value):
    """What one step did. ``problem`` is the rig's or agent's own failure, in one line."""

    name: str
    verb: str
    start_us: Whole
    end_us: Whole
    problem: str = ""
    submitter: Submitter | None = None
    extents: tuple[Extent, ...] = ()
    files: tuple[FileState, ...] = ()
    file_ops: tuple[FileOp, ...] = ()
    commands: tuple[Command, ...] = ()
    watch: Watch


class Built(Value):
    """The rig as it stands before the first step."""

    layers: dict[str, dict[str, str | Whole | bool]] = {}  # path, size in bytes, settings in force
    facts: dict[str, str] = {}  # swap, THP, machine: what a reader needs to compare runs
    watch: Watch


class TornDown(Value):
    """What tear-down found left: names of loop devices, mounts, cgroups, processes; bytes.

    ``watch`` is of before anything was taken down, ``after`` of when all was: the bystanders have been
    ended by then, and the gauge's reading is the last one.
    """

    problem: str = ""
    left: tuple[str, ...] = ()
    shmem_before: Whole = 0
    shmem_after: Whole = 0
    processes: Whole | None = None  # started since the rig's beginning, kernel threads included
    watch: Watch | None = None
    commands: tuple[Command, ...] = ()  # those of tear-down that had to be ended
    after: Watch | None = None


class Lost(Value):
    """The guest was lost: how, at which step, and what was taken as evidence first."""

    how: Literal["panicked", "hung", "gone", "wire", "agent", "launch"]
    step: str  # a step's name, or "build", "teardown", "probe"
    title: str
    evidence: dict[str, str] = {}


class ArmSeen(Value):
    """Everything that was seen of one arm."""

    name: str
    built: Built | None = None
    steps: tuple[StepSeen, ...] = ()
    torn_down: TornDown | None = None
    lost: Lost | None = None
    problem: str = ""  # the rig could not be built, or the like
    console: str = ""  # path of the console log, relative to the run's folder
    qemu_events: tuple[dict[str, object], ...] = ()
    speed: float | None = (
        None  # how many times slower than the reference machine; limits times this
    )
    seconds: dict[str, float] = {}
    work: dict[str, int] = {}  # what it took, counted and not timed; the names are ``Guest.work``'s


class Observation(Value):
    """Everything that was seen of one variant on one kernel."""

    case: str
    values: dict[str, str] = {}
    kernel: str
    release: str
    arms: tuple[ArmSeen, ...]
