"""Every clause and every guard is shown to fail by a guest that conforms but for one thing.

The planner, the runner, the wire and the judge are the real ones; the cases are the suite's own.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from conformance.library import load_library
from conformance.machine.fake import FakeMachine
from conformance.model import CLAUSE_CLAIMS, CLAUSE_LEVEL, Clause, Level, Status, Variant, Verdict
from conformance.runner import Facts, run_variant
from tests.support.breakages import BREAKAGES
from tests.support.liars import FAULTS, Liar, LiarsMachine, on_step, telling
from tests.support.model_guest import ModelGuest

ROOT = Path(__file__).parents[3]
LIBRARY = load_library([ROOT / "cases"], ROOT / "fixtures")
VARIANTS = {variant.id: variant for variant in LIBRARY.variants}


def judged(variant: Variant, machine: FakeMachine, folder: Path) -> Verdict:
    return run_variant(variant, machine, facts=Facts(), workdir=folder).verdict


def shown(verdict: Verdict) -> str:
    told = [f"{f.level.value} {f.clause.value}: {f.observed}" for f in verdict.findings]
    return "\n".join([*verdict.reasons, *told])


@pytest.mark.parametrize("variant", LIBRARY.variants, ids=lambda variant: variant.id)
def test_a_conforming_kernel_passes(variant: Variant, tmp_path: Path) -> None:
    machine = FakeMachine(lambda: ModelGuest().handlers(), kernel="model")
    verdict = judged(variant, machine, tmp_path)
    good = Status.RECORDED if variant.level is Level.SURVEY else Status.PASS
    assert (verdict.status, verdict.findings) == (good, ()), shown(verdict)


def _failed(seen: dict[str, Any]) -> None:
    seen["commands"][0]["ended"] = {"exit_code": 32}


def _sigbus(seen: dict[str, Any]) -> None:
    seen["submitter"]["ended"] = {"exit_code": None, "signal": 7}


def _no_sync(seen: dict[str, Any]) -> None:
    seen["file_ops"][-1][4] = -errno.EIO


def _lost(seen: dict[str, Any]) -> None:
    for state in seen["files"]:
        if state["path"].startswith("fill/"):
            state["state"] = "missing"


def _shut_down(seen: dict[str, Any]) -> None:
    told = False
    for op in seen["file_ops"]:
        told = told or op[4] < 0
        if told and op[0] in ("fsync", "create"):
            op[4] = -errno.EROFS


ALLOWED = {
    "an error again of a filesystem that has shut itself down": (
        "sync_told_once[fsync-btrfs]",
        [(["lose"], _shut_down)],
    ),
    "no mount after a mkfs that failed": (
        "fs_on_loop_mkfs_short[ext4]",
        [(["check_short", "mount_short", "unmount_short"], _failed)],
    ),
    "a SIGBUS for who writes files by a mapping": (
        "fs_on_loop_mmap_fs_full[ext4]",
        [(["fill"], _sigbus)],
    ),
    "no file after a syncfs that failed": (
        "fs_on_loop_syncfs[ext4]",
        [(["fill"], _no_sync), (["read_short", "read_relieved", "read_again"], _lost)],
    ),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_the_norm_allows_is_no_finding(name: str, tmp_path: Path) -> None:
    variant, changes = ALLOWED[name]

    def lie(verb: str, asked: dict[str, Any], honest: dict[str, Any]) -> dict[str, Any]:
        for steps, change in changes:
            honest = on_step(steps, change)(verb, asked, honest)
        return honest

    liar = Liar(name=name, variant=variant, guest=telling(lie))
    verdict = judged(VARIANTS[variant], LiarsMachine(liar), tmp_path)
    assert (verdict.status, verdict.findings) == (Status.PASS, ()), shown(verdict)


@pytest.mark.parametrize("liar", FAULTS, ids=lambda liar: liar.name)
def test_a_planted_fault_is_found_and_nothing_else(liar: Liar, tmp_path: Path) -> None:
    verdict = judged(VARIANTS[liar.variant], LiarsMachine(liar), tmp_path)
    assert {finding.clause for finding in verdict.findings} == liar.clauses, shown(verdict)
    must = any(CLAUSE_LEVEL.get(clause, Level.MUST) is Level.MUST for clause in liar.clauses)
    assert verdict.status is (Status.FAIL if must else Status.PASS), shown(verdict)
    for finding in verdict.findings:
        assert finding.expected
        assert finding.observed
        assert finding.signature
        spoken = CLAUSE_CLAIMS[finding.clause]
        covered = set(spoken) & set(VARIANTS[liar.variant].claims)
        assert set(finding.claims) == (covered or set(spoken[:1]))


@pytest.mark.parametrize("liar", BREAKAGES, ids=lambda liar: liar.name)
def test_where_nothing_is_known_the_verdict_is_broken(liar: Liar, tmp_path: Path) -> None:
    verdict = judged(VARIANTS[liar.variant], LiarsMachine(liar), tmp_path)
    assert verdict.status is Status.BROKEN, shown(verdict)
    assert any(liar.reason in reason for reason in verdict.reasons), shown(verdict)


def test_no_clause_lacks_a_planted_fault() -> None:
    assert {clause for liar in FAULTS for clause in liar.clauses} == set(Clause)


def test_each_clause_can_fail_alone_unless_another_says_the_same() -> None:
    alone = {next(iter(liar.clauses)) for liar in FAULTS if len(liar.clauses) == 1}
    # What is told as stored and is not was acknowledged as well, and does not read back.
    assert set(Clause) - alone == {Clause.ERROR_SURFACED}
