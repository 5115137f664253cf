"""A Dask scheduler and workers as a user starts them, each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

ROOT = Path(__file__).parents[2]
_LIMIT = 120.0


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where it is, and its processes: those of ``conform worker`` have what runs guests as children."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: tuple[subprocess.Popen[bytes], ...]


@contextmanager
def cluster(env: Mapping[str, str], workers: Sequence[Mapping[str, str]]) -> Iterator[Cluster]:
    """A scheduler, and a worker for each of ``workers``: what its environment has besides ``env``.

    All of them have come up.
    """
    running: list[subprocess.Popen[bytes]] = []

    def start(*words: str, **more: str) -> None:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env={**env, **more},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        running.append(process)

    try:
        with tempfile.TemporaryDirectory() as folder:
            told = Path(folder) / "scheduler.json"
            start(
                "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
                "--no-dashboard", "--scheduler-file", str(told),
            )  # fmt: skip
            address = _address(told)
        for more in workers:
            start("-P", "-m", "conformance", "worker", address, "-n", "1", **more)
        with Client(address) as client:  # type: ignore[no-untyped-call] # as Dask has it
            if workers:
                client.wait_for_workers(len(workers), timeout=_LIMIT)
        yield Cluster(
            address=address.partition("://")[2],
            scheduler=running[0],
            workers=tuple(running[1:]),
        )
    finally:
        # What is lent to the scheduler before it.
        late = [*_ended(running[1:]), *_ended(running[:1])]
    assert late == [], "these did not end when they were told to"


def _address(told: Path) -> str:
    """What the scheduler says of itself, once it does: the file is not written at once."""
    deadline = time.monotonic() + _LIMIT
    while True:
        with suppress(OSError, ValueError):
            return str(json.loads(told.read_text())["address"])
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _ended(processes: Sequence[subprocess.Popen[bytes]]) -> list[object]:
    """End them; the commands of those that had to be killed."""
    late: list[object] = []
    for process in processes:
        process.terminate()  # not its group: what tidies up after it is in there, too
    for process in processes:
        try:
            process.wait(_LIMIT)
        except subprocess.TimeoutExpired:
            late.append(process.args)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return late
