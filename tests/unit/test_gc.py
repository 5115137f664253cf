"""``gc``: what is not needed goes, what is in use stays, and it is told beforehand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.exits import REFUSED
from conformance.machine import gc as collector
from conformance.machine.cache import Cache
from conformance.machine.gc import DAY, survey
from conformance.machine.protocol import LaunchFailed
from conformance.machine.tool import ToolError

NEEDED = {"kernel": frozenset({"now"}), "template": frozenset({"now"})}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("CONFORM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("conformance.commands.gc.needed_keys", lambda cache: NEEDED)
    return Cache(root=tmp_path / "cache")


def entry(cache: Cache, kind: str, key: str, *, days: float = 10.0) -> Path:
    path = cache.entry(kind, key)
    path.mkdir(parents=True)
    (path / "memory").write_bytes(bytes(1 << 20))
    then = path.stat().st_mtime - days * DAY
    os.utime(path, (then, then))
    return path


def left(cache: Cache) -> set[str]:
    return {
        f"{path.parent.name}/{path.name}"
        for kind in collector.KINDS
        for path in (cache.root / kind).glob("*")
    }


def test_what_is_not_needed_goes(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, key in (("kernel", "now"), ("kernel", "old"), ("template", "other"), ("root", "old")):
        entry(cache, kind, key)
    entry(cache, "initrd", "fresh", days=0.5)
    entry(cache, "somebody-else-s", "old")
    assert main(["gc", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert "3 MiB would be freed" in err
    assert out.count("goes") == 3
    assert len(left(cache)) == 5
    assert main(["gc"]) == 0
    assert "3 MiB freed" in capsys.readouterr().err
    assert left(cache) == {"kernel/now", "initrd/fresh"}
    assert (cache.root / "somebody-else-s" / "old").is_dir()
    assert main(["gc", "--keep", "0"]) == 0
    assert left(cache) == {"kernel/now"}


@pytest.mark.parametrize("kind", collector.KINDS)
def test_what_was_used_lately_stays(kind: str, cache: Cache) -> None:
    """Also what another checkout built long ago, and uses."""
    entry(cache, kind, "of another")
    cache.build_once(kind, "of another", lambda _: None)
    assert main(["gc"]) == 0
    assert left(cache) == {f"{kind}/of another"}


HOLDER = """
import os, sys
from conformance.machine.cache import Cache
fd = os.open(sys.argv[1], os.O_RDONLY)
Cache.hold(fd)
print("held", flush=True)
sys.stdin.read()
"""


def test_what_is_in_use_stays(cache: Cache) -> None:
    used = entry(cache, "template", "running")
    entry(cache, "template", "idle")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(used / "memory")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert main(["gc", "--keep", "0"]) == 0
        assert left(cache) == {"template/running"}
        holder.communicate()
    assert main(["gc", "--keep", "0"]) == 0
    assert left(cache) == set()


def test_what_comes_into_use_meanwhile_stays(cache: Cache) -> None:
    path = entry(cache, "template", "running")
    items = survey(cache, {}, now=path.stat().st_mtime + DAY, keep=0)
    assert [item.fate for item in items] == ["goes"]
    with (path / "memory").open("rb") as file:
        Cache.hold(file.fileno())
        assert not collector.remove(cache, items[0])
    assert collector.remove(cache, items[0])
    assert not collector.remove(cache, items[0])


def test_what_a_killed_builder_left_goes(cache: Cache) -> None:
    folder = cache.root / "tmp" / "abc"
    folder.mkdir(parents=True)
    (folder / "part").write_bytes(bytes(1 << 20))
    folder.with_suffix(".alive").touch()
    assert main(["gc", "--dry-run"]) == 0
    assert folder.is_dir()
    assert main(["gc"]) == 0
    assert not folder.exists()


def test_without_a_cache(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc"]) == 0
    assert "no cache yet" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ToolError("no busybox"), LaunchFailed("no qemu")])
def test_what_is_needed_must_be_known(
    error: Exception,
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(cache: Cache) -> None:
        raise error

    entry(cache, "kernel", "old")
    monkeypatch.setattr("conformance.commands.gc.needed_keys", fail)
    assert main(["gc"]) == REFUSED
    assert "cannot tell what is needed" in capsys.readouterr().err
    assert left(cache) == {"kernel/old"}
