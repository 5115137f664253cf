"""What the kernel log says: who invoked the OOM killer, who was killed, and reports of its own faults.

The form of an OOM report is that of ``dump_header()`` and ``__oom_kill_process()`` in mm/oom_kill.c, the
same from 5.10 to 7.3 but for details: a first line that names the invoker, its call trace, figures,
``oom-kill:constraint=...`` (one line, with the cgroup at its limit and the victim), and one line for
each process killed. The header is rate-limited, the last is not, so a kill may stand alone: one that is
neither of the victim that the report names, nor of its group, is of no report that the log holds.

NORMS: "The kernel log names the task and its call trace. A kernel worker in the device's write path means
that the shortage was reported by a kill."
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from conformance.oracle.text import stable

_PREFIX = re.compile(r"^(?:<\d+>)?(?:\[\s*\d+\.\d+\]\s*)?(?:\[\s*[TC]\d+\]\s*)?")
_INVOKED = re.compile(r"^(?P<comm>.+?) invoked oom-killer: (?P<rest>.*)$")
_GFP = re.compile(r"gfp_mask=\w+\((?P<gfp>[^)]*)\)")
_CPU = re.compile(
    r"^CPU: \d+ (?:UID: \d+ )?PID: (?P<pid>\d+) Comm: (?P<comm>.+?) (?:Not t|T)ainted"
)
_WORKQUEUE = re.compile(r"^Workqueue: (?P<queue>.+)$")
_FRAME = re.compile(r"^(?P<function>[A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+")
_CONSTRAINT = re.compile(r"^oom-kill:constraint=(?P<constraint>\w+)")
_FIELD = re.compile(r"(?P<name>oom_memcg|task_memcg|task|pid)=(?P<value>[^,]*)")
_GROUP = re.compile(r"^Tasks in .* are going to be killed due to memory\.oom\.group set")
"""mm/oom_kill.c, ``oom_kill_process()``: each process of a cgroup is killed for one report."""
OVERRUN: Final = "[kernel log overrun: lines lost]"
"""What the agent says in place of lines that nobody has read."""
_GAP = re.compile(rf"^(?:\[\d+ lines of the kernel log left out\]|{re.escape(OVERRUN)})$")
"""Or in place of lines that it did not keep: neither of a report of the OOM killer nor of a fault."""
_KILLED = re.compile(
    r"^(?:Memory cgroup o|O)ut of memory[^:]*: Kill(?:ed)? process (?P<pid>\d+),? \((?P<comm>.*?)\)(?:[ ,]|$)"
)

WORKER_FUNCTIONS: Final = (
    "loop_process_work",
    "loop_workfn",
    "loop_rootcg_workfn",
    "loop_handle_cmd",
    "lo_rw_aio",
    "lo_write_bvec",
    "lo_write_simple",
    "lo_req_flush",
    "lo_fallocate",
    "do_req_filebacked",
)
"""Functions of drivers/block/loop.c that run in its worker only, most telling first."""

_WORKER_NAMES = re.compile(
    r"kworker/|loop\d+$|jbd2/|xfsaild/|btrfs-|f2fs_|kdmflush|dm-|kswapd|flush-|writeback"
)
"""Kernel threads that write for a device or a filesystem."""


_WRITES = re.compile(
    r"_*(?:blk|bio|submit_bio|generic_perform_write|iomap|do_writepages|writeback|wb_|flush-|shmem|loop|lo_|"
    r"ext4|jbd2|xfs|xlog|btrfs|f2fs|dm[-_]|md\d*[-_]|raid|nbd|zram|null_|brd_|nvme|scsi|virtblk|ublk|vdo|"
    r"nfs|rpc|xprt|fuse|k(?:blockd|cryptd|copyd|mirrord|dmflush|snaphd|swapd|verityd|integrityd))"
)
"""How a queue, a function or a kernel thread is called that writes for a device or a filesystem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """A process that the OOM killer ended."""

    pid: int
    comm: str
    memcg: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One report of the OOM killer: who invoked it, from where, and whom it killed.

    ``invoker`` is empty for kills whose report the log does not hold.
    """

    invoker: str = ""
    pid: int | None = None
    gfp: str = ""
    workqueue: str = ""
    trace: tuple[str, ...] = ()
    constraint: str = ""
    memcg: str = ""
    killed: tuple[Killed, ...] = ()
    at: int  # index of its first line
    lines: tuple[str, ...] = ()  # the telling ones

    @property
    def by_kernel_worker(self) -> bool:
        """Whether a kernel thread invoked it: by its name, its work queue, or where its stack ends.

        The worker functions of the loop driver settle it too: no submitter ever runs them. An
        io_uring worker (``iou-wrk-PID``) is a thread of its process and ends in no ``kthread``.
        """
        return bool(
            _WORKER_NAMES.match(self.invoker)
            or self.workqueue
            or "kthread" in self.trace
            or self.where
        )

    @property
    def writes(self) -> bool:
        """Whether its name, its work queue or its stack says that it writes for a device or a filesystem."""
        return any(map(_WRITES.match, (self.invoker, *self.workqueue.split(), *self.trace)))

    @property
    def where(self) -> str:
        """The function of the loop driver's worker on the stack, or nothing."""
        return next((name for name in WORKER_FUNCTIONS if name in self.trace), "")

    @property
    def text(self) -> str:
        """``kworker/u2:1 invoked the OOM killer (GFP_NOIO) in loop_process_work; killed dd (pid 9) in
        /case/limited``.
        """
        gfp = f" ({self.gfp})" if self.gfp else ""
        where = f" in {self.where}" if self.where else ""
        told = f"{self.invoker or 'somebody'} invoked the OOM killer{gfp}{where}"
        if self.killed:
            names = ", ".join(f"{one.comm} (pid {one.pid})" for one in self.killed[:3])
            memcg = self.killed[0].memcg or self.memcg
            told += f"; killed {names}" + (f" in {memcg}" if memcg else "")
        return told


@dataclass
class _Open:
    """A report that is being read."""

    invoker: str
    gfp: str
    at: int
    lines: list[str]
    pid: int | None = None
    workqueue: str = ""
    constraint: str = ""
    memcg: str = ""
    victim_memcg: str = ""
    victim: int | None = None
    group: bool = False
    in_trace: bool = False

    def done(self, trace: Sequence[str], killed: Sequence[Killed]) -> Invocation:
        return Invocation(
            invoker=self.invoker,
            pid=self.pid,
            gfp=self.gfp,
            workqueue=self.workqueue,
            trace=tuple(trace),
            constraint=self.constraint,
            memcg=self.memcg,
            killed=tuple(killed),
            at=self.at,
            lines=tuple(self.lines),
        )


class _Reader:
    """Reads OOM reports line by line. Other reports may stand between them."""

    def __init__(self) -> None:
        self.reports: list[Invocation] = []
        self._open: _Open | None = None
        self._trace: list[str] = []
        self._killed: list[Killed] = []

    def line(self, at: int, text: str) -> None:
        if _GAP.match(text):
            self.close()
            return
        invoked = _INVOKED.match(text)
        if invoked:
            self.close()
            gfp = _GFP.search(invoked["rest"])
            self._open = _Open(
                invoker=invoked["comm"], gfp=gfp["gfp"] if gfp else "", at=at, lines=[text]
            )
            return
        killed = _KILLED.match(text)
        if killed:
            self._kill(at, text, Killed(pid=int(killed["pid"]), comm=killed["comm"]))
        elif self._open is not None:
            self._detail(self._open, text)

    def _kill(self, at: int, text: str, victim: Killed) -> None:
        if self._open is None or not self._is_of(self._open, victim):
            self.reports.append(Invocation(killed=(victim,), at=at, lines=(text,)))
            return
        self._open.lines.append(text)
        memcg = self._open.victim_memcg or self._open.memcg
        self._killed.append(Killed(pid=victim.pid, comm=victim.comm, memcg=memcg))

    def _is_of(self, report: _Open, victim: Killed) -> bool:
        if report.group:
            return True
        return victim.pid == report.victim if report.victim is not None else not self._killed

    def _detail(self, report: _Open, text: str) -> None:
        cpu = _CPU.match(text)
        if cpu and report.pid is None:
            report.pid = int(cpu["pid"])
            report.lines.append(text)
            return
        queue = _WORKQUEUE.match(text)
        if queue:
            report.workqueue = queue["queue"]
            report.lines.append(text)
            return
        constraint = _CONSTRAINT.match(text)
        if constraint:
            fields = {m["name"]: m["value"] for m in _FIELD.finditer(text)}
            report.constraint = constraint["constraint"]
            report.memcg = fields.get("oom_memcg", "")
            report.victim_memcg = fields.get("task_memcg", "")
            named = fields.get("pid", "")
            report.victim = int(named) if named.isdecimal() else None
            report.lines.append(text)
            return
        if _GROUP.match(text):
            report.group = True
            return
        if text.startswith("Call Trace"):
            report.in_trace = True
            return
        frame = _FRAME.match(text)
        if frame and report.in_trace:
            function = frame["function"].partition(".")[0]
            self._trace.append(function)
            if function in WORKER_FUNCTIONS:
                report.lines.append(text)
        elif text.startswith(("memory:", "Mem-Info")):
            report.in_trace = False

    def close(self) -> None:
        if self._open is not None:
            self.reports.append(self._open.done(self._trace, self._killed))
        self._open, self._trace, self._killed = None, [], []


def clean(text: str) -> str:
    """A line of the log without level, time and context, as some kernels and readers prefix them."""
    return _PREFIX.sub("", text).strip()


def invocations(lines: Iterable[str]) -> tuple[Invocation, ...]:
    """The reports of the OOM killer in a log, in order; those without a kill too."""
    reader = _Reader()
    for at, line in enumerate(lines):
        reader.line(at, clean(line))
    reader.close()
    return tuple(sorted(reader.reports, key=lambda report: report.at))


# -- faults of the kernel's own -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A line with which the kernel reports a fault of its own."""

    signature: str
    title: str


# Of a function's name that part alone which does not differ between builds: name.constprop.0 is a
# compiler's clone of name.
_FAULTS: Final = (
    (r"Kernel panic - not syncing: (?P<what>.*)", "panic"),
    (r"(?:watchdog: )?BUG: soft lockup", "soft-lockup"),
    (r"(?:NMI )?watchdog: .*hard LOCKUP|Watchdog detected hard LOCKUP", "hard-lockup"),
    (
        r"INFO: task (?P<task>.+?):\d+ blocked (?:for more than|in I/O wait for more than)",
        "hung-task",
    ),
    (r"(?:rcu: )?INFO: rcu\w* .*(?:detected|stall)", "rcu-stall"),
    (r"BUG: workqueue lockup", "workqueue-lockup"),
    (
        r"BUG: (?P<tool>KASAN|KCSAN|KFENCE|KMSAN): (?P<what>.+?)(?: in (?P<where>\w+).*)?$",
        "sanitizer",
    ),
    (r"UBSAN: (?P<what>[\w-]+) in (?P<where>[\w./-]+)", "ubsan"),
    (
        r"WARNING: (?P<what>(?:possible|inconsistent|bad unlock|suspicious|held lock|"
        r"lock held|nested lock|.*lock dependency|.*-unsafe lock).*)",
        "lockdep",
    ),
    (r"INFO: (?P<what>possible|inconsistent|trying to register).*", "lockdep"),
    (r"DEBUG_LOCKS_WARN_ON", "lockdep"),
    (r"WARNING: .*?\bat (?P<where>\w+)[\w.]*\+0x", "warning"),
    (r"WARNING: .*? (?P<where>\w+)[\w.]*\+0x", "warning"),
    (r"WARNING: (?P<what>.*)", "warning"),
    (r"kernel BUG at (?P<file>\S+?):\d+", "kernel-bug"),
    (r"(?:Oops: )?general protection fault", "general-protection-fault"),
    (r"Oops:? ", "oops"),
    (r"Unable to handle kernel (?P<what>.*?)(?: at virtual address.*)?$", "oops"),
    (r"BUG: (?P<what>.*)", "bug"),
    (r"list_(?:add|del) corruption", "list-corruption"),
    (r"refcount_t: (?P<what>.*)", "refcount"),
)
FAULTS: Final = tuple((re.compile(f"^(?:{pattern})"), kind) for pattern, kind in _FAULTS)

_LOCKDEP_FULL = re.compile(r"^BUG: MAX_(?:LOCKDEP_\w+|STACK_TRACE_ENTRIES) too low!")

STALLS: Final = frozenset({"rcu-stall", "soft-lockup", "hung-task", "workqueue-lockup"})
"""Faults that a slow machine below the guest can bring about too."""

_PARTICULARS = re.compile(r"(?: in process .*| on CPU.*|,? address:? .*|: .*)$")
"""As of "unable to handle page fault for address: N", "Bad page state in process dd  pfn:N"."""

_DETAIL: Final = ("tool", "task", "file", "where", "what")


def lockdep_full(line: str) -> bool:
    """Whether lockdep says that its own tables are full (kernel/locking/lockdep.c): it is off from there on,
    which is no fault of what is tested.
    """
    return _LOCKDEP_FULL.match(clean(line)) is not None


def fault(line: str) -> Fault | None:
    """The fault that a line reports, or None. OOM reports and I/O errors are none.

    ``signature`` has no address, number or process id in it: it is the same in each run.
    """
    text = clean(line)
    if lockdep_full(line):
        return None
    for pattern, kind in FAULTS:
        match = pattern.match(text)
        if match:
            return Fault(signature=_signature(kind, match), title=text)
    return None


def _signature(kind: str, match: re.Match[str]) -> str:
    groups = match.groupdict()
    parts = [groups[name] for name in _DETAIL if groups.get(name)]
    if kind == "hung-task":
        parts = [task_name(part) for part in parts]
    if kind == "sanitizer":
        kind = parts.pop(0).lower()
    if kind == "bug":
        parts = [_PARTICULARS.sub("", part) for part in parts]
    words = [kind, *(stable(part.strip()) for part in parts if part)]
    return ":".join(word for word in words if word)[:80]


def task_name(comm: str) -> str:
    """A task's name without what differs between runs: ``kworker/u2:1`` is ``kworker``."""
    if comm.startswith("kworker"):
        return "kworker"
    return stable(comm)


TAINTS: Final = "PFSRMBUDAWCIOELKXTN"
"""Letters of the bits of /proc/sys/kernel/tainted: Documentation/admin-guide/tainted-kernels.rst."""
TAINTED_BY: Final = {
    "W": ("warning", "lockdep", "refcount", "kasan", "ubsan"),
    "D": ("oops", "kernel-bug", "bug", "general-protection-fault", "list-corruption", "kasan"),
    "L": ("soft-lockup", "hard-lockup"),
    "B": ("bug", "kasan", "kfence", "kcsan", "kmsan"),
}
"""Faults that set a taint bit, which is then no news of its own."""


def taints(bits: int) -> tuple[str, ...]:
    """The letters of the bits that are set."""
    found = [letter for place, letter in enumerate(TAINTS) if bits >> place & 1]
    return (*found, *(["?"] if bits >> len(TAINTS) else []))
