"""A user at a checkout: made-up cases, made-up machines, the real pytest and command line."""

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

from conformance.record import Record, read_record
from tests.support.fake_engine import FIFO_VARIABLE

ROOT = Path(__file__).parents[2]
LIMIT = 300.0
"""Seconds that nothing here comes near; a test that does has hung."""

CASE = """\
title: A made-up case
level: must
claims: [S1]
norm:
  - source: write(2)
    quote: "an error is an error"
rig: loop_on_tmpfs
shortage: {tmpfs_size: {layer: back, size: 4M}}
steps: device_short
expect:
  clauses: [error_surfaced]
"""

KNOWN = """\
- case: {case}
  kernel: ">= 0"
  clause: error_surfaced
  signature: "*"
  reason: a test
  link: none
  review_by: 2099-01-01
"""


# What runs in the background of a script is started with SIGINT ignored, and all that it starts inherits
# that: no Ctrl-C of a test would arrive.
signal.signal(signal.SIGINT, signal.default_int_handler)


class User:
    """Runs commands as a user would, and looks at what they leave behind."""

    def __init__(self, tmp_path: Path) -> None:
        self.cases = tmp_path / "mine"
        self.out = tmp_path / "out"
        self.known = tmp_path / "known"
        self.fifo = tmp_path / "fifo"
        for folder in (self.cases / "fake", self.known):
            folder.mkdir(parents=True)
        self.more: dict[str, str] = {}  # that the engine finds in its environment
        os.mkfifo(self.fifo)
        # Both ends, so that neither side's open waits for the other's, and nothing ends the stream.
        self._listening = os.open(self.fifo, os.O_RDWR | os.O_NONBLOCK)
        self._heard = b""
        self._started: list[subprocess.Popen[str]] = []

    def close(self) -> None:
        for process in self._started:
            if process.returncode is None:  # a test failed before it waited
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate(timeout=LIMIT)
        os.close(self._listening)

    def has(self, *ids: str, text: str = CASE) -> None:
        """Write cases; the third word of an id says what becomes of it (tests.support)."""
        for name in ids:
            (self.cases / "fake" / f"{name}.yaml").write_text(text)

    def knows(self, case: str) -> None:
        """Write a row of known deviations: this case's, for the only clause that fails here."""
        (self.known / "rows.yaml").write_text(KNOWN.format(case=case))

    def place(self, name: str) -> str:
        return str(self.cases / "fake" / f"{name}.yaml")

    @property
    def env(self) -> dict[str, str]:
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "CONFORM_"))},
            "PYTHONPATH": str(ROOT),
            "CONFORM_ENGINE": "tests.support.fake_engine:engine",
            FIFO_VARIABLE: str(self.fifo),
            "COLUMNS": "200",
            **self.more,
        }

    def shared(self) -> list[str]:
        return ["--cases", str(self.cases), "--known", str(self.known), "--out", str(self.out)]

    conformance = (sys.executable, "-P", "-m", "conformance")

    def conform(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``./conform`` without the launcher."""
        return self._run([*self.conformance, *words])

    def conform_run(self, *words: str, k: str = "fake_") -> subprocess.CompletedProcess[str]:
        return self.conform("run", "-k", k, *self.shared(), *words)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """The same, in a process group of its own, to be interrupted."""
        process = subprocess.Popen(
            [*self.conformance, "run", "-k", "fake_", *self.shared(), *words],
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def pytest(self, *words: str, k: str = "fake_") -> subprocess.CompletedProcess[str]:
        """``pytest`` as the launcher installs it."""
        return self._run([*self.command, "-k", k, *self.shared(), *words])

    @property
    def command(self) -> list[str]:
        # A cache of its own: --lf must not see what other tests failed.
        cache = ["-o", f"cache_dir={self.cases.parent / 'cache'}"]
        return [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), *cache]

    def hears(self) -> str:
        """The next word that a fake machine tells. Fails if none comes."""
        while b"\n" not in self._heard:
            ready, _, _ = select.select([self._listening], [], [], LIMIT)
            assert ready, "no word from the machine"
            self._heard += os.read(self._listening, 4096)
        word, _, self._heard = self._heard.partition(b"\n")
        return word.decode()

    def record(self, *, salvage: bool = False) -> Record:
        return read_record(self.out / "record.jsonl", salvage=salvage)

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
        )


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    someone = User(tmp_path)
    yield someone
    someone.close()
