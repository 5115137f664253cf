"""A plain shell script in a fresh guest, with nothing of the suite's own writer."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from conformance.machine.cache import Cache
from conformance.machine.image import prepare_boot
from conformance.machine.machines import QemuMachine, open_machine

LIMIT = 900.0
_DISK = """\
for disk in /sys/block/vd*; do
    if [ "$(cat "$disk/serial")" = scratch ]; then export DISK="/dev/${disk##*/}"; fi
done
"""
"""The guest's scratch disk, which a script may have."""


def machine_of(kernel: str) -> QemuMachine:
    """A machine that makes guests of a kernel that has a name."""
    cache = Cache.from_environ()
    return open_machine(prepare_boot(kernel, cache=cache), cache=cache)


def run(machine: QemuMachine, text: str, folder: Path, *, limit: float = LIMIT) -> tuple[int, str]:
    """A script's exit status, and what it printed."""
    # Braces in a command are layers' names to the guest's program, if a layer has that name.
    packed = base64.b64encode(f"{_DISK}{text}".encode()).decode()
    command = f"echo {packed} | base64 -d >/run/x; sh /run/x; echo status $?"
    rig = {"layers": [], "cgroups": [], "bystanders": [], "shortage": {"kind": "none"}}
    step = {"as": "x", "verb": "run", "cgroup": "", "argv": ["sh", "-c", command], "limit": limit}
    with machine.guest(workdir=folder) as guest:
        guest.call("build", {**rig, "run": "0" * 16, "speed": machine.speed}, limit=60)
        seen = guest.call("step", {"step": step}, limit=limit + 60)
    assert isinstance(seen, dict)
    output = str(seen["submitter"]["output"])
    status = re.search(r"^status (\d+)$", output, re.MULTILINE)
    assert status, output
    return int(status[1]), output[: status.start()]
