"""Real guests in parts, and on workers of which one is killed: the same verdicts as in one run, each once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from conformance.model import Status
from conformance.record import Record, key_of, read_record
from tests.support.dask_cluster import ROOT, Cluster, cluster

pytestmark = pytest.mark.vm

SOME = "loop_enospc_short_write and off or nbd_server_gone and ioctl-0"
"""Six small variants; some fail on Debian stable, as is known, and the others pass."""
LIMIT = 600.0
ENV = {
    **{key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")},
    "PYTHONPATH": str(ROOT),
}
CONFORM = (sys.executable, "-P", "-m", "conformance")

Told = dict[object, tuple[Status, frozenset[str]]]


def start(out: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*CONFORM, "run", "-k", SOME, "--out", str(out), *words],
        cwd=ROOT,
        env=ENV,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> None:
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err


def verdicts(record: Record) -> Told:
    """What the record says of each variant; that there is only one verdict of each is for its reader."""
    return {
        key_of(v): (v.status, frozenset(f.signature for f in v.findings)) for v in record.verdicts
    }


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Told:
    out = tmp_path_factory.mktemp("local") / "run"
    ended(start(out, "-n", "2"))
    told = verdicts(read_record(out / "record.jsonl"))
    assert len(told) == 6
    assert {status for status, _ in told.values()} == {Status.PASS, Status.FAIL}
    return told


def test_four_shards_that_are_merged_are_the_whole(local: Told, tmp_path: Path) -> None:
    parts = [tmp_path / f"part-{number}" for number in range(1, 5)]
    for two in (parts[:2], parts[2:]):
        running = [start(part, "-n", "1", "--shard", f"{part.name[5:]}/4") for part in two]
        for process in running:
            ended(process)
    counts = [len(read_record(part / "record.jsonl").verdicts) for part in parts]
    assert sum(counts) == 6
    assert all(counts)

    whole = tmp_path / "all.jsonl"
    assert merged(parts[:3], whole) != 0
    assert merged(parts, whole) == 0
    assert verdicts(read_record(whole)) == local


def merged(parts: Sequence[Path], to: Path) -> int:
    records = [str(part / "record.jsonl") for part in parts]
    command = [*CONFORM, "merge", *records, "--to", str(to)]
    return subprocess.run(command, cwd=ROOT, env=ENV, check=False, timeout=LIMIT).returncode


@pytest.fixture
def three() -> Iterator[Cluster]:
    with cluster(ENV, [{}] * 3) as running:
        yield running


def test_a_worker_is_killed_amid_its_guest(local: Told, three: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "away"
    process = start(out, "--engine", f"dask://{three.address}")
    worker, machine = at_work(three, out / "record.jsonl")
    worker.kill()
    ended(process)

    record = read_record(out / "record.jsonl")  # whole, and nothing in it twice
    assert verdicts(record) == local
    for entry in record.entries:
        assert entry.observation is not None
        for arm in entry.observation.arms:
            assert (out / arm.console).is_file()
    told = json.loads((out / "cluster.json").read_text())
    assert len(told["lost"]) == 1
    # Three to begin with, and the one that came in place of the lost.
    assert 3 <= len(told["workers"]) <= 4
    assert not machine.is_running() or machine.status() == psutil.STATUS_ZOMBIE


def at_work(running: Cluster, record: Path) -> tuple[psutil.Process, psutil.Process]:
    """A worker, stopped, and the guest that it has; once something has been judged elsewhere."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        if record.exists() and '"verdict"' in record.read_text():
            for nanny in running.workers:
                for process in psutil.Process(nanny.pid).children(recursive=True):
                    found = guest_of(process)
                    if found is not None:
                        return found
        time.sleep(0.02)
    raise AssertionError("no worker had a guest")


def guest_of(machine: psutil.Process) -> tuple[psutil.Process, psutil.Process] | None:
    """(worker, guest) if ``machine`` is a guest. The worker is stopped first: what it has, it keeps."""
    with contextlib.suppress(psutil.NoSuchProcess):
        # And not one that is asked for its version.
        if not (machine.name().startswith("qemu-system") and "-incoming" in machine.cmdline()):
            return None
        worker = machine.parent()
        if worker is None:
            return None
        worker.send_signal(signal.SIGSTOP)
        with contextlib.suppress(psutil.NoSuchProcess):
            if machine.is_running() and machine.status() != psutil.STATUS_ZOMBIE:
                return worker, machine
        worker.send_signal(signal.SIGCONT)
    return None
