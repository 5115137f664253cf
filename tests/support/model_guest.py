"""A guest in memory that conforms to the norm: what a kernel would answer that does everything right.

It keeps devices as arrays of block generations with a limit on the blocks that have space, and files
as names. It answers the agent's verbs (``probe``, ``build``, ``step``, ``teardown``) in the agent's own
format, so that the planner, the runner, the wire and the oracle run for real above it. A *lie* is a
function that changes one answer: the planted faults are made with it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter

from conformance.machine.protocol import DiskOrder
from conformance.model import (
    BLOCK,
    TAKES_SPACE_AWAY,
    AnyShortage,
    AnyStep,
    Built,
    Bystander,
    BystanderState,
    Calls,
    Command,
    Ended,
    Extent,
    FileOp,
    Files,
    FileState,
    Hog,
    InFlight,
    InodeQuota,
    Inodes,
    Memcg,
    MemoryEvents,
    MemoryLimit,
    Metadata,
    Mkfs,
    Op,
    Qgroup,
    Quota,
    RangeKind,
    RangeOp,
    Reading,
    Role,
    Run,
    StepSeen,
    Submit,
    Submitter,
    TmpfsSize,
    TornDown,
    Trim,
    Truncate,
    Verify,
    Watch,
    Write,
    as_json,
    parse_size,
)
from conformance.model.layers import DISK_SIZE
from conformance.model.shortages import (
    BlockStatus,
    GuestMemory,
    HostSpace,
    ScsiSense,
    ServerSpace,
    SnapshotCow,
    ThinData,
    ThinMetadata,
    VdoSpace,
    ZramLimit,
)
from tests.support.model_calls import ModelFile

ZEROS = -1
"""The generation of a block that dd wrote from /dev/zero."""

STATUS = {
    "NOSPC": errno.ENOSPC,
    "RESOURCE": errno.ENOMEM,
    "IOERR": errno.EIO,
    "MEDIUM": errno.ENODATA,
    "TIMEOUT": errno.ETIMEDOUT,
    "TRANSPORT": errno.ENOLINK,
    "TARGET": errno.EREMOTEIO,
    "PROTECTION": errno.EILSEQ,
}
"""blk_errors[] of block/blk-core.c."""

Lie = Callable[[str, dict[str, Any], dict[str, Any]], dict[str, Any]]
"""(verb, what was asked, the honest answer) -> the answer that is given."""

STEP: TypeAdapter[Any] = TypeAdapter(AnyStep)
SHORTAGE: TypeAdapter[Any] = TypeAdapter(AnyShortage)


_SNAPSHOT = 2 << 40


def _base(target: str) -> int:
    """Where a device's blocks are kept: there may be a second one, or a snapshot."""
    if target == "snapshot":
        return _SNAPSHOT
    return 1 << 40 if target.startswith("other") else 0


def _kills(step: Write, offset: int, result: int) -> bool:
    """Whether the rig ends the writer after its request at ``offset``."""
    if step.kill is None:
        return False
    done = offset + step.request - step.offset
    if step.kill.after == "first_error":
        return result < 0
    return isinstance(step.kill.after, int) and done >= step.kill.after


def _kills_in_sync(step: Write, offset: int) -> bool:
    """Whether the rig ends the writer in the sync that follows its request at ``offset``."""
    done = offset + step.request - step.offset
    asked = step.kill is not None and step.kill.after == "first_sync"
    return asked and done >= (step.sync_every or step.length)


class ModelGuest:
    """The verbs of a conforming guest. ``unmet`` names requirements that it does not meet."""

    def __init__(self, *, lie: Lie | None = None, unmet: Mapping[str, str] | None = None) -> None:
        self._lie = lie
        self._unmet = dict(unmet or {})
        self._now = 0
        self._help: Callable[[], bool] | None = None
        self._shortage: Any = None

    def handlers(self) -> dict[str, Callable[[dict[str, Any]], object]]:
        """What the agent's serve loop would dispatch to."""
        honest = {
            "probe": self._probe,
            "build": self._build,
            "step": self._step,
            "teardown": self._teardown,
        }
        verbs = {verb: self._answering(verb, answer) for verb, answer in honest.items()}
        return {**verbs, **self._host()}

    def _host(self) -> dict[str, Callable[[dict[str, Any]], object]]:
        """What the host does, which has the disk's file: a guest knows of no shortage of it."""

        def plug(args: dict[str, Any]) -> None:
            self._plugged: DiskOrder = args["order"]

        def squeeze(args: dict[str, Any]) -> None:
            self._shortage = HostSpace(
                kind="host_space", layer=self._plugged.name, leave=args["leave"]
            )

        def give(args: dict[str, Any]) -> bool:
            self._at_impose += args["amount"] or 0
            return True

        def reading(args: dict[str, Any]) -> dict[str, Any]:
            room = self._limit() - self._used() if self._short else None
            return {"used": self._used(), "room": room, "refused": self._hits}

        def when_stopped(args: dict[str, Any]) -> None:
            self._help = args["help_it"]

        return {f"host:{act.__name__}": act for act in (plug, squeeze, give, reading, when_stopped)}

    def _answering(
        self, verb: str, answer: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> Callable[[dict[str, Any]], object]:
        def handler(args: dict[str, Any]) -> object:
            honest = answer(args)
            return honest if self._lie is None else self._lie(verb, args, honest)

        return handler

    def _probe(self, args: dict[str, Any]) -> dict[str, Any]:
        return {need: self._unmet.get(need, "") for need in args["requirements"]}

    def _build(self, args: dict[str, Any]) -> dict[str, Any]:
        self._blocks: dict[int, int] = {}  # block number -> generation; ZEROS if a command wrote it
        self._free: set[int] = set()  # blocks that no limit was charged for
        self._shared: set[int] = set()  # blocks of an origin and its snapshot that are one yet
        self._files: dict[str, int] = {}  # path -> size
        self._foreign = 0  # bytes that others took of the same space
        self._short = False
        self._at_impose = 0
        self._hits = self._looks = 0
        self._shortage = SHORTAGE.validate_python(args["shortage"])
        self._bystanders = [Bystander.model_validate(b) for b in args["bystanders"]]
        self._cgroups: list[str] = list(args["cgroups"])
        self._of_file = {layer["name"] for layer in args["layers"] if layer["layer"] == "file"}
        # Whoever has a leg that is not short needs the others' space no more.
        self._spared = any("spare" in layer.get("legs", ()) for layer in args["layers"])
        self._in_memory = any(layer["layer"] == "tmpfs" for layer in args["layers"])
        sizes = [
            DISK_SIZE if x["layer"] == "disk" else int(x.get("size", 0)) for x in args["layers"]
        ]
        self._size = max(sizes, default=0)
        self._size = next(
            (
                int(x["size"])
                for x in args["layers"]
                if x["name"] == "image" or x["layer"] == "zloop"
            ),
            self._size,
        )
        layers: dict[str, dict[str, str | int | bool]] = {
            layer["name"]: {"path": f"/model/{layer['name']}", "size": self._size}
            for layer in args["layers"]
        }
        return as_json(Built(layers=layers, facts={"swap": "off"}, watch=self._watch()))

    def _step(self, args: dict[str, Any]) -> dict[str, Any]:
        step = STEP.validate_python({**args["step"], "role": Role.OBSERVE})
        begin = self._tick()
        seen = self._do(step)
        whole = {
            "name": step.name,
            "verb": step.verb,
            "start_us": begin,
            "end_us": self._tick(),
            "watch": self._watch(),
        }
        return as_json(StepSeen.model_validate({**whole, **seen}))

    def _teardown(self, args: dict[str, Any]) -> dict[str, Any]:
        watch = self._watch()
        after = watch.model_copy(update={"t_us": self._tick(), "cgroups": {}, "bystanders": ()})
        return as_json(TornDown(watch=watch, after=after))

    # -- what the steps do ----------------------------------------------------------------------

    def _do(self, step: Any) -> dict[str, Any]:
        match step.verb:
            case "impose":
                self._at_impose = self._used()
                self._short = True
            case "relieve":
                self._short = False
            case "snapshot":
                self._take_snapshot()
            case "write":
                detached = Command(argv=("losetup", "-d"), ended=Ended(exit_code=0))
                commands = (detached,) if step.detach else ()
                return {"submitter": self._write(step), "commands": commands}
            case "calls":
                return {"file_ops": self._call(step), "submitter": self._submitter(step, ())}
            case "range_op" | "truncate":
                return self._alter(step)
            case "run":
                return {"submitter": self._run(step)}
            case "files":
                ops = self._write_files(step)
                return {"file_ops": ops, "submitter": self._submitter(step, ())}
            case "metadata":
                ops = self._make_metadata(step)
                return {"file_ops": ops, "submitter": self._submitter(step, ())}
            case _:
                return self._look(step)
        return {}

    def _look(self, step: Any) -> dict[str, Any]:
        """The steps that write nothing."""
        match step.verb:
            case "verify":
                return {"extents": self._extents(step)}
            case "verify_files":
                states = [
                    FileState(path=path, state="whole", size=size)
                    for path, size in self._files.items()
                ]
                return {"files": states}
            case "trim" | "mkfs":
                return self._take_away(step)
            case "unmount" | "mount" | "check" | "reattach":
                done = Command(argv=(step.verb, step.target), ended=Ended(exit_code=0))
                return {"commands": [done]}
            case "remove_cgroup":
                self._cgroups.remove(step.cgroup)
                return {"commands": [Command(argv=("rmdir",), ended=Ended(exit_code=0))]}
        return {}

    def _store(self, offset: int, length: int, generation: int, cgroup: str) -> int:
        """Give a request its space, wholly or not at all: its result."""
        wanted = range(offset // BLOCK, (offset + length) // BLOCK)
        new = [b for b in wanted if b not in self._blocks or b in self._shared]
        while self._help is not None and len(new) * BLOCK > self._space(cgroup):
            # The machine stops, is helped, and goes on: to the writer that is one write.
            self._hits += 1
            self._help()
        if new and len(new) * BLOCK > self._space(cgroup):
            self._hits += 1
            return -errno.ENOSPC
        if self._ended_by_block_layer(offset, length):
            self._hits += 1
            return -STATUS[self._shortage.status]
        if not self._limits(cgroup):
            self._free.update(new)
        if self._short and isinstance(self._shortage, ScsiSense):
            # A warning, after which the request is sent again; at most so many.
            self._hits = min(self._hits + 1, self._shortage.times or self._hits + 1)
        self._blocks.update(dict.fromkeys(wanted, generation))
        for block in self._shared.intersection(wanted):
            # Both have one of their own now.
            one = max(block, block ^ _SNAPSHOT // BLOCK)
            self._shared -= {block, block ^ _SNAPSHOT // BLOCK}
            self._free.discard(one)
        return length

    def _ended_by_block_layer(self, offset: int, length: int) -> bool:
        rule = self._shortage
        if not self._short or not isinstance(rule, BlockStatus):
            return False
        return offset < rule.start + rule.length and rule.start < offset + length

    def _take_snapshot(self) -> None:
        """All of the origin's blocks are the snapshot's too, and take no space of their own."""
        first = _SNAPSHOT // BLOCK
        shared = {first + block: found for block, found in self._blocks.items() if block < first}
        self._blocks.update(shared)
        self._free.update(shared)
        self._shared = {*shared, *(block - first for block in shared)}

    def _take(self, block: int) -> None:
        """A block gives its space back."""
        self._blocks.pop(block, None)
        self._free.discard(block)

    def _alter(self, step: RangeOp | Truncate) -> dict[str, Any]:
        if isinstance(step, RangeOp):
            return {"submitter": self._range(step)}
        for block in [block for block in self._blocks if block * BLOCK >= step.size]:
            self._take(block)
        return {}

    def _range(self, step: RangeOp) -> Submitter:
        """Discards and holes give space back, zeroes take it; a loop device has no more of fallocate(2)."""
        begin, result = self._tick(), 0
        if step.op in (RangeKind.ALLOCATE, RangeKind.WRITE_ZEROES):
            result = -errno.EOPNOTSUPP
        elif step.op in TAKES_SPACE_AWAY:
            for block in range(step.offset // BLOCK, (step.offset + step.length) // BLOCK):
                self._take(block)
        else:
            result = min(0, self._store(step.offset, step.length, ZEROS, step.cgroup))
        op = Op(step.op.value, step.offset, step.length, 0, result, begin, self._tick())
        return self._submitter(step, [op, self._sync()])

    def _write(self, step: Write) -> Submitter:
        ops: list[Op] = []
        unsynced = 0
        for offset in range(step.offset, step.offset + step.length, step.request):
            begin = self._tick()
            place = _base(step.target) + offset
            room = max(0, min(step.request, self._size - offset)) if step.past_end else step.request
            result = self._store(place, room, step.generation, step.cgroup)
            if not room:
                result = -errno.ENOSPC  # beyond the end: no shortage
            ops.append(
                Op("write", offset, step.request, step.generation, result, begin, self._tick())
            )
            if result < 0 and step.after_error == "stop":
                break
            unsynced += step.request
            if _kills_in_sync(step, offset):
                return self._submitter(step, ops, killed=True, in_flight="sync")
            if step.sync_every and unsynced >= step.sync_every:
                ops.append(self._sync())
                unsynced = 0
            if _kills(step, offset, result):
                return self._submitter(step, ops, killed=True)
        ops.append(self._sync())
        ops.append(Op("close", 0, 0, 0, 0, self._tick(), self._tick()))
        return self._submitter(step, ops)

    def _call(self, step: Calls) -> list[FileOp]:
        def store(offset: int, length: int) -> int:
            return self._store(_base(step.target) + offset, length, step.generation, "")

        return ModelFile(step, store).play(self._tick, of_file=step.target in self._of_file)

    def _take_away(self, step: Trim | Mkfs) -> dict[str, Any]:
        """Files go, and their space with them. mkfs itself takes all that there is, and fails."""
        if isinstance(step, Mkfs) and self._space("") < 1 << 40:
            self._foreign += self._space("")
            self._hits += 1
            return {"commands": [Command(argv=(step.verb,), ended=Ended(exit_code=1))]}
        below = f"{step.directory}/" if isinstance(step, Trim) else ""
        gone = [path for path in self._files if path.startswith(below)]
        self._foreign -= sum(self._files.pop(path) for path in gone)
        return {"commands": [Command(argv=(step.verb,), ended=Ended(exit_code=0))]}

    def _run(self, step: Run) -> Submitter:
        """Dd, from /dev/zero; any other command succeeds and changes nothing."""
        if step.argv[0] != "dd":
            return self._submitter(step, ())
        words = dict(word.split("=", 1) for word in step.argv[1:])
        size = parse_size(words["bs"])
        first = int(words.get("seek", "0"))
        for number in range(first, first + int(words["count"])):
            if self._store(number * size, size, ZEROS, step.cgroup) < 0:
                told = f"dd: error writing '{words['of']}': No space left on device"
                return self._submitter(step, (), output=told, exit_code=1)
        return self._submitter(step, ())

    def _extents(self, step: Verify) -> list[Extent]:
        extents: list[Extent] = []
        for block in range(step.offset // BLOCK, (step.offset + step.length) // BLOCK):
            generation = self._blocks.get(_base(step.target) // BLOCK + block)
            if generation == ZEROS:
                generation = None
            content = "zero" if generation is None else "generation"
            last = extents[-1] if extents else None
            if last is not None and (last.content, last.generation) == (content, generation):
                extents[-1] = last._replace(length=last.length + BLOCK)
            else:
                extents.append(Extent(block * BLOCK, BLOCK, content, generation, None))  # type: ignore[arg-type]
        return extents

    def _write_files(self, step: Files) -> list[FileOp]:
        """Each file's write is refused where there is no space, whatever syncs it."""
        ops = []
        sync = "msync" if step.submit is Submit.MMAP else "fsync"
        kinds = ("create", "write", *([sync] if step.sync == "fsync" else []), "close")
        for number in range(step.count):
            path = f"{step.directory}/{number:05d}"
            short = step.size > self._space(step.cgroup)
            result = -errno.ENOSPC if short else 0
            for kind in kinds:
                told = step.size if kind == "write" and not short else result
                ops.append(FileOp(kind, path, 1, step.size, told, self._tick(), self._tick()))
            if short:
                self._hits += 1
                break
            self._files[path] = step.size
            self._foreign += step.size
        if step.sync != "fsync":
            ops.append(FileOp(step.sync, step.directory, 1, 0, 0, self._tick(), self._tick()))
        return ops

    def _make_metadata(self, step: Metadata) -> list[FileOp]:
        ops = []
        for number in range(0, step.count, step.sync_every):
            path = f"{step.directory}/{number:05d}"
            taken = step.sync_every * BLOCK
            short = self._space(step.cgroup) < taken
            result = -errno.ENOSPC if short else 0
            ops.append(
                FileOp("create", path, step.sync_every, 0, result, self._tick(), self._tick())
            )
            ops.append(FileOp("fsync", path, 1, 0, result, self._tick(), self._tick()))
            if short:
                self._hits += 1
                break
            self._files[path] = 0
            self._foreign += taken
        return ops

    # -- gauges ---------------------------------------------------------------------------------

    def _used(self) -> int:
        return len(self._blocks.keys() - self._free) * BLOCK + self._foreign

    def _limit(self) -> int:
        match self._shortage:
            case TmpfsSize(size=size):
                return int(size)
            case SnapshotCow(size=size):
                return self._at_impose + int(size)
            case ThinData(leave=leave) | ThinMetadata(leave=leave) | VdoSpace(leave=leave):
                return self._at_impose + int(leave)
            case ZramLimit(leave=leave) | GuestMemory(leave=leave):
                return self._at_impose + int(leave)
            case Memcg(limit=limit, swap=swap):
                return int(limit) + int(swap)
            case MemoryLimit(limit=limit) | Quota(limit=limit) | Qgroup(limit=limit):
                return int(limit)
            case InodeQuota(limit=limit):
                return int(limit)
            case Inodes():
                return self._used()
            case Hog(leave=leave) | ServerSpace(leave=leave) | HostSpace(leave=leave):
                return self._at_impose + int(leave)
            case ScsiSense(sense="space_allocation_failed"):
                return self._at_impose
        return 1 << 40

    def _limits(self, cgroup: str) -> bool:
        """Whether the shortage is one for a submitter in this cgroup."""
        limited = self._shortage.binds
        return limited is None or cgroup == limited or cgroup.startswith(f"{limited}/")

    def _bounds(self) -> bool:
        """Whether what is written can be beyond the limit: a throttle only delays, and of a device
        that is no memory every page can be written back.
        """
        if not self._shortage.OF_SPACE or self._spared:
            return False
        if self._ends():
            return False
        if not isinstance(self._shortage, MemoryLimit):
            return True
        high = isinstance(self._shortage, Memcg) and self._shortage.knob == "high"
        return self._in_memory and not high

    def _ends(self) -> bool:
        """Whether the shortage ends by itself once it was met."""
        match self._shortage:
            case ThinData(grows=after) | GuestMemory(lasts=after):
                return after > 0
        return False

    def _space(self, cgroup: str) -> int:
        bound = self._short and self._limits(cgroup) and self._bounds()
        return self._limit() - self._used() if bound else 1 << 40

    def _gauge(self, limit: int | None) -> int:
        """What is in use by the gauge: a snapshot's counts from its making, an inode quota's no bytes."""
        if limit is not None and isinstance(self._shortage, InodeQuota):
            return limit
        since = limit is not None and isinstance(self._shortage, SnapshotCow)
        return self._used() - (self._at_impose if since else 0)

    def _watch(self) -> Watch:
        self._looks += 1
        limit = self._limit() if self._short else None
        if isinstance(self._shortage, Memcg) and limit is not None:
            limit = self._shortage.limit
            self._hits += self._used() > limit
        if self._ends() and limit is not None and self._used() > limit:
            # Somebody has extended the pool, or given memory back.
            self._hits, limit = self._hits + 1, self._used()
        if isinstance(self._shortage, SnapshotCow) and limit is not None:
            limit = self._shortage.size
        events = MemoryEvents(max=self._hits)
        return Watch(
            t_us=self._tick(),
            reading=Reading(
                kind=self._shortage.kind,
                used=self._gauge(limit),
                limit=limit,
                hits=self._hits,
            ),
            oom_kill=0,
            cgroups=dict.fromkeys(self._cgroups, events),
            bystanders=tuple(
                BystanderState(
                    name=b.name,
                    pid=100 + i,
                    cgroup=b.cgroup,
                    alive=True,
                    io_done=b.io.operations * self._looks if b.io else 0,
                )
                for i, b in enumerate(self._bystanders)
            ),
        )

    def _sync(self) -> Op:
        return Op("sync", 0, 0, 0, 0, self._tick(), self._tick())

    def _submitter(
        self,
        step: Any,
        ops: Any,
        *,
        killed: bool = False,
        in_flight: str = "",
        output: str = "",
        exit_code: int = 0,
    ) -> Submitter:
        ended = Ended(signal=9) if killed else Ended(exit_code=exit_code)
        return Submitter(
            pid=200,
            cgroup=getattr(step, "cgroup", ""),
            ops=tuple(ops),
            ended=ended,
            killed_by_rig=killed,
            in_flight=InFlight(in_flight, 0, 0, self._tick()) if in_flight else None,
            own_memory=0,
            tool="model",
            output=output,
        )

    def _tick(self) -> int:
        self._now += 100
        return self._now
