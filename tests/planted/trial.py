"""Runs saboteurs, and says what the judge made of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from conformance.bench import CPUS, MEMORY_MIB
from conformance.library import load_library, select
from conformance.machine.cache import Cache
from conformance.machine.image import prepare_boot
from conformance.machine.machines import QemuMachine, open_machine
from conformance.machine.protocol import Machine
from conformance.model import Clause, Status, Verdict
from conformance.runner import Facts, run_variant
from tests.module import conforming_loop, rewrite
from tests.planted.machine import SabotagedMachine
from tests.planted.saboteurs import Saboteur

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Caught:
    """What the judge said of a saboteur. ``failed``: commands of its own that failed.

    What the kernel does by itself in the same variant, without it, is not counted, but with a mender:
    those clauses are ``alone``.
    """

    release: str
    status: Status
    must: tuple[Clause, ...]
    should: tuple[Clause, ...]
    first: Clause | None
    reasons: tuple[str, ...]
    observed: tuple[str, ...]
    alone: frozenset[Clause]
    failed: tuple[str, ...]


class Trials:
    """Machines for saboteurs, by kernel, opened when they are needed."""

    def __init__(self, progress: Callable[[str], None] = lambda line: None) -> None:
        self._library = load_library(
            [ROOT / "cases", ROOT / "tests" / "planted" / "cases"], ROOT / "fixtures"
        )
        self._cache = Cache.from_environ()
        self._progress = progress
        self._machines: dict[tuple[str, bool], QemuMachine] = {}
        self._facts: dict[str, Facts] = {}
        self._honest: dict[tuple[str, str, bool], frozenset[tuple[Clause, str]]] = {}

    def of(self, saboteur: Saboteur, kernel: str, folder: Path) -> Caught:
        """Run it on a kernel. Raises what opening a machine raises."""
        machine = SabotagedMachine(
            cast("Machine", self._machine(saboteur, kernel)),
            saboteur,
            lambda: rewrite.build(self._cache, kernel.removeprefix("debian/")),
        )
        verdict = self._run(saboteur, kernel, cast("Machine", machine), folder)
        own = self._kernel_s_own(saboteur, kernel, folder) if saboteur.acts else frozenset()
        counted = frozenset() if saboteur.mends else own
        findings = [f for f in verdict.findings if (f.clause, f.signature) not in counted]
        must = tuple(dict.fromkeys(f.clause for f in findings if f.level == "must"))
        should = tuple(dict.fromkeys(f.clause for f in findings if f.level != "must"))
        return Caught(
            release=verdict.release,
            status=verdict.status,
            must=must,
            should=tuple(clause for clause in should if clause not in must),
            first=(*must, *should, None)[0],
            reasons=verdict.reasons,
            observed=tuple(f"{f.clause}: {f.observed}" for f in findings),
            alone=frozenset(clause for clause, _ in own),
            failed=(*machine.failed, *machine.idle),
        )

    def _kernel_s_own(
        self, saboteur: Saboteur, kernel: str, folder: Path
    ) -> frozenset[tuple[Clause, str]]:
        """The findings that the same variant has without sabotage."""
        key = (saboteur.variant, kernel, saboteur.conforming)
        if key not in self._honest:
            machine = cast("Machine", self._machine(saboteur, kernel))
            verdict = self._run(saboteur, kernel, machine, folder / "honest")
            self._honest[key] = frozenset((f.clause, f.signature) for f in verdict.findings)
        return self._honest[key]

    def _run(self, saboteur: Saboteur, kernel: str, machine: Machine, folder: Path) -> Verdict:
        (variant,) = select(self._library.variants, saboteur.variant)
        facts = self._facts.setdefault(kernel, Facts())
        return run_variant(variant, machine, facts=facts, workdir=folder).verdict

    def _machine(self, saboteur: Saboteur, kernel: str) -> QemuMachine:
        key = (kernel, saboteur.conforming)
        if key not in self._machines:
            modules = (conforming_loop.build(self._cache),) if saboteur.conforming else ()
            boot = prepare_boot(
                kernel,
                cache=self._cache,
                modules_override=modules,
                progress=self._progress,
            )
            self._machines[key] = open_machine(
                boot, memory_mib=MEMORY_MIB, cpus=CPUS, cache=self._cache, progress=self._progress
            )
        return self._machines[key]
