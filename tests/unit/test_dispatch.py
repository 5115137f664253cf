"""Who runs what: every variant is answered once, whatever becomes of the workers."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from conformance.cluster.dispatch import Dispatch, Ticket
from conformance.task import Job
from tests.support.results import variant


def jobs_of(count: int) -> list[Job]:
    return [Job(variant=variant(case=f"case_{at}"), kernel="k") for at in range(count)]


def given_to(dispatch: Dispatch, worker: str) -> Ticket:
    ticket = dispatch.give(worker)
    assert ticket is not None
    return ticket


def test_a_lost_worker_costs_nothing_but_time() -> None:
    dispatch = Dispatch(jobs_of(2))
    first = given_to(dispatch, "a")
    assert dispatch.lose(first) == ""
    again = given_to(dispatch, "b")
    assert (again.number, again.attempt, again.worker) == (first.number, 2, "b")
    assert dispatch.deliver(again)
    assert dispatch.deliver(given_to(dispatch, "b"))
    assert dispatch.left == 0
    assert dispatch.losses == [first]


def test_the_second_worker_is_the_last() -> None:
    dispatch = Dispatch(jobs_of(1))
    dispatch.lose(given_to(dispatch, "a"))
    told = dispatch.lose(given_to(dispatch, "b"))
    assert told == "2 workers were lost while they ran case_0: a, b"
    assert dispatch.left == 0
    assert dispatch.give("c") is None


def test_a_loss_is_counted_once() -> None:
    dispatch = Dispatch(jobs_of(1))
    ticket = given_to(dispatch, "a")
    dispatch.lose(ticket)
    assert dispatch.lose(ticket) == ""
    assert len(dispatch.losses) == 1
    assert dispatch.left == 1


def test_of_two_answers_the_first_counts() -> None:
    dispatch = Dispatch(jobs_of(1))
    late = given_to(dispatch, "a")
    dispatch.lose(late)
    second = given_to(dispatch, "b")
    assert dispatch.deliver(late)  # it had been cut off, not dead
    assert not dispatch.deliver(second)
    assert (dispatch.left, dispatch.doubles) == (0, 1)


def test_what_lacks_a_piece_has_not_been_tried() -> None:
    dispatch = Dispatch(jobs_of(1))
    dispatch.return_unrun(given_to(dispatch, "a"))
    again = given_to(dispatch, "a")
    assert again.attempt == 2
    assert again.key(dispatch.jobs[0], "r") == "case_0@k#2-r"
    assert dispatch.losses == []


def test_a_worker_lost_with_what_was_answered_meanwhile_answers_nothing() -> None:
    dispatch = Dispatch(jobs_of(1))
    first = given_to(dispatch, "a")
    assert not dispatch.lose(first)
    second = given_to(dispatch, "b")
    assert dispatch.deliver(first)
    assert not dispatch.lose(second)
    assert (dispatch.left, len(dispatch.losses)) == (0, 2)


def test_giving_up_answers_for_the_rest() -> None:
    dispatch = Dispatch(jobs_of(3))
    dispatch.deliver(given_to(dispatch, "a"))
    given_to(dispatch, "a")
    assert [job.variant.case for job in dispatch.forget()] == ["case_1", "case_2"]
    assert dispatch.left == 0


@given(st.integers(0, 12), st.integers(1, 5), st.randoms(use_true_random=False))
def test_every_variant_is_answered_once(count: int, workers: int, chance: random.Random) -> None:
    dispatch = Dispatch(jobs_of(count))
    answers = [0] * count
    late: list[Ticket] = []
    for turn in range(10_000):
        if not dispatch.left:
            break
        name = f"w{chance.randrange(workers)}-{turn if chance.random() < 0.1 else 0}"
        ticket = dispatch.on(name) or dispatch.give(name)
        if ticket is None:
            continue
        match chance.randrange(6):
            case 0:
                late.append(ticket)
                answers[ticket.number] += bool(dispatch.lose(ticket))
            case 1:
                dispatch.return_unrun(ticket)
            case 2 if late:
                ticket = late.pop()
                answers[ticket.number] += dispatch.deliver(ticket)
            case _:
                answers[ticket.number] += dispatch.deliver(ticket)
    assert answers == [1] * count
