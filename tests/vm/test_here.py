"""``./conform run --here`` for real: the whole suite, packed into a guest and run there as root."""

from __future__ import annotations

import base64
import importlib.metadata
import io
import json
import tarfile
from pathlib import Path

import pytest

from conformance.machine.cache import Cache
from conformance.machine.image import prepare_boot
from conformance.machine.machines import open_machine
from conformance.machine.protocol import Guest
from conformance.session import ROOT

pytestmark = pytest.mark.vm

LIMIT = 900.0
"""Seconds; emulated, Python alone takes a while to import all this."""
CHUNK = 90_000
"""Characters of one argument: the kernel takes 128 KiB."""
CASE = "loop_enospc/loop_enospc_short_write.yaml"
PACKAGES = (
    "annotated-types", "click", "jinja2", "junit-xml", "markdown-it-py", "markupsafe", "mdurl",
    "pydantic", "pydantic-core", "pygments", "pyyaml", "qemu.qmp", "rich", "six",
    "typing-extensions", "typing-inspection",
)  # fmt: skip
"""What the suite imports; the guest's Python is Debian 12's, for which the lock's files are right."""

SCRIPT = """
cd /run/suite/project && export PYTHONPATH=/run/suite/project:/run/suite/site COLUMNS=120
conform="python3 -P -m conformance run -k loop_enospc_short_write[4K-off]"
mkdir -p /run/systemd/sessions
printf 'UID=1000\\nUSER=ann\\nCLASS=user\\n' >/run/systemd/sessions/1
$conform --here --out /run/refused; echo "refused $?"
rm /run/systemd/sessions/1
$conform --here --repeat 2 --out /run/out; echo "status $?"
python3 - <<EOF
import json
lines = [json.loads(line) for line in open("/run/out/record.jsonl")]
told = {
    "machine": lines[0]["host"]["kernels"]["here"]["machine"],
    "verdicts": [line["status"] for line in lines if line["kind"] == "verdict"],
    "kernel": [line["kernel"] for line in lines if line["kind"] == "verdict"],
    "footer": lines[-1]["kind"],
}
from conformance.machine.local import left_behind
told["left"] = left_behind()
print("told", json.dumps(told))
EOF
"""


def packed() -> bytes:
    """The suite, with one case, and what it imports."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:xz") as tar:

        def put(path: Path, name: str) -> None:
            if "__pycache__" not in name:
                tar.add(path, name, recursive=False)

        for folder in ("conformance", "fixtures", "vm", "results/known"):
            for path in sorted((ROOT / folder).rglob("*")):
                put(path, f"project/{path.relative_to(ROOT)}")
        put(ROOT / "cases" / CASE, f"project/cases/{CASE}")
        for package in PACKAGES:
            for file in importlib.metadata.files(package) or ():
                if ".." not in file.parts and file.suffix != ".pyc":
                    put(Path(str(file.locate())), f"site/{file}")
    return made.getvalue()


def run(guest: Guest, command: str, *, limit: float = 60.0) -> str:
    # Braces in a command are layers' names to the guest's program; base64 has none.
    text = base64.b64encode(command.encode()).decode()
    argv = ["sh", "-c", f"echo {text} | base64 -d >/run/x; sh /run/x 2>&1"]
    step = {"as": "x", "verb": "run", "cgroup": "", "argv": argv, "limit": limit}
    seen = guest.call("step", {"step": step}, limit=limit + 60)
    assert isinstance(seen, dict)
    assert seen["problem"] == ""
    return str(seen["submitter"]["output"])


def test_the_suite_runs_on_the_machine_itself(tmp_path: Path) -> None:
    cache = Cache.from_environ()
    machine = open_machine(prepare_boot("debian/bookworm", cache=cache), cache=cache)
    rig = {"layers": [], "cgroups": [], "bystanders": [], "shortage": {"kind": "none"}}
    text = base64.b64encode(packed()).decode()
    try:
        with machine.guest(workdir=tmp_path) as guest:
            guest.call("build", {**rig, "run": "0" * 16, "speed": machine.speed}, limit=60)
            for start in range(0, len(text), CHUNK):
                argv = ["sh", "-c", f"echo {text[start : start + CHUNK]} >>/run/suite.b64"]
                step = {"as": "x", "verb": "run", "cgroup": "", "argv": argv, "limit": 60}
                guest.call("step", {"step": step}, limit=120)
            unpack = "import tarfile; tarfile.open('/run/suite.tar.xz').extractall('/run/suite')"
            run(
                guest,
                "base64 -d </run/suite.b64 >/run/suite.tar.xz && rm /run/suite.b64 && "
                f'mkdir /run/suite && python3 -c "{unpack}" && rm /run/suite.tar.xz',
                limit=LIMIT,
            )
            output = run(guest, SCRIPT, limit=LIMIT)
    finally:
        machine.close()
    assert "somebody else is logged in: ann" in output, output
    assert "refused 64" in output, output
    assert "status 0" in output, output
    told = json.loads(output.partition("told ")[2].splitlines()[0])
    assert told == {
        "machine": "here",
        "verdicts": ["PASS", "PASS"],
        "kernel": ["here", "here"],
        "footer": "footer",
        "left": "",
    }
