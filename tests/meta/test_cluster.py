"""A run over a scheduler and three workers, one of which is killed amid it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.exits import BROKEN
from conformance.model import Status
from conformance.record import key_of
from tests.meta.conftest import LIMIT, User
from tests.support.dask_cluster import Cluster, cluster
from tests.support.fake_engine import PIECE_VARIABLE

NAMES = ("fake_a_passes", "fake_b_fails", "fake_c_broken", "fake_d_skips", "fake_e_dies",
         "fake_f_waits", "fake_g_passes", "fake_h_passes", "fake_i_fails")  # fmt: skip


@pytest.fixture
def machines(user: User, tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler that has three workers; two of them share a cache."""
    caches = [{"CONFORM_CACHE": str(tmp_path / f"cache{number // 2}")} for number in range(3)]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with cluster({**user.env, "TMPDIR": str(scratch)}, caches) as running:
        yield running
    # Not even of the workers that were killed, whose locks Dask itself takes away later.
    left = [path for path in scratch.rglob("*") if path.is_file() and "lock" not in path.suffix]
    assert left == []


def test_a_worker_is_killed_amid_a_run(user: User, machines: Cluster, tmp_path: Path) -> None:
    piece = tmp_path / "piece"
    piece.write_bytes(os.urandom(10 << 20))
    user.has(*NAMES)
    (user.fifo.with_name("waited")).touch()
    local = user.conform_run("-n", "1")
    expected = {key_of(v): (v.status, v.findings) for v in user.record().verdicts}
    (user.fifo.with_name("waited")).unlink()

    user.out = tmp_path / "away"
    user.more = {PIECE_VARIABLE: str(piece)}
    process = user.start("--engine", f"dask://{machines.address}")
    os.kill(int(user.hears()), signal.SIGKILL)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == local.returncode, err

    record = user.record()  # whole, and nothing in it twice
    assert {key_of(v): (v.status, v.findings) for v in record.verdicts} == expected
    for entry in record.entries:
        if entry.observation is not None:
            assert (user.out / entry.observation.arms[0].console).is_file()
    (dies,) = (v for v in record.verdicts if v.case == "fake_e_dies")
    assert dies.status is Status.BROKEN
    assert dies.reasons[0].startswith("2 workers were lost while they ran fake_e_dies: tcp://")
    told = json.loads((user.out / "cluster.json").read_text())
    assert sorted(loss["variant"] for loss in told["lost"]) == [
        "fake_e_dies", "fake_e_dies", "fake_f_waits"
    ]  # fmt: skip
    # Once to each cache, however many variants ran there and however often its worker was replaced.
    assert set(told["sent_bytes"].values()) == {10 << 20}


def test_the_scheduler_dies_amid_a_run(user: User, machines: Cluster) -> None:
    user.has("fake_a_passes", "fake_f_hangs", "fake_g_passes")
    process = user.start("--engine", f"dask://{machines.address}")
    machine = int(user.hears())
    machines.scheduler.kill()
    try:
        _, err = process.communicate(timeout=LIMIT)
    finally:
        # What runs comes to its end there, and the workers with it.
        os.kill(machine, signal.SIGKILL)
    for worker in machines.workers:
        worker.wait(LIMIT)
    assert process.returncode == BROKEN, err
    assert "Traceback" not in err
    record = user.record()
    assert record.footer is not None
    (hangs,) = (v for v in record.verdicts if v.case == "fake_f_hangs")
    assert hangs.reasons == (f"the Dask scheduler is gone: tcp://{machines.address}",)
    told = json.loads((user.out / "cluster.json").read_text())
    assert told["lost"] == []
    assert len(told["workers"]) == 3


def test_no_scheduler_is_one_line(user: User) -> None:
    user.has("fake_a_passes")
    done = user.conform_run("--engine", "dask://127.0.0.1:1")
    assert done.returncode == 64
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in done.stderr.splitlines()[-1]
