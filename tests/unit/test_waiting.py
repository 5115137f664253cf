"""A slot that cannot open a kernel leaves its jobs to the others, and only all of them together give up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conformance.model import Status
from conformance.runner import Outcome
from conformance.session import open_library
from conformance.task import TRIES, Job, broken
from conformance.waiting import Waiting

VARIANTS = open_library(()).variants[:20]
Opens = Callable[[int, str, int], bool]
"""Whether a slot opens a kernel, the so-manieth time that it tries."""


def jobs(*kernels: str) -> list[Job]:
    return [Job(variant=variant, kernel=kernel) for kernel in kernels for variant in VARIANTS]


def run(wanted: list[Job], slots: int, opens: Opens) -> tuple[list[tuple[Job, Outcome]], int]:
    """What became of the jobs, and how often a kernel was tried. A slot that cannot open answers at once;
    one that can has answered before the next round.
    """
    waiting = Waiting(wanted, slots)
    done: list[tuple[Job, Outcome]] = []
    tried: dict[tuple[int, str], int] = {}
    while waiting:
        taken = 0
        running = []
        for slot in range(slots):
            while (job := waiting.take(slot)) is not None:
                taken += 1
                count = tried[slot, job.kernel] = tried.get((slot, job.kernel), 0) + 1
                if opens(slot, job.kernel, count):
                    running.append((slot, job))
                    break
                done += waiting.settle(slot, job, broken(job, "no space", unopened=True))
        for slot, job in running:
            done += waiting.settle(slot, job, broken(job, "it was run"))
        assert taken, "nobody is to have what is waiting"
    return done, sum(tried.values())


def run_well(done: list[tuple[Job, Outcome]]) -> int:
    return sum(not outcome.unopened for _, outcome in done)


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_one_refusal_costs_no_job(slots: int) -> None:
    done, _ = run(jobs("k"), slots, lambda slot, _, count: slot > 0 or count > 1)
    assert run_well(done) == len(done) == len(VARIANTS)


def test_a_slot_that_never_opens_leaves_the_jobs_to_the_others() -> None:
    done, tried = run(jobs("k", "l"), 2, lambda slot, kernel, _: slot == 1 or kernel == "l")
    assert run_well(done) == len(done) == 2 * len(VARIANTS)
    assert tried <= 2 * len(done)


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_kernel_that_nobody_opens_is_given_up_after_a_few_tries(slots: int) -> None:
    wanted = jobs("bad", "good")
    done, tried = run(wanted, slots, lambda _, kernel, __: kernel == "good")
    assert sorted(map(id, (job for job, _ in done))) == sorted(map(id, wanted))
    assert run_well(done) == len(VARIANTS)
    assert tried == slots * TRIES + len(VARIANTS)
    for job, outcome in done:
        if job.kernel == "bad":
            assert outcome.verdict.status is Status.BROKEN
            assert outcome.verdict.reasons == ("no space",)


def test_the_order_is_kept() -> None:
    wanted = jobs("k")
    done, _ = run(wanted, 1, lambda _, __, count: count > 1)
    assert [id(job) for job, _ in done] == [id(job) for job in wanted]
