"""Hand-written runs: what was asked for and what was seen, an act at a time, in blocks.

``story()`` is a run of a loop device of 16 blocks (64 KiB) over a tmpfs that has space for eight of
them; every value in it is the norm's: eight blocks are stored and acknowledged, the rest is refused
with ENOSPC, what has space can be rewritten, and after relief everything works. A test replaces one
act of it, or tells a story of its own. What a device holds is a line with one character for each block:

    2  generation 2      .  zeros      ?  foreign      !  cannot be read (EIO)

Writes and reads are in blocks; the clock ticks ten microseconds for each call.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from conformance.model import (
    BLOCK,
    AnyShortage,
    AnyStep,
    Arm,
    ArmSeen,
    Built,
    Bystander,
    BystanderState,
    Calls,
    Clause,
    Command,
    Ended,
    Expect,
    Extent,
    FileLayer,
    FileOp,
    Impose,
    InFlight,
    KernelLine,
    Level,
    LoopLayer,
    Memcg,
    MemoryEvents,
    Norm,
    Observation,
    Op,
    Reading,
    Reattach,
    Relieve,
    Role,
    Run,
    StepSeen,
    Submit,
    Submitter,
    TmpfsLayer,
    TmpfsSize,
    TornDown,
    Variant,
    Verdict,
    Verify,
    Watch,
    Where,
    Write,
)
from conformance.model.calls import STORES
from conformance.oracle import judge

BLOCKS: Final = 16
"""Blocks of the device."""
SPACE: Final = 8
"""Blocks that there is space for while the shortage lasts."""
REQUEST: Final = 2
"""Blocks of one request."""
ENOSPC: Final = -errno.ENOSPC
EIO: Final = -errno.EIO
PID: Final = 200
"""The process id of every submitter."""


@dataclass(frozen=True, kw_only=True)
class Act:
    """One step as it was asked for, and what was seen of it."""

    step: AnyStep
    seen: dict[str, Any] = field(default_factory=dict)
    watch: dict[str, Any] = field(default_factory=dict)

    def watching(self, **seen: Any) -> Act:
        """The same act with something else for the watchers to see after it."""
        return replace(self, watch={**self.watch, **seen})

    def ended(self, **how: Any) -> Act:
        """The same act with another end of its submitter."""
        return self._with(ended=Ended(**how))

    def in_a(self, kind: str, *where: int) -> Act:
        """The same act, of which a call had not returned: of what kind, its offset and its length."""
        offset, length = where or (0, 0)
        return self._with(in_flight=InFlight(kind, offset, length, 0))

    def _with(self, **changes: Any) -> Act:
        submitter: Submitter = self.seen["submitter"]
        changed = submitter.model_copy(update=changes)
        return replace(self, seen={**self.seen, "submitter": changed})


# -- calls ----------------------------------------------------------------------------------------


def wrote(first: int, count: int, result: int | None = None, *, generation: int = 0) -> Op:
    """A write of some blocks, stored wholly unless a result says otherwise. Generation 0 stands
    for that of the step.
    """
    length = count * BLOCK
    return Op(
        "write", first * BLOCK, length, generation, length if result is None else result, 0, 0
    )


def stored(first: int, last: int) -> list[Op]:
    """Requests that were stored, from one block up to another."""
    return [wrote(at, REQUEST) for at in range(first, last, REQUEST)]


def synced(result: int = 0) -> Op:
    """An fsync, or an msync."""
    return Op("sync", 0, 0, 0, result, 0, 0)


def closed(result: int = 0) -> Op:
    """A close."""
    return Op("close", 0, 0, 0, result, 0, 0)


def _timed(ops: Iterable[Op], generation: int) -> tuple[Op, ...]:
    """The calls one after the other, but for those that have a time of their own."""
    timed = []
    for number, op in enumerate(ops, 1):
        kept = op if op.end_us else op._replace(start_us=number * 10, end_us=number * 10 + 5)
        if kept.kind == "write" and not kept.generation:
            kept = kept._replace(generation=generation)
        timed.append(kept)
    return tuple(timed)


# -- acts -----------------------------------------------------------------------------------------


def write(
    name: str,
    role: Role,
    blocks: tuple[int, int],
    ops: Sequence[Op],
    *,
    generation: int,
    submit: Submit = Submit.BUFFERED,
    cgroup: str = "",
    killed_by_rig: bool = False,
    after_error: Literal["stop", "continue"] = "stop",
) -> Act:
    """A writer that was asked to write from one block up to another, and its calls."""
    first, last = blocks
    step = Write(
        name=name,
        role=role,
        verb="write",
        cgroup=cgroup,
        submit=submit,
        offset=first * BLOCK,
        length=(last - first) * BLOCK,
        request=REQUEST * BLOCK,
        generation=generation,
        after_error=after_error,
    )
    ended = Ended(signal=9) if killed_by_rig else Ended(exit_code=0)
    submitter = Submitter(
        pid=PID,
        cgroup=cgroup,
        ops=_timed(ops, generation),
        ended=ended,
        killed_by_rig=killed_by_rig,
        own_memory=0,
        tool="ledger",
    )
    return Act(step=step, seen={"submitter": submitter})


def calls(
    name: str,
    role: Role,
    script: str,
    results: Sequence[int],
    *,
    first: int = 0,
    count: int = 2,
    generation: int,
    **ended: Any,
) -> Act:
    """A script on some blocks, and what its calls returned; what is more is the file beside. Where it did
    not end by itself, the rest of the calls may not have been made.
    """
    step = Calls.model_validate(
        {
            "as": name,
            "role": role,
            "verb": "calls",
            "offset": first * BLOCK,
            "length": count * BLOCK,
            "generation": generation,
            "script": script,
        }
    )
    lengths = [count * BLOCK if call.do in STORES else 0 for call in step.script]
    names: list[tuple[str, str]] = [(call.do, call.fd) for call in step.script]
    if len(results) > len(names):
        names.append(("create", ""))
        lengths.append(0)
    ops = tuple(
        FileOp(do, fd, 1, length, result, at * 10, at * 10 + 5)
        for at, ((do, fd), length, result) in enumerate(
            zip(names, lengths, results, strict=not ended)
        )
    )
    how = Ended(**(ended or {"exit_code": 0}))
    submitter = Submitter(pid=PID, cgroup="", ended=how, tool="calls")
    return Act(step=step, seen={"file_ops": ops, "submitter": submitter})


def read(name: str, content: str, role: Role = Role.OBSERVE, *, first: int = 0) -> Act:
    """A verification: one character for each block."""
    step = Verify(
        name=name, role=role, verb="verify", offset=first * BLOCK, length=len(content) * BLOCK
    )
    return Act(step=step, seen={"extents": extents(content, first=first)})


def extents(content: str, *, first: int = 0) -> tuple[Extent, ...]:
    """What a line says of each block, one extent for each."""
    kinds: dict[str, Literal["zero", "foreign", "unreadable"]] = {
        ".": "zero",
        "?": "foreign",
        "!": "unreadable",
    }
    return tuple(
        Extent(
            number * BLOCK,
            BLOCK,
            kinds.get(one, "generation"),
            int(one) if one.isdigit() else None,
            errno.EIO if one == "!" else None,
        )
        for number, one in enumerate(content, first)
    )


def ran(
    name: str,
    role: Role,
    argv: Sequence[str],
    *,
    exit_code: int | None = 0,
    signal: int | None = None,
    output: str = "",
    cgroup: str = "",
) -> Act:
    """A command as a person would type it."""
    step = Run(name=name, role=role, verb="run", cgroup=cgroup, argv=tuple(argv))
    ended = Ended(exit_code=exit_code if signal is None else None, signal=signal)
    submitter = Submitter(pid=PID, cgroup=cgroup, ended=ended, output=output)
    return Act(step=step, seen={"submitter": submitter})


def imposed() -> Act:
    """The shortage is put in force."""
    return Act(step=Impose(name="impose", verb="impose"))


def relieved() -> Act:
    """The shortage is taken away."""
    return Act(step=Relieve(name="relieve", verb="relieve"))


def reattached(exit_code: int = 0) -> Act:
    """The loop device is detached and attached again."""
    done = Command(argv=("losetup", "-d", "/dev/loop0"), ended=Ended(exit_code=exit_code))
    return Act(
        step=Reattach(name="reattach", role=Role.RECOVER, verb="reattach"),
        seen={"commands": (done,)},
    )


# -- stories --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Story:
    """Acts on a loop device over a tmpfs, and what goes with them."""

    acts: tuple[Act, ...]
    shortage: AnyShortage = field(
        default_factory=lambda: TmpfsSize(kind="tmpfs_size", layer="back", size=SPACE * BLOCK)
    )
    level: Level = Level.MUST
    # Where a write is refused, it has not waited: that clause is for cases of another kind.
    clauses: tuple[Clause, ...] = tuple(c for c in Clause if c is not Clause.RESOLVED_BY_WAITING)
    expect: Expect = field(default_factory=Expect)
    bystanders: tuple[Bystander, ...] = ()
    torn_down: TornDown = field(default_factory=TornDown)
    lost: Any = None
    device: int = BLOCKS

    def but(self, *others: Act) -> Story:
        """The same story, with the acts of these names as they are here."""
        named = {other.step.name: other for other in others}
        assert named.keys() <= {act.step.name for act in self.acts}
        return replace(self, acts=tuple(named.get(act.step.name, act) for act in self.acts))

    def act(self, name: str) -> Act:
        """One act, by the name of its step."""
        return next(act for act in self.acts if act.step.name == name)

    def since(self, name: str, **seen: Any) -> Story:
        """The same story with something else for the watchers to see from one act on."""
        at = next(n for n, act in enumerate(self.acts) if act.step.name == name)
        later = (act.watching(**seen) for act in self.acts[at:])
        return replace(self, acts=(*self.acts[:at], *later))

    def with_(self, **changes: Any) -> Story:
        """The same acts under other circumstances."""
        return replace(self, **changes)

    @property
    def variant(self) -> Variant:
        """What was asked for: every clause is claimed, unless the story says otherwise."""
        layers = (
            TmpfsLayer(name="back", layer="tmpfs", size=64 << 20),
            FileLayer(name="image", layer="file", on="back", size=self.device * BLOCK),
            LoopLayer(name="device", layer="loop", on="image"),
        )
        limited = (self.shortage.cgroup,) if isinstance(self.shortage, Memcg) else ()
        arm = Arm(
            layers=layers,
            cgroups=limited,
            bystanders=self.bystanders,
            shortage=self.shortage,
            steps=tuple(act.step for act in self.acts),
        )
        return Variant(
            case="hand_written",
            family="none",
            title="A run that was written by hand",
            level=self.level,
            claims=("S1",),
            norm=(Norm(source="write(2)"),),
            arms=(arm,),
            expect=self.expect.model_copy(update={"clauses": self.clauses}),
            where=Where(file="none"),
        )

    @property
    def observation(self) -> Observation:
        """What was seen. The gauge shows the shortage as met from the first step that provokes it."""
        watches = self._watches()
        steps = tuple(
            StepSeen(
                name=act.step.name,
                verb=act.step.verb,
                start_us=number * 1000,
                end_us=number * 1000 + 900,
                watch=watches[number],
                **act.seen,
            )
            for number, act in enumerate(self.acts, 1)
        )
        arm = ArmSeen(
            name="main",
            built=Built(layers={"device": {"size": self.device * BLOCK}}, watch=watches[0]),
            steps=steps,
            torn_down=None if self.lost is not None else self.torn_down,
            lost=self.lost,
        )
        return Observation(case="hand_written", kernel="none", release="6.1.0", arms=(arm,))

    def _watches(self) -> list[Watch]:
        limit: int | None = None
        used = hits = 0
        watches = [self._watch(0, used=0, limit=None, hits=0)]
        for number, act in enumerate(self.acts, 1):
            if act.step.verb == "impose":
                limit = getattr(self.shortage, "size", getattr(self.shortage, "limit", None))
            elif act.step.verb == "relieve":
                limit = None
            elif act.step.role is Role.PROVOKE and limit is not None:
                used, hits = limit, hits + 1
            watch = self._watch(number, used=used, limit=limit, hits=hits)
            watches.append(watch.model_copy(update=act.watch))
        return watches

    def _watch(self, number: int, *, used: int, limit: int | None, hits: int) -> Watch:
        limited = (self.shortage.cgroup,) if isinstance(self.shortage, Memcg) else ()
        return Watch(
            t_us=number * 1000 + 950,
            reading=Reading(kind=self.shortage.kind, used=used, limit=limit, hits=hits),
            oom_kill=0,
            cgroups=dict.fromkeys(limited, MemoryEvents()),
            bystanders=tuple(
                BystanderState(name=one.name, pid=300 + place, cgroup=one.cgroup, alive=True)
                for place, one in enumerate(self.bystanders)
            ),
        )

    @property
    def verdict(self) -> Verdict:
        """What the judge says of it."""
        return judge(self.variant, self.observation)


def log(*lines: str) -> tuple[KernelLine, ...]:
    """Lines of the kernel log, as a watcher brings them."""
    return tuple(KernelLine(number, 4, number, line) for number, line in enumerate(lines))


def told(verdict: Verdict) -> set[tuple[str, str, str]]:
    """Level, clause and signature of each finding."""
    return {(f.level.value, f.clause.value, f.signature) for f in verdict.findings}


def story(submit: Submit = Submit.BUFFERED, *, cgroup: str = "") -> Story:
    """A conforming run: control, shortage, refusal, rewriting, relief, new space, re-attachment.

    The control's two blocks count against the space; so six of the writer's are stored.
    """

    def by(name: str, role: Role, blocks: tuple[int, int], ops: Sequence[Op], at: int) -> Act:
        calls = ops if submit is Submit.DSYNC else [*ops, synced()]
        return write(
            name, role, blocks, [*calls, closed()], generation=at, submit=submit, cgroup=cgroup
        )

    return Story(
        acts=(
            by("control", Role.CONTROL, (14, 16), stored(14, 16), 1),
            read("control_read", "11", Role.CONTROL, first=14),
            imposed(),
            by("fill", Role.PROVOKE, (0, 12), [*stored(0, 6), wrote(6, 2, ENOSPC)], 2),
            read("read_short", "222222........11"),
            by("overwrite", Role.OVERWRITE, (0, 2), stored(0, 2), 3),
            relieved(),
            read("read_relieved", "332222........11"),
            by("again", Role.RECOVER, (12, 14), stored(12, 14), 4),
            reattached(),
            read("read_reattached", "332222......4411"),
        )
    )
