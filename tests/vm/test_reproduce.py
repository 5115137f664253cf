"""Reproducing scripts in real guests, without the suite's own writer: they say what the suite says."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.reproduce import script
from conformance.session import open_library
from tests.support.scripts import machine_of, run

pytestmark = pytest.mark.vm


def said(case: str, kernel: str, folder: Path) -> tuple[str, int]:
    """What the script of a variant prints in a fresh guest, and its exit status."""
    variant = next(v for v in open_library(()).variants if v.id == case)
    machine = machine_of(kernel)
    try:
        status, output = run(machine, script(variant), folder)
    finally:
        machine.close()
    return output, status


def test_the_short_write(tmp_path: Path) -> None:
    case = "loop_enospc_short_write[64K-off]"
    output, status = said(case, "debian/trixie", tmp_path / "trixie")
    assert (status, "read back as zeros" in output) == (1, True), output
    output, status = said(case, "debian/bookworm", tmp_path / "bookworm")
    assert (status, "PASS" in output) == (0, True), output


def test_the_kill_by_a_memory_limit(tmp_path: Path) -> None:
    output, status = said("loop_enospc_memcg_limit[direct-off]", "debian/bookworm", tmp_path)
    assert status == 1, output
    assert "no_oom_kill: fill: the OOM killer was invoked by kworker" in output


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    """No direct I/O on tmpfs: neither PASS nor FAIL."""
    output, status = said("loop_enospc_short_write[1M-on]", "debian/bookworm", tmp_path)
    assert status == 77, output
    assert "CANNOT TELL" in output
