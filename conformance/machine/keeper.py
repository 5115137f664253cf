"""A program of its own: runs a command, and lets nothing of it outlive whoever wanted it run.

``python -I -S keeper.py PID WORD ...`` runs the words for the process PID, its parent. The exit status is
the command's; 128 and the signal's number if one killed it; 127 if it cannot be started. When the command
has ended, whatever it left running is killed. On SIGTERM, which also comes when the parent has died, the
command's process group gets SIGTERM and some seconds to clear up; then all of it is killed.

Nothing gets away: the orphans of a command become children of this process (PR_SET_CHILD_SUBREAPER),
whatever sessions, groups or programs they went through. And no other process is hit: the number of a
child is its own until it has been reaped here. One that does not die of SIGKILL is waited for.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

GRACE = 5.0
"""Seconds that a command which is to end gets to clear up."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_HEARD = (signal.SIGTERM, signal.SIGCHLD)


def kept(words: Sequence[str]) -> list[str]:
    """The command that keeps the command ``words`` for this process. It is ended by SIGTERM, not SIGKILL.

    It is to be started in a session of its own (``start_new_session``), which Ctrl-C does not reach, by
    a thread that waits for it: for the kernel the parent has died when the thread has ended.
    """
    # -I and -S: nothing of the user's or of this environment is read.
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *words]


def main(parent: int, words: Sequence[str]) -> int:
    """Do it; the exit status."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who inherits it ignored is told of no child
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return 128 + signal.SIGTERM  # it had died before it could be told
    try:
        command = os.posix_spawnp(
            words[0],
            tuple(words),
            os.environ,
            setsid=True,
            setsigmask=before,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which Python ignores
        )
    except OSError as error:
        sys.stderr.write(f"{words[0]}: {error.strerror}\n")
        return 127
    # What the command was given is to be closed when it closes it.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    status = None
    while status is None and signal.sigwait(_HEARD) == signal.SIGCHLD:
        status = _reaped(command)
    if status is None:
        status = _asked_to_end(command)
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            for pid in _children():
                os.kill(pid, signal.SIGKILL)
            # Whatever a child had started is listed as this process's before the child can be reaped.
            pid, ended = os.waitpid(-1, 0)
            if pid == command:
                status = ended
    return 128 + signal.SIGTERM if status is None else _exit_status(status)


def _asked_to_end(command: int) -> int | None:
    """Ask a command to end; how it did, or None if it has not within ``GRACE`` seconds."""
    for number in (signal.SIGTERM, signal.SIGCONT):  # one that is stopped would not hear the first
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(command, number)
    deadline = time.monotonic() + GRACE
    status = _reaped(command)
    while status is None and (left := deadline - time.monotonic()) > 0:
        signal.sigtimedwait([signal.SIGCHLD], left)
        status = _reaped(command)
    return status


def _reaped(command: int) -> int | None:
    """Reap what has ended; the command's wait status, if it is among that."""
    found = None
    with contextlib.suppress(ChildProcessError):
        # One signal may stand for several.
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == command:
                found = ended[1]
    return found


def _children() -> list[int]:
    """The processes whose parent this is."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # Behind the name, which may hold anything: the state, and the parent.
            if int(stat.read_bytes().rpartition(b")")[2].split()[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None).prctl(ctypes.c_int(option), *map(ctypes.c_ulong, (value, 0, 0, 0))):
        raise OSError(f"prctl({option}) is refused")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
