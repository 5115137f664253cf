"""What the cache no longer needs: found, measured, removed.

An entry stays if it is needed, if it was made or used lately (another checkout may share the cache), or
if a machine has a file of it open. Everything that goes can be made again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conformance.machine.cache import Cache

KINDS = (
    "kernel",
    "kernel-local",
    "modules",
    "modules-local",
    "root",
    "initrd",
    "template",
    "piece",
)
"""The kinds of entries that are looked at; what else is in the directory is not this module's."""

DAY = 86400.0

Fate = Literal["needed", "recent", "in use", "goes"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """An entry of the cache. ``size``: bytes on the disk. ``age``: seconds since its last use."""

    kind: str
    key: str
    path: Path
    size: int
    age: float
    fate: Fate

    @property
    def told(self) -> str:
        """What it is called in messages: its kind, and the beginning of its key."""
        return f"{self.kind}/{self.key[:12]}"


def survey(
    cache: Cache, needed: Mapping[str, frozenset[str]], *, now: float, keep: float
) -> tuple[Item, ...]:
    """Every entry, and what becomes of it. ``now``: seconds since the epoch. ``keep``: seconds."""
    return tuple(_items(cache, needed, now, keep))


def _items(
    cache: Cache, needed: Mapping[str, frozenset[str]], now: float, keep: float
) -> Iterator[Item]:
    for kind in KINDS:
        folder = cache.root / kind
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            try:
                age = max(0.0, now - path.stat().st_mtime)
                size = size_of(path)
                busy = Cache.in_use(path)
            except FileNotFoundError:
                continue  # somebody else removed it
            fate: Fate = "goes"
            if path.name in needed.get(kind, ()):
                fate = "needed"
            elif busy:
                fate = "in use"
            elif age < keep:
                fate = "recent"
            yield Item(kind=kind, key=path.name, path=path, size=size, age=age, fate=fate)


def remove(cache: Cache, item: Item) -> bool:
    """Remove an entry, unless it came into use meanwhile. Whether it is gone.

    Raises ArtifactError if it cannot be removed.
    """
    if not item.path.is_dir() or Cache.in_use(item.path):
        return False
    cache.discard(item.kind, item.key)
    return True


def abandoned(cache: Cache) -> int:
    """Bytes of temporary directories below the cache, whoever they belong to."""
    folder = cache.root / "tmp"
    return size_of(folder) if folder.is_dir() else 0


def size_of(path: Path) -> int:
    """Bytes on the disk of all files below a directory; each of several links counts once."""
    total = 0
    seen: set[int] = set()
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                status = Path(folder, name).lstat()
            except FileNotFoundError:
                continue
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                total += status.st_blocks * 512
    return total
