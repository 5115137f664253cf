"""Guests that conform but for one thing: a planted fault for each clause.

A liar answers as the model of a conforming guest does, until one answer is changed. What it changes is
what the clause is about, and no more. Guests of which nothing can be known are in breakages.py.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from conformance.machine.fake import FakeMachine
from conformance.machine.protocol import (
    Guest,
    GuestHung,
    GuestLost,
    GuestPanicked,
)
from conformance.model import BLOCK, Clause, Memcg, Op, Submitter, Write
from tests.support.model_guest import Lie, ModelGuest

DIRECT: Final = "loop_enospc_tmpfs_full[direct-off]"
BUFFERED: Final = "loop_enospc_tmpfs_full[buffered-off]"
MEMCG: Final = "loop_enospc_memcg_limit[direct-off]"
LOST_AT: Final = 2 << 20
"""A byte of what ``fill`` writes with success and ``overwrite`` does not touch."""
FRESH_AT: Final = 9 << 20
"""A byte of the device that no step of loop_enospc_tmpfs_full writes."""

EARLY: Final = ("control", "control_read", "impose")
"""The steps before anything is submitted under the shortage."""

KWORKER_KILLS: Final = (
    "kworker/u2:1 invoked oom-killer: gfp_mask=0xc00(GFP_NOIO), order=0, oom_score_adj=0",
    "CPU: 0 PID: 24 Comm: kworker/u2:1 Not tainted 6.1.0 #1",
    "Workqueue: loop0 loop_workfn [loop]",
    "Call Trace:",
    " mem_cgroup_out_of_memory+0x134/0x150",
    " loop_process_work+0x518/0xab0 [loop]",
    "memory: usage 8192kB, limit 8192kB, failcnt 22",
    "Memory cgroup out of memory: Killed process 999 (sleep) total-vm:1kB, anon-rss:1kB, "
    "file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0",
)
WARNING: Final = (
    "------------[ cut here ]------------",
    "WARNING: CPU: 0 PID: 24 at fs/buffer.c:1125 mark_buffer_dirty+0xd8/0xe0",
    "---[ end trace 0000000000000000 ]---",
)


@dataclass(frozen=True, kw_only=True)
class Liar:
    """A guest with one fault, the variant that meets it, and what the judge must say."""

    name: str
    variant: str
    guest: Callable[[], ModelGuest]
    clauses: frozenset[Clause] = frozenset()
    """The clauses that do not hold, whatever their level; with BROKEN, none."""
    reason: str = ""
    """Words of the reason why the verdict is BROKEN."""
    loss: GuestLost | None = None
    at: str = ""
    """The step at which the guest is lost."""


class LosingGuest:
    """A guest that is lost when it is asked to take one step. See the protocol ``Guest``."""

    def __init__(self, guest: Guest, at: str, loss: GuestLost) -> None:
        self._guest = guest
        self._at = at
        self._loss = loss
        self.events = guest.events
        self.console = guest.console
        self.console_path = guest.console_path
        self.timing = guest.timing
        self.work = guest.work
        self.plug = guest.plug
        self.when_stopped = guest.when_stopped

    def call(self, do: str, args: Mapping[str, Any], *, limit: float) -> object:
        """See ``Guest``."""
        if do == "step" and args["step"]["as"] == self._at:
            raise self._loss
        return self._guest.call(do, args, limit=limit)

    def evidence(self) -> Mapping[str, str]:
        """See ``Guest``."""
        return {}

    def close(self) -> None:
        """See ``Guest``."""
        self._guest.close()


class LiarsMachine(FakeMachine):
    """A machine in memory whose guests have one fault."""

    def __init__(self, liar: Liar) -> None:
        super().__init__(lambda: liar.guest().handlers(), kernel="model")
        self._liar = liar

    @contextmanager
    def guest(self, *, workdir: Path) -> Iterator[Guest]:
        """See ``Machine``."""
        with super().guest(workdir=workdir) as guest:
            loss = self._liar.loss
            yield guest if loss is None else LosingGuest(guest, self._liar.at, loss)


def on_step(names: Iterable[str], change: Callable[[dict[str, Any]], None]) -> Lie:
    """Change the answers to some steps. No names: to every step."""
    wanted = frozenset(names)

    def lie(verb: str, asked: dict[str, Any], honest: dict[str, Any]) -> dict[str, Any]:
        if verb == "step" and (not wanted or honest["name"] in wanted):
            change(honest)
        return honest

    return lie


def telling(lie: Lie) -> Callable[[], ModelGuest]:
    """A guest that tells this lie."""
    return lambda: ModelGuest(lie=lie)


def reads(content: str, at: int, seen: dict[str, Any]) -> None:
    """One block of what was read holds something else."""
    extents = []
    for offset, length, kind, generation, code in seen["extents"]:
        if offset <= at < offset + length:
            pieces = [
                [offset, at - offset, kind, generation, code],
                [at, BLOCK, content, None, None],
                [at + BLOCK, offset + length - at - BLOCK, kind, generation, code],
            ]
            extents += [piece for piece in pieces if piece[1]]
        else:
            extents.append([offset, length, kind, generation, code])
    seen["extents"] = extents


def log(lines: Iterable[str], seen: dict[str, Any]) -> None:
    now = seen["watch"]["t_us"]
    seen["watch"]["kernel_log"] = [[n, 4, now, line] for n, line in enumerate(lines)]


def _short_write(seen: dict[str, Any]) -> None:
    """The refused request is told as done, and the next one is refused in its place."""
    ops = seen["submitter"]["ops"]
    at = next(number for number, op in enumerate(ops) if op[4] < 0)
    kind, offset, length, generation, refused, start, end = ops[at]
    ops[at] = [kind, offset, length, generation, length, start, end]
    ops.insert(at + 1, [kind, offset + length, length, generation, refused, end, end])


def _wrong_errno(seen: dict[str, Any]) -> None:
    for op in seen["submitter"]["ops"]:
        if op[4] < 0:
            op[4] = -errno.EIO


def _oom_kill(seen: dict[str, Any]) -> None:
    if seen["name"] == "fill":
        log(KWORKER_KILLS, seen)
    if seen["name"] not in EARLY:
        seen["watch"]["oom_kill"] = 1


def _dead_submitter(seen: dict[str, Any]) -> None:
    seen["submitter"]["ended"] = {"exit_code": None, "signal": 11}


def _over_its_limit(seen: dict[str, Any]) -> None:
    seen["submitter"]["ended"] = {"exit_code": None, "signal": 9, "timed_out": True}


def _dead_bystanders(seen: dict[str, Any]) -> None:
    if seen["name"] not in EARLY:
        for one in seen["watch"]["bystanders"]:
            one |= {"alive": False, "signal": 11}


def _slow_bystanders(seen: dict[str, Any]) -> None:
    if seen["name"] not in EARLY:
        for one in seen["watch"]["bystanders"]:
            one["io_stall_us"] = 30_000_000


def _failed_command(seen: dict[str, Any]) -> None:
    for command in seen["commands"]:
        command["ended"] = {"exit_code": 4}
        command["output"] = "/dev/loop0: UNEXPECTED INCONSISTENCY"


def _answers(descriptor: str, *results: int) -> Callable[[dict[str, Any]], None]:
    """The syncs of one descriptor are answered so, in order."""

    def change(seen: dict[str, Any]) -> None:
        mine = [op for op in seen["file_ops"] if op[0] == "fsync" and op[1] == descriptor]
        for op, result in zip(mine, results, strict=True):
            op[4] = result

    return change


def _nothing_given_back(seen: dict[str, Any]) -> None:
    seen["watch"]["reading"]["used"] += 64 << 20


def _made_nothing(seen: dict[str, Any]) -> None:
    """mkfs says that it made a filesystem, which is then none."""
    for command in seen["commands"]:
        command["ended"] = {"exit_code": 0 if seen["verb"] == "mkfs" else 4}


def _wrong_file(seen: dict[str, Any]) -> None:
    seen["files"][-1]["state"] = "wrong"


def _killed_by_a_store(seen: dict[str, Any]) -> None:
    """A store that failed, by a writer that has no mapping."""
    seen["submitter"]["ended"] = {"exit_code": None, "signal": 7}


def _left_behind(verb: str, asked: dict[str, Any], honest: dict[str, Any]) -> dict[str, Any]:
    return {**honest, "left": ["/dev/loop0"]} if verb == "teardown" else honest


def _warned_as_it_went_down(
    verb: str, asked: dict[str, Any], honest: dict[str, Any]
) -> dict[str, Any]:
    if verb == "teardown":
        log(WARNING, {"watch": honest["after"]})
    return honest


def _unmounted_for_ever(verb: str, asked: dict[str, Any], honest: dict[str, Any]) -> dict[str, Any]:
    ended = {
        "exit_code": None,
        "signal": 9,
        "timed_out": True,
        "state": "D",
        "stack": "io_schedule",
    }
    hung = {"argv": ["umount", "/run/rig/back"], "ended": ended, "output": ""}
    return {**honest, "commands": [hung]} if verb == "teardown" else honest


def _told_to_root(seen: dict[str, Any]) -> None:
    """A submitter whose cgroup has no limit is told of an error."""
    seen["submitter"]["ended"] = {"exit_code": 1}
    seen["submitter"]["output"] = "dd: fsync failed for '/dev/loop0': Input/output error"


class NoLimit(ModelGuest):
    """Gives space beyond the limit; its gauge tells of it."""

    def _space(self, cgroup: str) -> int:
        return 1 << 40


class NoLimitForQuota(ModelGuest):
    """A quota does not bind; other limits do."""

    def _space(self, cgroup: str) -> int:
        return 1 << 40 if self._shortage.kind == "quota" else super()._space(cgroup)


class Refusing(ModelGuest):
    """Refuses one step's writes, however much space there is."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def _write(self, step: Write) -> Submitter:
        if step.name != self._name:
            return super()._write(step)
        begin = self._tick()
        refused = Op(
            "write",
            step.offset,
            step.request,
            step.generation,
            -errno.ENOSPC,
            begin,
            self._tick(),
        )
        return self._submitter(step, [refused, self._sync()])


class NoSwap(ModelGuest):
    """Refuses what has no room in memory, although there is swap."""

    def _limit(self) -> int:
        return self._shortage.limit if isinstance(self._shortage, Memcg) else super()._limit()


AFTER: Final = ("read_relieved", "read_reattached")

FAULTS: Final[tuple[Liar, ...]] = (
    Liar(
        name="a short write is told as a whole one",
        variant=DIRECT,
        guest=telling(on_step(["fill"], _short_write)),
        # Whoever is told so takes what is lost for acknowledged: the two go together.
        clauses=frozenset({Clause.ERROR_SURFACED, Clause.ACKNOWLEDGED_READABLE}),
    ),
    Liar(
        name="what was stored and acknowledged is gone after relief",
        variant=DIRECT,
        guest=telling(on_step(AFTER, lambda seen: reads("zero", LOST_AT, seen))),
        clauses=frozenset({Clause.ACKNOWLEDGED_READABLE}),
    ),
    Liar(
        name="the errno is EIO where ENOSPC can be carried",
        variant=DIRECT,
        guest=telling(on_step(["fill"], _wrong_errno)),
        clauses=frozenset({Clause.ERRNO_PRECISE}),
    ),
    Liar(
        name="the limit does not bind",
        variant="loop_quota_user[ext4-direct]",
        guest=NoLimit,
        clauses=frozenset({Clause.LIMIT_ENFORCED}),
    ),
    Liar(
        name="a kernel worker invokes the OOM killer",
        variant=MEMCG,
        guest=telling(on_step([], _oom_kill)),
        clauses=frozenset({Clause.NO_OOM_KILL}),
    ),
    Liar(
        name="the submitter is ended by a signal",
        variant=DIRECT,
        guest=telling(on_step(["fill"], _dead_submitter)),
        clauses=frozenset({Clause.SUBMITTER_SURVIVES}),
    ),
    Liar(
        name="a bystander dies",
        variant=DIRECT,
        guest=telling(on_step([], _dead_bystanders)),
        clauses=frozenset({Clause.BYSTANDERS_UNHARMED}),
    ),
    Liar(
        name="a block that nobody wrote holds data",
        variant=DIRECT,
        guest=telling(on_step(["read_short"], lambda seen: reads("foreign", FRESH_AT, seen))),
        clauses=frozenset({Clause.NO_FOREIGN_DATA}),
    ),
    Liar(
        name="rewriting a block that has space is refused",
        variant=DIRECT,
        guest=lambda: Refusing("overwrite"),
        clauses=frozenset({Clause.OVERWRITE_IN_PLACE}),
    ),
    Liar(
        name="a write after relief is refused",
        variant=DIRECT,
        guest=lambda: Refusing("again"),
        clauses=frozenset({Clause.REUSABLE}),
    ),
    Liar(
        name="the submitter does not come to an end",
        variant=DIRECT,
        guest=telling(on_step(["fill"], _over_its_limit)),
        clauses=frozenset({Clause.BOUNDED}),
    ),
    Liar(
        name="a write is refused although its cgroup may swap",
        variant="loop_memcg_swap_absorbs[direct]",
        guest=NoSwap,
        clauses=frozenset({Clause.RESOLVED_BY_WAITING}),
    ),
    Liar(
        name="somebody else's I/O takes half a minute",
        variant="isolation_neighbour_cgroup[max-direct]",
        guest=telling(on_step([], _slow_bystanders)),
        clauses=frozenset({Clause.INDEPENDENT_PROGRESS}),
    ),
    Liar(
        name="the cgroup of a killed writer cannot be removed",
        variant="loop_reuse_after_removed_cgroup[direct]",
        guest=telling(on_step(["remove_cgroup"], _failed_command)),
        clauses=frozenset({Clause.REUSABLE}),
    ),
    Liar(
        name="one cause of four is no shortage",
        variant="loop_equivalence[ext4]",
        guest=NoLimitForQuota,
        clauses=frozenset({Clause.EQUIVALENT}),
    ),
    Liar(
        name="an error goes to a cgroup that has space",
        variant="loop_memcg_seed_script",
        guest=telling(on_step(["root_dd"], _told_to_root)),
        clauses=frozenset({Clause.ATTRIBUTED}),
    ),
    Liar(
        name="a lost write is reported to its writer alone",
        variant="sync_two_descriptors[a-device]",
        guest=telling(on_step(["lose"], _answers("b", 0, 0))),
        clauses=frozenset({Clause.REPORTED_ONCE}),
    ),
    Liar(
        name="a lost write is reported on one descriptor twice",
        variant="sync_told_once[fsync-device]",
        guest=telling(on_step(["lose"], _answers("a", -errno.EIO, 0, -errno.EIO))),
        clauses=frozenset({Clause.REPORTED_ONCE}),
    ),
    Liar(
        name="a lost write is reported twice on two descriptors of one description",
        variant="sync_shared_description[fork-ext4]",
        guest=telling(on_step(["lose"], _answers("a", -errno.EIO, 0))),
        clauses=frozenset({Clause.REPORTED_ONCE}),
    ),
    Liar(
        name="a lost write is reported to who opens the file after its report",
        variant="sync_opened_after_report[ext4]",
        guest=telling(on_step(["lose"], _answers("b", -errno.EIO))),
        clauses=frozenset({Clause.REPORTED_ONCE}),
    ),
    Liar(
        name="a lost write is reported to nobody",
        variant="sync_told_once[fsync-ext4]",
        guest=telling(on_step(["lose"], _answers("a", 0, 0, 0))),
        clauses=frozenset(
            {Clause.REPORTED_ONCE, Clause.ERROR_SURFACED, Clause.ACKNOWLEDGED_READABLE}
        ),
    ),
    Liar(
        name="who opens the file before anybody was told is told nothing",
        variant="sync_late_opener[device]",
        guest=telling(on_step(["lose"], _answers("b", 0, 0))),
        clauses=frozenset({Clause.REPORTED_ONCE, Clause.ACKNOWLEDGED_READABLE}),
    ),
    Liar(
        name="the filesystem's checker finds damage",
        variant="fs_on_loop_fsynced_files[ext4]",
        guest=telling(on_step(["check"], _failed_command)),
        clauses=frozenset({Clause.FILESYSTEM_CONSISTENT}),
    ),
    Liar(
        name="a mkfs that succeeded made no sound filesystem",
        variant="fs_on_loop_mkfs_short[ext4]",
        guest=telling(on_step(["make_short", "check_short"], _made_nothing)),
        clauses=frozenset({Clause.FILESYSTEM_CONSISTENT}),
    ),
    Liar(
        name="what was trimmed is not given back",
        variant="fs_on_loop_fstrim[ext4]",
        guest=telling(on_step(["trim_relieved"], _nothing_given_back)),
        clauses=frozenset({Clause.REUSABLE}),
    ),
    Liar(
        name="a trim after relief fails",
        variant="fs_on_loop_fstrim[ext4]",
        guest=telling(on_step(["trim_relieved"], _failed_command)),
        clauses=frozenset({Clause.REUSABLE}),
    ),
    Liar(
        name="a file that syncfs spoke for is wrong",
        variant="fs_on_loop_syncfs[ext4]",
        guest=telling(on_step(["read_relieved"], _wrong_file)),
        clauses=frozenset({Clause.ACKNOWLEDGED_READABLE}),
    ),
    Liar(
        name="a file that msync spoke for is wrong",
        variant="fs_on_loop_mmap_fs_full[ext4]",
        guest=telling(on_step(["read_relieved"], _wrong_file)),
        clauses=frozenset({Clause.ACKNOWLEDGED_READABLE}),
    ),
    Liar(
        name="SIGBUS for a writer of files that has no mapping",
        variant="fs_on_loop_fs_full[ext4-direct]",
        guest=telling(on_step(["fill"], _killed_by_a_store)),
        clauses=frozenset({Clause.SUBMITTER_SURVIVES}),
    ),
    Liar(
        name="the kernel warns",
        variant=DIRECT,
        guest=telling(on_step(["fill"], lambda seen: log(WARNING, seen))),
        clauses=frozenset({Clause.KERNEL_SOUND}),
    ),
    Liar(
        name="a kernel that panics while the device is short",
        variant=DIRECT,
        guest=ModelGuest,
        clauses=frozenset({Clause.KERNEL_SOUND}),
        loss=GuestPanicked("Kernel panic - not syncing: planted"),
        at="fill",
    ),
    Liar(
        name="a guest that answers no more while the device is short",
        variant=DIRECT,
        guest=ModelGuest,
        clauses=frozenset({Clause.BOUNDED}),
        loss=GuestHung("no answer to step within 60.0 s"),
        at="fill",
    ),
    Liar(
        name="a kernel that warns as the rig is taken down",
        variant=DIRECT,
        guest=telling(_warned_as_it_went_down),
        clauses=frozenset({Clause.KERNEL_SOUND}),
    ),
    Liar(
        name="a filesystem that does not let itself be unmounted in tear-down",
        variant=DIRECT,
        guest=telling(_unmounted_for_ever),
        clauses=frozenset({Clause.BOUNDED}),
    ),
    Liar(
        name="tear-down leaves the device",
        variant=DIRECT,
        guest=telling(_left_behind),
        clauses=frozenset({Clause.NOTHING_LEAKED}),
    ),
)
"""A planted fault for each clause."""
