"""Which job a slot gets next, and what becomes of one whose kernel it could not open. No I/O, no clock."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from conformance.runner import Outcome
from conformance.task import TRIES, Job, broken


class Waiting:
    """The jobs of a run that no slot has, in order; slots are numbers from 0.

    A job whose kernel a slot could not open is for another one to try. That slot stands back while another
    has tried less often: it answers at once, and would else be the next that is free, again and again, and
    have what the others are there to run. It may try again once the kernel was opened elsewhere.
    """

    def __init__(self, jobs: Sequence[Job], slots: int) -> None:
        self._jobs = deque(jobs)
        self._slots = range(slots)
        self._refusals: dict[str, Counter[int]] = {job.kernel: Counter() for job in jobs}

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def take(self, slot: int) -> Job | None:
        """Take the first job that a slot is to have; None if it is to have none now."""
        for index, job in enumerate(self._jobs):
            if self._refusals[job.kernel][slot] <= self._least(job.kernel):
                del self._jobs[index]
                return job
        return None

    def settle(self, slot: int, job: Job, outcome: Outcome) -> list[tuple[Job, Outcome]]:
        """What is known for good now that a slot has answered: nothing, if the job is to be tried again.

        Once every slot has tried ``TRIES`` times, all jobs that are left of the kernel are BROKEN.
        """
        refusals = self._refusals[job.kernel]
        if not outcome.unopened:
            refusals.clear()
            return [(job, outcome)]
        refusals[slot] += 1
        self._jobs.appendleft(job)
        if self._least(job.kernel) < TRIES:
            return []
        lost = [one for one in self._jobs if one.kernel == job.kernel]
        self._jobs = deque(one for one in self._jobs if one.kernel != job.kernel)
        why = "; ".join(outcome.verdict.reasons)
        return [(one, broken(one, why, unopened=True)) for one in lost]

    def _least(self, kernel: str) -> int:
        return min(self._refusals[kernel][slot] for slot in self._slots)
