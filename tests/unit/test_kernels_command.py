"""``kernels`` and ``list --why``: what a kernel lacks, asked of a made-up one."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.bench import KeptFacts
from conformance.cli import main
from conformance.exits import REFUSED
from conformance.hostside import LACKS
from conformance.machine.cache import Cache
from conformance.machine.facts import Probed, keep, keep_met, met, recall


@pytest.fixture(autouse=True)
def _made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONFORM_ENGINE", "tests.support.fake_engine:engine")
    monkeypatch.setenv("CONFORM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


def test_the_names_and_what_the_published_records_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels"]) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("debian/bullseye "))
    assert "bullseye: linux-image-cloud-amd64" in row
    assert "no: the first run fetches it" in row
    assert "probe:loop_charges_memcg" in out
    assert "not asked yet" in out


def test_what_is_asked_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "--why", "debian/sid/full"]) == 0
    out = capsys.readouterr().out
    assert "debian/sid/full (6.12.0-fake) lacks" in out
    assert "module:nbd" in out
    assert main(["kernels"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("debian/sid/full"))
    assert "module:nbd" in " ".join(lines[start : start + 8])


def test_list_why(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["list", "-k", "loop_enospc_short_write or nbd_straddle", "--why", "debian/sid"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "probe:tmpfs_direct_io: not in this kernel\n    loop_enospc_short_write[4K-on]" in out
    assert "module:nbd: not in this kernel" in out
    assert "loop_enospc_short_write[4K-off]" not in out
    assert "variants would be skipped on debian/sid (6.12.0-fake)" in err


def test_a_kernel_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "--why", "missing"]) == REFUSED
    assert "no kernel missing" in capsys.readouterr().err


def test_what_was_found_of_another_release_is_not_mixed_in(tmp_path: Path) -> None:
    cache = Cache(root=tmp_path / "cache")
    assert recall("k", cache=cache) is None
    keep(Probed(kernel="k", release="1", facts={"a": "no", "b": ""}), cache=cache)
    keep(Probed(kernel="k", release="1", facts={"c": "nor that"}), cache=cache)
    found = recall("k", cache=cache)
    assert found is not None
    assert found.lacks == {"a": "no", "c": "nor that"}
    keep(Probed(kernel="k", release="2", facts={"a": ""}), cache=cache)
    found = recall("k", cache=cache)
    assert found is not None
    assert found.lacks == {}
    for path in (tmp_path / "cache" / "notes").iterdir():
        path.write_text('{"of": "a later version"}')
    assert recall("k", cache=cache) is None


def test_what_a_template_meets_is_kept_and_nothing_else(tmp_path: Path) -> None:
    cache = Cache(root=tmp_path / "cache")
    assert met("a" * 64, cache=cache) == frozenset()
    KeptFacts("a" * 64, cache).learn({"fs:ext4": "", "module:nbd": "no", f"{LACKS}short_file": ""})
    keep_met("a" * 64, ["tool:fio"], cache=cache)
    assert met("a" * 64, cache=cache) == {"fs:ext4", "tool:fio"}
    assert met("b" * 64, cache=cache) == frozenset()
    known = KeptFacts("a" * 64, cache)
    asked = ("fs:ext4", "module:nbd", f"{LACKS}short_file")
    assert known.missing(asked) == ["module:nbd", f"{LACKS}short_file"]
    (note,) = (tmp_path / "cache" / "notes").iterdir()
    for text in ("{}", "[1]", "cut", ""):
        note.write_text(text)
        assert met("a" * 64, cache=cache) == frozenset()


def test_facts_that_cannot_be_kept_are_asked_again(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no directory")
    known = KeptFacts("a" * 64, Cache(root=tmp_path / "cache"))
    known.learn({"fs:ext4": ""})
    assert known.missing(("fs:ext4",)) == []
