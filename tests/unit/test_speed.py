"""Limits scale with the measured speed of the machine, which the record states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conformance.library import load_library, select
from conformance.machine.fake import FakeMachine
from conformance.machine.machines import REFERENCE_ANSWER, REFERENCE_BOOT, speed_of
from conformance.machine.protocol import Guest
from conformance.runner import Facts, Limits, run_variant
from tests.support.model_guest import ModelGuest

ROOT = Path(__file__).parents[2]
(VARIANT,) = select(
    load_library([ROOT / "cases"], ROOT / "fixtures").variants, "loop_enospc_tmpfs_full[direct-off]"
)


@pytest.mark.parametrize(
    ("boot", "answer", "speed"),
    [
        (REFERENCE_BOOT, REFERENCE_ANSWER, 1.0),
        (REFERENCE_BOOT / 3, REFERENCE_ANSWER / 3, 1.0),
        (4 * REFERENCE_BOOT, REFERENCE_ANSWER, 4.0),
        (REFERENCE_BOOT, 10 * REFERENCE_ANSWER, 10.0),
        (4 * REFERENCE_BOOT, 3 * REFERENCE_ANSWER, 4.0),
        (100 * REFERENCE_BOOT, None, 20.0),
        (REFERENCE_BOOT, 100 * REFERENCE_ANSWER, 20.0),
        (None, None, 2.0),
        (None, 5 * REFERENCE_ANSWER, 5.0),
    ],
)
def test_the_slower_of_two_measures_counts(
    boot: float | None, answer: float | None, speed: float
) -> None:
    assert speed_of(boot, answer) == pytest.approx(speed)


class _Slowing(FakeMachine):
    """A machine that was found to be slow only by the guest that is there now."""

    def __init__(self) -> None:
        super().__init__(lambda: ModelGuest().handlers(), kernel="model")
        self.waits: list[tuple[str, float, Any]] = []

    def guest(self, *, workdir: Path) -> Any:
        self._speed = 10.0
        return _Noting(super().guest(workdir=workdir), self.waits)


class _Noting:
    """Notes how long each answer is waited for."""

    def __init__(self, inner: Any, waits: list[tuple[str, float, Any]]) -> None:
        self._inner = inner
        self._waits = waits

    def __enter__(self) -> Any:
        self._guest: Guest = self._inner.__enter__()
        return self

    def __exit__(self, *how: object) -> None:
        self._inner.__exit__(*how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guest, name)

    def call(self, do: str, args: Any, *, limit: float) -> object:
        self._waits.append((do, limit, args))
        return self._guest.call(do, args, limit=limit)


def test_every_limit_is_that_of_a_machine_ten_times_slower(tmp_path: Path) -> None:
    machine = _Slowing()
    limits = Limits(probe=1.0, build=2.0, teardown=3.0, grace=5.0)
    outcome = run_variant(VARIANT, machine, facts=Facts(), workdir=tmp_path, limits=limits)
    assert outcome.observation is not None
    (seen,) = outcome.observation.arms
    assert seen.speed == 10.0
    waits = [(do, limit, args) for do, limit, args in machine.waits if do != "probe"]
    assert [(do, limit) for do, limit, _ in waits if do != "step"] == [
        ("build", 20.0),
        ("teardown", 80.0),
    ]
    assert [args["speed"] for do, _, args in waits if do == "build"] == [10.0]
    steps = [(limit, args["step"]["limit"]) for do, limit, args in waits if do == "step"]
    (arm,) = VARIANT.arms
    assert steps == [((step.limit + 5) * 10, step.limit * 10) for step in arm.steps]
