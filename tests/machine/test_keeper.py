"""The keeper of commands: what it passes on, and that nothing of a command is left."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from conformance.machine.keeper import kept
from conformance.session import ROOT

LIMIT = 60.0
"""Seconds that nothing here comes near."""

FAMILY = 'setsid sh -c "echo \\$\\$; exec sleep 600" & echo $$; '
"""For a shell: it tells its own number, and that of a child in a session of its own, in some order."""

PARENT = """
import subprocess, sys
from conformance.machine.keeper import kept
with subprocess.Popen(kept(sys.argv[1:]), start_new_session=True) as keeper:
    pass
"""


class Started:
    """A command that tells numbers of processes; those are watched."""

    def __init__(self, words: list[str], count: int) -> None:
        self.process = subprocess.Popen(
            words,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        pids = [int(self.process.stdout.readline()) for _ in range(count)]
        self._watched = [os.pidfd_open(pid) for pid in pids]

    def go_on(self) -> None:
        """End the command's input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def all_end(self) -> bool:
        """Whether each of them ends, zombies too."""
        return all(select.select([fd], [], [], LIMIT)[0] for fd in self._watched)

    def close(self) -> None:
        self.go_on()
        assert self.process.stdout is not None
        for fd in self._watched:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            os.close(fd)
        self.process.stdout.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def started() -> Iterator[list[Started]]:
    made: list[Started] = []
    yield made
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ("line", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 128 + signal.SIGKILL)]
)
def test_the_status_is_the_command_s(line: str, status: int) -> None:
    done = subprocess.run(kept(["sh", "-c", line]), check=False, start_new_session=True)
    assert done.returncode == status


def test_input_and_output_are_the_command_s() -> None:
    words = kept(["sh", "-c", "cat; echo wrong >&2"])
    done = subprocess.run(words, input=b"in", capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"in", b"wrong\n")


def test_a_command_that_is_not_there() -> None:
    done = subprocess.run(kept(["/no/such"]), check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (127, b"/no/such: No such file or directory\n")


def test_a_command_writes_to_a_pipe_that_nobody_reads_as_it_always_does() -> None:
    done = subprocess.run(kept(["sh", "-c", "yes | head -n 1"]), capture_output=True, check=False)
    assert done.stderr == b""


def test_who_starts_it_may_ignore_the_end_of_children() -> None:
    words = kept(["sh", "-c", "exit 3"])
    ignoring = (
        f"import os, signal; signal.signal(17, signal.SIG_IGN); os.execv({words[0]!r}, {words})"
    )
    done = subprocess.run([sys.executable, "-c", ignoring], check=False, timeout=LIMIT)
    assert done.returncode == 3


def test_what_a_command_leaves_running_ends_with_it(started: list[Started]) -> None:
    started.append(Started(kept(["sh", "-c", f"{FAMILY} read x; exit 4"]), 2))
    started[0].go_on()
    assert started[0].all_end()
    assert started[0].process.wait(LIMIT) == 4


def test_a_command_that_is_to_end_may_clear_up(started: list[Started], tmp_path: Path) -> None:
    line = f"trap 'echo cleared >{tmp_path}/told; exit 5' TERM; {FAMILY} wait"
    started.append(Started(kept(["sh", "-c", line]), 2))
    started[0].process.terminate()
    assert started[0].all_end()
    assert started[0].process.wait(LIMIT) == 5
    assert (tmp_path / "told").read_text() == "cleared\n"


def test_a_command_that_does_not_care_is_killed(started: list[Started]) -> None:
    hurried = (
        f"from conformance.machine import keeper; keeper.GRACE = 0.01; keeper.main({os.getpid()}"
    )
    line = f"trap '' TERM; {FAMILY} wait"
    words = [sys.executable, "-c", f"{hurried}, {['sh', '-c', line]})"]
    started.append(Started(words, 2))
    started[0].process.terminate()
    assert started[0].all_end()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_ends_when_whoever_wanted_it_is_killed(
    started: list[Started], number: signal.Signals
) -> None:
    words = [sys.executable, "-c", PARENT, "sh", "-c", f"{FAMILY} wait"]
    started.append(Started(words, 2))
    started[0].process.send_signal(number)
    assert started[0].all_end()


def test_nothing_is_run_for_a_parent_that_has_died_already() -> None:
    words = kept(["echo", "run"])
    words[words.index(str(os.getpid()))] = "1"
    done = subprocess.run(words, check=False, capture_output=True)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, b"")
