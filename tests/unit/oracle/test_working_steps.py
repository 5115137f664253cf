"""Files and commands whose answer has to be whole, and steps that have to work: where one is not or does not.

What is done while nothing is short, or by the rig for itself, must succeed; what fails of the rest is for the
clauses to judge.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

import pytest

from conformance.model import (
    BLOCK,
    AnyStep,
    Check,
    Command,
    Detach,
    Ended,
    FileOp,
    Files,
    FileState,
    Metadata,
    Mkfs,
    Mount,
    Op,
    RemoveCgroup,
    Role,
    Submitter,
    Trim,
    Unmount,
    VerifyFiles,
    Write,
)
from tests.support.builders import (
    EIO,
    ENOSPC,
    PID,
    Act,
    ran,
    reattached,
    stored,
    synced,
    write,
    wrote,
)
from tests.unit.oracle.test_whole_steps import (
    FINE,
    HELD,
    KILLED,
    NOBODY,
    REFUSED,
    STATUS,
    TOLD_NOTHING,
    WHOLE,
    ending,
    said,
)

# -- files and commands -------------------------------------------------------------------------------


def file_op(kind: str, path: str, result: int = 0) -> FileOp:
    return FileOp(kind, path, 1, BLOCK if kind == "write" else 0, result, 1, 2)


def files(ops: Sequence[FileOp], role: Role = Role.PROVOKE) -> Act:
    """Two files of a block are to be written and synced."""
    step = Files(
        name="it", role=role, verb="files", directory="d", size=BLOCK, count=2, generation=2
    )
    submitter = Submitter(pid=PID, cgroup="", ended=FINE)
    return Act(step=step, seen={"file_ops": tuple(ops), "submitter": submitter})


def made(path: str, *syncs: str) -> list[FileOp]:
    """A file is created, written and synced."""
    write = file_op("write", path, BLOCK)
    return [file_op("create", path), write, *(file_op(sync, path) for sync in syncs)]


BOTH = [*made("a", "fsync", "dirsync"), *made("b", "fsync", "dirsync")]
ONE = made("a", "fsync", "dirsync")
ONLY_ONE = "no error, and yet 1 files were synced of 2"


@pytest.mark.parametrize(
    ("ops", "ended", "wrong"),
    [
        (BOTH, FINE, []),
        ([*made("a", "msync"), *made("b", "msync")], FINE, []),
        ([*made("a"), *made("b"), file_op("syncfs", "d")], FINE, []),
        ([*made("a"), *made("b"), file_op("freeze", "d")], FINE, []),
        (ONE, KILLED, []),
        (ONE, HELD, []),
        ([*ONE, file_op("create", "b", REFUSED)], FINE, []),
        ([*ONE, file_op("create", "b", ENOSPC)], STATUS, []),
        (BOTH, STATUS, [TOLD_NOTHING]),
        ([], FINE, ["no operation was seen"]),
        (ONE, FINE, [ONLY_ONE]),
        ([*ONE, *made("b")], FINE, [ONLY_ONE]),
        ([*made("a"), file_op("syncfs", "d")], FINE, [ONLY_ONE]),
        ([*BOTH, *made("c", "fsync")], FINE, [ONLY_ONE.replace("1", "3")]),
    ],
)
def test_files_are_synced_all(ops: list[FileOp], ended: Ended, wrong: list[str]) -> None:
    assert said(ending(files(ops), ended)) == wrong


def test_files_without_a_submitter_are_not_made() -> None:
    assert said(Act(step=files([]).step)) == [NOBODY]


def test_a_load_of_metadata_has_done_something() -> None:
    step = Metadata(name="it", role=Role.PROVOKE, verb="metadata", directory="d", count=9)
    for ops, wrong in (((file_op("mkdir", "d"),), []), ((), ["no operation was seen"])):
        seen = {**files(()).seen, "file_ops": ops}
        assert said(Act(step=step, seen=seen)) == wrong


def classified(*files: FileState, role: Role = Role.OBSERVE) -> Act:
    step = VerifyFiles(name="it", role=role, verb="verify_files")
    return Act(step=step, seen={"files": files})


def test_a_file_is_classified_once() -> None:
    a, b = FileState(path="a", state="whole"), FileState(path="b", state="wrong")
    assert said(classified(a, b)) == []
    assert said(classified(a, b, b)) == ["a file was classified twice"]


FAILED = Command(argv=("/sbin/mkfs.ext4", "/dev/loop0"), ended=STATUS)
NAMED: dict[str, Any] = {"name": "it", "role": Role.RECOVER}


@pytest.mark.parametrize(
    "step",
    [
        Unmount(**NAMED, verb="unmount"),
        Mount(**NAMED, verb="mount"),
        Check(**NAMED, verb="check"),
        Trim(**NAMED, verb="trim", directory="d", frees=BLOCK),
        Mkfs(**NAMED, verb="mkfs"),
        reattached().step.model_copy(update=NAMED),
        RemoveCgroup(**NAMED, verb="remove_cgroup", cgroup="limited"),
        write("it", Role.PROVOKE, (0, 6), [], generation=2).step.model_copy(
            update={"detach": Detach(after="first_error")}
        ),
    ],
)
def test_what_is_done_by_commands_shows_them(step: AnyStep) -> None:
    """That one failed is for the clauses to judge."""
    seen = write("it", Role.PROVOKE, (0, 6), WHOLE, generation=2).seen
    seen = seen if isinstance(step, Write) else {}
    assert said(Act(step=step, seen={**seen, "commands": (FAILED,)})) == []
    assert said(Act(step=step, seen=seen)) == ["no command was seen"]


# -- steps that have to work ----------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.CONTROL, Role.SETUP])
@pytest.mark.parametrize(
    ("ended", "wrong"),
    [
        (FINE, []),
        (Ended(exit_code=3), ["its process ended with status 3"]),
        (KILLED, ["its process was ended by SIGKILL"]),
        (HELD, ["it ran over its limit"]),
        (Ended(signal=9, timed_out=True), ["it ran over its limit"]),
    ],
)
def test_a_command_of_the_control_works(ended: Ended, wrong: list[str], role: Role) -> None:
    assert said(ending(ran("it", role, ("true",)), ended), role.value) == wrong


@pytest.mark.parametrize(
    ("ops", "wrong"),
    [
        ([*stored(0, 4), synced()], []),
        ([wrote(0, 2, EIO), wrote(2, 2, ENOSPC)], ["write(0, 8192) = -1 EIO"]),
        ([wrote(0, 2, REFUSED)], ["write(0, 8192) = -1 EPERM"]),
        ([wrote(0, 2), wrote(2, 2, BLOCK), synced()], ["a write was short"]),
        ([wrote(0, 2), wrote(2, 2, 0), synced()], ["a write was short"]),
        ([wrote(0, 2, BLOCK), synced(EIO)], ["sync() = -1 EIO"]),
        # What is refused beyond the end of the device is refused rightly.
        ([*stored(0, 4), wrote(15, 2, REFUSED), synced()], []),
    ],
)
def test_a_write_of_the_control_works(ops: list[Op], wrong: list[str]) -> None:
    act = write("it", Role.CONTROL, (0, 4), ops, generation=1)
    assert said(act, "control") == wrong


@pytest.mark.parametrize(
    ("ops", "wrong"),
    [
        (BOTH, []),
        ([*ONE, file_op("create", "b", REFUSED)], ["create b failed"]),
        ([file_op("mkdir", "d", EIO), file_op("create", "a", -errno.ENOENT)], ["mkdir d failed"]),
    ],
)
def test_files_of_the_control_can_be_made(ops: list[FileOp], wrong: list[str]) -> None:
    assert said(files(ops, Role.CONTROL), "control") == wrong


def test_files_of_the_control_are_whole() -> None:
    a, b = FileState(path="a", state="whole"), FileState(path="b", state="missing")
    c = FileState(path="c", state="wrong")
    assert said(classified(a, role=Role.CONTROL), "control") == []
    assert said(classified(a, b, c, role=Role.CONTROL), "control") == ["file b is missing"]


LONG = "".join(f"{number:04}" for number in range(60))


@pytest.mark.parametrize(
    ("ended", "output", "wrong"),
    [
        (FINE, "mke2fs 1.47", []),
        (STATUS, "not a block device\n", ["mkfs.ext4 failed: not a block device"]),
        # The last 200 characters, which is where a tool says what went wrong.
        (STATUS, LONG, [f"mkfs.ext4 failed: {LONG[40:]}"]),
        (STATUS, " \n", ["mkfs.ext4 failed: its process ended with status 1"]),
        (KILLED, "", ["mkfs.ext4 failed: its process was ended by SIGKILL"]),
        (HELD, "", ["mkfs.ext4 failed: it ran over its limit"]),
        (Ended(exit_code=0, timed_out=True), "", ["mkfs.ext4 failed: it ran over its limit"]),
    ],
)
def test_a_command_of_the_rig_s_own_works(ended: Ended, output: str, wrong: list[str]) -> None:
    fine = Command(argv=("umount", "/mnt"), ended=FINE)
    command = FAILED.model_copy(update={"ended": ended, "output": output})
    step = Mkfs(name="it", role=Role.SETUP, verb="mkfs")
    assert said(Act(step=step, seen={"commands": (fine, command)}), "setup") == wrong
