"""Who runs what: the state of a run over workers that come, go and die. No I/O, no clock.

One variant at a time is at work on a worker, so that a worker's end points at one variant. A variant
that was on a worker when it was lost is run elsewhere; the second worker that it takes with it is
the last. Each handing out is a ticket of its own, and only the first answer to a variant counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from conformance.task import Job

FATAL = 2
"""So many workers lost under a variant make it BROKEN."""


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A variant handed out to a worker. Equal tickets are the same handing out."""

    number: int  # of the job
    attempt: int  # from 1
    worker: str

    def key(self, job: Job, run: str) -> str:
        """What the scheduler knows it by: unlike any other of this run, or of another."""
        again = f"!{job.attempt}" if job.attempt > 1 else ""
        return f"{job.variant.id}@{job.kernel}{again}#{self.attempt}-{run}"


class Dispatch:
    """The jobs of a run."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = tuple(jobs)
        self.losses: list[Ticket] = []
        """Every handing out whose worker was lost."""
        self.doubles = 0
        """Answers to what had been answered already."""
        self._waiting = deque(range(len(self.jobs)))
        self._running: dict[str, Ticket] = {}
        self._attempts = [0] * len(self.jobs)
        self._settled: set[int] = set()

    @property
    def left(self) -> int:
        """Jobs that have no answer yet."""
        return len(self.jobs) - len(self._settled)

    @property
    def busy(self) -> frozenset[str]:
        """The workers that have something to do."""
        return frozenset(self._running)

    def give(self, worker: str) -> Ticket | None:
        """The next job for a worker that has none; None if none is waiting."""
        assert worker not in self._running
        while self._waiting:
            number = self._waiting.popleft()
            if number not in self._settled:  # an answer came after all
                self._attempts[number] += 1
                ticket = Ticket(number=number, attempt=self._attempts[number], worker=worker)
                self._running[worker] = ticket
                return ticket
        return None

    def deliver(self, ticket: Ticket) -> bool:
        """An answer came; whether it is the first to its job, and counts."""
        self._off(ticket)
        if ticket.number in self._settled:
            self.doubles += 1
            return False
        self._settled.add(ticket.number)
        return True

    def return_unrun(self, ticket: Ticket) -> None:
        """It has to be given out again: its worker lacked something, or nobody will tell what came of it."""
        self._off(ticket)
        self._waiting.appendleft(ticket.number)

    def lose(self, ticket: Ticket) -> str:
        """The ticket's worker is gone. Nothing if the job is to run elsewhere, else why it is BROKEN.

        One that is taken back has no answer yet, and none is waited for.
        """
        if self._running.get(ticket.worker) != ticket:
            return ""  # known already
        self._off(ticket)
        self.losses.append(ticket)
        if ticket.number in self._settled:
            return ""  # an earlier handing out was answered after all
        workers = [loss.worker for loss in self.losses if loss.number == ticket.number]
        if len(workers) < FATAL:
            # At the front: a variant that takes workers with it is to be known early.
            self._waiting.appendleft(ticket.number)
            return ""
        self._settled.add(ticket.number)
        variant = self.jobs[ticket.number].variant.id
        return f"{len(workers)} workers were lost while they ran {variant}: {', '.join(workers)}"

    def on(self, worker: str) -> Ticket | None:
        """What is at work on a worker."""
        return self._running.get(worker)

    def forget(self) -> list[Job]:
        """Give up: the jobs that have no answer, which count as answered from now on."""
        rest = [number for number in range(len(self.jobs)) if number not in self._settled]
        self._settled.update(rest)
        self._running.clear()
        return [self.jobs[number] for number in rest]

    def _off(self, ticket: Ticket) -> None:
        if self._running.get(ticket.worker) == ticket:
            del self._running[ticket.worker]
