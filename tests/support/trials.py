"""Stories put before one clause, or before none: without the verdict that is made of all of them."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.model import BLOCK, Calls, Clause, Ended, FileOp, Finding, Role, Submitter
from conformance.oracle.clauses import CLAUSES
from conformance.oracle.trial import Trial, trial
from tests.support.builders import PID, Act, Story


def joined(main: Story, **others: Story) -> Trial:
    """A trial of an arm ``main``, and of others by their names."""
    tales = {"main": main, **others}
    asked = [tale.variant.arms[0].model_copy(update={"name": name}) for name, tale in tales.items()]
    seen = [
        tale.observation.arms[0].model_copy(update={"name": name}) for name, tale in tales.items()
    ]
    return trial(
        main.variant.model_copy(update={"arms": tuple(asked)}),
        main.observation.model_copy(update={"arms": tuple(seen)}),
    )


def found(clause: Clause, main: Story, **others: Story) -> list[Finding]:
    """What one clause says of some arms."""
    return list(CLAUSES[clause](joined(main, **others)))


def called(name: str, role: Role, script: str, results: Sequence[int]) -> Act:
    """A script of system calls on the first two blocks, and what each call returned."""
    step = Calls.model_validate(
        {
            "as": name,
            "role": role,
            "verb": "calls",
            "length": 2 * BLOCK,
            "generation": 3,
            "script": script,
        }
    )
    ops = tuple(
        FileOp(call.do, call.fd, 1, 2 * BLOCK if call.do == "write" else 0, result, at, at)
        for at, (call, result) in enumerate(zip(step.script, results, strict=True))
    )
    submitter = Submitter(pid=PID, cgroup="", ended=Ended(exit_code=0), tool="calls")
    return Act(step=step, seen={"file_ops": ops, "submitter": submitter})
