"""How a submitter ended, and which of its operations failed, where neither the rig nor the norm had a say.

The expectations are those of signal(7), of POSIX and of fallocate(2).
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Sequence
from typing import Any

import pytest

from conformance.model import (
    BLOCK,
    Calls,
    Ended,
    Files,
    Op,
    RangeKind,
    RangeOp,
    Role,
    Submit,
    Submitter,
)
from conformance.oracle import scene as module
from conformance.oracle.scene import Scene, failed_ops, program, scenes
from tests.support.builders import EIO, ENOSPC, PID, Act, Story, ran, stored, synced, write, wrote

EPERM, UNKNOWN = -errno.EPERM, -errno.EOPNOTSUPP


def seen(act: Act) -> Scene:
    """The scene of one act."""
    story = Story(acts=(act,))
    return scenes(story.variant, story.observation)[0]


# -- how a submitter ended --------------------------------------------------------------------------


def script(text: str) -> Calls:
    values = {"as": "a", "role": "provoke", "verb": "calls", "length": BLOCK, "generation": 2}
    return Calls.model_validate({**values, "script": text})


def files(submit: Any) -> Files:
    values = {"as": "a", "role": "provoke", "verb": "files", "directory": "d", "size": BLOCK}
    return Files.model_validate({**values, "count": 1, "generation": 2, "submit": submit})


def by(submit: Submit) -> Any:
    return write("a", Role.PROVOKE, (0, 2), (), generation=2, submit=submit).step


def cmd(*argv: str) -> Any:
    return ran("a", Role.PROVOKE, argv).step


STORES, WRITES = "open a; store a; msync a", "open a; write a; fsync a"
ENDS: list[tuple[Any, dict[str, Any], int | None]] = [
    (cmd("dd"), {"signal": 15}, 15),
    (cmd("dd"), {}, None),
    (cmd("dd"), {"signal": 9, "timed_out": True}, None),
    (cmd("dd"), {"exit_code": 137}, None),
    (cmd("/bin/sh", "dash"), {"exit_code": 137}, 9),
    (cmd("bash"), {"exit_code": 129}, 1),
    (cmd("sh"), {"exit_code": 128}, None),
    (cmd("busybox", "sh"), {"exit_code": 0}, None),
    (cmd("dash"), {"exit_code": 135}, 7),
    (by(Submit.DIRECT), {"exit_code": 137}, None),
    (by(Submit.DIRECT), {"exit_code": 0}, None),
    (by(Submit.DIRECT), {"signal": 7}, 7),
    (by(Submit.MMAP), {"signal": 7}, None),
    (by(Submit.MMAP), {"signal": 9}, 9),
    (files("mmap"), {"signal": 7}, None),
    (files("mmap"), {"signal": 11}, 11),
    (files("buffered"), {"signal": 7}, 7),
    (script(STORES), {"signal": 7}, None),
    (script(STORES), {"signal": 9}, 9),
    (script(WRITES), {"signal": 7}, 7),
]


@pytest.mark.parametrize(("step", "ended", "number"), ENDS)
def test_a_signal_that_nobody_declared(
    step: Any, ended: dict[str, Any], number: int | None
) -> None:
    """POSIX 2.8.2 for shells; a SIGBUS is declared for a mapping, and for nothing else."""
    submitter = Submitter(pid=PID, cgroup="", ended=Ended(**ended))
    (taken,) = seen(Act(step=step, seen={"submitter": submitter})).taken
    assert (taken.name, taken.signal) == ("a", number)
    # The declared SIGBUS is an error all the same.
    assert taken.store_failed is (ended.get("signal") == 7 and number is None)


def test_a_signal_that_the_rig_sent_is_declared() -> None:
    killed = write("a", Role.PROVOKE, (0, 2), (), generation=2, killed_by_rig=True)
    assert seen(killed).taken[0].signal is None
    assert seen(Act(step=killed.step)).taken[0].signal is None
    assert not seen(Act(step=killed.step)).taken[0].store_failed


def test_signals_have_the_numbers_of_the_system() -> None:
    assert (module.SIGKILL, module.SIGBUS) == (signal.SIGKILL, signal.SIGBUS)


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        ((), ""),
        (("dd", "if=/dev/zero"), "dd"),
        (("/usr/sbin/fsck.ext4", "-n", "/dev/loop0"), "fsck.ext4"),
    ],
)
def test_a_program_is_called_without_its_directory(argv: tuple[str, ...], name: str) -> None:
    assert program(argv) == name


# -- operations that failed -------------------------------------------------------------------------


def ranged(kind: RangeKind, ops: Sequence[Op], *, blocks: tuple[int, int] = (0, 2)) -> Act:
    """A call on a range of the device, and what it gave."""
    step = RangeOp(
        name="a",
        role=Role.PROVOKE,
        verb="range_op",
        op=kind,
        offset=blocks[0] * BLOCK,
        length=(blocks[1] - blocks[0]) * BLOCK,
    )
    submitter = Submitter(pid=PID, cgroup="", ops=tuple(ops), ended=Ended(exit_code=0))
    return Act(step=step, seen={"submitter": submitter})


def call(kind: RangeKind, first: int, result: int) -> Op:
    return Op(kind.value, first * BLOCK, 2 * BLOCK, 0, result, 10, 20)


PUNCH, DISCARD = RangeKind.PUNCH_HOLE, RangeKind.DISCARD
FAILED: dict[str, tuple[Act, list[int]]] = {
    "writes and a sync, and each of them that failed": (
        write(
            "a",
            Role.PROVOKE,
            (0, 8),
            [*stored(0, 2), wrote(2, 2, EPERM), wrote(4, 2, ENOSPC), synced(), synced(EIO)],
            generation=2,
        ),
        [EPERM, ENOSPC, EIO],
    ),
    "a write up to the end of the device of 16 blocks, and one that goes beyond": (
        write(
            "a",
            Role.PROVOKE,
            (12, 18),
            [wrote(14, 2, EIO), wrote(15, 2, ENOSPC), wrote(16, 2, ENOSPC)],
            generation=2,
        ),
        [EIO],
    ),
    "a discard beyond the end, which no write(2) speaks of": (
        ranged(DISCARD, [call(DISCARD, 15, EIO)], blocks=(15, 17)),
        [EIO],
    ),
    "a device that need not have a call": (ranged(PUNCH, [call(PUNCH, 0, UNKNOWN)]), []),
    "another error of such a call": (ranged(PUNCH, [call(PUNCH, 0, EIO)]), [EIO]),
    "a sync after such a call": (
        ranged(PUNCH, [call(PUNCH, 0, 0), synced(UNKNOWN)]),
        [UNKNOWN],
    ),
    "a device that must have a call": (ranged(DISCARD, [call(DISCARD, 0, UNKNOWN)]), [UNKNOWN]),
    "a write that is said not to be supported": (
        write("a", Role.PROVOKE, (0, 2), [wrote(0, 2, UNKNOWN)], generation=2),
        [UNKNOWN],
    ),
}


@pytest.mark.parametrize("name", FAILED)
def test_an_operation_failed(name: str) -> None:
    act, results = FAILED[name]
    scene = seen(act)
    assert [op.result for op in failed_ops(scene.taken[0], scene)] == results


def test_what_nobody_submitted_did_not_fail() -> None:
    scene = seen(Act(step=by(Submit.DIRECT)))
    assert (scene.taken[0].ops, failed_ops(scene.taken[0], scene)) == ((), ())
