"""What befalls a real guest: in set-up, in the shortage, in tear-down."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conformance.library import load_library, select
from conformance.machine.cache import Cache
from conformance.machine.image import Sources, prepare_boot
from conformance.machine.machines import QemuMachine, open_machine
from conformance.model import Clause, Status, Variant
from conformance.record import Cases, Header, RecordWriter, read_record
from conformance.runner import Facts, Outcome, run_variant
from tests.faults.conftest import Told

pytestmark = [pytest.mark.vm, pytest.mark.faults]

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
VARIANT = "loop_enospc_short_write[64K-off]"
LIMIT = 8.0
"""Seconds, scaled, for what will not be answered: no less than what is answered takes."""
MEMORY_MIB = 512
_ENDING = ("panic", "agent_killed", "no_memory")
"""What ends by itself, and needs no limit."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QemuMachine]:
    """One whose agent can be told to have a fault."""
    agent = tmp_path_factory.mktemp("agent")
    shutil.copytree(Sources().agent, agent, dirs_exist_ok=True)
    (agent / "session.py").rename(agent / "real_session.py")
    shutil.copyfile(HERE / "faulty_session.py", agent / "session.py")
    kernel = os.environ.get("CONFORM_TEST_KERNEL", "debian/bookworm")
    boot = prepare_boot(kernel, cache=Cache.from_environ(), files=Sources(agent=agent))
    cache = Cache(root=tmp_path_factory.mktemp("cache"))
    machine = open_machine(boot, cache=cache, memory_mib=MEMORY_MIB)
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def variant() -> Variant:
    (found,) = select(load_library([ROOT / "cases"], ROOT / "fixtures").variants, VARIANT)
    return found


class Faulty:
    """A machine whose guests have a fault planted. See the protocol ``Machine``."""

    def __init__(self, machine: QemuMachine, when: str, what: str) -> None:
        self._machine = machine
        self._planted = {"when": when, "what": what}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine, name)

    @contextmanager
    def guest(self, *, workdir: Path) -> Iterator[Any]:
        with self._machine.guest(workdir=workdir) as guest:
            if workdir.name != "probe":
                guest.call("plant", self._planted, limit=LIMIT * self._machine.speed)
            if self._planted["what"] in _ENDING:
                yield guest
            else:
                yield _Impatient(guest, self._planted["when"], LIMIT * self._machine.speed)


class _Impatient:
    """A guest that is waited for no longer than ``limit`` where the fault is."""

    def __init__(self, guest: Any, when: str, limit: float) -> None:
        self._guest = guest
        self._when = when
        self._limit = limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guest, name)

    def call(self, do: str, args: Mapping[str, Any], *, limit: float) -> object:
        here = self._when in (do, args.get("step", {}).get("as"))
        return self._guest.call(do, args, limit=min(limit, self._limit) if here else limit)


def outcome(machine: QemuMachine, variant: Variant, folder: Path, when: str, what: str) -> Outcome:
    """What comes of the variant, written to a record and read back; nothing of the guest is left."""
    before = run_variant(variant, machine, facts=FACTS, workdir=folder / "sound")
    after = run_variant(
        variant, Faulty(machine, when, what), facts=FACTS, workdir=folder / "faulty"
    )
    header = Header(started="", command=(), cases=Cases(sha256=""))
    path = folder / "record.jsonl"
    with RecordWriter(path, header, planned=1) as writer:
        writer.add(plan=after.plan, observation=after.observation, verdict=after.verdict)
    (entry,) = read_record(path).entries
    assert entry.verdict == after.verdict
    assert before.verdict.status is Status.PASS
    left = {p.name for p in folder.rglob("*") if p.is_file()}
    assert left == {"console.log", "record.jsonl"}
    return after


FACTS = Facts()


def says(one: Outcome) -> str:
    """What reports tell: status, reasons, findings, and how the guest was lost."""
    assert one.observation is not None
    (arm,) = one.observation.arms
    lost = f"{arm.lost.how}: {arm.lost.title}" if arm.lost else "not lost"
    found = [f"{f.clause}: {f.observed}" for f in one.verdict.deviations]
    return " | ".join([str(one.verdict.status), *one.verdict.reasons, *found, lost])


@pytest.mark.parametrize("when", ["build", "fill", "teardown"])
def test_panic(
    when: str, machine: QemuMachine, variant: Variant, tmp_path: Path, told: Told
) -> None:
    one = outcome(machine, variant, tmp_path, when, "panic")
    told(says(one))
    assert one.observation is not None
    (arm,) = one.observation.arms
    assert arm.lost is not None
    assert arm.lost.how == "panicked"
    # What had been seen before is kept.
    assert bool(arm.built) == (when != "build")
    assert "sysrq: Trigger a crash" in arm.lost.evidence["console"]


@pytest.mark.parametrize("what", ["warns_as_it_goes_down", "hangs_as_it_goes_down"])
def test_tear_down(
    what: str, machine: QemuMachine, variant: Variant, tmp_path: Path, told: Told
) -> None:
    told(says(outcome(machine, variant, tmp_path, "teardown", what)))


@pytest.mark.parametrize("what", ["agent_stopped", "kernel_spins", "blocked"])
def test_hang(
    what: str, machine: QemuMachine, variant: Variant, tmp_path: Path, told: Told
) -> None:
    one = outcome(machine, variant, tmp_path, "fill", what)
    told(says(one))
    assert one.observation is not None
    (arm,) = one.observation.arms
    assert arm.lost is not None
    assert [step.name for step in arm.steps][-1] == "impose"
    evidence = arm.lost.evidence
    assert evidence["status"] == "running"
    assert "RIP=" in evidence["registers"]
    if what == "blocked":
        assert "percpu_rwsem_wait" in evidence["blocked tasks"]
    if what == "kernel_spins":
        assert re.search("read(_iter)?_zero", evidence["backtraces of active cpus"])


@pytest.mark.parametrize("what", ["agent_killed", "no_memory"])
def test_end(what: str, machine: QemuMachine, variant: Variant, tmp_path: Path, told: Told) -> None:
    told(says(outcome(machine, variant, tmp_path, "fill", what)))


def test_clock_jumps(machine: QemuMachine, variant: Variant, tmp_path: Path, told: Told) -> None:
    one = outcome(machine, variant, tmp_path, "fill", "clock_jumps")
    told(says(one))
    assert one.verdict.status is Status.PASS
    assert all(spent >= 0 for spent in one.verdict.seconds.values())
    assert not [f for f in one.verdict.deviations if f.clause is Clause.BOUNDED]
