"""The fake keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.machine.fake import FakeMachine, Mischief
from conformance.machine.protocol import LaunchFailed, Machine
from tests.machine import contract


@pytest.fixture
def machine() -> Machine:
    return FakeMachine(contract.handlers, mischief={kind.value: kind for kind in Mischief})


@pytest.fixture
def limit() -> float:
    return 10.0


class TestFakeMachine(contract.MachineContract):
    pass


def test_it_can_fail_to_launch(tmp_path: Path) -> None:
    machine = FakeMachine(contract.handlers, launch_fails="no root")
    with pytest.raises(LaunchFailed, match="no root"), machine.guest(workdir=tmp_path):
        pass
