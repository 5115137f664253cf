"""The step ``reattach``: how long a device gets to be let go of, by whom, and what is told then."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
from agent import steps
from agent.basics import Clock, Json
from agent.layers import Site
from agent.layers import base as base_module
from agent.layers.base import Attachable, Fact
from agent.layers.fs import Filesystem
from agent.layers.loop import Loop
from agent.processes import ended
from agent.rig import Rig
from agent.watchers.kmsg import KernelLog
from agent.workloads import crew as crew_module
from agent.workloads.crew import Crew
from agent.workloads.pattern import Pattern

SOON = 0.3
"""Seconds until a device is free."""


class Slow(Attachable):
    """A device that is free some time after it was let go of."""

    def __init__(self, site: Site) -> None:
        super().__init__({"name": "device"}, {}, site)
        self.path = "/dev/slow"
        self._free_at = time.monotonic() + 3600

    def attach(self) -> Json:
        """See ``Attachable``."""
        self._free_at = time.monotonic() + 3600
        return {"argv": ["attach"], "ended": ended(0), "output": ""}

    def detach(self) -> Json:
        """See ``Attachable``."""
        self._free_at = time.monotonic() + SOON
        return {"argv": ["detach"], "ended": ended(0), "output": ""}

    def attached(self) -> bool:
        """See ``Attachable``."""
        return time.monotonic() < self._free_at

    def up(self) -> None:
        """See ``Layer``."""

    def down(self) -> list[Json]:
        """See ``Layer``."""
        return []

    def facts(self) -> dict[str, Fact]:
        """See ``Layer``."""
        return {}

    def left(self) -> list[str]:
        """See ``Layer``."""
        return []


def rig(pace: float = 1.0) -> Rig:
    site = Site(pace=pace)
    return Rig(
        clock=Clock.start(),
        pattern=Pattern(bytes(8)),
        log=KernelLog(),
        site=site,
        layers={"device": Slow(site)},
        crew=Crew(pace),
    )


@pytest.mark.parametrize(
    ("least", "pace", "limit", "goes"),
    [
        (SOON / 10, 1.0, SOON / 10, False),
        (SOON / 10, 1.0, 10.0, True),  # the step's own limit
        (SOON / 3, 10.0, SOON / 10, True),  # what is the least, on a slow machine
    ],
)
def test_a_device_has_the_step_s_limit_to_be_let_go_of(
    monkeypatch: pytest.MonkeyPatch, least: float, pace: float, limit: float, *, goes: bool
) -> None:
    monkeypatch.setattr(steps, "DETACH_LIMIT", least)
    if not goes:  # nor after this process has waited for its turn
        monkeypatch.setitem(globals(), "SOON", 3600.0)
    seen = steps.reattach(rig(pace), {"target": "device", "limit": limit})
    words = [command["argv"][0] for command in seen["commands"]]
    assert words == (["detach", "attach"] if goes else ["detach", "detached"])
    assert seen["commands"][-1]["ended"]["timed_out"] is not goes


def test_what_a_device_waits_for_may_take_longer_on_a_slow_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[float] = []

    def poll_until(_: object, limit: float) -> bool:
        limits.append(limit)
        return True

    monkeypatch.setattr(base_module, "poll_until", poll_until)
    monkeypatch.setattr(Site, "run", lambda *_, **__: {"argv": [], "ended": ended(0), "output": ""})
    Loop({"name": "device"}, {}, Site(pace=2.5)).detach()
    assert limits == [12.5]


def test_bystanders_have_longer_to_let_go_on_a_slow_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[float] = []

    class One:
        name = "neighbour"

        def pause(self, limit: float) -> bool:
            limits.append(limit)
            return True

        resume = pause

    crew = Crew(2.5)
    monkeypatch.setattr(crew, "_all", [cast("Any", One())])
    assert crew.pause() == []
    crew.resume()
    assert limits == [crew_module.PAUSE_LIMIT * 2.5] * 2


def test_a_step_s_limit_is_not_scaled_twice() -> None:
    """The host scales it, and a layer scales what it is told."""
    limits: list[float] = []

    class Mounted(Filesystem):
        def __init__(self) -> None:
            self.name = "fs"

        def mount(self, limit: float) -> Json:
            limits.append(limit)
            return {}

    standing = rig(2.5)
    standing.layers["fs"] = Mounted()
    steps.mount(standing, {"target": "fs", "limit": 150.0})
    assert limits == [60.0]
