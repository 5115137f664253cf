"""The verdict: what makes it BROKEN, FAIL, RECORDED or PASS, what is told first, and what is noted.

A run is BROKEN where nothing can be said of the shortage: what is wrong was wrong before it, or lies with
what the case rests on. A deviation that was proven by then stands, unless nothing can be trusted.
"""

from __future__ import annotations

from importlib import import_module

import pytest

from conformance.model import (
    AnyStep,
    Blocked,
    Clause,
    Command,
    Ended,
    Level,
    Lost,
    Mount,
    Role,
    Status,
    Submit,
    TornDown,
    Unmount,
    Verdict,
)
from conformance.oracle import judge
from conformance.oracle.judge import judged_clauses
from tests.support.builders import (
    EIO,
    ENOSPC,
    Act,
    Story,
    calls,
    closed,
    imposed,
    log,
    read,
    reattached,
    relieved,
    stored,
    story,
    synced,
    told,
    write,
    wrote,
)

BROKEN, FAIL, PASS, RECORDED = Status.BROKEN, Status.FAIL, Status.PASS, Status.RECORDED
CONTROL, CONTROL_READ = story().act("control"), story().act("control_read")
FILL = story().act("fill")
TROUBLE = TornDown(problem="rmdir: busy")
UNTIDY = "arm main: tear-down: rmdir: busy"


def run(*during: Act, early: tuple[Act, ...] = (), after: tuple[Act, ...] = ()) -> Story:
    """A control, what comes before the shortage, ``fill`` and what comes then, relief, and after."""
    return Story(acts=(CONTROL, *early, imposed(), FILL, *during, relieved(), *after))


def ended(verdict: Verdict) -> tuple[Status, tuple[str, ...]]:
    return verdict.status, verdict.reasons


# -- the status -------------------------------------------------------------------------------------

LOSING = run(read("read_short", "2.2222........11"))
FOR_A_WHILE = run(read("read_short", "2.2222........11"), after=(read("look", "222222........11"),))
NO_CONTROL = LOSING.but(write("control", Role.CONTROL, (14, 16), [wrote(14, 2, EIO)], generation=1))
CONTROL_FAILED = "arm main: control step control: write(57344, 8192) = -1 EIO"
LOST = Lost(how="wire", step="relieve", title="garbage")
LOST_AT = "arm main: the guest was lost at relieve: wire: garbage"

STATUSES: dict[str, tuple[Story, Status, tuple[str, ...]]] = {
    "every clause holds": (run(), PASS, ()),
    "a recommendation does not hold": (FOR_A_WHILE, PASS, ()),
    "a clause does not hold": (LOSING, FAIL, ()),
    "the case makes no claim": (LOSING.with_(level=Level.SURVEY), RECORDED, ()),
    "the control failed": (NO_CONTROL, BROKEN, (CONTROL_FAILED,)),
    "something was left undone": (run().with_(torn_down=TROUBLE), BROKEN, (UNTIDY,)),
    "something was left undone after a recommendation did not hold": (
        FOR_A_WHILE.with_(torn_down=TROUBLE),
        BROKEN,
        (UNTIDY,),
    ),
    "something was left undone after a deviation": (
        LOSING.with_(torn_down=TROUBLE),
        FAIL,
        (UNTIDY,),
    ),
    "the guest was lost after a deviation": (LOSING.with_(lost=LOST), FAIL, (LOST_AT,)),
}


@pytest.mark.parametrize("name", STATUSES)
def test_the_verdict_when(name: str) -> None:
    tale, status, reasons = STATUSES[name]
    assert ended(tale.verdict) == (status, reasons)


def test_what_is_of_another_case_is_not_judged() -> None:
    seen = LOSING.observation.model_copy(update={"case": "another"})
    verdict = judge(LOSING.variant, seen)
    assert ended(verdict) == (BROKEN, ("the observation is of another variant",))
    assert verdict.findings == ()


def test_a_fault_of_the_judge_s_own_is_broken_and_stops_no_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(import_module("conformance.oracle.judge"), "CLAUSES", {})
    reason = "the judge itself failed: KeyError: <Clause.ERROR_SURFACED: 'error_surfaced'>"
    assert ended(LOSING.verdict) == (BROKEN, (reason,))


# -- what is judged ---------------------------------------------------------------------------------


def test_what_holds_for_every_case_is_judged_and_what_the_case_claims() -> None:
    claimed = judged_clauses(run().with_(clauses=(Clause.EQUIVALENT,)).variant)
    assert {clause.value for clause in claimed} == {
        "no_oom_kill",
        "submitter_survives",
        "bystanders_unharmed",
        "acknowledged_readable",
        "no_foreign_data",
        "bounded",
        "kernel_sound",
        "equivalent",
    }
    assert told(LOSING.with_(clauses=()).verdict) == {("must", "acknowledged_readable", "zeros")}


def test_deviations_are_told_before_recommendations_each_in_the_norm_s_order() -> None:
    ops = [*stored(0, 6), wrote(6, 2, EIO), synced(), closed()]
    fill = write("fill", Role.PROVOKE, (0, 12), ops, generation=2, submit=Submit.DIRECT)
    hangs = (Blocked(pid=50, comm="kworker/0:1"),)
    tale = run(read("read_short", "2.2222........11").watching(blocked=hangs))
    acts = tuple(
        act.watching(blocked=hangs) if act.step.name == "relieve" else act for act in tale.acts
    )
    verdict = tale.with_(acts=acts).but(fill).verdict
    assert [(f.level.value, f.clause.value) for f in verdict.findings] == [
        ("must", "error_surfaced"),
        ("must", "acknowledged_readable"),
        ("must", "bounded"),
        ("should", "errno_precise"),
    ]


def test_nobody_is_owed_a_report_where_nothing_was_lost() -> None:
    script = calls("lose", Role.PROVOKE, "open a; write a; fsync a", [0, 8192, 0], generation=3)
    tale = Story(acts=(CONTROL, imposed(), script, read("look", "33............11"), relieved()))
    nothing = "arm main: lose lost nothing, so that nobody was owed a report"
    assert ended(tale.with_(clauses=(Clause.REPORTED_ONCE,)).verdict) == (BROKEN, (nothing,))
    assert ended(tale.with_(clauses=()).verdict) == (PASS, ())


# -- what was wrong before anything was short -------------------------------------------------------

UNVERIFIED = "did not verify without a shortage"
LAST_BUT_ONE = "bytes 57344 to 61439 (4 KiB)"
EARLY: dict[str, tuple[Story, tuple[str, ...]]] = {
    "nothing": (run(early=(CONTROL_READ,)), ()),
    "what the control wrote is not there, block after block": (
        run(early=(read("control_read", "..", Role.CONTROL, first=14),)),
        (f"arm main: control_read: {LAST_BUT_ONE} {UNVERIFIED}",),
    ),
    "one block of it is not there": (
        run(early=(read("control_read", "1.", Role.CONTROL, first=14),)),
        (f"arm main: control_read: bytes 61440 to 65535 (4 KiB) {UNVERIFIED}",),
    ),
    "there is something where nobody wrote": (
        run(early=(read("control_read", "?.11", Role.CONTROL, first=12),)),
        (f"arm main: control_read: bytes 49152 to 53247 (4 KiB) {UNVERIFIED}",),
    ),
    "an observer finds it": (
        run(early=(read("look", ".1", first=14),)),
        (f"arm main: look: {LAST_BUT_ONE} {UNVERIFIED}",),
    ),
    "a control of what came of it finds it": (
        run(after=(read("control_read", ".1", Role.CONTROL, first=14),)),
        (f"arm main: control_read: {LAST_BUT_ONE} {UNVERIFIED}",),
    ),
    "it is found while the shortage lasts, and may be the shortage's": (
        run(read("look", "?1", first=13)),
        (),
    ),
    "the OOM killer was at work": (
        run(early=(CONTROL_READ.watching(oom_kill=1),)),
        ("arm main: the OOM killer was at work before the shortage was in force",),
    ),
    "the kernel reported a fault": (
        run(early=(CONTROL_READ.watching(kernel_log=log("BUG: scheduling while atomic")),)),
        (
            "arm main: before the shortage was in force the kernel said: "
            "BUG: scheduling while atomic",
        ),
    ),
}


@pytest.mark.parametrize("name", EARLY)
def test_before_the_shortage(name: str) -> None:
    tale, reasons = EARLY[name]
    verdict = tale.verdict
    assert verdict.reasons == reasons
    assert (verdict.status is BROKEN) == bool(reasons)


# -- steps that the rest of a case rests on ---------------------------------------------------------


def failing(step: AnyStep) -> Act:
    command = Command(argv=(step.verb, "/mnt"), ended=Ended(exit_code=32))
    return Act(step=step, seen={"commands": (command,)})


def mount(role: Role) -> Act:
    return failing(Mount(name="mount", role=role, verb="mount"))


UNMOUNT = failing(Unmount(name="unmount", role=Role.OBSERVE, verb="unmount"))
NOT_MOUNTED = "arm main: mount: mount /mnt failed"
OF_FILES = (Clause.FILESYSTEM_CONSISTENT,)
RESTS: dict[str, tuple[Story, tuple[Clause, ...], Status, tuple[str, ...]]] = {
    "a clause says so": (run(after=(reattached(1),)), (Clause.REUSABLE,), FAIL, ()),
    "no clause says so": (
        run(after=(reattached(1),)),
        OF_FILES,
        BROKEN,
        ("arm main: reattach: losetup -d /dev/loop0 failed",),
    ),
    "the step is not there to recover": (
        run(after=(mount(Role.OBSERVE),)),
        OF_FILES,
        FAIL,
        (NOT_MOUNTED,),
    ),
    "the step is not there to recover, and no clause says so": (
        run(after=(mount(Role.REUSE),)),
        (),
        BROKEN,
        (NOT_MOUNTED,),
    ),
    "the step is the rig's": (
        run(after=(mount(Role.SETUP),)),
        OF_FILES,
        BROKEN,
        ("arm main: setup step mount: mount failed: its process ended with status 32",),
    ),
    "nothing rests on the step": (run(after=(UNMOUNT,)), (), PASS, ()),
    "the shortage lasts": (run(mount(Role.OBSERVE)), OF_FILES, PASS, ()),
}


@pytest.mark.parametrize("name", RESTS)
def test_a_step_fails_and(name: str) -> None:
    tale, clauses, status, reasons = RESTS[name]
    assert ended(tale.with_(clauses=clauses).verdict) == (status, reasons)


# -- notes of surveys -------------------------------------------------------------------------------


def test_a_survey_notes_the_calls_of_the_shortage_and_what_each_clause_says() -> None:
    acts = (
        CONTROL,
        calls("early", Role.CONTROL, "open a; write a; fsync a", [0, 8192, 0], generation=3),
        imposed(),
        FILL,
        calls(
            "lose", Role.PROVOKE, "open a; write a; fsync a", [0, ENOSPC, EIO], generation=3
        ).watching(kernel_log=log("BUG: scheduling while atomic")),
        relieved(),
        calls("late", Role.RECOVER, "open a; write a; fsync a", [0, 8192, 0], generation=3),
    )
    tale = Story(acts=acts, clauses=())
    verdict = tale.with_(level=Level.SURVEY).verdict
    assert verdict.status is RECORDED
    assert verdict.notes == (
        "lose: open a = 0; write a = -1 ENOSPC; fsync a = -1 EIO",
        "kernel_sound: BUG: scheduling while atomic",
    )
    assert tale.verdict.notes == ()
