"""Runs one variant on one machine: probe, plan, a fresh guest for each arm, observe, judge.

The only module that drives a guest. It has no opinion: what it returns is what the guest answered,
and, where a guest was lost, how. ``run_variant`` is a function of a variant and a machine; what finds
the machine by a kernel's name, and is called by every engine, is ``task.run_case``.

What may go wrong, and what becomes of it:

- the guest cannot be launched, or is lost while it is probed: ``ArmSeen.lost``, judged BROKEN
- the rig cannot be built: ``ArmSeen.problem``, judged BROKEN
- the guest panics, hangs, vanishes or sends garbage: ``ArmSeen.lost`` names the step; the oracle
  tells a deviation of the kernel from a failure of the rig by whether the shortage was in force
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from conformance.hostside import LACKS, HostSide
from conformance.machine.protocol import (
    AgentError,
    DiskFailed,
    Guest,
    GuestGone,
    GuestHung,
    GuestPanicked,
    LaunchFailed,
    Machine,
    MachineError,
    WireGarbage,
)
from conformance.model import (
    AnyStep,
    Arm,
    ArmSeen,
    Built,
    Lost,
    NotApplicable,
    Observation,
    Plan,
    Status,
    StepSeen,
    TornDown,
    Value,
    Variant,
    Verdict,
    as_json,
    dotted,
)
from conformance.oracle import judge
from conformance.planner import Target, plan, requirements

BUILD_LIMIT = 90.0
"""Seconds, on the reference machine, for a rig: the slowest is mkfs on a loop device."""
PROBE_LIMIT = 60.0
TEARDOWN_LIMIT = 60.0
PROCESSES = "processes"
PRIVATE = "private"
"""Names in ``work``, beside those of ``Guest.work``."""
GRACE = 45.0
"""Seconds beyond the limit of a step or of tear-down: the agent ends what runs over, and takes evidence."""

AnyValue = TypeVar("AnyValue", bound=Value)


class Limits(Value):
    """How long a guest is waited for: seconds on the reference machine, see ``Machine.speed``.

    A step has its own limit, in its case; ``grace`` comes on top of it, and of tear-down's.
    """

    probe: float = PROBE_LIMIT
    build: float = BUILD_LIMIT
    teardown: float = TEARDOWN_LIMIT
    grace: float = GRACE


STANDARD = Limits()


class Outcome(Value):
    """All that came of one variant on one kernel."""

    plan: Plan | NotApplicable | None
    observation: Observation | None
    verdict: Verdict
    unopened: bool = False  # for want of a bench: somebody else may have one


class Facts:
    """What a kernel can do, found out by a probe once for each requirement."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def missing(self, needs: tuple[str, ...]) -> list[str]:
        """The requirements that nobody has probed yet."""
        return [need for need in needs if need not in self._known]

    def learn(self, found: Mapping[str, str]) -> None:
        """Keep what a probe answered: an empty reason means that the requirement is met."""
        self._known.update(found)

    def __getitem__(self, need: str) -> str:
        return self._known[need]

    def as_mapping(self) -> Mapping[str, str]:
        """A copy: requirement to the reason why it is not met, or to nothing."""
        return dict(self._known)


def run_variant(
    variant: Variant,
    machine: Machine,
    *,
    facts: Facts,
    workdir: Path,
    limits: Limits = STANDARD,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Run ``variant`` on ``machine`` and judge it. Console logs go below ``workdir``.

    Raises only what the caller's own machine is to blame for (OSError); whatever befalls a guest is
    part of the outcome.
    """
    began = clock()
    kernel = machine.describe()
    name, release = str(kernel["kernel"]), str(kernel["release"])
    folder = workdir / variant.id

    def verdict(status: Status, *reasons: str) -> Verdict:
        return Verdict(
            case=variant.case,
            values=variant.values,
            kernel=name,
            release=release,
            status=status,
            reasons=reasons,
            seconds={"total": round(clock() - began, 3)},
            work=work,
        )

    work: dict[str, int] = {}
    wanted = facts.missing(requirements(variant))
    if wanted:
        lost = probe(
            machine,
            wanted,
            facts,
            folder / "probe",
            limit=limits.probe,
            took=lambda some: add_work(work, some),
        )
        if lost is not None:
            reason = f"the guest was lost while it was probed: {lost.how}: {lost.title}"
            return Outcome(plan=None, observation=None, verdict=verdict(Status.BROKEN, reason))
    planned = plan(variant, Target(kernel=name, release=release, facts=facts.as_mapping()))
    if isinstance(planned, NotApplicable):
        return Outcome(
            plan=planned, observation=None, verdict=verdict(Status.SKIP, *planned.reasons)
        )
    observation = Observation(
        case=variant.case,
        values=variant.values,
        kernel=name,
        release=release,
        arms=tuple(
            _observe(
                machine,
                folder / arm.name,
                workdir=workdir,
                seen=_Arm(arm, limits, clock),
                clock=clock,
            )
            for arm in planned.arms
        ),
    )
    observed = clock()
    judged = judge(variant, observation)
    ended = clock()
    seconds = {"total": round(ended - began, 3), "judge": round(ended - observed, 3)}
    for arm in observation.arms:
        for part, spent in arm.seconds.items():
            seconds[part] = round(seconds.get(part, 0.0) + spent, 3)
        add_work(work, arm.work)
    return Outcome(
        plan=planned,
        observation=observation,
        verdict=judged.model_copy(update={"seconds": seconds, "work": work}),
    )


def add_work(whole: dict[str, int], part: Mapping[str, int]) -> None:
    """Add what a guest took to ``whole``: counts are summed, and of private memory the most is kept,
    since one guest follows the other.
    """
    for name, count in part.items():
        before = whole.get(name, 0)
        whole[name] = max(before, count) if name == PRIVATE else before + count


def probe(
    machine: Machine,
    wanted: list[str],
    facts: Facts,
    folder: Path,
    *,
    limit: float = PROBE_LIMIT,
    took: Callable[[Mapping[str, int]], None] = lambda work: None,
) -> Lost | None:
    """Have a guest find out about requirements, and the host about its own; how the guest was lost,
    if it was. ``took`` is told the guest's ``work``.
    """
    hosts = [need for need in wanted if need.startswith(LACKS)]
    facts.learn({need: machine.lacks(need.removeprefix(LACKS)) for need in hosts})
    wanted = [need for need in wanted if need not in hosts]
    if not wanted:
        return None
    try:
        with machine.guest(workdir=folder) as guest:
            try:
                answer = guest.call("probe", {"requirements": wanted}, limit=limit * machine.speed)
            finally:
                took(guest.work)
    except MachineError as error:
        return _lost("probe", error)
    if not isinstance(answer, dict) or set(answer) != set(wanted):
        return Lost(how="wire", step="probe", title="the probe did not answer what it was asked")
    facts.learn({str(need): str(reason) for need, reason in answer.items()})
    return None


def rebased(outcome: Outcome, base: Path) -> Outcome:
    """``outcome`` with its consoles relative to the folder that holds ``base``, as records promise."""
    observation = outcome.observation
    if observation is None:
        return outcome
    old = [arm.console for arm in observation.arms if arm.console]
    moved = {console: str(base / console) for console in old}
    arms = tuple(
        arm.model_copy(update={"console": moved.get(arm.console, "")}) for arm in observation.arms
    )
    seen: Observation = observation.model_copy(update={"arms": arms})
    findings = tuple(
        finding.model_copy(
            update={"evidence": tuple(moved.get(item, item) for item in finding.evidence)}
        )
        for finding in outcome.verdict.findings
    )
    verdict = outcome.verdict.model_copy(update={"findings": findings})
    return Outcome(plan=outcome.plan, observation=seen, verdict=verdict)


def _observe(
    machine: Machine,
    folder: Path,
    *,
    workdir: Path,
    seen: _Arm,
    clock: Callable[[], float],
) -> ArmSeen:
    """One arm in a guest of its own. A lost guest ends the arm; what was seen before is kept."""
    try:
        with machine.guest(workdir=folder) as guest:
            try:
                # Measured with this very guest.
                seen.drive(guest, machine.speed)
            except MachineError as error:
                seen.lose(error, guest)
            whole = seen.finish(
                console=_relative(guest.console_path, workdir),
                events=guest.events,
                timing=guest.timing,
                work=guest.work,
            )
            closing = clock()
        spent = {**whole.seconds, "close": round(clock() - closing, 4)}
        return whole.model_copy(update={"seconds": spent})
    except MachineError as error:
        seen.lose(error, None)
        return seen.finish(console="", events=(), timing={}, work={})


class _Arm:
    """What has been seen of an arm so far: grows while the guest lives, and survives its loss."""

    def __init__(self, arm: Arm, limits: Limits, clock: Callable[[], float]) -> None:
        self._arm = arm
        self._limits = limits
        self._speed = 1.0
        self._clock = clock
        self._host = HostSide(arm)
        self._at = "launch"
        self._built: Built | None = None
        self._steps: list[StepSeen] = []
        self._torn_down: TornDown | None = None
        self._lost: Lost | None = None
        self._problem = ""
        self._seconds: dict[str, float] = {}

    def drive(self, guest: Guest, speed: float) -> None:
        """Build the rig, take the steps in order, tear down. Raises MachineError."""
        self._speed = speed
        self._at = "build"
        try:
            self._built = self._ask(
                guest, "build", build_args(self._arm, speed), self._limits.build, Built
            )
        except (AgentError, DiskFailed) as error:
            self._problem = f"the rig could not be built: {error}"
            return
        for step in self._arm.steps:
            self._at = step.name
            asked = step_args(step, self._speed)
            seen = self._ask(guest, "step", asked, step.limit + self._limits.grace, StepSeen)
            self._steps.append(seen)
            if seen.problem:
                break
        self._at = "teardown"
        # The agent ends what runs over, and takes evidence: as in a step.
        limit = self._limits.teardown + self._limits.grace
        self._torn_down = self._ask(guest, "teardown", {}, limit, TornDown)

    def lose(self, error: MachineError, guest: Guest | None) -> None:
        """Keep how the guest was lost, with what evidence can still be had."""
        if self._lost is None:
            self._lost = _lost(self._at, error, guest)

    def finish(
        self,
        *,
        console: str,
        events: tuple[dict[str, object], ...],
        timing: Mapping[str, float],
        work: Mapping[str, int],
    ) -> ArmSeen:
        """The arm as it was seen, whole or cut short."""
        down = self._torn_down
        started = {} if down is None or down.processes is None else {PROCESSES: down.processes}
        return ArmSeen(
            name=self._arm.name,
            built=self._built,
            steps=tuple(self._steps),
            torn_down=self._torn_down,
            lost=self._lost,
            problem=self._problem,
            console=console,
            qemu_events=events,
            speed=round(self._speed, 2),
            seconds={**timing, **self._seconds},
            work={**work, **started},
        )

    def _ask(
        self,
        guest: Guest,
        do: str,
        args: Mapping[str, object],
        limit: float,
        kind: type[AnyValue],
    ) -> AnyValue:
        began = self._clock()
        answer = self._host.call(guest, do, args, limit=limit * self._speed)
        spent = self._clock() - began
        try:
            seen = kind.model_validate(answer)
        except ValidationError as error:
            first = error.errors()[0]
            place = dotted(first["loc"])
            raise WireGarbage(f"the answer to {do} has no valid {place}: {first['msg']}") from error
        if isinstance(seen, StepSeen):
            # By the guest's clock; what is left is looking at what became of it, and telling.
            step = min(spent, (seen.end_us - seen.start_us) / 1e6)
            self._spend("steps", step)
            self._spend("observation", spent - step)
        else:
            self._spend(do, spent)
        return seen

    def _spend(self, part: str, seconds: float) -> None:
        self._seconds[part] = self._seconds.get(part, 0.0) + seconds


def build_args(arm: Arm, speed: float) -> dict[str, object]:
    """What a guest is asked for to build an arm's rig. The limits of its own it multiplies by ``speed``."""
    told = as_json(arm)
    wanted = {key: told[key] for key in ("layers", "cgroups", "bystanders", "shortage")}
    # The run's own mark in every block: data of another run is foreign, not ours.
    return {**wanted, "run": secrets.token_hex(8), "speed": speed}


def step_args(step: AnyStep, speed: float) -> dict[str, object]:
    """A step as the guest hears it: what to do, and nothing of what it is for."""
    told = {key: value for key, value in as_json(step).items() if key != "role"}
    return {"step": {**told, "limit": step.limit * speed}}


def _lost(step: str, error: MachineError, guest: Guest | None = None) -> Lost:
    match error:
        case GuestPanicked():
            how = "panicked"
        case GuestHung():
            how = "hung"
        case GuestGone():
            how = "gone"
        case WireGarbage():
            how = "wire"
        case LaunchFailed():
            how = "launch"
        case _:
            how = "agent"
    evidence = dict(getattr(error, "evidence", {}) or {})
    detail = getattr(error, "detail", "")
    if detail:
        evidence["agent"] = detail
    if guest is not None and "console" not in evidence:
        evidence["console"] = guest.console[-8192:]
    return Lost.model_validate(
        {"how": how, "step": step, "title": str(error), "evidence": evidence}
    )


def _relative(path: Path, workdir: Path) -> str:
    try:
        return str(path.relative_to(workdir))
    except ValueError:
        return str(path)
