"""fio drives the engines that the ledger has no code for: libaio and io_uring.

Not its mmap engine: on a block device that punches a hole through MADV_REMOVE in what it maps, and
in 3.33 maps the device from 0 whatever the offset is. The ledger's own mmap does neither.

What fio writes is known to the byte: its verify pattern has a prime length, holds the run, the
generation and the offset of the request, and goes on through a whole request, so that each block
has it at a phase of its own. Which requests completed is fio's own latency log with offsets; a
request that failed is not in it but in an error line. fio writes the log when it ends, so of a fio
that was killed, no request is known. Of one that stops at its first error, no request is known that
was in flight then; one that goes on accounts for each.

It is as frugal as it can be made. It runs as a thread, not as a fork. A prerun command that waits
on a FIFO holds it after its set-up and before its first request; meanwhile it is stopped, all its
writable memory is touched from outside, and only then is it moved into its cgroup. After its last
request it opens its log, on which the agent has a lease: that holds it again (a postrun command
would be a process in the cgroup), and it is moved out before it makes its report.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from agent import cgroups
from agent.basics import (
    BLOCK,
    Clock,
    Json,
    RigError,
    keyed_numbers,
    one_line,
    poll_until,
    read_text,
)
from agent.processes import OUTPUT_KEPT, Output, Tick, fork_exec, no_tick, state_of
from agent.workloads.frugal import READY_LIMIT
from agent.workloads.readback import Recogniser

ENGINES = {
    "fio_libaio": ("libaio",),
    "fio_io_uring": ("io_uring",),
    "fio_io_uring_fixed": ("io_uring", "--fixedbufs=1", "--registerfiles=1"),
    "fio_io_uring_iopoll": ("io_uring", "--hipri=1"),
    "fio_io_uring_buffered": ("io_uring",),
    # IOSQE_ASYNC on every request: one of io_uring's workers issues it.
    "fio_io_uring_wq": ("io_uring", "--force_async=1"),
    # A kernel thread of the ring's takes the requests and issues them.
    "fio_io_uring_sqpoll": ("io_uring", "--sqthread_poll=1"),
    "fio_io_uring_dsync": ("io_uring", "--sync=dsync"),
}
"""fio's engine for each way to submit, and further words for it."""
BUFFERED = frozenset({"fio_io_uring_buffered", "fio_io_uring_dsync"})
SYNCING = "libaio"
"""The engine whose syncs can be told. That of io_uring goes on after IORING_OP_FSYNC completed with
an error, and says nothing of it (fio 3.33, with a trace of io_uring_complete beside it).
"""
FOLDER = "/run/fio"
LOG = f"{FOLDER}/log_lat.1.log"
LOOK = 0.01
"""Seconds between two looks whether fio's requests are over."""
STOP_LIMIT = 5.0
REPORT_LIMIT = 30.0
"""Seconds that fio gets for its report."""
_END = 1 << 20
_LENGTH = 509
"""Bytes of the pattern: prime, so that each block of a request begins at another phase of it."""
_OFFSET = 8
_ENV = {
    # fio looks for a file there four times a second (stat.c, check_status_file). For a name that is
    # not there tmpfs and overlayfs make a new dentry each time, which is charged to whoever asks;
    # below what is no directory the lookup ends before one is made (ENOTDIR).
    "TMPDIR": "/dev/null",
    # Its threads allocate from one heap (mallopt(3)), which has room for all that it will need and
    # whose pages are present: see ``touch``.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TOP_PAD_": str(8 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}
_FAILED = re.compile(
    r"io_u error on file .*?: (?P<why>.*?): (?P<call>\w+) offset=(?P<at>\d+), "
    r"(?:buflen|xfer_buflen)=(?P<length>\d+)"
)
_SHORT = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM)
"""What fio may go on after: any other error is none of a shortage."""
_PRINTED = 1 << 20
"""Characters of what fio prints that are looked at: an error line for each request at most."""
_ERRNO = {os.strerror(code): code for code in errno.errorcode}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one fio is to write. Bytes."""

    path: str
    submit: str
    offset: int
    length: int
    request: int
    depth: int
    generation: int
    sync_every: int | None
    at_random: bool = False  # each request once, in an order that is fio's own and always the same
    go_on: bool = False  # past errors of a shortage, to the end

    @property
    def syncs_after(self) -> int:
        """Requests between two syncs by fio; 0 for none: the last sync is not fio's.

        With more than one request in flight, fio's sync does not wait for those before it, and
        what it covers is not known: then there are none. Nor are there where requests may fail
        that fio goes on after, since what failed has no place among the others.
        """
        syncing = ENGINES[self.submit][0] == SYNCING
        if self.sync_every is None or self.go_on or self.depth > 1 or not syncing:
            return 0
        return max(1, self.sync_every // self.request)


def order_of(step: Json, path: str) -> Order:
    """A step ``write`` as an order for fio."""
    if step.get("unkillable"):
        raise RigError("fio cannot be made unkillable")
    if step.get("kill"):
        raise RigError("fio is not killed at an error")
    return Order(
        path=path,
        submit=step["submit"],
        offset=step["offset"],
        length=step["length"],
        request=step["request"],
        depth=step.get("depth", 1),
        generation=step["generation"],
        sync_every=step.get("sync_every"),
        at_random=step.get("order") == "random",
        go_on=step.get("after_error") == "continue",
    )


def constant(run: bytes, generation: int) -> bytes:
    """The part of the pattern after the request's offset."""
    return hashlib.shake_256(b"fio" + run + bytes([generation])).digest(_LENGTH - _OFFSET)


def recogniser(orders: Sequence[Order], run: bytes) -> Recogniser:
    """Knows the blocks that fio was ordered to write in this run: every byte is compared."""
    parts = {order.generation: constant(run, order.generation) for order in orders}

    def recognise(data: bytes, number: int) -> int | None:
        at = number * BLOCK
        for order in orders:
            if not order.offset <= at < order.offset + order.length:
                continue
            within = (at - order.offset) % order.request
            period = (at - within).to_bytes(_OFFSET, "little") + parts[order.generation]
            phase = within % _LENGTH
            if (period[phase:] + period * (len(data) // _LENGTH + 1))[: len(data)] == data:
                return order.generation
        return None

    return recognise


def command(order: Order, run: bytes, folder: str) -> list[str]:
    """Fio's words."""
    words = [
        "fio",
        "--name=job",
        "--thread",
        f"--filename={order.path}",
        "--rw=randwrite" if order.at_random else "--rw=write",
        f"--ioengine={ENGINES[order.submit][0]}",
        *ENGINES[order.submit][1:],
        f"--bs={order.request}",
        f"--offset={order.offset}",
        f"--size={order.length}",
        f"--iodepth={order.depth}",
        f"--direct={int(order.submit not in BUFFERED)}",
        "--verify=pattern",
        f"--verify_pattern=%o0x{constant(run, order.generation).hex()}",
        "--do_verify=0",
        "--verify_state_save=0",
        # fio would flush and invalidate the device's cache first: that is not its business here.
        "--invalidate=0",
        "--allow_file_create=0",
        "--eta=never",
        f"--write_lat_log={folder}/log",
        "--log_offset=1",
        "--disable_slat=1",
        "--disable_clat=1",
        "--output-format=json",
        f"--output={folder}/out.json",
        f"--exec_prerun=echo ready >{folder}/ready; read go <{folder}/go",
    ]
    if order.go_on:
        words += [f"--ignore_error=,{':'.join(map(str, _SHORT))}", "--error_dump=1"]
    if order.syncs_after:
        words.append(f"--fsync={order.syncs_after}")
    return words


@dataclass(frozen=True, kw_only=True)
class Logged:
    """One request in fio's latency log. Milliseconds since the job began, bytes."""

    end_ms: int
    took_ns: int
    length: int
    offset: int


def parse_log(text: str) -> list[Logged]:
    """Fio's latency log, with offsets: ``time, latency, direction, size, offset, priority``."""
    found = []
    for line in text.splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) >= 5 and words[2] == "1":
            found.append(
                Logged(
                    end_ms=int(words[0]),
                    took_ns=int(words[1]),
                    length=int(words[3]),
                    offset=int(words[4], 0),
                )
            )
    return found


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A call that fio says failed: ``write`` or ``sync``."""

    call: str
    errno: int
    offset: int
    length: int


def parse_failures(output: str, code: int) -> list[Failure]:
    """The calls that failed, from fio's error lines; ``code`` is the job's error in its JSON."""
    return [
        Failure(
            call="write" if match["call"] == "write" else "sync",
            errno=_ERRNO.get(match["why"], code),
            offset=int(match["at"]),
            length=int(match["length"]),
        )
        for match in _FAILED.finditer(output)
    ]


def operations(
    order: Order,
    logged: Iterable[Logged],
    failures: Sequence[Failure],
    went_us: int,
    ended_us: int,
) -> list[list[object]]:
    """Fio's requests and syncs as the host's ``Op``, in the order of their completion."""
    ops: list[list[object]] = []
    now = went_us
    due = order.syncs_after
    writes = list(logged)
    refused = any(one.call == "write" for one in failures)
    for count, one in enumerate(writes, 1):
        now = went_us + one.end_ms * 1000
        ops.append(
            [
                "write",
                one.offset,
                one.length,
                order.generation,
                one.length,
                max(went_us, now - one.took_ns // 1000),
                now,
            ]
        )
        # A sync follows each full batch, unless it is the one that failed, or nothing came after:
        # fio looks whether a sync is due when it is about to issue the next request.
        more = count < len(writes) or refused
        if due and count % due == 0 and more:
            ops.append(["sync", 0, 0, 0, 0, now, now])
    # When a request failed is not known: of the only one, that it was after the others.
    begin = now if len(failures) == 1 else went_us
    for bad in failures:
        if bad.call == "write":
            what = ["write", bad.offset, bad.length, order.generation]
        else:
            what = ["sync", 0, 0, 0]
        ops.append([*what, -bad.errno, begin, ended_us])
    return ops


def touch(pid: int) -> None:
    """Make a stopped process's writable private memory present, by writing back what is there.

    Memory that it first touches later would be charged to the cgroup that it is in by then. Of a
    large mapping (the stacks of threads) the ends are enough. Raises OSError.
    """
    memory = os.open(f"/proc/{pid}/mem", os.O_RDWR)
    try:
        for line in read_text(f"/proc/{pid}/maps").splitlines():
            words = line.split()
            if words[1][:2] != "rw" or words[-1].startswith("[v"):
                continue
            start, end = (int(word, 16) for word in words[0].split("-"))
            for at, size in _parts(start, end, whole=words[-1] == "[heap]"):
                os.pwrite(memory, os.pread(memory, size, at), at)
    finally:
        os.close(memory)


def _parts(start: int, end: int, *, whole: bool) -> list[tuple[int, int]]:
    """(address, bytes) of the parts of a mapping to touch."""
    if whole or end - start <= 2 * _END:
        return [(start, end - start)]
    return [(start, _END), (end - _END, _END)]


class _Held:
    """A fio that has set itself up, and waits for the FIFO before its first request."""

    def __init__(self, order: Order, run: bytes) -> None:
        shutil.rmtree(FOLDER, ignore_errors=True)
        os.makedirs(FOLDER)
        for name in ("ready", "go"):
            os.mkfifo(f"{FOLDER}/{name}")
        self._ready = os.open(f"{FOLDER}/ready", os.O_RDONLY | os.O_NONBLOCK)
        # Opened for both, so that opening waits for nobody.
        self._go = os.open(f"{FOLDER}/go", os.O_RDWR | os.O_NONBLOCK)
        # fio opens its log when its requests are over, and waits then until the lease is given up.
        # The kernel tells of that by a signal, which is made one that nobody minds.
        self._log = os.open(LOG, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.fcntl(self._log, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(self._log, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        self.threads: list[int] = []
        self.output = Output()
        self.child = fork_exec(command(order, run, FOLDER), self.output.fd, env=_ENV, folder=FOLDER)

    def wait(self, limit: float, tick: Tick) -> bool:
        """Wait until it is held. Whether it is: if not, it has ended, or the time is over."""
        if self.child.wait(limit, tick=tick, also=[self._ready]) is None:
            return False
        os.read(self._ready, 64)
        # The kernel calls its own workers for a thread after that thread, and not after its process.
        self.threads = sorted(map(int, os.listdir(f"/proc/{self.child.pid}/task")))
        return True

    def enter(self, procs: str) -> str:
        """Touch its memory, and move it with all its threads into a cgroup. A problem, or none."""
        pid = self.child.pid
        written = keyed_numbers(read_text(f"/proc/{pid}/io").replace(":", ""))
        if written.get("write_bytes", 0):
            return f"fio wrote {written['write_bytes']} bytes before it was moved"
        try:
            if procs:
                os.kill(pid, signal.SIGSTOP)
                if not poll_until(lambda: state_of(pid) in ("T", ""), STOP_LIMIT):
                    return "fio cannot be stopped"
                touch(pid)
                cgroups.write(procs, str(pid))
                os.kill(pid, signal.SIGCONT)
        except OSError as error:
            return f"fio cannot enter its cgroup: {error}"
        return ""

    def over(self, limit: float, tick: Tick) -> bool:
        """Wait for the end of its requests. Whether it is now held before its report."""
        deadline = time.monotonic() + limit
        while not self.child.look() and time.monotonic() < deadline:
            if fcntl.fcntl(self._log, fcntl.F_GETLEASE) != fcntl.F_WRLCK:
                return True
            self.child.wait(LOOK)
            tick()
        return False

    def leave(self, procs: str) -> None:
        """Move it out of its cgroup, and let it report: that is none of the cgroup's business."""
        if procs:
            cgroups.write(f"{cgroups.MOUNT}/cgroup.procs", str(self.child.pid))
        fcntl.fcntl(self._log, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def let_go(self) -> None:
        """Let it begin."""
        os.write(self._go, b"go\n")

    def close(self) -> None:
        """Give back what it took to hold it."""
        os.close(self._ready)
        os.close(self._go)
        os.close(self._log)


def write(
    order: Order,
    run: bytes,
    clock: Clock,
    *,
    limit: float,
    cgroup: str = "",
    procs: str = "",
    anon: Callable[[], int | None] = lambda: None,
    tick: Tick = no_tick,
) -> tuple[Json, str]:
    """Run fio to its end, or for ``limit`` seconds: (the host's ``Submitter``, a problem)."""
    held = _Held(order, run)
    try:
        problem = "fio did not get ready" if not held.wait(READY_LIMIT, tick) else ""
        problem = problem or held.enter(procs)
        if problem:
            how = held.child.finish(0)
            printed = held.output.take()
            if held.child.complaint():
                raise RigError(held.child.complaint())
            return _submitter(held, how, cgroup, own=None, ops=[], printed=printed), problem
        before, went = anon(), clock.us()
        held.let_go()
        after, room = None, 0.0
        if held.over(limit, tick):
            after, room = anon(), REPORT_LIMIT
            held.leave(procs)
        ended = clock.us()
        how = held.child.finish(room, tick=tick)
    finally:
        held.close()
    printed = held.output.take(_PRINTED)
    job = _job(read_text(f"{FOLDER}/out.json"))
    logged = parse_log(read_text(LOG))
    code = int(job.get("error", 0))
    failures = parse_failures(printed, code)
    if how["exit_code"] is not None and not job:
        return _submitter(held, how, cgroup, own=before, ops=[], printed=printed), (
            f"fio: {one_line(printed)}"
        )
    due = order.syncs_after
    if not failures and code and due and logged and len(logged) % due == 0:
        # libaio's engine syncs by fsync(2) itself, and prints nothing if that fails.
        failures = [Failure(call="sync", errno=code, offset=0, length=0)]
    if not failures and (code or how["exit_code"]):
        problem = f"fio failed with {code} and does not say at what: {one_line(printed)}"
    ops = operations(order, logged, failures, went, ended)
    problem = problem or contradiction(order, logged, failures, job)
    if before is not None and after is not None:
        printed += f"\nanonymous memory in its cgroup: {before} at the start, {after} at the end"
    if not job:
        printed += "\nfio was killed before it wrote its log: its requests are not known"
    return _submitter(held, how, cgroup, own=before, ops=ops, printed=printed), problem


def contradiction(order: Order, logged: list[Logged], failures: list[Failure], job: Json) -> str:
    """Where fio's log and its own totals do not agree, the log cannot be trusted."""
    if not job:
        return ""
    said = job["write"]["io_bytes"]
    found = sum(one.length for one in logged)
    if said != found and order.depth == 1:
        return f"fio's log has {found} bytes, its totals {said}"
    failed = sum(one.length for one in failures if one.call == "write")
    if order.go_on and found + failed != order.length:
        return f"fio accounts for {found} bytes done and {failed} failed, of {order.length}"
    return ""


def _job(text: str) -> Json:
    """The job in fio's JSON, or nothing if there is none."""
    start = text.find("{")
    if start < 0:
        return {}
    try:
        job: Json = json.loads(text[start:])["jobs"][0]
    except (ValueError, KeyError, IndexError):
        return {}
    return job


def _submitter(
    held: _Held, how: Json, cgroup: str, *, own: int | None, ops: list[list[object]], printed: str
) -> Json:
    return {
        "pid": held.child.pid,
        "cgroup": cgroup,
        "ops": ops,
        "ended": how,
        "own_memory": own,
        "threads": held.threads,
        "tool": "fio-3",
        "output": printed[-OUTPUT_KEPT:],
    }
