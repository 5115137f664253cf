"""Entries come into being whole or not at all, once, whoever asks and whoever dies."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.machine.cache import (
    ArtifactError,
    Cache,
    NoSpaceError,
    cache_directory,
    digest_of,
    remove_tree,
)
from conformance.machine.template import KEPT, KIND, Frozen, obtain, write

# Builds the entry "thing/one" and appends a line to a log each time the builder really runs.
BUILDER = """
import sys, time
from pathlib import Path
from conformance.machine.cache import Cache
log = Path(sys.argv[2])

def build(product):
    with log.open("a") as stream:
        stream.write("built\\n")
    (product / "part").write_text("half")
    if sys.argv[3] == "hang":
        print("inside", flush=True)
        sys.stdin.read()
    (product / "whole").write_text("yes")

print(Cache(root=Path(sys.argv[1])).build_once("thing", "one", build))
"""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(root=tmp_path / "cache")


def start(cache: Cache, log: Path, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(cache.root), str(log), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def test_a_directory_that_is_taken_for_one_that_was_left_is_made_anew(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, looks = fcntl.flock, iter(range(9))

    def late(handle: int, how: int) -> None:
        """Somebody clears up between the file's coming and its lock."""
        if next(looks) == 0:
            (alive,) = (cache.root / "tmp").glob("*.alive")
            alive.unlink()
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with cache.scratch() as work:
        assert work.is_dir()
        assert work.with_suffix(".alive").exists()
    assert leftovers(cache) == []


def leftovers(cache: Cache) -> list[str]:
    return sorted(path.name for path in (cache.root / "tmp").glob("*"))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CONFORM_CACHE": "/a/b", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/conform"),
        ({"HOME": "/h"}, "/h/.cache/conform"),
        ({"CONFORM_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/conform"),
    ],
)
def test_directory_is_the_first_the_environment_names(
    environ: dict[str, str], expected: str
) -> None:
    assert cache_directory(environ) == Path(expected)


def test_an_entry_is_built_once(cache: Cache) -> None:
    runs = []

    def build(product: Path) -> None:
        runs.append(product)
        (product / "file").write_text("content")

    first = cache.build_once("thing", "one", build)
    assert cache.build_once("thing", "one", build) == first
    assert (first / "file").read_text() == "content"
    assert len(runs) == 1
    assert leftovers(cache) == []


def test_concurrent_processes_build_once(cache: Cache, tmp_path: Path) -> None:
    log = tmp_path / "log"
    running = [start(cache, log, "go") for _ in range(6)]
    answers = {process.communicate(timeout=60)[0] for process in running}
    assert answers == {f"{cache.entry('thing', 'one')}\n"}
    assert log.read_text() == "built\n"


def test_a_failed_build_leaves_nothing(cache: Cache) -> None:
    def build(product: Path) -> None:
        (product / "part").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.build_once("thing", "one", build)
    assert not cache.entry("thing", "one").exists()
    assert leftovers(cache) == []


def test_a_killed_build_is_not_trusted_and_is_cleared_away(cache: Cache, tmp_path: Path) -> None:
    log = tmp_path / "log"
    victim = start(cache, log, "hang")
    with victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "inside\n"
        victim.send_signal(signal.SIGKILL)
    assert not cache.entry("thing", "one").exists()
    assert leftovers(cache) != []

    entry = cache.build_once("thing", "one", lambda product: (product / "whole").touch())
    assert [path.name for path in entry.iterdir()] == ["whole"]
    assert leftovers(cache) == []


def test_a_living_builder_is_left_alone(cache: Cache) -> None:
    with cache.scratch() as work:
        (work / "file").touch()
        Cache(root=cache.root).remove_stale()
        assert (work / "file").exists()
    assert leftovers(cache) == []


def test_a_builder_waits_for_the_lock_of_its_key_only(cache: Cache) -> None:
    with cache.lock("thing.other"):
        cache.build_once("thing", "one", lambda product: (product / "file").touch())
    handle = os.open(cache.root / "locks" / "thing.one", os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released
    finally:
        os.close(handle)


def test_a_full_disk_is_one_line(cache: Cache) -> None:
    def build(product: Path) -> None:
        with Path("/dev/full").open("w") as stream:
            stream.write("more than fits")

    with pytest.raises(NoSpaceError) as caught:
        cache.build_once("thing", "one", build)
    assert "no space left for the cache in" in str(caught.value)
    assert "CONFORM_CACHE" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unusable_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=r"cannot be written .* CONFORM_CACHE"):
        Cache(root=tmp_path / "file").build_once("thing", "one", lambda product: None)


def test_a_builders_own_trouble_is_not_blamed_on_the_cache(cache: Cache) -> None:
    def build(product: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/boot/vmlinuz")

    with pytest.raises(PermissionError):
        cache.build_once("thing", "one", build)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "x" * 200])
def test_names_cannot_leave_the_cache(cache: Cache, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        cache.entry("thing", name)
    with pytest.raises(ValueError, match="not a name"):
        cache.note(name)


def test_notes_are_replaced(cache: Cache) -> None:
    assert cache.note("n") is None
    cache.write_note("n", "one")
    cache.write_note("n", "two")
    assert cache.note("n") == "two"
    assert [path.name for path in (cache.root / "notes").iterdir()] == ["n"]
    cache.forget_note("n")
    cache.forget_note("n")
    assert cache.note("n") is None


def test_content_digest_follows_the_content(cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    first = cache.content_digest(path)
    assert cache.content_digest(path) == first
    path.write_text("three")
    assert cache.content_digest(path) != first
    path.write_text("one")
    os.utime(path, ns=(1, 1))
    assert cache.content_digest(path) == first


def test_an_unchanged_file_is_not_read_again(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    first = cache.content_digest(path)
    monkeypatch.delattr("hashlib.file_digest")
    assert cache.content_digest(path) == first


def test_another_file_with_the_size_and_mtime_of_the_old_one_is_read(
    cache: Cache, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    digests = set()
    for text in ("one", "two"):
        path.with_suffix(".new").write_text(text)
        os.utime(path.with_suffix(".new"), ns=(5, 5))
        path.with_suffix(".new").rename(path)
        digests.add(cache.content_digest(path))
    assert len(digests) == 2


def test_only_the_entries_used_last_are_kept(cache: Cache) -> None:
    for number in range(5):
        entry = cache.build_once("thing", str(number), lambda product: (product / "f").touch())
        os.utime(entry, ns=(number, number))
    cache.touch(cache.entry("thing", "0"))
    cache.keep_newest("thing", 2)
    assert sorted(path.name for path in (cache.root / "thing").iterdir()) == ["0", "4"]


def template(directory: Path) -> None:
    memory = os.memfd_create("memory")
    try:
        os.ftruncate(memory, 4096)
        write(directory, Frozen(memory=memory, state=b"", console=b"", boot_seconds=1.0, facts={}))
    finally:
        os.close(memory)


def test_only_the_templates_used_last_are_kept(cache: Cache) -> None:
    for number in range(KEPT):
        obtain(cache, str(number), template).close()
        os.utime(cache.entry(KIND, str(number)), ns=(number, number))
    obtain(cache, "0", template).close()
    obtain(cache, "one more", template).close()
    kept = {path.name for path in (cache.root / KIND).iterdir()}
    assert kept == {"0", "one more", *map(str, range(2, KEPT))}


def test_what_another_run_discards_meanwhile_is_passed_over(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        entry = cache.build_once("thing", str(number), lambda product: (product / "f").touch())
        os.utime(entry, ns=(number, number))
    listed = Path.iterdir

    def discarded(folder: Path) -> list[Path]:
        found = list(listed(folder))
        Cache(root=cache.root).discard("thing", "0")
        return found

    monkeypatch.setattr(Path, "iterdir", discarded)
    cache.keep_newest("thing", 2)
    monkeypatch.undo()
    assert sorted(path.name for path in (cache.root / "thing").iterdir()) == ["2", "3"]


def test_digest_tells_sequences_apart() -> None:
    assert digest_of("ab", "c") != digest_of("a", "bc")
    assert digest_of("ab") == digest_of(b"ab")


def test_removal_does_not_follow_links(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    doomed = tmp_path / "doomed"
    doomed.mkdir()
    (doomed / "link").symlink_to(kept)
    remove_tree(doomed)
    assert not doomed.exists()
    assert (kept / "file").exists()


def test_removal_spares_a_tree_with_a_mount_in_it() -> None:
    # /proc is mounted wherever these tests run; its parent must then be left as it is.
    remove_tree(Path("/proc"))
    assert Path("/proc/self").exists()
