"""The script of each published deviation in a fresh guest, on each kernel that the suite judged it on.

``tox -e reproduce``; ``-- -k 'loop_enospc and trixie'`` runs some. An outcome is kept when it is known, in
results/reproduced.tsv, and a script that has said what it should is not run again: to begin anew, delete
the file.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance import tsv
from conformance.machine.machines import QemuMachine
from conformance.publish import REPRODUCED, outcomes, reproduced_trials
from conformance.reproduce.trials import GOOD, Outcome, Trial, attempt, done, violated
from tests.support.scripts import machine_of, run

pytestmark = pytest.mark.reproduce

TRIALS, REFUSED = reproduced_trials()
KNOWN = outcomes()


class Machines:
    """The machine of the kernel that is at work; its predecessor is closed."""

    def __init__(self) -> None:
        self._kernel = ""
        self._machine: QemuMachine | None = None

    def of(self, kernel: str) -> QemuMachine:
        """The machine of a kernel."""
        if kernel != self._kernel or self._machine is None:
            self.close()
            self._machine, self._kernel = machine_of(kernel), kernel
        return self._machine

    def close(self) -> None:
        """Let it go."""
        if self._machine is not None:
            self._machine.close()
            self._machine = None


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    found = Machines()
    yield found
    found.close()


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.id)
def test_the_script_says_what_the_suite_said(
    trial: Trial, machines: Machines, tmp_path: Path
) -> None:
    if done(trial, KNOWN):
        return
    machine = machines.of(trial.kernel)
    folders = iter(tmp_path / str(number) for number in range(9))
    begin = time.monotonic()
    word, status, output = attempt(trial, lambda text: run(machine, text, next(folders)))
    outcome = Outcome(
        variant=trial.name,
        kernel=trial.kernel,
        release=str(machine.describe()["release"]),
        suite=trial.status,
        script=word,
        clauses=", ".join(violated(output)) if status == 1 else str(status),
        seconds=round(time.monotonic() - begin, 1),
        digest=trial.digest,
    )
    tsv.append(REPRODUCED, outcome)
    assert word in GOOD, f"the suite said {trial.status}, {', '.join(trial.clauses)}\n{output}"
