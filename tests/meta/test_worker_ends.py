"""``conform worker`` is told to end, while it has nothing to do and while Dask replaces a lost worker."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from distributed import Client

from conformance.exits import INTERRUPTED, REFUSED
from tests.meta.conftest import LIMIT
from tests.support.dask_cluster import ROOT, cluster

# The last resort comes at once, and a nanny waits for what does not happen.
STUCK = """
import asyncio, sys
from conformance.cluster import worker

async def never(self, *arguments, **more):
    print("is to close", flush=True)
    await asyncio.Event().wait()

worker._GRACE = 1
worker.Nanny.close = never
worker.serve(sys.argv[1], slots=1)
"""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """``conform worker``, or what stands for it: the process that was started, and what it says."""

    nanny: subprocess.Popen[bytes]
    said: Path

    def child(self) -> psutil.Process:
        """The worker that the nanny watches over."""
        (found,) = (
            child
            for child in psutil.Process(self.nanny.pid).children(recursive=True)
            if any("spawn_main" in word for word in child.cmdline())
        )
        return found

    def until_said(self, text: str) -> None:
        """Wait for it."""
        deadline = time.monotonic() + LIMIT
        while text not in self.said.read_text():
            assert time.monotonic() < deadline, self.said.read_text()
            time.sleep(0.02)

    def says_nothing_of_its_own(self) -> bool:
        """Dask may: that a worker's heartbeat was cut off, with a traceback."""
        said = self.said.read_text()
        return not any(
            word in said for word in ("conform:", "cluster/worker.py", "KeyboardInterrupt")
        )


Start = Callable[..., Worker]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start Python with these words, of which ADDRESS stands for a scheduler's; when its worker is up."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    running: list[subprocess.Popen[bytes]] = []

    def begin(*words: str) -> Worker:
        said = tmp_path / "said"
        with said.open("wb") as to:
            nanny = subprocess.Popen(
                [sys.executable, "-P", *(word.replace("ADDRESS", at.address) for word in words)],
                cwd=ROOT,
                env=env,
                stdout=to,
                stderr=to,
            )
        running.append(nanny)
        # Sent as it is: this module has no business in the nanny.
        status = lambda dask_worker: dask_worker.status.name  # noqa: E731
        with Client(at.address) as client:  # type: ignore[no-untyped-call] # as Dask has it
            deadline = time.monotonic() + LIMIT
            # A worker that is lost before its nanny has it is not replaced.
            while set(client.run(status, nanny=True).values()) != {"running"}:
                assert time.monotonic() < deadline, said.read_text()
                time.sleep(0.05)
        return Worker(nanny=nanny, said=said)

    with cluster(env, []) as at:
        yield begin
        for nanny in running:
            nanny.kill()
            nanny.wait(LIMIT)


# The command, which is not to come to its last resort here however slow a worker's start is.
CONFORM = (
    "-c",
    """
import sys
from conformance import cli
from conformance.cluster import worker

worker._GRACE = 3600
sys.exit(cli.main(["worker", sys.argv[1], "-n", "1"]))
""",
    "ADDRESS",
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_it_is_told_to(start: Start, number: signal.Signals) -> None:
    worker = start(*CONFORM)
    child = worker.child()
    worker.nanny.send_signal(number)
    assert worker.nanny.wait(LIMIT) == INTERRUPTED
    assert not child.is_running()
    assert worker.says_nothing_of_its_own()


@pytest.mark.parametrize("delay", [0.0, 0.4])
def test_it_ends_while_a_lost_worker_is_replaced(start: Start, delay: float) -> None:
    worker = start(*CONFORM)
    worker.child().kill()
    worker.until_said("Restarting worker")
    time.sleep(delay)
    worker.nanny.send_signal(signal.SIGTERM)
    assert worker.nanny.wait(LIMIT) == INTERRUPTED
    assert worker.says_nothing_of_its_own()


def test_what_does_not_end_is_ended(start: Start) -> None:
    worker = start("-c", STUCK, "ADDRESS")
    child = os.pidfd_open(worker.child().pid)
    worker.nanny.send_signal(signal.SIGTERM)
    assert worker.nanny.wait(LIMIT) == -signal.SIGALRM
    assert select.select([child], [], [], LIMIT)[0]
    os.close(child)


def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    worker = start("-c", STUCK.replace("_GRACE = 1", "_GRACE = 3600"), "ADDRESS")
    child = os.pidfd_open(worker.child().pid)
    worker.nanny.send_signal(signal.SIGINT)
    worker.until_said("is to close")
    worker.nanny.send_signal(signal.SIGINT)
    assert worker.nanny.wait(LIMIT) == -signal.SIGINT
    assert select.select([child], [], [], LIMIT)[0]
    os.close(child)


def test_a_scheduler_that_is_not_there_is_told_in_a_line() -> None:
    impatient = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "conformance", "worker", "tcp://127.0.0.1:1", "-n", "1"],
        cwd=ROOT,
        env=impatient,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert ended.returncode == REFUSED
    assert "Traceback" not in ended.stderr
    assert "conform: Timed out trying to connect to tcp://127.0.0.1:1" in ended.stderr
