"""How a device or a file is opened to be looked at, which caches are dropped, and the child that looks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from agent.basics import Json
from agent.processes import ended
from agent.workloads.pattern import Pattern
from agent.workloads.readback import Seen, forget_caches, in_child, read_device, recogniser

KNOWS = recogniser(Pattern(b"devices!"))
WHAT = ["readback", "/dev/loop0"]

Opened = list[tuple[str, int]]


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * 4096))
    return str(path)


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int, int]]:
    """The files whose pages the kernel was asked to drop, and how: start, length, advice."""
    found = []

    def advise(fd: int, start: int, length: int, advice: int) -> None:
        found.append((os.readlink(f"/proc/self/fd/{fd}"), start, length, advice))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    return found


def opens(monkeypatch: pytest.MonkeyPatch, refuse: Callable[[int], int]) -> Opened:
    """What is opened from now on; ``refuse`` says with which errno, or 0. Nothing is read directly,
    as not every filesystem can.
    """
    found: Opened = []
    opened = os.open

    def open_(path: str, flags: int) -> int:
        found.append((path, flags))
        if code := refuse(flags):
            raise OSError(code, "no")
        return opened(path, flags & ~os.O_DIRECT)

    monkeypatch.setattr(os, "open", open_)
    return found


def test_all_of_a_file_s_cache_is_dropped_whatever_cannot_be_opened(
    tmp_path: Path, dropped: list[tuple[str, int, int, int]]
) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    for path in one, two:
        Path(path).touch()
    forget_caches([one, str(tmp_path / "missing"), two])
    # A length of 0 is up to the end: posix_fadvise(2).
    assert dropped == [(path, 0, 0, os.POSIX_FADV_DONTNEED) for path in (one, two)]


@pytest.mark.parametrize(
    ("drop", "flags"),
    [(None, os.O_RDONLY), ((), os.O_RDONLY | os.O_DIRECT)],
    ids=["cached", "direct"],
)
def test_caches_are_left_out_only_where_some_may_be_dropped(
    file: str,
    monkeypatch: pytest.MonkeyPatch,
    drop: tuple[()] | None,
    flags: int,
) -> None:
    opened = opens(monkeypatch, lambda _: 0)
    assert read_device(file, 4096, 8192, KNOWS, drop=drop) == [Seen(4096, 8192, "zero")]
    assert opened == [(file, flags)]


def test_caches_are_dropped_before_the_device_is_opened(
    file: str, monkeypatch: pytest.MonkeyPatch, dropped: list[tuple[str, int, int, int]]
) -> None:
    opened = opens(monkeypatch, lambda _: 0)
    read_device(file, 0, 4096, KNOWS, drop=[file])
    assert [path for path, *_ in dropped] == [file]
    assert [bool(flags & os.O_DIRECT) for _, flags in opened] == [False, True]


@pytest.mark.parametrize("drop", [None, ()], ids=["cached", "direct"])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_a_file_that_is_refused_for_another_reason_is_unreadable(
    file: str, monkeypatch: pytest.MonkeyPatch, drop: tuple[()] | None, code: int
) -> None:
    # Without O_DIRECT it could be opened the second time.
    refusals = [code]
    opens(monkeypatch, lambda _: refusals.pop() if refusals else 0)
    assert read_device(file, 0, 4096, KNOWS, drop=drop) == [Seen(0, 4096, "unreadable", errno=code)]


def test_a_file_that_is_refused_as_it_is_cached_is_not_opened_anew(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = opens(monkeypatch, lambda _: errno.EINVAL)
    seen = read_device(file, 0, 4096, KNOWS, drop=None)
    assert seen == [Seen(0, 4096, "unreadable", errno=errno.EINVAL)]
    assert len(opened) == 1


def test_what_a_child_saw_is_its_answer() -> None:
    # More than a pipe holds, and more than a page.
    answer: Json = {"seen": ["ü" * 100] * 2000}
    assert in_child(lambda: answer, what=WHAT, limit=30) == (answer, [], "")


def failing(error: BaseException) -> Callable[[], Json]:
    def look() -> Json:
        raise error

    return look


@pytest.mark.parametrize(
    ("look", "told"),
    [
        (failing(ValueError("two\n lines")), "ValueError: two lines"),
        # A child that would end well has seen nothing all the same.
        (failing(SystemExit(0)), "SystemExit: 0"),
        (lambda: {"seen": 1j}, "TypeError: Object of type complex is not JSON serializable"),
    ],
    ids=["error", "exit", "no-json"],
)
def test_why_a_child_saw_nothing_is_told(look: Callable[[], Json], told: str) -> None:
    command = {"argv": WHAT, "ended": ended(70), "output": told}
    assert in_child(look, what=WHAT, limit=30) == (None, [command], f"the reader failed: {told}")


def test_a_child_that_was_killed_is_no_problem_of_the_rig() -> None:
    def look() -> Json:
        os.kill(os.getpid(), 9)
        return {}

    command = {"argv": WHAT, "ended": ended(signal=9), "output": ""}
    assert in_child(look, what=WHAT, limit=30) == (None, [command], "")
