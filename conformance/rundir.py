"""The folder that a run writes to: results/runs/<time>/, with results/latest pointing at it."""

from __future__ import annotations

import os
import secrets
from datetime import datetime
from pathlib import Path, PurePosixPath

RUNS = Path("results/runs")
LATEST = Path("results/latest")


def new_run(root: Path, now: datetime) -> Path:
    """Make ``root``/results/runs/<UTC time>/.

    Two runs in one second get ``-2`` and so on. Raises OSError if there is no place to write.
    """
    stem = now.strftime("%Y-%m-%dT%H-%M-%SZ")
    number = 1
    while True:
        folder = root / RUNS / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            continue
        return folder


def check_own(folder: Path) -> None:
    """Raise FileExistsError if something is in the folder that ``--out`` names.

    A run never writes over another's results, and says so before it prepares anything.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder}: not empty; a run writes to a folder of its own")


def own_run(folder: Path) -> Path:
    """Make the folder that ``--out`` names, or take it as it is if it is empty. Raises as ``check_own``."""
    check_own(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` with ``text``: a reader sees the old file or the new one, never a part."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        # What came from a kernel log may hold lone surrogates; a report must not die of them.
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def is_below(path: str) -> bool:
    """Whether a path stays in the run's folder that it is relative to: who named it may be anybody."""
    parts = PurePosixPath(path)
    return bool(path) and not parts.is_absolute() and ".." not in parts.parts


def shown(path: Path) -> str:
    """``path`` as a user would type it: relative if it is below the current directory."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def point_latest(root: Path, folder: Path) -> None:
    """Point ``root``/results/latest at a run's folder: at the old one or at the new, never at none.

    Raises OSError if it cannot be written, or if something else than a link is in its place.
    """
    link = root / LATEST
    if link.exists() and not link.is_symlink():
        raise FileExistsError(f"{link}: not a link; move it away")
    beside = link.with_name(f".latest.{secrets.token_hex(4)}")
    beside.symlink_to(os.path.relpath(folder, link.parent))
    beside.replace(link)
