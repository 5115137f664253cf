"""Pieces of a kernel arrive whole, or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import time
from pathlib import Path

import pytest

from conformance.cluster import store as module
from conformance.cluster.client import Place
from conformance.cluster.store import Store, send
from conformance.engine import Parcel, Piece
from conformance.exits import Refused
from conformance.machine.cache import Cache

DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()
PARCEL = Parcel(kernel="k", pieces=(Piece(name="root", sha256=SHA256, size=len(DATA)),))
SENDING = "0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Cache(root=tmp_path / "cache"))


def test_a_piece_in_chunks(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 1000)
    path = tmp_path / "root.erofs"
    path.write_bytes(DATA)
    chunks: list[tuple[bytes, bool]] = []
    assert send(path, lambda data, last: chunks.append((data, last))) == len(DATA)
    assert [last for _, last in chunks] == [False] * 10 + [True]
    for data, last in chunks:
        assert store.lacks(PARCEL) == [SHA256]
        store.receive(sending=SENDING, sha256=SHA256, data=data, last=last)
    assert store.lacks(PARCEL) == []
    assert store.find(SHA256).read_bytes() == DATA
    assert not list((tmp_path / "cache" / "tmp").glob("piece-*"))


def test_an_empty_piece(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    sha256 = hashlib.sha256(b"").hexdigest()
    send(path, lambda data, last: store.receive(
        sending=SENDING, sha256=sha256, data=data, last=last))  # fmt: skip
    assert store.find(sha256).read_bytes() == b""


def test_what_was_changed_on_the_way_is_not_kept(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="what was sent as"):
        store.receive(sending=SENDING, sha256=SHA256, data=DATA[:-1], last=True)
    assert store.lacks(PARCEL) == [SHA256]
    assert not list((tmp_path / "cache" / "tmp").glob("piece-*"))


def test_what_was_broken_off_goes_with_time(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "tmp"
    old, fresh = "0" * 16, "1" * 16
    for name in (old, fresh):
        store.receive(sending=name, sha256=SHA256, data=DATA, last=False)
    then = time.time() - 7200
    os.utime(folder / f"piece-{old}", (then, then))
    store.receive(sending=SENDING, sha256=SHA256, data=DATA[:9], last=False)
    left = sorted(path.name for path in folder.iterdir())
    assert left == [f"piece-{SENDING}", f"piece-{fresh}"]


def test_what_cannot_be_written_is_not_kept(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.receive(sending=SENDING, sha256=SHA256, data=DATA[:9], last=False)

    class Full(io.BytesIO):
        def write(self, _data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda *_: Full())
    with pytest.raises(OSError, match="No space left"):
        store.receive(sending=SENDING, sha256=SHA256, data=DATA[9:], last=False)
    assert not list((tmp_path / "cache" / "tmp").glob("piece-*"))


@pytest.mark.parametrize(("sending", "sha256"), [("../../x", SHA256), (SENDING, "../../etc/x")])
def test_a_name_is_no_path(store: Store, sending: str, sha256: str) -> None:
    with pytest.raises(ValueError, match="not the name of a piece"):
        store.receive(sending=sending, sha256=sha256, data=b"", last=False)


def test_places() -> None:
    assert Place.parse("dask").address == ""
    assert Place.parse("dask://h:1").address == "tcp://h:1"
    assert Place.parse("dask+tls://h:1").address == "tls://h:1"
    assert Place.parse("dask://h:1?needs=kvm,x86_64").needs == ("vm", "kvm", "x86_64")
    for text in ("", "ray://h:1", "dask://h", "dask://h:x", "dask://h:1?wants=kvm", "dask://h:1/x"):
        with pytest.raises(Refused):
            Place.parse(text)
