"""Submitters of hand-written runs, each with what it was told: refused writers, files, scripts of calls.

``fill`` and its like write two blocks; what a run is made of otherwise is in builders.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conformance.model import (
    BLOCK,
    Ended,
    FileOp,
    Files,
    Op,
    Role,
    Submit,
    Submitter,
)
from tests.support.builders import (
    PID,
    Act,
    calls,
    closed,
    stored,
    synced,
    write,
    wrote,
)


def wrote_all(*ops: Op, submit: Submit = Submit.DIRECT, **ended: Any) -> Act:
    """``fill`` wrote and synced its two blocks; or it made other calls, or ended otherwise."""
    calls = ops or (*stored(0, 2), synced(), closed())
    act = write("fill", Role.PROVOKE, (0, 2), calls, generation=2, submit=submit)
    return act.ended(**ended) if ended else act


def refused(
    name: str,
    *codes: int,
    role: Role = Role.PROVOKE,
    submit: Submit = Submit.DIRECT,
    cgroup: str = "limited",
) -> Act:
    """A writer, each of whose requests of two blocks was refused."""
    ops = [wrote(2 * place, 2, code) for place, code in enumerate(codes)]
    blocks = (0, 2 * len(codes))
    return write(name, role, blocks, ops, generation=2, submit=submit, cgroup=cgroup)


def files(name: str, *results: int, target: str = "fs", cgroup: str = "") -> Act:
    """Files are written: each operation's result, on a file of its own."""
    step = Files(
        name=name,
        role=Role.PROVOKE,
        verb="files",
        target=target,
        cgroup=cgroup,
        directory="d",
        size=BLOCK,
        count=9,
        generation=2,
    )
    ops = tuple(
        FileOp(kind, f"d/{at}", 1, BLOCK, result, at * 10, at * 10 + 5)
        for at, (kind, result) in enumerate(
            zip(("create", "write", "fsync"), results, strict=False)
        )
    )
    submitter = Submitter(pid=PID, cgroup=cgroup, ended=Ended(exit_code=0))
    return Act(step=step, seen={"submitter": submitter, "file_ops": ops})


def script(name: str, result: int, exit_code: int = 0) -> Act:
    """A script of calls, which is in no cgroup of its own, and whose fsync gave something."""
    results = (0, BLOCK, result)
    return calls(
        name,
        Role.PROVOKE,
        "open a; write a; fsync a",
        results,
        count=1,
        generation=2,
        exit_code=exit_code,
    )


def unseen(act: Act) -> Act:
    """The same step, of whose submitter nothing is known."""
    return replace(act, seen={})
