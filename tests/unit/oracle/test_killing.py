"""Who pays: whom the OOM killer was invoked by, who died of what, and what bystanders may suffer.

The expectations are those of NORMS, "Who invoked the OOM killer", and of S1, S6, S11, S12 and S14: a kernel
worker's kill is the shortage's answer, a kill that the submitter invoked itself is its own starving, and who
did not submit the I/O is to notice nothing.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest

from conformance.model import (
    Bystander,
    BystanderState,
    Clause,
    Command,
    Ended,
    IoError,
    IoWrong,
    Level,
    Reading,
    Role,
    TornDown,
    Watch,
)
from tests.support.builders import (
    ENOSPC,
    PID,
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

CHILD, STRANGER, NEIGHBOUR = 201, 999, 300
CONTROL = write("control", Role.CONTROL, (14, 16), [*stored(14, 16), synced()], generation=1)
FILL = write(
    "fill", Role.PROVOKE, (0, 12), [*stored(0, 6), wrote(6, 2, ENOSPC), closed()], generation=2
)
NEXT = write("next", Role.REUSE, (0, 2), [*stored(0, 2), synced(), closed()], generation=3)


def short(*acts: Act, control: Act = CONTROL, **circumstances: Any) -> Story:
    """Some acts while the device is short of space."""
    return Story(acts=(control, imposed(), *acts, relieved()), **circumstances)


def named(pid: int) -> str:
    return f"Memory cgroup out of memory: Killed process {pid} (dd) total-vm:1kB, anon-rss:1kB"


def by(comm: str, pid: int, *killed: int) -> tuple[str, ...]:
    """A report of the OOM killer: who invoked it, and whom it killed."""
    return (
        f"{comm} invoked oom-killer: gfp_mask=0xc00(GFP_NOIO), order=0, oom_score_adj=0",
        f"CPU: 0 PID: {pid} Comm: {comm} Not tainted 6.1.0 #1",
        *map(named, killed),
    )


def by_worker(*killed: int) -> tuple[str, ...]:
    return by("kworker/u2:1", 24, *killed)


def by_submitter(*killed: int) -> tuple[str, ...]:
    return by("dd", PID, *killed)


def by_other(*killed: int) -> tuple[str, ...]:
    return by("sshd", 77, *killed)


def logging(act: Act, *lines: str, kills: int = 0) -> Act:
    """After this step the log says so, and the counters stand there."""
    return act.watching(kernel_log=log(*lines), oom_kill=kills)


# -- who invoked the killer -------------------------------------------------------------------------

WORKER, SUBMITTER = "invoked-by-kworker", "invoked-by-submitter"
OTHER, UNKNOWN = "invoked-by-other", "invoked-by-unknown"
INVOKED = "invoked the OOM killer (GFP_NOIO)"

INVOCATIONS: dict[str, tuple[Story, list[tuple[str, str, str, str]]]] = {
    "nobody": (short(FILL), []),
    "a worker": (
        short(logging(FILL, *by_worker(PID), kills=1)),
        [("must", WORKER, f"kworker/u2:1 {INVOKED}; killed dd (pid 200)", "fill")],
    ),
    "a worker at two steps": (
        short(
            logging(FILL, *by_worker(PID), kills=1), logging(NEXT, *by_worker(STRANGER), kills=2)
        ),
        [
            (
                "must",
                WORKER,
                f"kworker/u2:1 {INVOKED}; killed dd (pid 200) (the first of 2 kills)",
                "fill",
            )
        ],
    ),
    "a worker, and more kills than the log has": (
        short(logging(FILL, *by_worker(PID), kills=3)),
        [
            (
                "must",
                WORKER,
                f"kworker/u2:1 {INVOKED}; killed dd (pid 200); 2 kills more that the log does not "
                "tell of",
                "fill",
            )
        ],
    ),
    "a worker, twice in vain": (
        short(logging(FILL, *by_worker(), *by_worker())),
        [
            (
                "must",
                WORKER,
                f"kworker/u2:1 {INVOKED}, which found nobody left to kill (2 times)",
                "fill",
            )
        ],
    ),
    "the submitter": (
        short(logging(FILL, *by_submitter(PID), kills=1)),
        [("should", SUBMITTER, f"dd {INVOKED}; killed dd (pid 200)", "fill")],
    ),
    "the submitter, in vain": (short(logging(FILL, *by_submitter())), []),
    "somebody else": (
        short(logging(FILL, *by_other(PID), kills=1)),
        [("should", OTHER, f"sshd {INVOKED}; killed dd (pid 200)", "fill")],
    ),
    "each of them": (
        short(logging(FILL, *by_other(1), *by_submitter(2), *by_worker(3), kills=3)),
        [
            ("must", WORKER, f"kworker/u2:1 {INVOKED}; killed dd (pid 3)", "fill"),
            ("should", SUBMITTER, f"dd {INVOKED}; killed dd (pid 2)", "fill"),
            ("should", OTHER, f"sshd {INVOKED}; killed dd (pid 1)", "fill"),
        ],
    ),
    "one that the log does not name": (
        short(logging(FILL, named(PID), kills=1)),
        [("must", UNKNOWN, "somebody invoked the OOM killer; killed dd (pid 200)", "fill")],
    ),
    "one that it does not name, and one that it does": (
        short(logging(FILL, named(STRANGER), *by_submitter(PID), kills=2)),
        [
            ("should", SUBMITTER, f"dd {INVOKED}; killed dd (pid 200)", "fill"),
            (
                "must",
                UNKNOWN,
                f"somebody invoked the OOM killer; killed dd (pid {STRANGER})",
                "fill",
            ),
        ],
    ),
    "one that it does not name, where a worker is named": (
        short(logging(FILL, named(STRANGER), *by_worker(PID), kills=2)),
        [("must", WORKER, f"kworker/u2:1 {INVOKED}; killed dd (pid 200)", "fill")],
    ),
    "more by the submitter than the kernel prints reports of": (
        short(logging(FILL, named(STRANGER), *by_submitter(PID), *by_submitter() * 9, kills=2)),
        [("should", SUBMITTER, f"dd {INVOKED}; killed dd (pid 200)", "fill")],
    ),
    "just as many as it prints, but for one": (
        short(logging(FILL, named(STRANGER), *by_submitter(PID), *by_submitter() * 8, kills=2)),
        [
            ("should", SUBMITTER, f"dd {INVOKED}; killed dd (pid 200)", "fill"),
            (
                "must",
                UNKNOWN,
                f"somebody invoked the OOM killer; killed dd (pid {STRANGER})",
                "fill",
            ),
        ],
    ),
    "one that is told of, and two that only the counters tell of": (
        short(logging(FILL, *by_submitter(PID), kills=3)),
        [
            (
                "should",
                SUBMITTER,
                f"dd {INVOKED}; killed dd (pid 200); 2 kills more that the log does not tell of",
                "fill",
            ),
            (
                "must",
                UNKNOWN,
                "2 OOM kills by the kernel's counters, of which its log tells nothing",
                "fill",
            ),
        ],
    ),
    "one of whom only the counters tell": (
        short(logging(FILL, kills=1), logging(NEXT, kills=3)),
        [
            (
                "must",
                UNKNOWN,
                "3 OOM kills by the kernel's counters, of which its log tells nothing",
                "fill",
            )
        ],
    ),
}


@pytest.mark.parametrize("name", INVOCATIONS)
def test_the_killer_was_invoked_by(name: str) -> None:
    tale, wanted = INVOCATIONS[name]
    told = found(Clause.NO_OOM_KILL, tale)
    assert [(f.level, f.signature, f.observed, f.step) for f in told] == wanted
    assert {f.expected for f in told} <= {"an I/O error to the submitter; no OOM kill"}


def test_each_invoker_s_reports_are_the_evidence_of_its_own_finding() -> None:
    tale = short(logging(FILL, *by_worker(PID), *by_other(1)), logging(NEXT, *by_worker(STRANGER)))
    worker, other = found(Clause.NO_OOM_KILL, tale)
    assert worker.evidence == (*by_worker(PID), *by_worker(STRANGER))
    assert other.evidence == by_other(1)


# -- how the submitter ended ------------------------------------------------------------------------


def died(act: Act, signal: int = 9) -> Act:
    return act.ended(signal=signal)


BY_OOM_KILLER = "fill (pid 200) was ended by the OOM killer"
DEATHS: dict[str, tuple[Story, list[tuple[str, str, str, str, tuple[str, ...]]]]] = {
    "by its own will": (short(FILL), []),
    "before anything was short": (short(FILL, control=died(CONTROL)), []),
    "as the log tells, and no counter": (
        short(died(logging(FILL, *by_submitter(PID)))),
        [("should", "killed-by-oom", BY_OOM_KILLER, "fill", by_submitter(PID))],
    ),
    "as a counter tells, and no log": (
        short(died(logging(FILL, kills=1))),
        [("must", "killed-by-oom", BY_OOM_KILLER, "fill", ())],
    ),
    "by a kill of another step's time": (
        short(died(FILL), logging(NEXT, *by_submitter(STRANGER), kills=1)),
        [("must", "signal-9", "fill (pid 200) was ended by SIGKILL", "fill", ())],
    ),
    "by another signal when it had somebody else killed": (
        short(died(logging(FILL, *by_submitter(STRANGER), kills=1), 15)),
        [("must", "signal-15", "fill (pid 200) was ended by SIGTERM", "fill", ())],
    ),
    "by a kill that it had invoked, of which the log names its child": (
        short(died(logging(FILL, *by_submitter(CHILD), kills=1))),
        [("should", "killed-by-oom", BY_OOM_KILLER, "fill", ())],
    ),
    "by a kill that it had invoked, after somebody else's of another": (
        short(died(logging(FILL, *by_other(STRANGER), *by_submitter(PID), kills=2))),
        [("should", "killed-by-oom", BY_OOM_KILLER, "fill", by_submitter(PID))],
    ),
    "by a kill that somebody else had invoked": (
        short(died(logging(FILL, *by_other(PID), kills=1))),
        [("must", "killed-by-oom", BY_OOM_KILLER, "fill", by_other(PID))],
    ),
    "by its own kill, where a worker invoked the killer too": (
        short(died(logging(FILL, *by_submitter(PID), kills=1)), logging(NEXT, *by_worker())),
        [("must", "killed-by-oom", BY_OOM_KILLER, "fill", by_submitter(PID))],
    ),
    "by the same signal at two steps": (
        short(died(FILL, 15), died(NEXT, 15)),
        [
            (
                "must",
                "signal-15",
                "fill (pid 200) was ended by SIGTERM, next (pid 200) was ended by SIGTERM",
                "fill",
                (),
            )
        ],
    ),
}


def tool(act: Act, name: str, *, step: str = "", **how: Any) -> Act:
    """The act with a tool that ended so."""
    command = Command(argv=(f"/usr/sbin/{name}", "x"), ended=Ended(**how))
    seen = {**act.seen, "commands": (*act.seen.get("commands", ()), command)}
    named = act.step.model_copy(update={"name": step}) if step else act.step
    return replace(act, step=named, seen=seen)


TOOLS: dict[str, tuple[tuple[Act, ...], list[tuple[str, str, str]]]] = {
    "by its own will": ((tool(reattached(), "losetup", exit_code=1),), []),
    "by a signal": (
        (tool(reattached(), "losetup", signal=11),),
        [("losetup:signal-11", "losetup in step reattach was ended by SIGSEGV", "reattach")],
    ),
    "by the same, told once, and another": (
        (
            tool(tool(reattached(), "losetup", signal=9), "blockdev", signal=7),
            tool(reattached(), "losetup", signal=9, step="once_more"),
        ),
        [
            ("losetup:signal-9", "losetup in step reattach was ended by SIGKILL", "reattach"),
            ("blockdev:signal-7", "blockdev in step reattach was ended by SIGBUS", "reattach"),
        ],
    ),
    "by the OOM killer": (
        (logging(tool(reattached(), "losetup", signal=9), kills=1),),
        [
            (
                "losetup:killed-by-oom",
                "losetup in step reattach was ended by the OOM killer",
                "reattach",
            )
        ],
    ),
    "by another signal, while the OOM killer killed somebody": (
        (logging(tool(reattached(), "losetup", signal=15), kills=1),),
        [("losetup:signal-15", "losetup in step reattach was ended by SIGTERM", "reattach")],
    ),
    "when the OOM killer had killed somebody else": (
        (logging(NEXT, kills=1), tool(reattached(), "losetup", signal=9)),
        [("losetup:signal-9", "losetup in step reattach was ended by SIGKILL", "reattach")],
    ),
    "by the rig, which had waited for it": (
        (tool(reattached(), "losetup", signal=9, timed_out=True),),
        [],
    ),
    "not even by the rig": ((tool(reattached(), "losetup", signal=9, killable=False),), []),
    "as the reader of a verification": ((tool(read("look", ".."), "readback", signal=9),), []),
    "as the command of the case, which is the submitter": (
        (tool(ran("dd", Role.REUSE, ["dd"]), "dd", signal=9),),
        [],
    ),
}


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_ended(name: str) -> None:
    acts, wanted = TOOLS[name]
    told = found(Clause.SUBMITTER_SURVIVES, short(FILL, *acts))
    assert [(f.signature, f.observed, f.step) for f in told] == wanted
    for one in told:
        assert (one.level, one.arm) == (Level.MUST, "main")
        assert one.expected == "a tool is told of an error and ends by its own will"


def test_a_tool_that_has_to_work_is_the_rig_s_to_tell_of() -> None:
    tale = short(FILL, control=tool(CONTROL, "losetup", signal=9))
    assert found(Clause.SUBMITTER_SURVIVES, tale) == []


@pytest.mark.parametrize("name", DEATHS)
def test_the_submitter_ended(name: str) -> None:
    tale, wanted = DEATHS[name]
    told = found(Clause.SUBMITTER_SURVIVES, tale)
    assert [(f.level, f.signature, f.observed, f.step, f.evidence) for f in told] == wanted
    assert {f.expected for f in told} <= {
        "the submitter is told of an error and ends by its own will"
    }


# -- bystanders -------------------------------------------------------------------------------------

BYSTANDERS = (Bystander(name="neighbour", cgroup="other"),)
SAYS = "bystander neighbour in other"


def fares(act: Act, **how: Any) -> Act:
    """How the neighbour fares after a step."""
    return act.watching(bystanders=(neighbour(**how),))


def neighbour(*, cgroup: str = "other", alive: bool = True, **how: Any) -> BystanderState:
    return BystanderState(name="neighbour", pid=NEIGHBOUR, cgroup=cgroup, alive=alive, **how)


def told_of(*acts: Act, **more: Any) -> list[tuple[str, str, str, tuple[str, ...]]]:
    harm = found(Clause.BYSTANDERS_UNHARMED, short(*acts, bystanders=BYSTANDERS, **more))
    assert {f.expected for f in harm} <= {
        "who did not submit the I/O lives, and its own I/O succeeds"
    }
    return [(f.signature, f.observed, f.step, f.evidence) for f in harm]


KILLED = (f"{SAYS} was OOM-killed", "fill")
GONE: dict[str, tuple[tuple[Act, ...], tuple[str, str, str, tuple[str, ...]]]] = {
    "killed, as the log names it": (
        (logging(fares(FILL, alive=False), *by_worker(NEIGHBOUR)),),
        ("oom-killed:neighbour", *KILLED, by_worker(NEIGHBOUR)),
    ),
    "killed when a counter grew": (
        (logging(fares(FILL, alive=False, signal=9), kills=1),),
        ("oom-killed:neighbour", *KILLED, ()),
    ),
    "killed when no counter grew": (
        (fares(FILL, alive=False, signal=9), logging(NEXT, kills=1)),
        ("killed:neighbour:SIGKILL", f"{SAYS} was ended by SIGKILL", "fill", ()),
    ),
    "ended by another signal when a counter grew": (
        (logging(fares(FILL, alive=False, signal=15), *by_worker(PID), kills=1),),
        ("killed:neighbour:SIGTERM", f"{SAYS} was ended by SIGTERM", "fill", ()),
    ),
    "gone, and nobody knows how": (
        (fares(FILL, alive=False), fares(NEXT, alive=False)),
        ("ended:neighbour", f"{SAYS} is gone", "fill", ()),
    ),
    "gone from the root cgroup": (
        (FILL, fares(NEXT, alive=False, cgroup="")),
        (
            "ended:neighbour",
            "bystander neighbour in the root cgroup is gone",
            "next",
            (),
        ),
    ),
}


@pytest.mark.parametrize("name", GONE)
def test_a_bystander_that_does_not_live(name: str) -> None:
    acts, wanted = GONE[name]
    assert told_of(*acts) == [wanted]


def test_a_bystander_that_lives_and_does_its_io_is_unharmed() -> None:
    assert told_of(FILL, logging(NEXT, *by_worker(PID), kills=1)) == []


def test_what_befell_a_bystander_before_the_shortage_is_not_the_shortage_s() -> None:
    assert told_of(FILL, control=fares(CONTROL, alive=False)) == []


def last_look(*bystanders: BystanderState, **seen: Any) -> Watch:
    reading = Reading(kind="tmpfs_size", used=0)
    return Watch(t_us=1, reading=reading, **{"oom_kill": 0, "bystanders": bystanders, **seen})


def test_a_bystander_that_died_by_the_last_look_before_it_would_be_ended_is_told() -> None:
    watch = last_look(neighbour(alive=False, signal=11))
    assert told_of(FILL, torn_down=TornDown(watch=watch, after=last_look())) == [
        ("killed:neighbour:SIGSEGV", f"{SAYS} was ended by SIGSEGV", "teardown", ())
    ]


def test_a_bystander_that_lives_until_it_is_ended_is_unharmed() -> None:
    down = TornDown(watch=last_look(neighbour()), after=last_look())
    assert told_of(FILL, torn_down=down) == []


@pytest.mark.parametrize(
    ("watch", "after", "wanted"),
    [
        (1, 1, ["teardown"]),
        (0, 1, ["torn-down"]),
        (0, 0, []),
    ],
)
def test_a_kill_as_the_rig_is_taken_down_is_told(watch: int, after: int, wanted: list[str]) -> None:
    down = TornDown(watch=last_look(oom_kill=watch), after=last_look(oom_kill=after))
    assert [f.step for f in found(Clause.NO_OOM_KILL, short(FILL, torn_down=down))] == wanted


def test_who_invoked_the_killer_as_the_rig_is_taken_down_is_told() -> None:
    after = last_look(oom_kill=1, kernel_log=log(*by_worker(STRANGER)))
    down = TornDown(watch=last_look(), after=after)
    (told,) = found(Clause.NO_OOM_KILL, short(FILL, torn_down=down))
    assert (told.signature, told.step) == (WORKER, "torn-down")


def test_each_errno_of_a_bystander_s_own_io_is_told_once() -> None:
    errors = tuple(IoError("write", 0, code, 1) for code in (errno.ENOSPC, errno.EIO, errno.EIO))
    assert told_of(fares(FILL, io_errors=errors), fares(NEXT, io_errors=errors)) == [
        ("io-error:neighbour:EIO", f"{SAYS} got EIO for its own I/O", "fill", ()),
        ("io-error:neighbour:ENOSPC", f"{SAYS} got ENOSPC for its own I/O", "fill", ()),
    ]


WRONG: dict[str, tuple[tuple[IoWrong, ...], list[tuple[str, str]]]] = {
    "a read of other data": (
        (IoWrong("data", 8192, 4096, 1),),
        [("io-wrong:neighbour", f"{SAYS} read other data than it had stored, at byte 8192")],
    ),
    "a short read": (
        (IoWrong("short-read", 4096, 0, 1),),
        [("io-short:neighbour", f"{SAYS} read less than it had asked for, at byte 4096")],
    ),
    "a short write": (
        (IoWrong("short-write", 0, 512, 1),),
        [("io-short:neighbour", f"{SAYS} wrote less than it had asked for, at byte 0")],
    ),
    "each of them, of which the first counts": (
        (
            IoWrong("short-read", 4096, 0, 1),
            IoWrong("data", 8192, 4096, 2),
            IoWrong("data", 0, 4096, 3),
        ),
        [
            ("io-short:neighbour", f"{SAYS} read less than it had asked for, at byte 4096"),
            ("io-wrong:neighbour", f"{SAYS} read other data than it had stored, at byte 8192"),
        ],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_bystander_s_own_io_goes_wrong_without_an_error(name: str) -> None:
    wrong, wanted = WRONG[name]
    told = told_of(fares(FILL, io_wrong=wrong), fares(NEXT, io_wrong=wrong))
    assert told == [(signature, observed, "fill", ()) for signature, observed in wanted]
    harm = found(
        Clause.BYSTANDERS_UNHARMED, short(fares(FILL, io_wrong=wrong), bystanders=BYSTANDERS)
    )
    assert {finding.level for finding in harm} == {Level.MUST}


@pytest.mark.parametrize(
    ("microseconds", "seconds"),
    [(59_999_999, None), (60_000_000, 60), (60_999_999, 60), (61_000_000, 61)],
)
def test_an_operation_of_a_minute_is_stalled(microseconds: int, seconds: int | None) -> None:
    observed = f"an operation of {SAYS} took {seconds} s"
    wanted = [] if seconds is None else [("io-stalled:neighbour", observed, "fill", ())]
    assert told_of(fares(FILL, io_stall_us=microseconds)) == wanted
