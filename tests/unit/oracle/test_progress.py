"""Time and sameness: what is over its limit, what must have waited, whom a shortage slows, what is alike.

The expectations are those of NORMS, S10, S13 and S14: blocking is right only while it can resolve the
shortage, one cgroup at its limit does not slow another's I/O, and one cause is answered as another is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from conformance.model import (
    BLOCK,
    Blocked,
    Bystander,
    BystanderState,
    Clause,
    Command,
    Ended,
    IoError,
    IoWrong,
    Lost,
    Memcg,
    Reading,
    Role,
    Submit,
    TornDown,
)
from tests.support.builders import (
    EIO,
    ENOSPC,
    SPACE,
    Act,
    Story,
    closed,
    imposed,
    log,
    ran,
    read,
    reattached,
    relieved,
    stored,
    synced,
    write,
    wrote,
)
from tests.support.trials import found

EPERM = -1
CONTROL = write("control", Role.CONTROL, (14, 16), [*stored(14, 16), synced()], generation=1)
REFUSED = [*stored(0, 6), wrote(6, 2, ENOSPC), synced(), closed()]
FILL = write("fill", Role.PROVOKE, (0, 8), REFUSED, generation=2)
FILLED = write("fill", Role.PROVOKE, (0, 8), [*stored(0, 8), synced()], generation=2)
NEXT = write("next", Role.REUSE, (0, 2), [*stored(0, 2), synced()], generation=3)
LIMITED = Memcg(kind="memcg", cgroup="limited", limit=SPACE * BLOCK)


def short(*acts: Act, control: Act = CONTROL, after: Sequence[Act] = (), **more: Any) -> Story:
    """Some acts while the device is short of space."""
    return Story(acts=(control, imposed(), *acts, relieved(), *after), **more)


# -- what does not end within its limit -------------------------------------------------------------

Late = tuple[str, str, str, tuple[str, ...]]
LATE = "did not end within its limit"


def too_long(act: Act, **how: Any) -> Act:
    return act.ended(timed_out=True, **how)


def commanding(act: Act, name: str) -> Act:
    """The act's step had a command that ran over its limit."""
    command = Command(argv=(f"/usr/sbin/{name}", "-d"), ended=Ended(timed_out=True))
    return replace(act, seen={**act.seen, "commands": (command,)})


def ran_over(name: str, **how: Any) -> TornDown:
    """Tear-down had a command that had to be ended."""
    end = Ended(**{"timed_out": True, **how})
    return TornDown(commands=(Command(argv=(f"/usr/bin/{name}", "x"), ended=end),))


def hung(how: Any, *, title: str = "no answer", **evidence: str) -> Lost:
    return Lost(how=how, step="next", title=title, evidence=evidence)


RUN = ran("dd", Role.PROVOKE, ["dd", "of={device}"])
OVER: dict[str, tuple[Story, list[Late]]] = {
    "nothing": (short(FILL), []),
    "a writer": (
        short(too_long(FILL, signal=9, state="D", stack="io_schedule")),
        [
            (
                "timed-out:write",
                f"the submitter in step fill {LATE}",
                "fill",
                ("state D", "io_schedule"),
            )
        ],
    ),
    "a writer that SIGKILL does not end": (
        short(too_long(FILL, killable=False)),
        [("unkillable:write", f"the submitter in step fill {LATE}, nor by SIGKILL", "fill", ())],
    ),
    "a writer that is in a sync": (
        short(too_long(FILL.in_a("sync"))),
        [
            (
                "timed-out:write",
                f"the submitter in step fill {LATE}: sync() had not returned",
                "fill",
                (),
            )
        ],
    ),
    "a writer in a write that SIGKILL does not end": (
        short(too_long(FILL.in_a("write", 4096, 8192), killable=False)),
        [
            (
                "unkillable:write",
                f"the submitter in step fill {LATE}, nor by SIGKILL: write(4096, 8192) had not returned",
                "fill",
                (),
            )
        ],
    ),
    "two writers, of whom the first is told of": (
        short(too_long(FILL), too_long(NEXT)),
        [("timed-out:write", f"the submitter in step fill {LATE}", "fill", ())],
    ),
    "a command of the rig": (
        short(FILL, after=[commanding(reattached(), "losetup")]),
        [("timed-out:losetup", f"losetup in step reattach {LATE}", "reattach", ())],
    ),
    "a command of tear-down": (
        short(FILL, torn_down=ran_over("umount", signal=9, state="D", stack="io_schedule")),
        [
            (
                "timed-out:umount",
                f"umount in tear-down {LATE}",
                "teardown",
                ("state D", "io_schedule"),
            )
        ],
    ),
    "a command of tear-down that SIGKILL does not end": (
        short(FILL, torn_down=ran_over("dmsetup", killable=False)),
        [("unkillable:dmsetup", f"dmsetup in tear-down {LATE}, nor by SIGKILL", "teardown", ())],
    ),
    "a command of tear-down that was in time": (
        short(FILL, torn_down=ran_over("umount", timed_out=False, exit_code=32)),
        [],
    ),
    "a command of a step and of tear-down, of which the first is told of": (
        short(FILL, after=[commanding(reattached(), "losetup")], torn_down=ran_over("losetup")),
        [("timed-out:losetup", f"losetup in step reattach {LATE}", "reattach", ())],
    ),
    "a command of tear-down before the shortage": (
        Story(acts=(CONTROL,), torn_down=ran_over("umount")),
        [],
    ),
    "a command of the case, which is the submitter": (
        short(too_long(commanding(RUN, "dd"))),
        [("timed-out:run", f"the submitter in step dd {LATE}", "dd", ())],
    ),
    "the control, which the rig answers for": (short(FILL, control=too_long(CONTROL)), []),
    "an observer before the shortage": (
        short(FILL, control=too_long(ran("look", Role.OBSERVE, ["ls"]))),
        [("timed-out:run", f"the submitter in step look {LATE}", "look", ())],
    ),
    "what sets up during the shortage": (
        short(too_long(ran("prepare", Role.SETUP, ["true"]))),
        [("timed-out:run", f"the submitter in step prepare {LATE}", "prepare", ())],
    ),
    "the guest itself": (
        short(FILL, lost=hung("hung", title="timeout", console="x" * 2001, stacks="y")),
        [
            (
                "guest-hung",
                "the guest answered no more at next: timeout",
                "next",
                (f"console: {'x' * 2000}", "stacks: y"),
            )
        ],
    ),
    "a guest before the shortage": (Story(acts=(CONTROL,), lost=hung("hung")), []),
    "a guest that panicked, which is another clause's": (short(FILL, lost=hung("panicked")), []),
}


@pytest.mark.parametrize("name", OVER)
def test_over_its_limit_is(name: str) -> None:
    tale, wanted = OVER[name]
    told = found(Clause.BOUNDED, tale)
    assert [(f.signature, f.observed, f.step, f.evidence) for f in told] == wanted
    assert {f.expected for f in told} <= {
        "every operation, kill, unmount and detach ends within its limit"
    }


NEIGHBOUR = Bystander(name="neighbour", cgroup="other")
"""Whose process id is 300."""
STUCK: dict[str, tuple[Mapping[str, int], list[str]]] = {
    "at two looks in a row": ({"fill": 50, "next": 50}, ["fill"]),
    "at one look and not at the next": ({"fill": 50}, []),
    "at the last look but one, and not at the last": ({"next": 50}, []),
    "at the last two looks": ({"next": 50, "relieve": 50}, ["next"]),
    "at the last look, after which nobody looks": ({"relieve": 50}, ["relieve"]),
    "at every other look": ({"fill": 50, "relieve": 50}, ["relieve"]),
    "at two looks, but another task of its name": ({"fill": 50, "next": 51}, []),
    "before the shortage alone": ({"control": 50, "impose": 50}, []),
    "at the last look, and is a bystander": ({"relieve": 300}, []),
    "at one look, and is a bystander": ({"fill": 300}, []),
}


@pytest.mark.parametrize("name", STUCK)
def test_a_task_sleeps_uninterruptibly(name: str) -> None:
    at, wanted = STUCK[name]
    tale = short(FILL, NEXT, bystanders=(NEIGHBOUR,))
    acts = [
        act.watching(blocked=(Blocked(pid=at[act.step.name], comm="kworker/u2:1", stack="f"),))
        if act.step.name in at
        else act
        for act in tale.acts
    ]
    told = found(Clause.BOUNDED, tale.with_(acts=tuple(acts)))
    assert [f.step for f in told] == wanted
    for one in told:
        assert one.signature == "blocked:kworker"
        assert one.observed == "kworker/u2:1 (pid 50) stays in uninterruptible sleep"
        assert one.evidence == ("f",)


NEAR = (NEIGHBOUR,)
Fares = dict[str, Any]
ERROR, WRONG = IoError("read", 0, 5, 1), IoWrong("data", 0, 4096, 1)
ASLEEP: dict[str, tuple[Fares | None, Fares | None, bool]] = {
    "who does no I/O": ({}, {}, True),
    "in an operation of five seconds": (
        {"io_done": 7, "io_stall_us": 1},
        {"io_done": 7, "io_stall_us": 5_000_000},
        True,
    ),
    "in one that is not slow yet": (
        {"io_done": 7},
        {"io_done": 7, "io_stall_us": 4_999_999},
        False,
    ),
    "in one that has just begun": ({"io_done": 7}, {"io_done": 7, "io_stall_us": 1}, False),
    "in another operation than before": (
        {"io_done": 7, "io_stall_us": 9_000_000},
        {"io_done": 8, "io_stall_us": 9_000_000},
        False,
    ),
    "in another, after one that failed": (
        {"io_stall_us": 9_000_000},
        {"io_errors": (ERROR,), "io_stall_us": 9_000_000},
        False,
    ),
    "in another, after one that went wrong": (
        {"io_stall_us": 9_000_000},
        {"io_wrong": (WRONG,), "io_stall_us": 9_000_000},
        False,
    ),
    "in an earlier one, so that it is another process": (
        {"io_done": 8, "io_stall_us": 9_000_000},
        {"io_done": 7, "io_stall_us": 9_000_000},
        False,
    ),
    "of whom nothing is known any more": ({"io_stall_us": 9_000_000}, None, False),
    "of whom nothing was known": (None, {"io_stall_us": 9_000_000}, False),
}


@pytest.mark.parametrize("name", ASLEEP)
def test_a_bystander_sleeps_at_two_looks(name: str) -> None:
    before, after, stuck = ASLEEP[name]

    def asleep(act: Act, fares: Fares | None) -> Act:
        one = BystanderState(name="neighbour", pid=300, cgroup="other", alive=True, **(fares or {}))
        others = tuple(
            one.model_copy(update={"name": f"n{pid}", "pid": pid, "io_done": act is FILL})
            for pid in (299, 301)
        )
        return act.watching(
            blocked=(Blocked(pid=300, comm="python3", stack="f"),),
            bystanders=others if fares is None else (*others, one),
        )

    told = found(Clause.BOUNDED, short(asleep(FILL, before), asleep(NEXT, after), bystanders=NEAR))
    said = "bystander neighbour (pid 300) stays in uninterruptible sleep"
    wanted = [("blocked:neighbour", said, "fill", ("f",))] if stuck else []
    assert [(f.signature, f.observed, f.step, f.evidence) for f in told] == wanted


def test_who_sleeps_beside_a_bystander_that_goes_on_is_told_of() -> None:
    asleep = tuple(Blocked(pid=pid, comm="kworker/u2:1", stack="") for pid in (300, 50))
    acts = (
        act.watching(blocked=asleep, bystanders=(neighbour,))
        for act, neighbour in zip(
            (FILL, NEXT),
            (
                BystanderState(name="neighbour", pid=300, cgroup="other", alive=True, io_done=done)
                for done in (7, 8)
            ),
            strict=True,
        )
    )
    told = found(Clause.BOUNDED, short(*acts, bystanders=NEAR))
    assert [(f.signature, f.step) for f in told] == [("blocked:kworker", "fill")]


DOWN: dict[str, tuple[tuple[int, int, int | None], list[str]]] = {
    "from before tear-down on": ((0, 50, 50), ["teardown"]),
    "from the last step on": ((50, 50, 50), ["relieve"]),
    "since the layers went down": ((0, 0, 50), ["torn-down"]),
    "before tear-down, and not when all is down": ((0, 50, 0), []),
    "before tear-down, and another when all is down": ((0, 50, 51), ["torn-down"]),
    "at the last look of an agent that looks but once": ((0, 50, None), ["teardown"]),
    "as long as a bystander, of whom what is left tells": ((0, 0, 300), []),
}


@pytest.mark.parametrize("name", DOWN)
def test_a_task_sleeps_uninterruptibly_as_the_rig_is_taken_down(name: str) -> None:
    (step, before, after), wanted = DOWN[name]

    def asleep(pid: int) -> tuple[Blocked, ...]:
        return (Blocked(pid=pid, comm="kworker/u2:1", stack="f"),) if pid else ()

    tale = short(FILL, bystanders=(NEIGHBOUR,))
    tale = tale.but(tale.act("relieve").watching(blocked=asleep(step)))
    last = tale.observation.arms[0].steps[-1].watch
    down = TornDown(
        watch=last.model_copy(update={"blocked": asleep(before)}),
        after=None
        if after is None
        else last.model_copy(update={"blocked": asleep(after), "bystanders": ()}),
    )
    assert [f.step for f in found(Clause.BOUNDED, tale.with_(torn_down=down))] == wanted


# -- what could have waited for room ----------------------------------------------------------------

NOT_PERMITTED = [*stored(0, 2), wrote(2, 2, EPERM), synced(), closed()]
WAITED: dict[str, tuple[Story, list[tuple[str, str, tuple[str, ...]]]]] = {
    "and succeeds": (short(FILLED), []),
    "and is refused": (
        short(FILL),
        [
            (
                "main:error",
                "fill was told of an error, although room could be made",
                ("write(24576, 8192) = -1 ENOSPC",),
            )
        ],
    ),
    "and is refused with the first errno of all": (
        short(write("fill", Role.PROVOKE, (0, 8), NOT_PERMITTED, generation=2)),
        [
            (
                "main:error",
                "fill was told of an error, although room could be made",
                ("write(8192, 8192) = -1 EPERM",),
            )
        ],
    ),
    "and is killed": (
        short(FILLED.ended(signal=9)),
        [("main:kill", "fill was killed, although room could be made", ())],
    ),
    "and waits for ever": (
        short(too_long(FILLED)),
        [("main:blocked", f"fill {LATE}", ())],
    ),
    "and is refused, when there is room again": (
        short(FILLED, after=[write("later", Role.PROVOKE, (0, 8), REFUSED, generation=3)]),
        [],
    ),
    "and is refused, where nothing was to be provoked": (
        short(FILLED, write("next", Role.REUSE, (0, 8), REFUSED, generation=3)),
        [],
    ),
}


@pytest.mark.parametrize("name", WAITED)
def test_a_write_waits_for_room(name: str) -> None:
    tale, wanted = WAITED[name]
    told = found(Clause.RESOLVED_BY_WAITING, tale)
    assert [(f.signature, f.observed, f.evidence) for f in told] == wanted
    assert {f.step for f in told} <= {"fill"}
    assert {f.expected for f in told} <= {"the write waits until there is room again, and succeeds"}


# -- who is slowed ----------------------------------------------------------------------------------

BEFORE = ("control", "impose")
LIMITED_READER = Bystander(name="reader", cgroup="limited/below")
BOTH = (LIMITED_READER, NEIGHBOUR)


def slowed(
    before: Mapping[str, int], then: Mapping[str, int], *steps: str, **more: Any
) -> list[tuple[str, str, str]]:
    """What is said of bystanders whose longest operation took so long before the shortage, and then
    so long after some steps; microseconds.
    """
    tale = short(FILL, NEXT, after=[NEXT_AGAIN], **{"bystanders": (NEIGHBOUR,), **more})

    def watched(act: Act) -> Act:
        took = then if act.step.name in steps else before
        return act.watching(
            bystanders=tuple(
                BystanderState(
                    name=one.name,
                    pid=300,
                    cgroup=one.cgroup,
                    alive=True,
                    io_stall_us=took.get(one.name, 0),
                )
                for one in tale.bystanders
            )
        )

    told = found(
        Clause.INDEPENDENT_PROGRESS, tale.with_(acts=tuple(watched(act) for act in tale.acts))
    )
    assert {f.expected for f in told} <= {"the I/O of who is not short goes on about as before"}
    return [(f.signature, f.observed, f.step) for f in told]


NEXT_AGAIN = write("again", Role.RECOVER, (0, 2), [*stored(0, 2), synced()], generation=4)
SLOWED = "io-slowed:neighbour"


@pytest.mark.parametrize(
    ("before", "then", "wanted"),
    [
        (0, 5_000_000, None),
        (0, 5_000_001, ("5.0 s", "0.000 s")),
        (1_000_000, 20_000_000, None),
        (1_000_000, 20_000_001, ("20.0 s", "1.000 s")),
        # Rounded as people round.
        (2_000_501, 60_050_001, ("60.1 s", "2.001 s")),
        (2_000_499, 60_049_999, ("60.0 s", "2.000 s")),
    ],
)
def test_slow_is_twenty_times_as_long_as_before_and_more_than_five_seconds(
    before: int, then: int, wanted: tuple[str, str] | None
) -> None:
    told = slowed({"neighbour": before}, {"neighbour": then}, "fill")
    if wanted is None:
        assert told == []
        return
    observed = (
        f"an operation of bystander neighbour took {wanted[0]}, and none more than {wanted[1]} "
        "before the shortage"
    )
    assert told == [(SLOWED, observed, "fill")]


def test_a_slowed_bystander_is_told_of_once() -> None:
    told = slowed({}, {"neighbour": 9_000_000}, "fill", "next")
    assert [(signature, step) for signature, _, step in told] == [(SLOWED, "fill")]


def test_a_bystander_that_is_slow_after_the_relief_is_not_slowed_by_the_shortage() -> None:
    assert slowed({}, {"neighbour": 9_000_000}, "again") == []


def test_who_is_in_the_cgroup_that_is_short_is_slowed_by_right() -> None:
    told = slowed(
        {},
        {"reader": 9_000_000, "neighbour": 9_000_000},
        "fill",
        bystanders=BOTH,
        shortage=LIMITED,
    )
    assert [signature for signature, _, _ in told] == [SLOWED]


def test_each_bystander_is_held_against_its_own_past() -> None:
    before = {"reader": 0, "neighbour": 1_000_000}
    told = slowed(before, {"reader": 9_000_000, "neighbour": 9_000_000}, "fill", bystanders=BOTH)
    assert [signature for signature, _, _ in told] == ["io-slowed:reader"]


# -- whether causes are answered alike --------------------------------------------------------------

SILENT = short(FILLED, read("read_short", "2.222222......11"))
"""A block that fsync acknowledged is not there."""
WORKER_KILLS = (
    "kworker/u2:1 invoked oom-killer: gfp_mask=0xc00(GFP_NOIO), order=0, oom_score_adj=0",
    "Memory cgroup out of memory: Killed process 999 (sleep) total-vm:1kB, anon-rss:1kB",
)
BEYOND = Reading(kind="tmpfs_size", used=11 * BLOCK + (1 << 20), limit=SPACE * BLOCK, hits=1)
"""More than the limit of eight blocks, a request of two, and a mebibyte of slack."""
ANSWERS: dict[str, Story] = {
    "none": short(FILLED, write("next", Role.REUSE, (0, 8), REFUSED, generation=3)),
    "none: a kill at another step": short(
        FILLED, NEXT.watching(oom_kill=1, kernel_log=log(*WORKER_KILLS))
    ),
    "none: an error after the relief": short(
        FILLED, after=[write("later", Role.PROVOKE, (0, 8), REFUSED, generation=3)]
    ),
    "none: a loss of another step's": short(FILLED, NEXT, read("read_short", "23222222......11")),
    "none: a guest that is gone": short(FILLED, lost=hung("gone")),
    "error": short(FILL),
    "blocked": short(too_long(FILL)),
    "blocked: a guest that hangs": short(FILL, lost=hung("hung")),
    "blocked: a guest that panicked": short(FILL, lost=hung("panicked")),
    "no_limit": short(FILLED.watching(reading=BEYOND)),
    "silent_loss": SILENT,
    "kill": short(FILL.ended(signal=9)),
    "kill: of another, as a counter tells": short(FILL.watching(oom_kill=1)),
    "kill: of another, as the log tells": short(FILL.watching(kernel_log=log(*WORKER_KILLS))),
    "kill: which counts before a loss": short(
        FILLED.watching(oom_kill=1), read("read_short", "2.222222......11")
    ),
}
OTHER = write("fill", Role.PROVOKE, (0, 8), [wrote(0, 2, EIO)], generation=2, submit=Submit.DIRECT)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_class_of_answer_is_told_apart_from_an_error(name: str) -> None:
    answer = name.partition(":")[0]
    told = found(Clause.EQUIVALENT, ANSWERS[name], another=short(OTHER))
    if answer == "error":
        assert told == []
        return
    (one,) = told
    assert one.signature == f"another=error,main={answer}"
    assert one.observed == f"main: {answer}, another: error"
    assert one.expected == "one class of answer, whatever the cause of the shortage"
    assert (one.arm, one.step) == ("main, another", "")


def test_one_cause_alone_is_alike() -> None:
    assert found(Clause.EQUIVALENT, SILENT) == []


def test_the_limit_that_one_arm_passed_is_not_held_against_the_other() -> None:
    told = found(Clause.EQUIVALENT, ANSWERS["none"], other=ANSWERS["no_limit"])
    assert [f.signature for f in told] == ["main=none,other=no_limit"]


def test_one_of_three_causes_that_is_answered_otherwise_is_told_of() -> None:
    told = found(Clause.EQUIVALENT, short(FILL), second=short(OTHER), third=ANSWERS["kill"])
    assert [f.signature for f in told] == ["main=error,second=error,third=kill"]
    assert found(Clause.EQUIVALENT, short(FILL), second=short(OTHER), third=short(FILL)) == []
