"""A Dask scheduler and workers as a user starts them, each a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
    """A scheduler, and a worker for each of ``workers``: what its environment has besides ``env``."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    commands = [
        [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port",
         address.rpartition(":")[2], "--no-dashboard"],
        *[[sys.executable, "-P", "-m", "conformance", "worker", f"tcp://{address}", "-n", "1"]]
        * len(workers),
    ]  # fmt: skip
    running = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**env, **more},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for command, more in zip(commands, [{}, *workers], strict=True)
    ]
    try:
        yield Cluster(address=address, scheduler=running[0], workers=tuple(running[1:]))
    finally:
        for some in (running[1:], running[:1]):  # what is lent to the scheduler before it
            for process in some:
                process.terminate()  # not its group: what tidies up after it is in there, too
            for process in some:
                process.wait(_LIMIT)
