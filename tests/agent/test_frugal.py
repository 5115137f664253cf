"""A frugal child that is to be killed at its mark: who killed it, and what if it was quick."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from agent import processes
from agent.processes import Child
from agent.workloads import frugal
from agent.workloads.frugal import Frugal, Results, Work

from conformance.model import Submitter

KINDS = ("write",)


def driven(
    work: Work, *, lived: Callable[[Frugal], None] | None = None, **how: Any
) -> tuple[Submitter, Frugal]:
    """A child that did this, as the host is told of it. ``lived`` comes once it was let go."""
    results = Results(4)
    run = frugal.start(lambda: work, results, lock_future=False)
    wait = run.child.wait

    def patient(limit: float, **rest: Any) -> int | None:
        if run.done in rest.get("also", ()) and lived is not None:
            lived(run)
        return wait(limit, **rest)

    run.child.wait = patient  # type: ignore[method-assign]
    try:
        run.drive(30, **how)
        return Submitter.model_validate(run.submitter("ledger", KINDS)), run
    finally:
        results.close()


def until_done(run: Frugal) -> None:
    """The parent looks late: the child has come to its mark, and is done."""
    assert frugal.sleep_on(run.done, 30_000)


def quick(tell: Callable[[], None]) -> None:
    tell()


def lingering(tell: Callable[[], None]) -> None:
    tell()
    while True:
        signal.pause()


def test_who_is_to_be_killed_is_killed_at_its_mark() -> None:
    seen, _ = driven(lingering, kill_at_mark=True)
    assert (seen.killed_by_rig, seen.ended.signal, seen.ended.timed_out) == (True, 9, False)


def test_who_is_to_be_killed_is_killed_although_it_was_done_before_anybody_looked() -> None:
    seen, _ = driven(quick, lived=until_done, kill_at_mark=True)
    assert (seen.killed_by_rig, seen.ended.signal) == (True, 9)


def test_who_is_done_has_nothing_taken_from_under_it() -> None:
    """A device is detached while the writer has it open, or not at all."""
    done: list[str] = []
    seen, _ = driven(quick, lived=until_done, at_mark=lambda: done.append("detached"))
    assert (seen.killed_by_rig, seen.ended.exit_code, done) == (False, 0, [])
    seen, _ = driven(quick, at_mark=lambda: done.append("detached"))
    assert (seen.killed_by_rig, seen.ended.exit_code) == (False, 0)


@pytest.mark.parametrize("by_signal", [True, False])
def test_who_ended_while_evidence_was_taken_was_not_killed_by_the_rig(
    monkeypatch: pytest.MonkeyPatch, *, by_signal: bool
) -> None:
    """The evidence comes first: it takes a while, and there is none of the dead."""
    gate = os.eventfd(0)

    def ending(tell: Callable[[], None]) -> None:
        tell()
        os.eventfd_read(gate)
        os._exit(70)

    def evidence(pid: int) -> tuple[str, str]:
        if by_signal:
            os.kill(pid, signal.SIGKILL)
        else:
            os.eventfd_write(gate, 1)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return "R", ""

    monkeypatch.setattr(processes, "evidence", evidence)
    seen, run = driven(ending, kill_at_mark=True)
    os.close(gate)
    assert (run.child.killed, seen.killed_by_rig) == (False, False)
    assert (seen.ended.exit_code, seen.ended.signal) == ((None, 9) if by_signal else (70, None))


def test_who_ended_otherwise_although_it_was_sent_sigkill_was_not_killed_by_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_late(fd: int, number: int) -> None:
        """It was as good as at its end."""
        assert number == signal.SIGKILL
        send(fd, signal.SIGTERM)

    send = signal.pidfd_send_signal
    monkeypatch.setattr(signal, "pidfd_send_signal", too_late)
    seen, run = driven(lingering, kill_at_mark=True)
    assert (run.child.killed, seen.killed_by_rig, seen.ended.signal) == (True, False, 15)


def test_a_process_gets_longer_to_die_on_a_slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    wait = Child.wait

    def noting(child: Child, limit: float, **options: Any) -> int | None:
        limits.append(limit)
        return wait(child, limit, **options)

    monkeypatch.setattr(processes, "UNKILLABLE", [])
    monkeypatch.setattr(Child, "kill_limit", 25.0)
    monkeypatch.setattr(Child, "wait", noting)
    assert Child.adopt(os.posix_spawn("/bin/sleep", ["sleep", "60"], {})).kill()
    assert limits == [25.0]
