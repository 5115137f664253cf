"""What the host may ask of the guest: probe, build, step, teardown.

A session is one rig from build to tear-down. Answers are the JSON forms of the host's values.
"""

from __future__ import annotations

from collections.abc import Callable

from agent import probes
from agent.basics import Json, RigError, one_line
from agent.layers import Site
from agent.processes import UNKILLABLE
from agent.rig import Rig
from agent.steps import VERBS
from agent.watchers import blocked
from agent.watchers.kmsg import KernelLog

Handler = Callable[[Json], object]


class Session:
    """The state between two requests."""

    def __init__(self) -> None:
        self._log = KernelLog()
        self._rig: Rig | None = None

    def probe(self, args: Json) -> dict[str, str]:
        """{"requirements": [...]} -> {requirement: "" if met, else the reason}."""
        site = Site(tick=self._log.drain)
        return {need: probes.answer(need, site) for need in args["requirements"]}

    def build(self, args: Json) -> Json:
        """{"layers", "cgroups", "bystanders", "shortage", "run", "speed"} -> ``Built``.

        ``speed`` is how many times slower the machine is than the reference machine. Raises RigError if the
        rig cannot be built; the guest is of no use then.
        """
        if self._rig is not None:
            raise RigError("there is a rig already")
        try:
            self._rig = Rig.build(args, self._log)
        except RigError:
            if UNKILLABLE:
                # For the console that the host keeps: what else waits says why this one does.
                blocked.tell()
            raise
        return self._rig.built()

    def step(self, args: Json) -> Json:
        """{"step": a step without its role} -> ``StepSeen``."""
        rig = self._standing()
        step: Json = args["step"]
        seen: Json = {
            "name": step.get("as") or step["name"],
            "verb": step["verb"],
            "start_us": rig.clock.us(),
            "problem": "",
        }
        verb = VERBS.get(step["verb"])
        if verb is None:
            raise RigError(f"the guest's program knows no verb {step['verb']}")
        try:
            told = verb(rig, step)
            rig.check_shortage()
            seen.update(told)
        except RigError as error:
            seen["problem"] = one_line(error)
        except Exception as error:  # noqa: BLE001
            # A bug of ours must not pass for a lost guest, nor for a kernel's fault.
            seen["problem"] = one_line(f"the agent failed: {type(error).__name__}: {error}")
        seen["end_us"] = rig.clock.us()
        seen["watch"], gauge = rig.watch()
        seen["problem"] = seen["problem"] or gauge
        return seen

    def teardown(self, _args: Json) -> Json:
        """{} -> ``TornDown``."""
        rig, self._rig = self._standing(), None
        return rig.tear_down()

    def _standing(self) -> Rig:
        if self._rig is None:
            raise RigError("there is no rig")
        return self._rig


def handlers() -> dict[str, Handler]:
    """The requests that this guest answers, by name."""
    session = Session()
    return {
        "probe": session.probe,
        "build": session.build,
        "step": session.step,
        "teardown": session.teardown,
    }
