"""Reproducing scripts in real guests, without the suite's own writer: they say what the suite says."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from conformance.machine.cache import Cache
from conformance.machine.image import prepare_boot
from conformance.machine.machines import open_machine
from conformance.reproduce import script
from conformance.session import open_library

pytestmark = pytest.mark.vm

LIMIT = 240.0


def said(case: str, kernel: str, folder: Path) -> tuple[str, int]:
    """What the script of a variant prints in a fresh guest, and its exit status."""
    variant = next(v for v in open_library(()).variants if v.id == case)
    # Braces in a command are layers' names to the guest's program; base64 has none.
    text = base64.b64encode(script(variant).encode()).decode()
    command = f"echo {text} | base64 -d >/run/x; sh /run/x; echo status $?"
    cache = Cache.from_environ()
    machine = open_machine(prepare_boot(kernel, cache=cache), cache=cache)
    rig = {"layers": [], "cgroups": [], "bystanders": [], "shortage": {"kind": "none"}}
    step = {"as": "x", "verb": "run", "cgroup": "", "argv": ["sh", "-c", command], "limit": LIMIT}
    try:
        with machine.guest(workdir=folder) as guest:
            guest.call("build", {**rig, "run": "0" * 16}, limit=60)
            seen = guest.call("step", {"step": step}, limit=LIMIT + 60)
    finally:
        machine.close()
    assert isinstance(seen, dict)
    output = str(seen["submitter"]["output"])
    status = re.search(r"^status (\d+)$", output, re.MULTILINE)
    assert status, output
    return output, int(status[1])


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
