"""An engine with the real planner, runner, wire and oracle; the guest is a model.

With ``CONFORM_FAKE_LIE=1`` the model's bystander does not live to see the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from conformance.bench import MachineBench
from conformance.engine import Parcel, Progress, Setup
from conformance.machine.fake import FakeMachine
from tests.support.model_guest import ModelGuest


class ModelEngine:
    """Knows every kernel, by its name."""

    def prepare(self, kernel: str, progress: Progress) -> dict[str, object]:
        return dict(_machine(kernel).describe())

    def prepared(self) -> Setup:
        return Setup()

    def open(self, kernel: str, progress: Progress) -> MachineBench:
        return MachineBench(kernel, _machine(kernel))

    def pack(self, kernel: str, progress: Progress) -> tuple[Parcel, Mapping[str, Path]]:
        return Parcel(kernel=kernel), {}

    def unpack(
        self, parcel: Parcel, find: Callable[[str], Path], progress: Progress
    ) -> MachineBench:
        return self.open(parcel.kernel, progress)


def engine(setup: Setup) -> ModelEngine:
    """What ``CONFORM_ENGINE`` names."""
    return ModelEngine()


def _machine(kernel: str) -> FakeMachine:
    lie = _kill_bystanders if os.environ.get("CONFORM_FAKE_LIE") else None
    return FakeMachine(lambda: ModelGuest(lie=lie).handlers(), kernel=kernel)


def _kill_bystanders(verb: str, asked: dict[str, Any], honest: dict[str, Any]) -> dict[str, Any]:
    if verb == "step" and asked["step"]["verb"] == "relieve":
        for bystander in honest["watch"]["bystanders"]:
            bystander |= {"alive": False, "signal": 9}
    return honest
