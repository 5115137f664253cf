"""What variants take in real guests stays within benchmarks/bounds.json; more work is seen to exceed it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import work
from conformance.bench import MachineBench, MachineEngine
from conformance.engine import DEFAULT_KERNEL, Setup
from conformance.machine.protocol import Guest, Machine

pytestmark = pytest.mark.vm

BOUNDS: Mapping[str, work.Work] = json.loads(work.BOUNDS.read_text())


@pytest.fixture(scope="module")
def bench() -> Iterator[MachineBench]:
    opened = MachineEngine(Setup()).open(DEFAULT_KERNEL, lambda line: None)
    yield opened
    opened.close()


def test_the_work_of_a_few_variants_is_within_its_bounds(
    bench: MachineBench, tmp_path: Path
) -> None:
    seen = work.measure(bench, work.chosen(), tmp_path)
    assert work.beyond(seen, BOUNDS) == []


class Wasteful:
    """A machine whose guests are asked for something that nobody needs. See the protocol ``Machine``."""

    def __init__(self, machine: Machine) -> None:
        self.speed = machine.speed
        self.describe = machine.describe
        self.lacks = machine.lacks
        self.close = machine.close
        self._guest = machine.guest

    @contextmanager
    def guest(self, *, workdir: Path) -> Iterator[Guest]:
        with self._guest(workdir=workdir) as guest:
            guest.call("probe", {"requirements": ["tool:mkfs.ext4", "fs:ext4"]}, limit=120.0)
            yield guest


def test_work_that_nobody_needs_is_beyond_them(bench: MachineBench, tmp_path: Path) -> None:
    wasteful = MachineBench(DEFAULT_KERNEL, Wasteful(bench.machine))
    (variant,) = (v for v in work.chosen() if v.id == "nbd_server_full[buffered]")
    seen = work.measure(wasteful, [variant], tmp_path)
    told = {line.split(": ")[1] for line in work.beyond(seen, BOUNDS)}
    assert {"messages"} <= told
