"""A prompt in a guest that has been brought to a step of a case: line by line, kernel log beside it.

There is no terminal in the guest: each line is a command of its own, run by the guest's program as a
case's step ``run`` is. The working directory and exported variables last from line to line, and each
layer's path is in a variable of its name in capitals.
"""

from __future__ import annotations

import base64
import errno
import shlex
from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from conformance.hostside import HostSide
from conformance.machine.protocol import AgentError, Guest, WireGarbage
from conformance.model import Arm, Built, Role, StepSeen, Watch
from conformance.runner import BUILD_LIMIT, GRACE, build_args, step_args

Answer = TypeVar("Answer", Built, StepSeen)
Tell = Callable[[str], None]

HELP = """\
Each line is run by sh in the guest; cd and export last. $DEVICE and the like are the layers' paths.
  :next         take the case's next step       :cgroup NAME  run what follows in a cgroup of the case
  :steps        the steps, with where it stands  :limit N      seconds that a line may take
  :help         this                             exit, Ctrl-D  leave; the guest is thrown away"""

_STATE = "/run/shell"
_AROUND = """\
cd "$(cat {state}.cwd 2>/dev/null || echo /)" || cd /
if [ -r {state}.env ]; then . {state}.env; fi
{layers}
eval "$(echo {line} | base64 -d)"
status=$?
pwd >{state}.cwd
export -p | grep -v ' PWD=' >{state}.env
exit $status"""


def default_step(arm: Arm) -> str:
    """Where a guest is stopped if nobody says: after the last step that runs into the shortage."""
    provoking = [step.name for step in arm.steps if step.role is Role.PROVOKE]
    return provoking[-1] if provoking else arm.steps[-1].name


class Shell:
    """A guest with a case's rig, and what has been done in it."""

    def __init__(self, guest: Guest, arm: Arm, *, speed: float, tell: Tell) -> None:
        self._guest = guest
        self._arm = arm
        self._host = HostSide(arm)
        self._speed = speed
        self._tell = tell
        self._taken = 0
        self._paths: dict[str, str] = {}
        self._cgroup = ""
        self._limit = 60.0

    def reach(self, at: str) -> None:
        """Build the rig and take the steps up to the one of that name, and that one too.

        Raises MachineError: AgentError if the rig cannot be built.
        """
        limit = BUILD_LIMIT * self._speed
        answer = self._host.call(
            self._guest, "build", build_args(self._arm, self._speed), limit=limit
        )
        built = _valid(answer, Built)
        for name, facts in built.layers.items():
            self._paths[name] = str(facts.get("path", ""))
        self._tell(f"the rig stands: {', '.join(f'{n} {p}' for n, p in self._paths.items())}")
        self._log(built.watch)
        while self._taken < len(self._arm.steps):
            name = self._arm.steps[self._taken].name
            self.next()
            if name == at:
                break

    def next(self) -> None:
        """Take the next step. Raises MachineError."""
        if self._taken == len(self._arm.steps):
            self._tell("no step is left")
            return
        step = self._arm.steps[self._taken]
        limit = (step.limit + GRACE) * self._speed
        asked = step_args(step, self._speed)
        answer = self._host.call(self._guest, "step", asked, limit=limit)
        seen = _valid(answer, StepSeen)
        self._taken += 1
        self._tell(f"{self._taken:>3} {step.name} ({step.verb}): {_outcome(seen)}")
        self._log(seen.watch)

    def line(self, text: str) -> bool:
        """Do what a line says. Whether there is to be another. Raises GuestLost."""
        word, _, rest = text.strip().partition(" ")
        match word:
            case "":
                return True
            case "exit" | "quit":
                return False
            case ":next":
                self.next()
            case ":steps":
                self._steps()
            case ":cgroup":
                self._enter(rest.strip())
            case ":limit" if rest.strip().isdigit():
                self._limit = float(rest)
            case _ if word.startswith(":"):
                self._tell(HELP)
            case _:
                self._run(text)
        return True

    def _steps(self) -> None:
        for number, step in enumerate(self._arm.steps, 1):
            mark = ">" if number == self._taken + 1 else " "
            self._tell(f"{mark}{number:>3} {step.name} ({step.verb}, {step.role.value})")

    def _enter(self, cgroup: str) -> None:
        if cgroup and cgroup not in self._arm.cgroups:
            self._tell(
                f"no cgroup {cgroup}; the case has: {', '.join(self._arm.cgroups) or 'none'}"
            )
            return
        self._cgroup = cgroup
        self._tell(f"what follows runs in {cgroup or 'the root cgroup'}")

    def _run(self, text: str) -> None:
        layers = "\n".join(
            f"export {name.upper()}={shlex.quote(path)}"
            for name, path in self._paths.items()
            if name.upper() not in ("PATH", "HOME", "PWD")
        )
        line = base64.b64encode(text.encode()).decode()
        script = _AROUND.format(state=_STATE, layers=layers, line=line)
        # Braces in a command are layers' names to the guest's program.
        words = ["sh", "-c", script.replace("{", "{{").replace("}", "}}")]
        limit = self._limit * self._speed
        step = {"as": "line", "verb": "run", "cgroup": self._cgroup, "argv": words, "limit": limit}
        try:
            limit += GRACE * self._speed
            answer = self._host.call(self._guest, "step", {"step": step}, limit=limit)
        except AgentError as error:
            self._tell(str(error))
            return
        seen = _valid(answer, StepSeen)
        if seen.problem:
            self._tell(seen.problem)
        if seen.submitter is not None:
            if seen.submitter.output:
                self._tell(seen.submitter.output.rstrip("\n"))
            ended = seen.submitter.ended
            if ended.timed_out:
                self._tell(f"[ended: it took longer than {self._limit:.0f} s]")
            elif ended.signal:
                self._tell(f"[killed by signal {ended.signal}]")
            elif ended.exit_code:
                self._tell(f"[status {ended.exit_code}]")
        self._log(seen.watch)

    def _log(self, watch: Watch) -> None:
        for line in watch.kernel_log:
            self._tell(f"  | {line.text}")


def _valid(answer: object, kind: type[Answer]) -> Answer:
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        raise WireGarbage(f"no valid answer: {error.errors()[0]['msg']}") from error


def _outcome(seen: StepSeen) -> str:
    """In words what was seen of a step."""
    told = [seen.problem] if seen.problem else []
    submitter = seen.submitter
    if submitter is not None:
        written = sum(op.result for op in submitter.ops if op.kind == "write" and op.result > 0)
        failed = [op for op in submitter.ops if op.result < 0]
        if submitter.ops:
            told.append(f"{len(submitter.ops)} calls, {written} bytes")
        if failed:
            code = errno.errorcode.get(-failed[0].result, str(-failed[0].result))
            told.append(f"{code} from {failed[0].kind} at {failed[0].offset}")
        if submitter.ended.signal:
            told.append(f"killed by signal {submitter.ended.signal}")
        if submitter.ended.timed_out:
            told.append("ran over its limit")
    told += [f"{one.argv[0]} ended with {one.ended.exit_code}" for one in seen.commands]
    sizes: dict[str, int] = {}
    for extent in seen.extents:
        sizes[extent.content] = sizes.get(extent.content, 0) + extent.length
    told += [f"{size} bytes {content}" for content, size in sizes.items()]
    reading = seen.watch.reading
    if reading.limit is not None:
        told.append(f"{reading.used} of {reading.limit} in use")
    return ", ".join(told) or "done"
