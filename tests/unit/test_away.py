"""A run over a scheduler, by a client that is made up: workers without space, a connection that ends."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from distributed import Client

from conformance.cluster.client import Cargo, Place, Run
from conformance.engine import Parcel, Piece
from conformance.model import Status, Verdict
from conformance.runner import Outcome
from conformance.task import Job, told
from tests.support.results import variant

SHA256 = hashlib.sha256(b"piece").hexdigest()
PARCEL = Parcel(kernel="k", pieces=(Piece(name="piece", sha256=SHA256, size=5),))
JOBS = tuple(Job(variant=variant(case=f"case_{at}"), kernel="k") for at in range(8))


class Ended:
    """A future that has its answer, or was cancelled."""

    def __init__(self, answer: Mapping[str, Any] | None) -> None:
        self.status = "cancelled" if answer is None else "finished"
        self._answer = answer

    def result(self) -> Mapping[str, Any] | None:
        return self._answer

    def add_done_callback(self, call: Callable[[Ended], None]) -> None:
        call(self)

    def cancel(self) -> None:
        pass

    def release(self) -> None:
        pass


class Cluster:
    """What a client shows of a scheduler and its workers, each with a store of its own."""

    def __init__(self, *workers: str, full: str = "") -> None:
        self.status = "running"
        self.workers = workers
        self.full = full
        """The worker whose disk is full."""
        self.ran: list[str] = []
        self.has: set[str] = set()
        self.drops = 0
        """So many answers from now on are lost with the connection to the scheduler."""
        self.ends_after = len(JOBS)
        """The scheduler dies once so many were run."""
        self.looks = 30
        """So often is asked who is alive, at most: else a run has come to a stand."""
        self.forgets = False
        """Whether a worker's store is emptied after each variant."""

    def scheduler_info(self) -> dict[str, Any]:
        self.looks -= 1
        assert self.looks
        if self.status != "running":
            return {}
        alive = {"status": "running", "resources": {"vm": 1.0}}
        return {"workers": dict.fromkeys(self.workers, alive)}

    def submit(self, _: object, request: str, *, workers: list[str], **__: object) -> Ended:
        (worker,) = workers
        if worker not in self.has:
            return Ended({"lacks": [SHA256], "store": f"store of {worker}"})
        return Ended(self.answer(worker, json.loads(request)["task"]["case"]))

    def answer(self, worker: str, case: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if self.drops:
            self.drops -= 1
            return None
        if len(self.ran) == self.ends_after:
            self.status = "closed"
            return None
        self.ran.append(worker)
        if self.forgets:
            self.has.discard(worker)
        verdict = Verdict(case=case["case"], values={}, kernel="k", release="6", status=Status.PASS)
        outcome = Outcome(plan=None, observation=None, verdict=verdict)
        return {"outcome": told(outcome), "consoles": {}}

    def run(self, _: object, *, workers: list[str], data: bytes, **__: object) -> None:
        (worker,) = workers
        if worker == self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        assert data == b"piece"
        self.has.add(worker)


class Told:
    """A run of ``JOBS``, and all that it told."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        piece = folder / "piece"
        piece.write_bytes(b"piece")
        self.lines: list[str] = []
        self.verdicts: list[Verdict] = []
        ticks = itertools.count()
        self.run = Run(
            cast("Client", cluster),
            place=Place(address="tcp://h:1"),
            cargo=Cargo(parcels={"k": PARCEL}, pieces={SHA256: piece}),
            folder=folder,
            progress=self.lines.append,
            patience=1.0,
            clock=lambda: float(next(ticks)),
        )
        self.complete = self.run.jobs(
            JOBS,
            started=lambda _: None,
            finished=lambda _, outcome: self.verdicts.append(outcome.verdict),
        )
        assert len(self.verdicts) == len(JOBS)

    @property
    def reasons(self) -> set[tuple[str, ...]]:
        return {verdict.reasons for verdict in self.verdicts}


def test_a_worker_that_cannot_take_what_it_is_sent_gets_no_more_work(tmp_path: Path) -> None:
    cluster = Cluster("a", "b", full="a")
    done = Told(cluster, tmp_path)
    assert {verdict.status for verdict in done.verdicts} == {Status.PASS}
    assert cluster.ran == ["b"] * len(JOBS)
    why = "it cannot take what it is sent: OSError: [Errno 28] No space left on device"
    assert [line for line in done.lines if "gets no more work" in line] == [
        f"worker a: {why}; it gets no more work"
    ]
    assert done.run.toll.sent == {"store of b": 5}


def test_without_another_the_rest_is_broken_and_says_why(tmp_path: Path) -> None:
    done = Told(Cluster("a", full="a"), tmp_path)
    assert {verdict.status for verdict in done.verdicts} == {Status.BROKEN}
    ((reason,),) = done.reasons
    assert reason == (
        "no worker with vm for 1 s; worker a: "
        "it cannot take what it is sent: OSError: [Errno 28] No space left on device"
    )


def test_a_store_that_was_emptied_is_filled_again(tmp_path: Path) -> None:
    cluster = Cluster("a")
    cluster.forgets = True
    done = Told(cluster, tmp_path)
    assert {verdict.status for verdict in done.verdicts} == {Status.PASS}
    assert done.run.toll.sent == {"store of a": 5 * len(JOBS)}


def test_what_a_lost_connection_swallowed_is_run_again(tmp_path: Path) -> None:
    cluster = Cluster("a")
    cluster.drops = 3
    done = Told(cluster, tmp_path)
    assert {verdict.status for verdict in done.verdicts} == {Status.PASS}
    assert done.run.toll.lost == []


def test_without_a_scheduler_the_rest_is_broken_and_nobody_lost(tmp_path: Path) -> None:
    cluster = Cluster("a", "b")
    cluster.ends_after = 3
    done = Told(cluster, tmp_path)
    assert done.complete
    statuses = [verdict.status for verdict in done.verdicts]
    assert statuses == [Status.PASS] * 3 + [Status.BROKEN] * (len(JOBS) - 3)
    assert done.reasons == {(), ("the Dask scheduler is gone: tcp://h:1",)}
    assert done.run.toll.lost == []
    assert done.run.toll.workers == {"a", "b"}
