"""What a worker was sent, by its content: the pieces of a kernel that a guest boots from.

A piece is an entry of the cache, which all workers on a machine share, under its sha256. It comes in
chunks; it is an entry only when it is whole and its sha256 is what was announced.
"""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from conformance.engine import Parcel
from conformance.machine.cache import PART, Cache

KIND = "piece"
CHUNK = 4 << 20
"""Bytes that are sent at a time; all of them pass through the scheduler."""


class Store:
    """The pieces in a cache."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    @property
    def name(self) -> str:
        """The same for all workers that share it."""
        return f"{socket.gethostname()}:{self._cache.root}"

    def lacks(self, parcel: Parcel) -> list[str]:
        """The sha256 of each piece that is not here."""
        return [piece.sha256 for piece in parcel.pieces if not self._entry(piece.sha256).is_dir()]

    def find(self, sha256: str) -> Path:
        """Where a piece is."""
        entry = self._entry(sha256)
        Cache.touch(entry)
        return entry / KIND

    def receive(self, *, sending: str, sha256: str, data: bytes, last: bool) -> None:
        """Take a chunk. ``sending`` tells what comes at the same time from several apart.

        What is broken off is removed: at once if it cannot be written, else by ``Cache.remove_stale``.
        Raises ValueError if it is the last and the whole is not what was announced, OSError, and
        NoSpaceError or ArtifactError of the cache.
        """
        if not re.fullmatch(r"[0-9a-f]{16}", sending) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError("not the name of a piece")
        part = self._cache.root / "tmp" / f"{PART}{sending}"
        part.parent.mkdir(parents=True, exist_ok=True)
        if not part.exists():
            self._cache.remove_stale()
        with ExitStack() as stack:
            stack.callback(part.unlink, missing_ok=True)
            with part.open("ab") as file:
                file.write(data)
            if not last:
                stack.pop_all()  # the rest is still to come
                return
            with part.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sha256:
                raise ValueError(f"what was sent as {sha256[:12]} is {found[:12]}")
            self._cache.build_once(KIND, sha256, lambda entry: _move(part, entry / KIND))

    def _entry(self, sha256: str) -> Path:
        return self._cache.entry(KIND, sha256)


def _move(part: Path, to: Path) -> None:
    part.rename(to)


def send(path: Path, put: Callable[[bytes, bool], None]) -> int:
    """Give ``put`` every chunk of a file, and whether it is the last; how many bytes these are."""
    size = 0
    for data, last in _chunks(path):
        put(data, last)
        size += len(data)
    return size


def _chunks(path: Path) -> Iterator[tuple[bytes, bool]]:
    with path.open("rb") as file:
        data = file.read(CHUNK)
        while True:
            after = file.read(CHUNK)
            yield data, not after
            if not after:
                return
            data = after
