"""A machine whose guests a saboteur is in: it asks the agent for one command more, unseen.

The agent, the rig and the judge are the real ones. What the kernel log had to say of the command's time is
handed on with the answer to the next step, so that nothing is lost to the judge.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conformance.machine.protocol import Guest, Machine
from tests.planted.saboteurs import Act, Saboteur

_LIMIT = 30


class SabotagedGuest:
    """A guest in which scripts run beside the steps. See the protocol ``Guest``."""

    def __init__(self, guest: Guest, acts: tuple[Act, ...], rewrite: Callable[[], Path]) -> None:
        self._guest = guest
        self._acts = acts
        self._rewrite = rewrite
        self._log: list[Any] = []
        self.failed: list[str] = []
        self.done: list[Act] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guest, name)

    def call(self, do: str, args: Mapping[str, Any], *, limit: float) -> object:
        """See ``Guest``."""
        name = args["step"]["as"] if do == "step" else ""
        for act in self._acts:
            if act.step == name and not act.after:
                self._run(act)
        answer: Any = self._guest.call(do, args, limit=limit)
        if do == "step":
            log = answer["watch"]["kernel_log"]
            answer["watch"]["kernel_log"] = [*self._log, *log]
            self._log = []
        for act in self._acts:
            if act.step == name and act.after:
                self._run(act)
        return answer

    def _run(self, act: Act) -> None:
        self.done.append(act)
        step = {
            "verb": "run",
            "as": "sabotage",
            "cgroup": "",
            "argv": ["sh", "-c", self._loading(act) + act.script],
            "limit": _LIMIT,
        }
        seen: Any = self._guest.call("step", {"step": step}, limit=_LIMIT + 10)
        self._log += seen["watch"]["kernel_log"]
        (command,) = seen["commands"]
        if seen["problem"] or command["ended"]["exit_code"] != 0:
            self.failed.append(f"{act.script}: {command['output'] or seen['problem']}")

    def _loading(self, act: Act) -> str:
        if not act.rewrite:
            return ""
        packed = base64.b64encode(self._rewrite().read_bytes()).decode()
        return f"echo {packed} | base64 -d >/tmp/rewrite.ko && insmod /tmp/rewrite.ko mode={act.rewrite}\n"


class SabotagedMachine:
    """Makes guests that a saboteur is in. See the protocol ``Machine``."""

    def __init__(self, machine: Machine, saboteur: Saboteur, rewrite: Callable[[], Path]) -> None:
        self._machine = machine
        self._acts = saboteur.acts
        self._rewrite = rewrite
        self._done: list[Act] = []
        self.failed: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine, name)

    @property
    def idle(self) -> list[str]:
        """Acts whose step did not come in any of the guests: a saboteur that did nothing."""
        return [f"no step {act.step}" for act in self._acts if act not in self._done]

    @contextmanager
    def guest(self, *, workdir: Path) -> Iterator[Any]:
        """See ``Machine``."""
        with self._machine.guest(workdir=workdir) as guest:
            sabotaged = SabotagedGuest(guest, self._acts, self._rewrite)
            yield sabotaged
            self.failed += sabotaged.failed
            self._done += sabotaged.done
