"""After relief everything works, but for an error of a step before that is told late (``reusable``, S12)."""

from __future__ import annotations

import errno
import signal

import pytest

from conformance.model import (
    AnyStep,
    Check,
    Clause,
    Command,
    Ended,
    FileOp,
    Files,
    Level,
    Mkfs,
    Mount,
    Op,
    RangeKind,
    RangeOp,
    Reattach,
    RemoveCgroup,
    Role,
    Submit,
    Submitter,
    Trim,
)
from tests.support import trials
from tests.support.builders import (
    EIO,
    ENOSPC,
    PID,
    Act,
    Story,
    imposed,
    ran,
    relieved,
    stored,
    synced,
    write,
    wrote,
)

EPERM = -errno.EPERM
RECOVER = Role.RECOVER
BUS = "a store into the mapping was answered with SIGBUS"


def told(act: Act, *before: Act) -> list[tuple[str, str]]:
    """Signature and words of each finding on what is done after relief."""
    tale = Story(acts=(imposed(), *before, relieved(), act))
    findings = trials.found(Clause.REUSABLE, tale)
    for one in findings:
        assert (one.clause, one.level, one.step) == (Clause.REUSABLE, Level.MUST, "again")
        assert one.expected == "after relief, writes and fsync succeed"
    return [(one.signature, one.observed) for one in findings]


def wrote_again(*ops: Op, role: Role = RECOVER) -> Act:
    return write("again", role, (0, 12), ops, generation=3)


def made(*ops: FileOp) -> Act:
    values = {"as": "again", "role": "recover", "verb": "files", "directory": "d", "size": 4096}
    step = Files.model_validate({**values, "count": 9, "generation": 2})
    return Act(step=step, seen={"file_ops": ops})


def discarded(*ops: Op) -> Act:
    step = RangeOp(name="again", role=RECOVER, verb="range_op", op=RangeKind.DISCARD, length=8192)
    submitter = Submitter(pid=PID, cgroup="", ops=ops, ended=Ended(exit_code=0))
    return Act(step=step, seen={"submitter": submitter})


FAILURES: dict[str, tuple[Act, list[tuple[str, str]]]] = {
    "none": (wrote_again(*stored(0, 12), synced()), []),
    "each kind of failure, by its first": (
        wrote_again(
            wrote(0, 2, EPERM), wrote(2, 2, ENOSPC), wrote(4, 2, EPERM), synced(EIO), synced(EIO)
        ),
        [
            ("recover-write-failed:EPERM", "write(0, 8192) = -1 EPERM"),
            ("recover-write-failed:ENOSPC", "write(8192, 8192) = -1 ENOSPC"),
            ("recover-sync-failed:EIO", "sync() = -1 EIO"),
        ],
    ),
    "short writes, by the first": (
        wrote_again(wrote(0, 2), wrote(2, 2, 8191), wrote(4, 2, 4096), wrote(6, 2, 1), synced()),
        [("recover-write-short", "write(8192, 8192) = 8191")],
    ),
    "a write of nothing": (
        wrote_again(wrote(0, 2, 0), synced()),
        [("recover-write-short", "write(0, 8192) = 0")],
    ),
    "files": (
        made(
            FileOp("create", "d/a", 1, 0, 0, 1, 2),
            FileOp("write", "d/a", 1, 4096, EPERM, 3, 4),
            FileOp("write", "d/b", 1, 4096, EPERM, 5, 6),
            FileOp("fsync", "d/a", 2, 0, EIO, 7, 8),
        ),
        [
            ("recover-write-failed:EPERM", "write d/a = -1 EPERM"),
            ("recover-fsync-failed:EIO", "fsync d/a x2 = -1 EIO"),
        ],
    ),
    "of a discard, whose result is no count": (
        discarded(Op("discard", 0, 8192, 0, 0, 1, 2), synced()),
        [],
    ),
    "a discard's": (
        discarded(Op("discard", 0, 8192, 0, EIO, 1, 2)),
        [("recover-discard-failed:EIO", "discard(0, 8192) = -1 EIO")],
    ),
    "by who need not succeed": (wrote_again(wrote(0, 2, ENOSPC), role=Role.REUSE), []),
}


@pytest.mark.parametrize("name", FAILURES)
def test_each_failure_is_told_once(name: str) -> None:
    act, expected = FAILURES[name]
    assert told(act) == expected


@pytest.mark.parametrize(
    ("role", "submit", "expected"),
    [
        (RECOVER, Submit.MMAP, [("recover-write-failed:SIGBUS", BUS)]),
        (Role.REUSE, Submit.MMAP, []),
    ],
)
def test_a_store_that_failed_is_a_write_that_failed(
    role: Role, submit: Submit, expected: list[tuple[str, str]]
) -> None:
    act = write("again", role, (0, 12), [], generation=3, submit=submit)
    assert told(act.ended(signal=signal.SIGBUS)) == expected


LEFT = write("left", Role.PROVOKE, (0, 12), stored(0, 2), generation=2, killed_by_rig=True)
"""A writer that was killed before it synced: whoever syncs next is told of what failed."""


def test_an_error_of_a_step_before_is_told_late_once() -> None:
    assert told(wrote_again(*stored(0, 12), synced(EIO), synced()), LEFT) == []
    again = wrote_again(*stored(0, 12), synced(EIO), synced(EIO))
    assert told(again, LEFT) == [("recover-sync-failed:EIO", "sync() = -1 EIO")]


# -- commands ---------------------------------------------------------------------------------------

FULL = "cp: error writing: No space left on device\n"
NO_SYNC = "dd: fsync failed for '/dev/loop0': Input/output error\n"
DD = ("/usr/bin/dd", "if=/dev/zero", "conv=fsync")


@pytest.mark.parametrize(
    ("argv", "exit_code", "output", "expected"),
    [
        (("cp", "a", "b"), 0, FULL, []),
        (("cp", "a", "b"), None, FULL, []),
        (("/bin/cp", "a", "b"), 1, FULL, [("ENOSPC", f"cp ended with 1: {FULL.strip()}")]),
        (("cp", "a", "b"), 3, "", [("status-3", "cp ended with 3:")]),
        (
            ("cp", "a"),
            1,
            f"{'x' * 100}{'y' * 200}",
            [("status-1", f"cp ended with 1: {'y' * 200}")],
        ),
        (DD, 1, NO_SYNC, [("EIO", f"dd ended with 1: {NO_SYNC.strip()}")]),
    ],
)
def test_a_command_succeeds(
    argv: tuple[str, ...], exit_code: int | None, output: str, expected: list[tuple[str, str]]
) -> None:
    act = ran("again", RECOVER, argv, exit_code=exit_code, output=output)
    assert told(act) == [(f"recover-command-failed:{s}", text) for s, text in expected]


@pytest.mark.parametrize(
    ("output", "told_late"), [(NO_SYNC, True), ("dd: writing: Input/output error", False)]
)
def test_a_command_may_be_told_late_by_its_sync_and_by_nothing_else(
    output: str, *, told_late: bool
) -> None:
    act = ran("again", RECOVER, DD, exit_code=1, output=output)
    failed = ("recover-command-failed:EIO", f"dd ended with 1: {output.strip()}")
    assert told(act, LEFT) == ([] if told_late else [failed])


def test_a_command_that_was_killed_in_a_shell_is_told_of_once() -> None:
    act = ran("again", RECOVER, ["sh", "-c", "cp a b"], exit_code=137)
    tale = Story(acts=(imposed(), relieved(), act))
    findings = trials.found(Clause.REUSABLE, tale)
    assert [(f.signature, f.observed) for f in findings] == [
        ("recover-killed", "again was ended by SIGKILL")
    ]


def test_a_command_of_which_nothing_was_seen_did_not_fail() -> None:
    assert told(Act(step=ran("again", RECOVER, ["cp"]).step)) == []


STEPS: dict[str, AnyStep] = {
    "reattach": Reattach(name="again", role=RECOVER, verb="reattach"),
    "trim": Trim(name="again", role=RECOVER, verb="trim", directory="d", frees=0),
    "mkfs": Mkfs(name="again", role=RECOVER, verb="mkfs"),
    "remove_cgroup": RemoveCgroup(name="again", role=RECOVER, verb="remove_cgroup", cgroup="a"),
    "remove_cgroup, by whom it may": RemoveCgroup(
        name="again", role=Role.REUSE, verb="remove_cgroup", cgroup="a"
    ),
    "mount": Mount(name="again", role=RECOVER, verb="mount"),
    "check": Check(name="again", role=RECOVER, verb="check"),
}


@pytest.mark.parametrize("name", STEPS)
def test_the_rig_s_commands_succeed(name: str) -> None:
    """Whether a filesystem mounts, and is whole, is a clause of its own."""
    failed = (
        Command(argv=("/sbin/one", "-v"), ended=Ended(exit_code=0), output="fine"),
        Command(argv=("/sbin/two",), ended=Ended(exit_code=5), output=f"before {'y' * 199}\n"),
        Command(argv=("three",), ended=Ended(exit_code=6), output="z" * 201),
        Command(argv=("two",), ended=Ended(exit_code=7), output="a second time"),
    )
    expected = [
        ("recover-command-failed:two", f"two ended with 5: {'y' * 199}"),
        ("recover-command-failed:three", f"three ended with 6: {'z' * 200}"),
    ]
    act = Act(step=STEPS[name], seen={"commands": failed})
    assert told(act) == ([] if name in ("mount", "check") else expected)
