"""The client's side of a run over a Dask scheduler: hands out, collects, and notices who is gone.

Dask would move the variants of a lost worker by itself, but it also counts against a variant every
worker that was lost while the variant only waited there. So each is bound to one worker, one at a time,
and ``Dispatch`` decides what a loss means; the scheduler carries, and knows who is alive.
"""

from __future__ import annotations

import json
import logging
import queue
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import dask
from distributed import Client, Future, KilledWorker, LocalCluster
from distributed.client import ClosedClientError

from conformance.cluster import worker as on_worker
from conformance.cluster.dispatch import Dispatch, Ticket
from conformance.cluster.store import send
from conformance.engine import Engine, Parcel, Progress
from conformance.exits import Refused
from conformance.rundir import is_below, write_atomically
from conformance.runner import Outcome
from conformance.scheduler import catching
from conformance.task import Job, answered, asked, broken

LOCAL = "dask"
PATIENCE = 120.0
"""Seconds without any worker that can run a guest, until the run is given up."""
_LOOK = 1.0
"""Seconds between two looks at who is alive."""
_CONNECT = 20.0
"""Seconds in which a scheduler has to answer; after so many without one a client is closed for good."""
_SENDS = 3
"""Times in a row that a worker is sent what it lacks, before it gets no more work."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run goes: a scheduler's address, empty for workers on this machine; what they must have."""

    address: str
    needs: tuple[str, ...] = (on_worker.VM,)

    @classmethod
    def parse(cls, text: str) -> Place:
        """``dask``, ``dask://HOST:PORT`` or ``dask+tls://HOST:PORT``, with ``?needs=kvm,x86_64``.

        Raises Refused.
        """
        parts = urlsplit(text)
        schemes = {"dask": "tcp", "dask+tls": "tls"}
        query = parse_qs(parts.query)
        if text == LOCAL:
            return cls(address="")
        try:
            good = parts.scheme in schemes and parts.port and not query.keys() - {"needs"}
        except ValueError:
            good = False
        if not good or parts.path.strip("/"):
            raise Refused(f"--engine {text}: neither dask nor dask://HOST:PORT[?needs=TAG,...]")
        needs = [tag for part in query.get("needs", []) for tag in part.split(",")]
        return cls(
            address=f"{schemes[parts.scheme]}://{parts.netloc}", needs=(on_worker.VM, *needs)
        )


@contextmanager
def connected(place: Place, *, slots: int) -> Iterator[Client]:
    """A client of the scheduler, or of one with ``slots`` workers that is started here.

    Certificates come from Dask's own configuration. Raises Refused.
    """
    # A lost worker is our business to tell of, in one line.
    with dask.config.set({"distributed.logging": {"distributed": "critical"}}):
        try:
            where: str | LocalCluster = place.address or LocalCluster(
                n_workers=slots,
                threads_per_worker=1,
                resources=on_worker.tags(),
                memory_limit=0,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
            client = Client(where, timeout=_CONNECT, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise Refused(f"no Dask scheduler answers at {place.address}: {error}") from error
        try:
            with client:
                yield client
        finally:
            if isinstance(where, LocalCluster):
                where.close()


@dataclass(frozen=True, kw_only=True)
class Cargo:
    """The kernels of a run as they travel: each one's parcel, and where the pieces are."""

    parcels: Mapping[str, Parcel]
    pieces: Mapping[str, Path]


@dataclass(kw_only=True)
class Toll:
    """What it took: told at the end, and kept beside the record as cluster.json."""

    workers: set[str] = field(default_factory=set)
    sent: dict[str, int] = field(default_factory=dict)  # bytes, to each store
    lost: list[dict[str, str]] = field(default_factory=list)
    doubles: int = 0

    def write(self, path: Path) -> None:
        """Keep it. Raises OSError."""
        told = {
            "workers": sorted(self.workers),
            "sent_bytes": self.sent,
            "lost": self.lost,
            "answered_twice": self.doubles,
        }
        write_atomically(path, json.dumps(told, indent=1) + "\n")


class Run:
    """A run over the workers of a client's scheduler."""

    def __init__(
        self,
        client: Client,
        *,
        place: Place,
        cargo: Cargo,
        folder: Path,
        progress: Progress,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``folder``: where the consoles go. ``progress`` takes one line on what is not a variant."""
        self._client = client
        self._place = place
        self._cargo = cargo
        self._folder = folder
        self._progress = progress
        self._patience = patience
        self._clock = clock
        self._run = secrets.token_hex(4)
        self._inbox: queue.SimpleQueue[tuple[Ticket, Future[Any]]] = queue.SimpleQueue()
        self._futures: dict[Ticket, Future[Any]] = {}
        self._sent: dict[str, set[str]] = {}
        self._lacking: dict[str, list[str]] = {}  # what each sending in a row came to
        self._aside: dict[str, str] = {}  # why a worker gets no more work
        self.toll = Toll()

    def jobs(
        self,
        jobs: Sequence[Job],
        *,
        started: Callable[[Job], None],
        finished: Callable[[Job, Outcome], None],
    ) -> bool:
        """Run all jobs, in order, on the workers that are there; True if all were run.

        See ``scheduler.run_jobs``. False after a signal: what runs on another machine comes to its end
        there, and nobody takes its answer.
        """
        dispatch = Dispatch(jobs)
        alive: frozenset[str] = frozenset()
        looked = seen = self._clock()
        first = True
        with catching() as signals:
            while dispatch.left and not signals.count:
                if first or self._clock() - looked >= _LOOK:
                    first, looked = False, self._clock()
                    alive = self._look(dispatch, finished)
                if able := alive.difference(self._aside):
                    seen = looked
                if reason := self._hopeless(self._clock() - seen):
                    for job in dispatch.forget():
                        finished(job, broken(job, reason))
                    break
                for name in sorted(able - dispatch.busy):
                    ticket = dispatch.give(name)
                    if ticket is None:
                        break
                    self._submit(dispatch, ticket)
                    if ticket.attempt == 1:
                        started(dispatch.jobs[ticket.number])
                try:
                    ticket, future = self._inbox.get(timeout=_LOOK)
                except queue.Empty:
                    continue
                self._take(dispatch, ticket, future, finished)
            for future in self._futures.values():
                _take_back(future)
        self.toll.doubles = dispatch.doubles
        return not dispatch.left

    def _look(self, dispatch: Dispatch, finished: Callable[[Job, Outcome], None]) -> frozenset[str]:
        """The workers that are alive; what was at work on others is lost with them.

        None while there is no scheduler to ask, and none of them is lost for that.
        """
        connected = self._client.status == "running"
        workers = self._client.scheduler_info().get("workers", {}) if connected else {}
        if self._client.status != "running":
            return frozenset()
        alive = frozenset(
            name
            for name, about in workers.items()
            if about["status"] == "running" and set(self._place.needs) <= set(about["resources"])
        )
        self.toll.workers |= alive
        for gone in dispatch.busy - alive:
            self._lost(dispatch, dispatch.on(gone), finished)
        return alive

    def _hopeless(self, alone: float) -> str:
        """Why nothing more will be run; nothing if it may. ``alone``: seconds without any worker."""
        if self._client.status == "closed":
            return f"the Dask scheduler is gone: {self._place.address}"
        if alone <= self._patience:
            return ""
        reason = f"no worker with {', '.join(self._place.needs)} for {self._patience:.0f} s"
        return "; ".join([reason, *list(self._aside.values())[-1:]])

    def _submit(self, dispatch: Dispatch, ticket: Ticket) -> None:
        job = dispatch.jobs[ticket.number]
        parcel = self._cargo.parcels[job.kernel]
        request = {"parcel": parcel.model_dump(mode="json"), "task": json.loads(asked(job))}
        future = self._client.submit(
            on_worker.attempt,
            json.dumps(request),
            key=ticket.key(job, self._run),
            workers=[ticket.worker],
            allow_other_workers=False,
            resources=dict.fromkeys(self._place.needs, 1),
            pure=False,
            retries=0,
        )
        self._futures[ticket] = future
        future.add_done_callback(lambda done: self._inbox.put((ticket, done)))

    def _lost(
        self,
        dispatch: Dispatch,
        ticket: Ticket | None,
        finished: Callable[[Job, Outcome], None],
    ) -> None:
        if ticket is None:
            return
        job = dispatch.jobs[ticket.number]
        if future := self._futures.pop(ticket, None):
            _take_back(future)
        before = len(dispatch.losses)
        reason = dispatch.lose(ticket)
        if len(dispatch.losses) == before:
            return
        self.toll.lost.append(
            {"worker": ticket.worker, "variant": job.variant.id, "kernel": job.kernel}
        )
        self._progress(f"worker {ticket.worker} was lost with {job.variant.id}")
        if reason:
            finished(job, broken(job, reason))

    def _take(
        self,
        dispatch: Dispatch,
        ticket: Ticket,
        future: Future[Any],
        finished: Callable[[Job, Outcome], None],
    ) -> None:
        if future.status == "cancelled" and ticket in self._futures:
            # Not by us: the scheduler was lost, and what came of it there nobody will tell.
            del self._futures[ticket]
            dispatch.return_unrun(ticket)
        if future.status not in ("finished", "error"):
            return  # taken back when its worker was lost
        job = dispatch.jobs[ticket.number]
        try:
            answer: Mapping[str, Any] = future.result()
        except KilledWorker:
            self._lost(dispatch, ticket, finished)
            return
        except CancelledError:  # the scheduler was lost just now
            dispatch.return_unrun(ticket)
            return
        except Exception as error:  # noqa: BLE001 - whatever it was, over there
            answer = {"failed": f"{type(error).__name__}: {error}"}
        finally:
            self._futures.pop(ticket, None)
            future.release()
        if "lacks" in answer:
            self._supply(ticket.worker, answer["store"], answer["lacks"])
            dispatch.return_unrun(ticket)
            return
        self._lacking.pop(ticket.worker, None)
        if not dispatch.deliver(ticket):
            return
        if "outcome" not in answer:
            finished(job, broken(job, f"worker {ticket.worker}: {answer['failed']}"))
            return
        self._keep(answer["consoles"])
        finished(job, answered(answer["outcome"]))

    def _supply(self, worker: str, store: str, lacks: Sequence[str]) -> None:
        """Send what a store lacks, or set the worker aside if that has not helped ``_SENDS`` times."""
        tries = self._lacking.setdefault(worker, [])
        if len(tries) == _SENDS:
            self._aside[worker] = f"worker {worker}: {tries[-1]}"
            self._progress(f"{self._aside[worker]}; it gets no more work")
            return
        had = self._sent.setdefault(store, set())
        if tries:
            had.difference_update(lacks)
        # What its neighbour was sent meanwhile need not be sent again, only looked for again.
        why = "it lacks what it was sent"
        try:
            for sha256 in lacks:
                if sha256 not in had:
                    self._send(worker, store, sha256)
                    had.add(sha256)
        except Exception as error:  # noqa: BLE001 - whatever it was, over there or on the way
            why = f"it cannot take what it is sent: {type(error).__name__}: {error}"
        tries.append(why)

    def _send(self, name: str, store: str, sha256: str) -> None:
        """Send a piece. Raises what the worker raises, and OSError if it cannot be reached."""
        path = self._cargo.pieces[sha256]
        self._progress(f"sending {path.name} ({path.stat().st_size >> 20} MiB) to {store}")
        sending = secrets.token_hex(8)

        def put(data: bytes, last: bool) -> None:
            self._client.run(
                on_worker.receive,
                workers=[name],
                sending=sending,
                sha256=sha256,
                data=data,
                last=last,
            )

        self.toll.sent[store] = self.toll.sent.get(store, 0) + send(path, put)

    def _keep(self, consoles: Mapping[str, bytes]) -> None:
        for name, data in consoles.items():
            if not is_below(name):
                continue
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def _take_back(future: Future[Any]) -> None:
    """Nobody waits for it any more."""
    with suppress(ClosedClientError):  # then all have been taken back
        future.cancel()


def run_away(
    place: Place,
    jobs: Sequence[Job],
    *,
    engine: Engine,
    slots: int,
    folder: Path,
    progress: Progress,
    started: Callable[[Job], None],
    finished: Callable[[Job, Outcome], None],
) -> bool:
    """Run jobs on the workers of ``place``; True if all were run. Raises Refused, OSError."""
    parcels: dict[str, Parcel] = {}
    pieces: dict[str, Path] = {}
    for kernel in dict.fromkeys(job.kernel for job in jobs):
        parcels[kernel], some = engine.pack(kernel, progress)
        pieces.update(some)
    with connected(place, slots=slots) as client:
        cargo = Cargo(parcels=parcels, pieces=pieces)
        run = Run(client, place=place, cargo=cargo, folder=folder, progress=progress)
        try:
            complete = run.jobs(jobs, started=started, finished=finished)
        finally:
            run.toll.write(folder / "cluster.json")
    if run.toll.lost:
        progress(f"{len(run.toll.lost)} times a worker was lost; what it ran was run elsewhere")
    return complete
