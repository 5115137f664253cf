"""Slots: worker processes that each own a bench, and a main process that hands out and collects.

Processes, because what a slot does can be ended at any moment by a signal, and its machines with
it. The main process alone sees results, so that it alone writes the record.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from conformance import capacity
from conformance.engine import Progress, Setup, load_engine
from conformance.runner import Outcome
from conformance.task import Job, Slot, answer, answered, asked, broken
from conformance.waiting import Waiting

PATIENCE = 30
"""Seconds that a worker gets to close its machines after it was told to end."""


def slots_from(text: str) -> int:
    """The number of slots that ``-n`` asks for; ``auto`` is as many as this machine carries.

    Raises ValueError if it is neither ``auto`` nor a whole number from 1.
    """
    if text == "auto":
        return capacity.here()
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is neither auto nor a whole number from 1")
    return int(text)


def run_jobs(
    jobs: Sequence[Job],
    *,
    slots: int,
    setup: Setup,
    folder: Path,
    started: Callable[[Job], None],
    finished: Callable[[Job, Outcome], None],
    progress: Progress = lambda line: None,
) -> bool:
    """Run all jobs, in order, on ``slots`` workers; True if all were run.

    A job whose kernel a worker cannot open is for another one to try. Only when none can are all that are
    left of that kernel BROKEN. ``progress`` takes one line on what is not a variant.

    The callbacks are called in this process, one at a time, and are never interrupted. False if the
    run was ended by SIGINT or SIGTERM: nothing more is handed out, and the workers close their
    machines; a second signal kills the workers, and their machines die with them.
    """
    waiting = Waiting(jobs, slots)
    done: list[tuple[Job, Outcome]] = []
    workers: list[_Worker] = []
    begun: set[int] = set()
    refused: set[tuple[int, str]] = set()

    def begin(job: Job) -> None:
        if id(job) not in begun:
            begun.add(id(job))
            started(job)

    with catching() as signals:
        try:
            while True:
                gone = [worker for worker in workers if worker.is_gone]
                workers = [worker for worker in workers if not worker.is_gone]
                for worker in gone:
                    worker.end()
                given = []
                for number in _free(workers, slots):
                    if signals.count or (job := waiting.take(number)) is None:
                        continue
                    owner = next((one for one in workers if one.number == number), None)
                    if owner is None:
                        owner = _Worker.start(number, setup, folder)
                        workers.append(owner)
                    given.append(owner.give(job))
                # Only now, when every slot has work again: writing takes a moment.
                for job, outcome in done:
                    begin(job)
                    finished(job, outcome)
                for job in given:
                    begin(job)
                busy = [worker for worker in workers if worker.job is not None]
                if not busy or signals.count:
                    return not busy and not waiting
                ready = wait([signals.reader, *(worker.pipe for worker in busy)])
                done = []
                for worker in busy:
                    if worker.pipe not in ready:
                        continue
                    job, outcome = worker.take()
                    done += waiting.settle(worker.number, job, outcome)
                    if outcome.unopened and (worker.number, job.kernel) not in refused:
                        refused.add((worker.number, job.kernel))
                        why = "; ".join(outcome.verdict.reasons)
                        progress(
                            f"{job.kernel} cannot be opened in slot {worker.number + 1}: {why}"
                        )
        finally:
            _end(workers, signals)


def _free(workers: Sequence[_Worker], slots: int) -> list[int]:
    """The slots that have nothing to do; those with a worker first, since to start one takes a moment."""
    there = {worker.number: worker.job is None for worker in workers}
    idle = [number for number in there if there[number]]
    return [*idle, *(number for number in range(slots) if number not in there)]


@dataclass(kw_only=True)
class _Worker:
    """The main process's end of a worker."""

    number: int  # of its slot, from 0
    process: BaseProcess
    pipe: Connection
    job: Job | None = None
    is_gone: bool = False

    @classmethod
    def start(cls, number: int, setup: Setup, folder: Path) -> _Worker:
        # A fresh interpreter: no threads, locks or signal handlers of this one.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(setup, folder, theirs), daemon=True)
        # Ctrl-C reaches the whole process group. A child inherits the mask, and so do its machines:
        # the main process alone decides what ends. The tracker comes first, since starting it
        # unblocks SIGINT (ensure_running in multiprocessing/resource_tracker.py of Python 3.11).
        resource_tracker.ensure_running()
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        theirs.close()
        return cls(number=number, process=process, pipe=ours)

    def give(self, job: Job) -> Job:
        self.job = job
        with suppress(OSError):  # it has died; take() tells
            self.pipe.send_bytes(asked(job))
        return job

    def take(self) -> tuple[Job, Outcome]:
        job, self.job = self.job, None
        assert job is not None
        try:
            outcome = answered(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self.is_gone = True
            self.process.join(PATIENCE)
            outcome = broken(job, f"the worker process ended: {_how(self.process.exitcode)}")
        return job, outcome

    def end(self) -> None:
        self.pipe.close()
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"


def _end(workers: Sequence[_Worker], signals: Signals) -> None:
    """End all workers: those that wait see their pipe close, those at work get a signal."""
    for worker in workers:
        worker.pipe.close()
    busy = {worker.process for worker in workers if worker.job is not None}
    alive = [worker.process for worker in workers]
    rounds = 0
    while alive:
        for process in alive:
            if rounds >= PATIENCE or signals.count > 1:
                process.kill()
            elif process in busy:
                # Once more each second: a signal that comes just before a system call blocks is
                # only seen after it. A worker ignores all but the first.
                process.terminate()
        ready = wait([signals.reader, *(process.sentinel for process in alive)], 1.0)
        rounds += not ready
        signals.drain()
        alive = [process for process in alive if process.sentinel not in ready]
    for worker in workers:
        worker.process.join()  # its end is all but there; what it used is counted once it is reaped


@dataclass(kw_only=True)
class Signals:
    """SIGINT and SIGTERM as something to wait for, so that they never strike amid a write."""

    reader: int
    writer: int
    count: int = 0

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """A signal came. Called by Python, as a handler."""
        self.count += 1
        os.write(self.writer, b"!")

    def drain(self) -> None:
        """Take what ``reader`` has: the signals so far have been looked at."""
        with suppress(BlockingIOError):
            os.read(self.reader, 64)


@contextmanager
def catching() -> Iterator[Signals]:
    """Take SIGINT and SIGTERM as something to look at, until the end of the block."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    signals = Signals(reader=reader, writer=writer)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signals.note)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Have SIGTERM raise KeyboardInterrupt, as SIGINT does, wherever nobody is ``catching`` it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Ended(KeyboardInterrupt):
    """The main process told this worker to end. Of this kind, as asyncio keeps any other to itself that
    comes amid a callback.
    """


def _serve(setup: Setup, folder: Path, pipe: Connection) -> None:
    """A worker's life: jobs in, outcomes out, until the pipe closes or SIGTERM comes."""

    def end(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once only: closing is not to be cut short
        # An event loop that is broken off would tell at length what became of its tasks.
        logging.getLogger("asyncio").disabled = True
        raise _Ended

    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    slot: Slot | None = None
    try:
        slot = Slot(load_engine(setup), folder)
        while True:
            pipe.send_bytes(answer(pipe.recv_bytes(), slot))
    except (EOFError, OSError, _Ended):
        pass  # the main process has closed its end, or is gone
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if slot is not None:
            slot.close()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    while True:  # as ``_end`` does, and why
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.0)
