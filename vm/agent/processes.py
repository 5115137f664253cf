"""Child processes that are started, waited for in bounded time, and ended.

Every wait goes through a pidfd, so that it has a limit; a process that outlives SIGKILL is told as
not killable and left behind.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from agent.basics import Json, RigError, leave_words, read_text, words_left

KILL_LIMIT = 10.0
"""Seconds, on the reference machine, that a process gets to die of SIGKILL before it is called unkillable."""
TICK = 0.1
"""Seconds between two calls of a wait's ``tick``."""
OUTPUT_KEPT = 4000
"""Characters of a command's output that are kept, from its end."""
_ROOM = 64 * 1024
_WORDS = slice(0, 512)
_NUM_THREADS = 17
"""Where the number of threads is in /proc/PID/stat, behind the name (proc_pid_stat(5))."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C", "HOME": "/root"}

Tick = Callable[[], None]


def no_tick() -> None:
    """For waits during which nothing else is to be done."""


def ended(
    exit_code: int | None = None,
    *,
    signal: int | None = None,
    timed_out: bool = False,
    killable: bool = True,
    state: str = "",
    stack: str = "",
) -> Json:
    """How a process ended, as the host's ``Ended``."""
    return {
        "exit_code": exit_code,
        "signal": signal,
        "timed_out": timed_out,
        "killable": killable,
        "state": state,
        "stack": stack,
    }


def state_of(pid: int) -> str:
    """The state letter of a task (R, S, D, Z ...), or nothing if there is no such task."""
    return state_in(read_text(f"/proc/{pid}/stat"))


def state_in(stat: str) -> str:
    """The state letter in the text of /proc/PID/stat: the name before it may hold anything."""
    rest = stat.rpartition(")")[2].split()
    return rest[0] if rest else ""


def threads_in(pid: int, stat: str) -> list[int]:
    """The tasks of a process but the one it is called after, which alone is in the listing of /proc.

    ``stat`` is the text of its /proc/PID/stat, which has their number: of a process with one task nothing
    is listed. Nothing, too, of a process that has ended.
    """
    rest = stat.rpartition(")")[2].split()
    if len(rest) <= _NUM_THREADS or rest[_NUM_THREADS] in ("0", "1"):
        return []
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task") if int(name) != pid)
    except OSError:
        return []


def last_started() -> int:
    """The number of the process, or kernel thread, that was started last (proc_loadavg(5)): two of them
    tell how many came between, at a fifth of the price of /proc/stat.
    """
    return int((read_text("/proc/loadavg", "0").split() or ["0"])[-1])


def evidence(pid: int) -> tuple[str, str]:
    """(state letter, where in the kernel a process is), taken before it is killed: of its task in D, if
    there is one, since that is what it waits for.
    """
    stat = read_text(f"/proc/{pid}/stat")
    state = state_in(stat)
    if state != "D":
        stuck = [tid for tid in threads_in(pid, stat) if state_of(tid) == "D"]
        if stuck:
            pid, state = stuck[0], "D"
    places = [read_text(f"/proc/{pid}/wchan"), read_text(f"/proc/{pid}/stack")]
    return state, "\n".join(place for place in places if place and place != "0")


class LastWords:
    """A page that the agent shares with a child of its own, for why the child gave up.

    It is there beforehand: who gives up may have no memory. And nobody waits for it, as for a pipe that
    what the child has started still holds.
    """

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._page[0] = 0

    def complain(self, text: str) -> None:
        """Say why, in the child."""
        leave_words(self._page, _WORDS, text)

    def complaint(self) -> str:
        """What the child said, or nothing."""
        return words_left(self._page, _WORDS)


@dataclass(kw_only=True)
class Child:
    """A child process that has not been waited for yet. ``result`` is an ``Ended`` when it has."""

    pid: int
    fd: int
    result: Json | None = field(default=None)
    words: LastWords | None = field(default=None)
    killed: bool = False
    """Whether it was sent SIGKILL before it was seen to end."""
    kill_limit: ClassVar[float] = KILL_LIMIT
    """What ``KILL_LIMIT`` is on this machine: the rig sets it."""

    @classmethod
    def adopt(cls, pid: int, words: LastWords | None = None) -> Child:
        """The child ``pid``, which nobody has reaped, and where it says why it gives up, if it does."""
        return cls(pid=pid, fd=os.pidfd_open(pid), words=words)

    def complaint(self) -> str:
        """Why it gave up, or nothing. Of a program that could not be executed: then nobody ran it, and
        how the child ended is no answer of the program's.
        """
        return "" if self.words is None else self.words.complaint()

    def how(self) -> Json | None:
        """How it ended, or nothing if it has not, as far as was seen."""
        return self.result

    def look(self) -> bool:
        """Whether it has ended; reaps it if so. Never blocks."""
        if self.result is not None:
            return True
        found = os.waitid(os.P_PIDFD, self.fd, os.WEXITED | os.WNOHANG)
        if found is None:
            return False
        if found.si_code == os.CLD_EXITED:
            self.result = ended(found.si_status)
        else:
            self.result = ended(signal=found.si_status)
        os.close(self.fd)
        return True

    def wait(self, limit: float, *, tick: Tick = no_tick, also: Sequence[int] = ()) -> int | None:
        """Wait for its end, or for a descriptor in ``also`` to be readable, which is returned.

        After ``limit`` seconds None is returned too; ``how`` tells which.
        """
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        for fd in also:
            poll.register(fd, select.POLLIN)
        deadline = time.monotonic() + limit
        while not self.look():
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            for fd, _ in poll.poll(max(1, int(min(TICK, left) * 1000))):
                if fd != self.fd:
                    return fd
            tick()
        return None

    def kill(self, *, tick: Tick = no_tick) -> bool:
        """SIGKILL, and a bounded wait: whether it died."""
        if not self.look():
            signal.pidfd_send_signal(self.fd, signal.SIGKILL)
            self.killed = True
            self.wait(self.kill_limit, tick=tick)
        if self.look():
            return True
        UNKILLABLE.append(self)
        return False

    def finish(self, limit: float, *, tick: Tick = no_tick) -> Json:
        """Wait for its end; past ``limit`` seconds, take evidence and kill it."""
        self.wait(limit, tick=tick)
        how = self.how()
        return self.cut_short(tick=tick) if how is None else how

    def cut_short(self, *, timed_out: bool = True, tick: Tick = no_tick) -> Json:
        """End it, with evidence taken first."""
        state, stack = evidence(self.pid)
        killable = self.kill(tick=tick)
        return {
            **(self.how() or ended()),
            "timed_out": timed_out,
            "killable": killable,
            "state": state,
            "stack": stack,
        }


UNKILLABLE: list[Child] = []
"""Children that outlived SIGKILL: tear-down tells of them."""


class Output:
    """A memory file for what a command prints, with its first pages touched beforehand.

    A command in a limited cgroup is charged only for what it prints beyond those 64 KiB.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("output")
        os.posix_fallocate(self.fd, 0, _ROOM)

    def take(self, kept: int = OUTPUT_KEPT) -> str:
        """The tail of what was printed, ``kept`` characters; the file is closed."""
        # The position is shared with the command, so it tells how much was printed.
        end = os.lseek(self.fd, 0, os.SEEK_CUR)
        start = max(0, end - kept)
        text = os.pread(self.fd, end - start, start).decode("utf-8", "replace")
        os.close(self.fd)
        return text.strip()


def run(
    argv: Sequence[str],
    *,
    limit: float,
    procs: str = "",
    env: Mapping[str, str] | None = None,
    tick: Tick = no_tick,
    started: Callable[[Child], None] | None = None,
) -> Json:
    """Run a command and say how it ended, as the host's ``Command``.

    ``procs`` is a cgroup.procs file that the child enters before it executes the program. ``limit``
    is in seconds. Raises RigError if the program cannot be started at all, also where that is found out
    in the cgroup.
    """
    output = Output()
    if procs:
        child = fork_exec(argv, output.fd, env=env, procs=procs)
    else:
        child = Child.adopt(_spawn(argv, {**ENVIRONMENT, **(env or {})}, output.fd))
    if started is not None:
        started(child)
    how = child.finish(limit, tick=tick)
    printed = output.take()
    if child.complaint():
        raise RigError(child.complaint())
    return {"argv": list(argv), "ended": how, "output": printed}


def _spawn(argv: Sequence[str], env: Mapping[str, str], out: int) -> int:
    # posix_spawn shares the parent's memory until the exec: half the price of a fork under
    # emulation.
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, out, 1),
        (os.POSIX_SPAWN_DUP2, out, 2),
    ]
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = PATH
    try:
        return os.posix_spawnp(argv[0], list(argv), dict(env), file_actions=actions, setsid=True)
    except OSError as error:
        raise RigError(f"cannot start {argv[0]}: {error.strerror}") from error
    finally:
        os.environ["PATH"] = before


def fork_exec(
    argv: Sequence[str],
    out: int,
    *,
    env: Mapping[str, str] | None = None,
    procs: str = "",
    folder: str = "/",
) -> Child:
    """Fork, enter a cgroup (``procs``, its cgroup.procs) and a folder, and execute.

    A fork of its own, and not subprocess: that waits without a limit for the exec, and an exec in a
    cgroup at its limit may take for ever. So what fails on the way is told by the child's
    ``complaint``, once it has ended, and in what it prints. Raises OSError if there is no such cgroup.
    """
    variables = {**ENVIRONMENT, **(env or {})}
    last = LastWords()
    door = os.open(procs, os.O_WRONLY) if procs else -1
    pid = os.fork()
    if pid:
        if door >= 0:
            os.close(door)
        return Child.adopt(pid, last)
    try:
        os.setsid()
        os.chdir(folder)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        if door >= 0:
            _enter(door, procs)
        os.execvpe(argv[0], list(argv), variables)
    except BaseException as error:  # noqa: BLE001 - a child that returns would be a second agent
        text = f"cannot start {argv[0]}: {getattr(error, 'strerror', None) or error}"
        last.complain(text)
        os.write(2, f"{text}\n".encode())
    finally:
        os._exit(127)


def _enter(door: int, procs: str) -> None:
    try:
        os.write(door, b"0")
    except OSError as error:
        raise RigError(f"it cannot enter {procs}: {error.strerror}") from error
