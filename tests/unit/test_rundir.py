"""Folders of runs: never two runs in one, never half a file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from conformance.rundir import new_run, own_run, point_latest, shown, write_atomically

NOON = datetime(2026, 5, 5, 12, tzinfo=UTC)


def test_two_runs_in_one_second(tmp_path: Path) -> None:
    names = [new_run(tmp_path, NOON).name for _ in range(3)]
    assert names == ["2026-05-05T12-00-00Z", "2026-05-05T12-00-00Z-2", "2026-05-05T12-00-00Z-3"]


def test_latest_moves(tmp_path: Path) -> None:
    for _ in range(2):
        folder = new_run(tmp_path, NOON)
        point_latest(tmp_path, folder)
        assert (tmp_path / "results/latest").resolve() == folder.resolve()
    assert not [p for p in (tmp_path / "results").iterdir() if p.name.startswith(".")]


def test_latest_is_not_put_in_the_place_of_something_else(tmp_path: Path) -> None:
    folder = new_run(tmp_path, NOON)
    (tmp_path / "results/latest").mkdir()
    with pytest.raises(FileExistsError, match="not a link"):
        point_latest(tmp_path, folder)


def test_own_folder_may_be_new_or_empty_but_not_full(tmp_path: Path) -> None:
    folder = own_run(tmp_path / "a" / "b")
    assert own_run(folder) == folder
    (folder / "record.jsonl").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        own_run(folder)


def test_atomic_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    for text in ("old", "new \udc80"):
        write_atomically(path, text)
    assert path.read_text() == "new \\udc80"
    assert list(tmp_path.iterdir()) == [path]


def test_shown_is_short_below_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "results") == "results"
    assert shown(Path("/elsewhere")) == "/elsewhere"
