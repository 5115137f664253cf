"""Real cases on real kernels, end to end: the verdict follows the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conformance.bench import MachineEngine
from conformance.engine import Bench, Setup
from conformance.library import Library, load_library, select
from conformance.machine.cache import Cache
from conformance.model import Clause, Status, Verdict
from tests.module import conforming_loop

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def library() -> Library:
    return load_library([ROOT / "cases"], ROOT / "fixtures")


@pytest.fixture(scope="module")
def bench() -> Iterator[Callable[..., Bench]]:
    opened: dict[tuple[str, ...], Bench] = {}

    def on(kernel: str, *modules: str) -> Bench:
        key = (kernel, *modules)
        if key not in opened:
            engine = MachineEngine(Setup(modules=modules))
            opened[key] = engine.open(kernel, lambda line: None)
        return opened[key]

    yield on
    for each in opened.values():
        each.close()


@pytest.fixture
def judged(library: Library, bench: Callable[..., Bench], tmp_path: Path) -> Callable[..., Verdict]:
    def run(expression: str, kernel: str, *modules: str) -> Verdict:
        (variant,) = select(library.variants, expression)
        return bench(kernel, *modules).run(variant, folder=tmp_path).verdict

    return run


def test_a_straddling_request_loses_bytes_on_trixie(
    judged: Callable[..., Verdict],
) -> None:
    verdict = judged("loop_enospc_short_write[1M-off]", "debian/trixie")
    assert verdict.status is Status.FAIL
    (lost,) = [f for f in verdict.deviations if f.clause is Clause.ACKNOWLEDGED_READABLE]
    # 8 MiB less the pad and the control, up to the next multiple of 1 MiB.
    assert "bytes 7032832 to 7340031 (300 KiB)" in lost.observed


@pytest.mark.parametrize("kernel", ["debian/bookworm", "debian/trixie"])
def test_a_request_of_one_page_loses_nothing(judged: Callable[..., Verdict], kernel: str) -> None:
    verdict = judged("loop_enospc_short_write[4K-off]", kernel)
    assert (verdict.status, verdict.reasons, verdict.deviations) == (Status.PASS, (), ())


def test_a_straddling_request_loses_nothing_on_bookworm(
    judged: Callable[..., Verdict],
) -> None:
    verdict = judged("loop_enospc_short_write[1M-off]", "debian/bookworm")
    assert (verdict.status, verdict.reasons) == (Status.PASS, ())
    assert [f.observed for f in verdict.advisories]  # EIO where ENOSPC could be said


def test_the_seed_s_script_is_answered_by_the_oom_killer_on_bookworm(
    judged: Callable[..., Verdict],
) -> None:
    verdict = judged("loop_memcg_seed_script", "debian/bookworm")
    assert verdict.status is Status.FAIL
    deviating = {f.clause for f in verdict.deviations}
    assert {Clause.NO_OOM_KILL, Clause.SUBMITTER_SURVIVES} <= deviating
    assert all(f.documented_by for f in verdict.deviations if f.clause is Clause.NO_OOM_KILL)


def test_the_seed_s_script_has_no_shortage_on_a_kernel_that_does_not_charge_loop_io(
    judged: Callable[..., Verdict],
) -> None:
    verdict = judged("loop_memcg_seed_script", "debian/bullseye")
    assert verdict.status is Status.SKIP
    assert any("does not charge loop I/O" in reason for reason in verdict.reasons)


def test_the_verdict_follows_the_kernel_when_its_loop_driver_conforms(
    judged: Callable[..., Verdict],
) -> None:
    """The same case on the same kernel: a worker that kills, and a driver that fails the request."""
    name = "loop_enospc_memcg_limit[direct-off]"
    killing = judged(name, "debian/bookworm")
    assert killing.status is Status.FAIL
    (kill,) = [f for f in killing.deviations if f.clause is Clause.NO_OOM_KILL]
    assert "kworker" in kill.observed
    assert "loop_process_work" in kill.observed
    module = conforming_loop.build(Cache.from_environ())
    conforming = judged(name, "debian/bookworm", str(module))
    assert (conforming.status, conforming.reasons, conforming.deviations) == (Status.PASS, (), ())
    assert not any(f.clause is Clause.NO_OOM_KILL for f in conforming.advisories)
