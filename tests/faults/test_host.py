"""A host that runs out of space: in mount namespaces of their own, never on the host's disks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conformance import session
from conformance.record import read_record
from conformance.task import broken
from tests.faults.conftest import Told
from tests.meta.conftest import LIMIT, ROOT, User
from tests.support.fake_engine import LOUD_VARIABLE
from tests.support.recorders import recorder

ALL = tuple(f"fake_{letter}_passes" for letter in "abcdef")


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    someone = User(tmp_path)
    someone.has(*ALL)
    yield someone
    someone.close()


def apart(
    script: str, env: dict[str, str], *words: str, limit: float = LIMIT
) -> subprocess.CompletedProcess[str]:
    """A shell script in a mount namespace of its own: its mounts go with it."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return subprocess.run(
        [
            "unshare",
            *user,
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-euc",
            script,
            "sh",
            *words,
        ],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=limit,
    )


FOLDER = """
out=$1; shift
mkdir "$out"
mount -t tmpfs -o size=64k none "$out"
code=0; "$@" --out "$out" || code=$?
echo "first: $code"
judged=0 # of whole lines: the last one may have met the end of the space
while IFS= read -r line; do
  case $line in *'"kind":"verdict"'*) judged=$((judged + 1)) ;; esac
done <"$out/record.jsonl"
echo "$judged"
mount -o remount,size=8m "$out"
exec "$1" "$2" "$3" "$4" "$5" --resume "$out"
"""


def test_the_run_s_folder_is_full(user: User, told: Told) -> None:
    # Long lines, so that the record is what meets the end of the space.
    user.more = {LOUD_VARIABLE: str(12 << 10)}
    words = [*user.conformance, "run", "-k", "fake_", "-n", "1", *user.shared()[:4]]
    done = apart(FOLDER, user.env, str(user.out), *words)
    told(done.stderr)
    assert "Traceback" not in done.stderr
    first, judged, *rest = done.stdout.splitlines()
    assert first == "first: 64"
    assert 0 < int(judged) < len(ALL)
    assert f"{judged} of {len(ALL)} variants were judged before" in done.stderr
    assert f"{len(ALL)} variants: {len(ALL)} PASS" in "\n".join(rest), done.stderr
    assert done.returncode == 0


CACHE = """
mount -t tmpfs -o size=64k none "$1"
code=0; "$2" -c "$3" "$1" || code=$?
ls "$1/tmp" "$1/template" 2>/dev/null || true
exit $code
"""
OBTAIN = """
import sys
from pathlib import Path
from conformance.machine.cache import Cache, NoSpaceError
from conformance.machine.template import obtain
from tests.faults.test_template import build
try:
    obtain(Cache(root=Path(sys.argv[1])), "key", build)
except NoSpaceError as error:
    sys.exit(str(error))
"""


def test_the_cache_is_full(tmp_path: Path, told: Told) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = apart(CACHE, env, str(tmp_path), sys.executable, OBTAIN)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    told(line)
    assert done.stdout.split() == [f"{tmp_path}/tmp:"]


SHARED = """
mount -t tmpfs -o size=4k none /dev/shm
head -c 4096 /dev/zero >/dev/shm/full
exec "$@"
"""


def test_shared_memory_is_full(user: User, told: Told) -> None:
    words = [*user.conformance, "run", "-k", "fake_", "-n", "2", *user.shared()]
    done = apart(SHARED, user.env, *words)
    assert done.returncode == 0, done.stderr
    told(done.stdout)
    assert len(user.record().entries) == len(ALL)


def test_the_clock_jumps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured is measured on a clock that does not jump; the date is only written down."""
    times = iter([datetime(2026, 5, 5, tzinfo=UTC)])
    last = datetime(1970, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(session, "now", lambda: next(times, last) + timedelta(0))
    made, jobs = recorder(tmp_path, variants=2)
    with made:
        for job in jobs:
            made.add(job, broken(job, "no guest"))
    record = read_record(tmp_path / "record.jsonl")
    assert record.footer is not None
    assert record.header.started == "2026-05-05T00:00:00Z"


REAL = """
out=$1; shift
mkdir "$out"
mount -t tmpfs -o size=3m none "$out"
code=0; "$@" --out "$out" || code=$?
grep '"kind":"verdict"' "$out/record.jsonl"
exit $code
"""


@pytest.mark.vm
@pytest.mark.faults
def test_the_disk_of_a_guest_is_full(tmp_path: Path, told: Told) -> None:
    """A guest's scratch disk lies in the run's folder, and has room for 3 MiB."""
    kernel = os.environ.get("CONFORM_TEST_KERNEL", "debian/bookworm")
    words = ["-k", "loop_memcg_reclaimable[ext4-buffered]", "--kernel", kernel, "-n", "1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = (*User.conformance, "run", *words)
    done = apart(REAL, env, str(tmp_path / "out"), *program, limit=10 * LIMIT)
    told(done.stdout)
    assert done.returncode == 2, done.stderr
