"""A guest that is ten times slower gets the same verdicts. By hand: ``tox -e slow``.

What is expected is what the published records say of the same variant on the same kernel, which was never
slowed; a server that never answers, which is a saboteur's, has its clause from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Final, cast

import pytest

from conformance.bench import CPUS, MEMORY_MIB
from conformance.compare import ways
from conformance.library import load_library, select
from conformance.machine.cache import Cache
from conformance.machine.image import prepare_boot
from conformance.machine.machines import QemuMachine, open_machine
from conformance.machine.protocol import Machine
from conformance.model import Clause, Status, Verdict
from conformance.published import verdicts_of
from conformance.runner import Facts, Outcome, run_variant
from tests.slow.brake import slowed

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).parents[2]
TIMES: Final = 10.0
BOOKWORM, TRIXIE = "debian/bookworm", "debian/trixie"

SAME: Final = (
    ("nbd_server_full[direct]", TRIXIE, Status.PASS),
    ("loop_enospc_disk_fs_full[ext4-direct-on]", TRIXIE, Status.PASS),
    # The kernel's own time: a pool gives up waiting for space after so many seconds.
    ("thin_queue_timeout[direct]", TRIXIE, Status.PASS),
    ("loop_enospc_short_write[64K-off]", TRIXIE, Status.FAIL),
    ("loop_enospc_memcg_limit[direct-off]", BOOKWORM, Status.FAIL),
)
"""Variants, kernels, and what the published verdict is: both kinds must be among them."""
NEVER: Final = ("planted_nbd_server[never_answer]", BOOKWORM)


@cache
def machine(kernel: str) -> QemuMachine:
    cache_of = Cache.from_environ()
    boot = prepare_boot(kernel, cache=cache_of)
    _opened.append(open_machine(boot, memory_mib=MEMORY_MIB, cpus=CPUS, cache=cache_of))
    return _opened[-1]


_opened: list[QemuMachine] = []


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    with ExitStack() as stack:
        for one in _opened:
            stack.callback(one.close)


def run(variant_id: str, kernel: str, folder: Path) -> Outcome:
    """A variant in guests that are slowed from their first instruction."""
    library = load_library(
        [ROOT / "cases", ROOT / "tests" / "planted" / "cases"], ROOT / "fixtures"
    )
    (variant,) = select(library.variants, variant_id)
    made = cast("Machine", machine(kernel))
    with slowed(TIMES):
        outcome = run_variant(variant, made, facts=Facts(), workdir=folder)
    assert outcome.observation is not None, outcome.verdict.reasons
    for arm in outcome.observation.arms:
        assert arm.speed is not None
        assert arm.speed > TIMES / 3, f"the guest was not slowed: {arm.speed}"
    return outcome


def published(variant_id: str, kernel: str) -> Verdict:
    case = variant_id.partition("[")[0]
    (found,) = [
        verdict
        for verdict in verdicts_of(ROOT / "results" / "published", case)
        if verdict.kernel == kernel and verdict.variant == variant_id
    ]
    return found


@pytest.mark.parametrize(("variant", "kernel", "status"), SAME)
def test_the_verdict_is_that_of_a_guest_that_is_not_slowed(
    variant: str, kernel: str, status: Status, tmp_path: Path
) -> None:
    before = published(variant, kernel)
    assert before.status is status
    now = run(variant, kernel, tmp_path).verdict
    assert (now.status, ways(now)) == (before.status, ways(before)), now.reasons


def test_what_never_ends_is_told_from_what_is_slow(tmp_path: Path) -> None:
    verdict = run(*NEVER, tmp_path).verdict
    assert verdict.status is Status.FAIL, verdict.reasons
    assert {finding.clause for finding in verdict.findings} == {Clause.BOUNDED}
