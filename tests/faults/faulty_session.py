"""The agent's session with one verb more: ``plant`` has a fault happen at a moment to come.

Runs in the guest alone, as agent/session.py; the real one lies beside it as agent/real_session.py.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any, NoReturn

from agent import real_session  # type: ignore[attr-defined]
from agent.basics import Json
from agent.layers import loop

Handler = Callable[[dict[str, Any]], object]

_FIFREEZE = 0xC0045877  # linux/fs.h
_MNT = "/run/frozen"


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _forever() -> NoReturn:
    while True:
        time.sleep(60)


def panic() -> None:
    _write("/proc/sysrq-trigger", "c")


def agent_stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def agent_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kernel_spins() -> None:
    """The only processor never leaves a system call for long, and is given to nobody else."""
    _write("/proc/sys/kernel/sched_rt_runtime_us", "-1")
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))
    room = mmap.mmap(-1, 16 << 20)
    zero = os.open("/dev/zero", os.O_RDONLY)
    while True:
        os.readv(zero, [room] * 100)  # in the kernel all but always


def blocked() -> None:
    """A task waits for a frozen filesystem, is killed, and does not end."""
    disk = next(
        name for name in os.listdir("/sys/block") if _serial(name) == "scratch"
    )  # that of the machine
    subprocess.run(["mkfs.ext4", "-q", "-F", f"/dev/{disk}", "16M"], check=True)
    os.makedirs(_MNT)
    subprocess.run(["mount", f"/dev/{disk}", _MNT], check=True)
    fd = os.open(_MNT, os.O_RDONLY)
    fcntl.ioctl(fd, _FIFREEZE, 0)
    child = os.fork()
    if not child:
        os.open(f"{_MNT}/file", os.O_WRONLY | os.O_CREAT)
        os._exit(0)
    while True:
        with open(f"/proc/{child}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "D":
                break
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def no_memory() -> None:
    """All of it, by one that may not be killed."""
    _write("/proc/self/oom_score_adj", "-1000")
    ctypes.CDLL(None).mlockall(2)  # MCL_FUTURE
    while True:
        mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
        KEPT.append(mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def clock_jumps() -> None:
    """Back by thirty years."""
    time.clock_settime(time.CLOCK_REALTIME, time.time() - 30 * 365 * 86400)


def warns_as_it_goes_down() -> None:
    """The kernel's log has a warning when the device goes."""

    def say(_layer: loop.Loop) -> list[Json]:
        # Without its end a line could be gone on with, and nobody gets to read it.
        _write("/dev/kmsg", "<4>WARNING: CPU: 0 PID: 1 at fs/buffer.c:1 planted+0x1/0x2\n")
        return []

    _as_it_goes_down(say)


def hangs_as_it_goes_down() -> None:
    """A command that lets the device go does not end by itself."""
    _as_it_goes_down(lambda layer: [layer.site.run(["sleep", "600"], 1.0)])


def _as_it_goes_down(first: Callable[[loop.Loop], list[Json]]) -> None:
    down = loop.Loop.down

    def faulty(layer: loop.Loop) -> list[Json]:
        return [*first(layer), *down(layer)]

    loop.Loop.down = faulty  # type: ignore[assignment, method-assign]


KEPT: list[mmap.mmap] = []
FAULTS: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        panic,
        agent_stopped,
        agent_killed,
        kernel_spins,
        blocked,
        no_memory,
        clock_jumps,
        warns_as_it_goes_down,
        hangs_as_it_goes_down,
    )
}


def _serial(disk: str) -> str:
    try:
        with open(f"/sys/block/{disk}/serial") as file:
            return file.read().strip()
    except OSError:
        return ""


def handlers() -> dict[str, Handler]:
    """Those of the real session, any of which may be preceded by the fault that was planted."""
    planted: dict[str, str] = {}

    def plant(args: dict[str, Any]) -> object:
        planted.update(args)
        return {}

    def due(verb: str, args: dict[str, Any]) -> bool:
        step = args.get("step", {})
        return planted.get("when", "") in (verb, step.get("as") or step.get("name"))

    def faulty(verb: str, real: Handler) -> Handler:
        def answer(args: dict[str, Any]) -> object:
            if due(verb, args):
                FAULTS[planted["what"]]()
            return real(args)

        return answer

    own = {verb: faulty(verb, real) for verb, real in real_session.handlers().items()}
    return {**own, "plant": plant}
