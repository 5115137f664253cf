"""Real cases on real kernels, end to end: the verdict follows the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conformance.bench import MachineEngine
from conformance.engine import Bench, Setup
from conformance.library import Library, load_library, select
from conformance.model import Clause, Status, Verdict

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def library() -> Library:
    return load_library([ROOT / "cases"], ROOT / "fixtures")


@pytest.fixture(scope="module")
def bench() -> Iterator[Callable[[str], Bench]]:
    engine = MachineEngine(Setup())
    opened: dict[str, Bench] = {}

    def on(kernel: str) -> Bench:
        if kernel not in opened:
            opened[kernel] = engine.open(kernel, lambda line: None)
        return opened[kernel]

    yield on
    for each in opened.values():
        each.close()


@pytest.fixture
def judged(
    library: Library, bench: Callable[[str], Bench], tmp_path: Path
) -> Callable[[str, str], Verdict]:
    def run(expression: str, kernel: str) -> Verdict:
        (variant,) = select(library.variants, expression)
        return bench(kernel).run(variant, folder=tmp_path).verdict

    return run


def test_a_straddling_request_loses_bytes_on_trixie(
    judged: Callable[[str, str], Verdict],
) -> None:
    verdict = judged("loop_enospc_short_write[1M-off]", "debian/trixie")
    assert verdict.status is Status.FAIL
    (lost,) = [f for f in verdict.deviations if f.clause is Clause.ACKNOWLEDGED_READABLE]
    # 8 MiB less the pad and the control, up to the next multiple of 1 MiB.
    assert "bytes 7032832 to 7340031 (300 KiB)" in lost.observed


@pytest.mark.parametrize("kernel", ["debian/bookworm", "debian/trixie"])
def test_a_request_of_one_page_loses_nothing(
    judged: Callable[[str, str], Verdict], kernel: str
) -> None:
    verdict = judged("loop_enospc_short_write[4K-off]", kernel)
    assert (verdict.status, verdict.reasons, verdict.deviations) == (Status.PASS, (), ())


def test_a_straddling_request_loses_nothing_on_bookworm(
    judged: Callable[[str, str], Verdict],
) -> None:
    verdict = judged("loop_enospc_short_write[1M-off]", "debian/bookworm")
    assert (verdict.status, verdict.reasons) == (Status.PASS, ())
    assert [f.observed for f in verdict.advisories]  # EIO where ENOSPC could be said
