"""What holds of the judge whatever it is given."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conformance.library import load_library
from conformance.machine.fake import FakeMachine
from conformance.model import BLOCK, Level, Observation, Status, Variant, Verdict, as_json
from conformance.oracle import judge
from conformance.runner import Facts, run_variant
from tests.support.liars import DIRECT, FAULTS, Liar, LiarsMachine
from tests.support.model_guest import ModelGuest

ROOT = Path(__file__).parents[3]
VARIANTS = {v.id: v for v in load_library([ROOT / "cases"], ROOT / "fixtures").variants}
NAMES = (
    "loop_enospc_tmpfs_full[direct-off]",
    "loop_enospc_tmpfs_full[mmap-off]",
    "loop_enospc_memcg_limit[fio_libaio-off]",
    "loop_memcg_bystanders[direct]",
    "loop_memcg_seed_script",
    "fs_on_loop_fsynced_files[ext4]",
    "fs_on_loop_metadata_memcg",
    "loop_equivalence[ext4]",
)
DIRECT_FAULTS = [liar for liar in FAULTS if liar.variant == DIRECT and liar.loss is None]
RANK = (Status.PASS, Status.BROKEN, Status.FAIL)
FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@cache
def honest(name: str) -> dict[str, Any]:
    """What is seen of a conforming kernel, as JSON."""
    return observed(name, FakeMachine(lambda: ModelGuest().handlers(), kernel="model"))


def observed(name: str, machine: FakeMachine) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_variant(VARIANTS[name], machine, facts=Facts(), workdir=Path(folder))
    assert outcome.observation is not None
    return as_json(outcome.observation)


def read(values: dict[str, Any]) -> Observation | None:
    """An observation, if it is one at all: what is none never reaches the judge."""
    try:
        return Observation.model_validate(values)
    except ValueError:
        return None


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Variant, Observation]:
    """A conforming observation in which a few values are others, or missing, or twice."""
    name = draw(st.sampled_from(NAMES))
    values = _copy(honest(name))
    for _ in range(draw(st.integers(1, 4))):
        _damage(draw, values)
    whole = read(values)
    return VARIANTS[name], whole if whole is not None else Observation.model_validate(honest(name))


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list | tuple) else value


LINES = st.sampled_from(
    [
        "kworker/u2:1 invoked oom-killer: gfp_mask=0xc00(GFP_NOIO), order=0, oom_score_adj=0",
        "Memory cgroup out of memory: Killed process 200 (ledger) total-vm:1kB, anon-rss:1kB",
        "WARNING: CPU: 0 PID: 24 at fs/buffer.c:1125 mark_buffer_dirty+0xd8/0xe0",
        "INFO: task fio:200 blocked for more than 120 seconds.",
        "Buffer I/O error on dev loop0, logical block 1, lost async page write",
        "",
        "]]>\x00",
    ]
)
SCALARS = st.one_of(
    st.integers(-200, 200),
    st.integers(0, 1 << 40),
    st.sampled_from(["", "zero", "foreign", "generation", "unreadable", "main", "write", "sync"]),
    st.booleans(),
    st.none(),
)


def _damage(draw: st.DrawFn, values: dict[str, Any]) -> None:
    node: Any = values["arms"][draw(st.integers(0, len(values["arms"]) - 1))]
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        if key == "kernel_log":
            lines = draw(st.lists(LINES, max_size=4))
            node[key] = [[n, 4, n, line] for n, line in enumerate(lines)]
            return
        inner = node[key]
        if isinstance(inner, dict | list) and inner and draw(st.integers(0, 4)):
            node = inner
            continue
        what = draw(st.sampled_from(["drop", "other", "twice"]))
        if what == "other":
            node[key] = draw(SCALARS)
        elif isinstance(node, list):
            node[key : key + 1] = [inner, _copy(inner)] if what == "twice" else []
        elif what == "drop":
            del node[key]
        return


@given(damaged())
@FEW
def test_every_verdict_says_why(case: tuple[Variant, Observation]) -> None:
    verdict = judge(*case)
    assert not any("the judge itself failed" in reason for reason in verdict.reasons)
    if verdict.status is Status.FAIL:
        assert verdict.deviations
    if verdict.status is Status.BROKEN:
        assert verdict.reasons
    if verdict.status is Status.PASS:
        assert not verdict.deviations
        assert not verdict.reasons
    for finding in verdict.findings:
        assert finding.signature
        assert "\n" not in finding.observed
        assert finding.arm in {", ".join(arm.name for arm in case[0].arms)} | {
            arm.name for arm in case[0].arms
        }


@given(damaged())
@FEW
def test_the_same_observation_gets_the_same_verdict(case: tuple[Variant, Observation]) -> None:
    variant, seen = case
    again = Observation.model_validate_json(seen.model_dump_json())
    assert judge(variant, seen) == judge(variant, again)


@given(st.sampled_from(DIRECT_FAULTS), st.integers(0, 3 * 256 - 1))
@FEW
def test_an_acknowledged_block_that_is_lost_never_makes_a_verdict_better(
    liar: Liar, block: int
) -> None:
    values = _observed_of(liar)
    variant = VARIANTS[liar.variant]
    before = judge(variant, Observation.model_validate(values))
    at = block * BLOCK
    for arm in values["arms"]:
        for step in arm["steps"]:
            if step["name"] in ("read_relieved", "read_reattached"):
                step["extents"] = [*_split(step["extents"], at)]
    after = judge(variant, Observation.model_validate(values))
    assert RANK.index(after.status) >= RANK.index(before.status)
    if before.status is Status.PASS:
        assert after.status is Status.FAIL


def _observed_of(liar: Liar) -> dict[str, Any]:
    if liar.name not in _OBSERVED:
        _OBSERVED[liar.name] = observed(liar.variant, LiarsMachine(liar))
    return dict(_copy(_OBSERVED[liar.name]))


_OBSERVED: dict[str, dict[str, Any]] = {}


def _split(extents: list[list[Any]], at: int) -> list[list[Any]]:
    """The same extents, with the block at a place read as zeros."""
    found = []
    for offset, length, content, generation, code in extents:
        if offset <= at < offset + length:
            pieces = [
                [offset, at - offset, content, generation, code],
                [at, BLOCK, "zero", None, None],
                [at + BLOCK, offset + length - at - BLOCK, content, generation, code],
            ]
            found += [piece for piece in pieces if piece[1] > 0]
        else:
            found.append([offset, length, content, generation, code])
    return found


@given(damaged())
@FEW
def test_what_is_only_advised_never_makes_a_failure(case: tuple[Variant, Observation]) -> None:
    """The same observation under the same case at level ``should`` has no FAIL at all."""
    variant, seen = case
    verdict: Verdict = judge(variant.model_copy(update={"level": Level.SHOULD}), seen)
    assert verdict.status is not Status.FAIL
    assert not verdict.deviations
