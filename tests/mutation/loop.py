"""A pytest plugin that runs the collected tests on every mutant of some modules.

The tests are collected and run once, under coverage. Then a process is forked for each mutant, which has all
that is imported and computed already: it changes one function, and runs the tests that ran those lines (if
none did, all that ran the module), those that killed most so far first, until one fails. A process that takes
far more processor time than the tests do is killed, and so is its mutant: an endless loop is told from a slow
machine by the time of the processor.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import coverage
import pytest
from _pytest.runner import runtestprotocol

from tests.mutation.mutants import ROOT, Mutant, changed_lines
from tests.mutation.swap import swap
from tests.mutation.targets import LEFT_OUT, ONE_OF_EACH_CASE

SURVIVED: Final = 77
"""Not 0: with that a mutant may end the process itself."""
KILLED: Final = 1
CPU_LIMIT: Final = 20
"""Seconds of processor time of one mutant beyond what the tests take without one."""


@dataclass(kw_only=True)
class Loop:
    """The plugin. ``tell`` gets each mutant with the test that killed it, or None if none did."""

    mutants: Mapping[str, Sequence[Mutant]]
    """By module."""
    tell: Callable[[Mutant, str | None, tuple[str, str]], None]
    failed: list[str] = field(default_factory=list)
    """Tests that fail without a mutant: then nothing is said of any."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what says nothing about a mutant that others do not say."""
        met: set[str] = set()
        kept = []
        for item in items:
            family = item.nodeid.partition("[")[2].partition("[")[0]
            if any(part in item.nodeid for part in LEFT_OUT):
                continue
            if any(part in item.nodeid for part in ONE_OF_EACH_CASE):
                key = f"{item.nodeid.partition('[')[0]}:{family}"
                if key in met:
                    continue
                met.add(key)
            kept.append(item)
        items[:] = kept

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Instead of running the tests once."""
        if session.testsfailed:
            raise session.Interrupted("errors during collection")
        covered, cost = self._without(session.items)
        if self.failed:
            return True
        everything = {item.nodeid: item for item in session.items}
        limit = int(sum(cost.values())) + CPU_LIMIT
        for name, mutants in self.mutants.items():
            module, source = _imported(name), (ROOT / name).read_text()
            kills: Counter[str] = Counter()
            for mutant in mutants:
                names = set(everything)
                if mutant.function:
                    wide = range(mutant.first, mutant.last + 1)
                    names = {test for line in wide for test in covered[name].get(line, ())}
                    # A line that only a forked child runs is not seen: any test of the module may.
                    names = names or {test for seen in covered[name].values() for test in seen}
                order = sorted(names, key=lambda test: (-kills[test], cost[test]))
                items = [everything[test] for test in order]
                killer, change = _in_child(mutant, source, module, items, limit)
                if killer is not None:
                    kills[killer] += 1
                self.tell(mutant, killer, change)
        return True

    def _without(
        self, items: list[pytest.Item]
    ) -> tuple[dict[str, dict[int, list[str]]], dict[str, float]]:
        """Which tests ran each line of each module, and what each took: seconds of processor time."""
        files = {name: str(ROOT / name) for name in self.mutants}
        cover = coverage.Coverage(data_file=None, include=[*files.values()], config_file=False)
        cost: dict[str, float] = {}
        cover.start()
        for item in items:
            cover.switch_context(item.nodeid)
            began = time.process_time()
            if _fails(item):
                self.failed.append(item.nodeid)
            cost[item.nodeid] = time.process_time() - began
        cover.stop()
        data = cover.get_data()
        return {name: data.contexts_by_lineno(file) for name, file in files.items()}, cost


def _imported(module: str) -> ModuleType:
    name = module.removesuffix(".py").removeprefix("vm/").replace("/", ".")
    return importlib.import_module(name)


def _fails(item: pytest.Item) -> bool:
    reports = runtestprotocol(item, nextitem=None, log=False)
    return any(report.failed for report in reports)


def _in_child(
    mutant: Mutant, source: str, module: ModuleType, items: list[pytest.Item], limit: int
) -> tuple[str | None, tuple[str, str]]:
    """The test that kills a mutant, or None, and what the mutant changes."""
    answer, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        with contextlib.suppress(BaseException):
            _limited(limit)
            _silent()
            _try(mutant, source, module, items, told)
        os._exit(KILLED)
    os.close(told)
    with open(answer, "rb") as file:
        lines = [json.loads(line) for line in file.read().splitlines() if line.endswith(b"]")]
    _, status = os.waitpid(pid, 0)
    change = (lines[0][0], lines[0][1]) if lines else ("", "")
    if os.waitstatus_to_exitcode(status) == SURVIVED:
        return None, change
    return (lines[-1][0] if len(lines) > 1 else "(it cannot be imported)"), change


def _limited(limit: int) -> None:
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + limit, used + limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _silent() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


def _try(
    mutant: Mutant, source: str, module: ModuleType, items: list[pytest.Item], told: int
) -> None:
    def say(*words: str) -> None:
        os.write(told, json.dumps(words).encode() + b"\n")

    mutated = mutant.mutate()
    say(*changed_lines(source, mutated))
    swap(module, mutated, classes=not mutant.function)
    for item in items:
        say(item.nodeid)
        if _fails(item):
            os._exit(KILLED)
    os._exit(SURVIVED)


def run(mutants: Mapping[str, Sequence[Mutant]], tests: Iterable[str], tell: Any) -> list[str]:
    """Try each mutant. Returns the tests that fail without one, or one line on why none was run."""
    loop = Loop(mutants=mutants, tell=tell)
    wanted = [str(Path(ROOT, test)) for test in tests]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", "--no-summary"]
    code = pytest.main([*options, f"--rootdir={ROOT}", *wanted], plugins=[loop])
    sys.stdout.flush()
    return loop.failed or ([] if code == 0 else [f"pytest ended with {code}"])
