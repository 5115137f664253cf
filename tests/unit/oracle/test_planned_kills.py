"""Writers that are to be killed: what is said where that did not happen, or not when it was to.

A case that uses a device after a kill shows nothing if nobody was killed. By whom is no matter (NORMS, S4:
"by whatever means").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from conformance.model import BLOCK, Ended, InFlight, Kill, Op, Role, Status, Submit, Submitter
from conformance.oracle.answer import rig_reasons
from conformance.oracle.scene import scenes
from tests.support.builders import (
    ENOSPC,
    PID,
    Act,
    Story,
    closed,
    imposed,
    log,
    read,
    relieved,
    stored,
    synced,
    write,
    wrote,
)

ERROR, SYNC, BYTES = "first_error", "first_sync", 4 * BLOCK
KILLED, BUS, SEGV = Ended(signal=9), Ended(signal=7), Ended(signal=11)
FINE, STATUS = Ended(exit_code=0), Ended(exit_code=1)
IN_SYNC, IN_WRITE = InFlight("sync", 0, 0, 77), InFlight("write", 0, 8192, 77)
REFUSED = [*stored(0, 4), wrote(4, 2, ENOSPC)]
ALL = stored(0, 6)


def killing(
    after: Any,
    ops: Sequence[Op],
    ended: Ended = KILLED,
    *,
    submit: Submit = Submit.BUFFERED,
    **submitter: Any,
) -> Act:
    """A writer that is to be killed, what it did, and how it ended."""
    act = write("fill", Role.PROVOKE, (0, 6), ops, generation=2, submit=submit)
    assert isinstance(act.seen["submitter"], Submitter)
    seen = act.seen["submitter"].model_copy(update={"ended": ended, **submitter})
    step = act.step.model_copy(update={"kill": Kill(after=after)})
    return Act(step=step, seen={"submitter": seen})


def said(act: Act) -> list[str]:
    """What is said of such a step. A deviation that was proven stands: nothing of it is fatal."""
    tale = Story(acts=(imposed(), act, relieved()))
    (scene,) = scenes(tale.variant, tale.observation)
    found = list(rig_reasons(scene))
    assert not any(reason.fatal for reason in found)
    return [reason.text.removeprefix("arm main: step fill: ") for reason in found]


AT_ERROR = "the writer was to be killed at its first error, and "
IN_ITS_SYNC = "the writer was to be killed in its first sync, and "
AFTER_SO_MANY = "the writer was to be killed after 16 KiB, and "


@pytest.mark.parametrize(
    ("act", "wrong"),
    [
        (killing(ERROR, REFUSED, killed_by_rig=True), ""),
        (killing(BYTES, stored(0, 4), killed_by_rig=True), ""),
        (killing(SYNC, ALL, killed_by_rig=True, in_flight=IN_SYNC), ""),
        # Nobody killed it.
        (killing(ERROR, [*REFUSED, synced(), closed()], FINE), f"{AT_ERROR}ended by itself"),
        (killing(BYTES, [*REFUSED, closed()], STATUS), f"{AFTER_SO_MANY}ended by itself"),
        (killing(SYNC, [*ALL, synced(ENOSPC), closed()], FINE), f"{IN_ITS_SYNC}ended by itself"),
        (killing(ERROR, REFUSED, STATUS, killed_by_rig=True), f"{AT_ERROR}ended by itself"),
        (killing(ERROR, REFUSED, SEGV), f"{AT_ERROR}was ended by SIGSEGV"),
        # Somebody else did, and may have come before.
        (killing(BYTES, stored(0, 2), in_flight=IN_WRITE), ""),
        (killing(ERROR, stored(0, 2)), ""),
        (killing(SYNC, ALL, in_flight=IN_SYNC), ""),
        (killing(SYNC, stored(0, 4), in_flight=IN_WRITE), f"{IN_ITS_SYNC}was in none"),
        # A store into a mapping that failed.
        (killing(ERROR, stored(0, 4), BUS, submit=Submit.MMAP), ""),
        (
            killing(BYTES, stored(0, 2), BUS, submit=Submit.MMAP),
            f"{AFTER_SO_MANY}was ended by SIGBUS",
        ),
        (
            killing(SYNC, stored(0, 4), BUS, submit=Submit.MMAP, in_flight=IN_WRITE),
            f"{IN_ITS_SYNC}was ended by SIGBUS",
        ),
        # It had come too far.
        (
            killing(ERROR, [*REFUSED, synced(), closed()], killed_by_rig=True),
            f"{AT_ERROR}had closed the device by then",
        ),
        (
            killing(BYTES, [*ALL, synced(), closed()], killed_by_rig=True),
            f"{AFTER_SO_MANY}had closed the device by then",
        ),
        (killing(SYNC, ALL, killed_by_rig=True), f"{IN_ITS_SYNC}was in none"),
        (
            killing(SYNC, [*ALL, synced()], killed_by_rig=True, in_flight=IN_SYNC),
            f"{IN_ITS_SYNC}had come out of it by then",
        ),
        # It lives, or had to be ended: `bounded` says so.
        (killing(ERROR, REFUSED, Ended(killable=False)), ""),
        (killing(SYNC, ALL, Ended(signal=9, timed_out=True), in_flight=IN_WRITE), ""),
        # A record that has no field for it.
        (killing(SYNC, ALL, output="in flight: sync of 0 at 0 since 77 us"), ""),
        (
            killing(SYNC, ALL, output="x\nin flight: write of 8192 at 0 since 77 us"),
            f"{IN_ITS_SYNC}was in none",
        ),
    ],
)
def test_a_planned_kill_happens_and_at_its_moment(act: Act, wrong: str) -> None:
    assert said(act) == ([wrong] if wrong else [])


def test_who_is_not_to_be_killed_need_not_be() -> None:
    act = write("fill", Role.PROVOKE, (0, 6), [*ALL, synced(), closed()], generation=2)
    assert said(act) == []


TAKEN = "Memory cgroup out of memory: Killed process 200 (python3) total-vm:1kB"


def verdict(act: Act) -> tuple[Status, list[str]]:
    tale = Story(acts=(imposed(), act, read("look", "2222" + "." * 12), relieved()))
    judged = tale.verdict
    return judged.status, [f"{f.clause}:{f.signature}" for f in judged.deviations]


def test_without_its_kill_a_case_shows_nothing() -> None:
    unkilled = killing(ERROR, [*REFUSED, synced(), closed()], FINE)
    assert verdict(unkilled) == (Status.BROKEN, [])
    assert verdict(killing(ERROR, REFUSED, killed_by_rig=True)) == (Status.PASS, [])


def test_a_writer_that_outlives_its_kill_is_held_against_the_kernel() -> None:
    lives = killing(ERROR, REFUSED, Ended(killable=False, state="D"))
    assert verdict(lives) == (Status.FAIL, ["bounded:unkillable:write"])


@pytest.mark.parametrize("by_rig", [False, True])
def test_whom_the_oom_killer_took_first_the_rig_did_not_kill(*, by_rig: bool) -> None:
    """Its victim may take long to die, and be sent a second SIGKILL meanwhile."""
    act = killing(BYTES, stored(0, 4), killed_by_rig=by_rig)
    taken = act.watching(kernel_log=log(TAKEN), oom_kill=1)
    assert ("submitter_survives:killed-by-oom" in verdict(taken)[1]) is True
    assert act.seen["submitter"].pid == PID
    other = act.watching(kernel_log=log(TAKEN.replace("200", "201")))
    assert ("submitter_survives:signal-9" in verdict(other)[1]) is not by_rig
