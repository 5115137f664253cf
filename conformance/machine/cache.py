"""The cache directory: build a thing once, share it between concurrent runs, trust only whole ones.

An entry is a directory, `<root>/<kind>/<key>`. It comes into being by one rename, after everything
in it was fsynced; so an entry that exists is whole, and the fast path takes no lock at all.
Builders of the same key serialise on a flock; builders of different keys do not meet. A builder
that dies leaves a temporary directory that nothing trusts and that the next builder removes.

Besides entries, which never change, there are *notes*: small named files, replaced atomically, for
what may change later (which package version a suite offers today).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from conformance.machine.tool import ArtifactError, NoSpaceError

__all__ = ["ArtifactError", "Cache", "NoSpaceError", "cache_directory", "digest_of", "file_stamp"]

_NAME_LIMIT = 150
PART = "piece-"
"""How temporary files begin that arrive in parts."""
_FORSAKEN = 3600.0
"""Seconds after which nobody goes on writing to a temporary file that no process owns: what comes over
the network in parts. Each part is a matter of seconds."""


def cache_directory(environ: Mapping[str, str]) -> Path:
    """$CONFORM_CACHE, else $XDG_CACHE_HOME/conform, else ~/.cache/conform. Not created here.

    Raises ArtifactError when there is no home: a container whose user has no name, say.
    """
    if own := environ.get("CONFORM_CACHE"):
        return Path(own).absolute()
    if xdg := environ.get("XDG_CACHE_HOME"):
        return Path(xdg).absolute() / "conform"
    try:
        home = environ.get("HOME") or str(Path.home())
    except RuntimeError as error:
        raise ArtifactError(
            "this user has no home directory for a cache:"
            " point CONFORM_CACHE at a directory of your own"
        ) from error
    return Path(home).absolute() / ".cache" / "conform"


def digest_of(*parts: str | bytes) -> str:
    """The sha256 (hex) of a sequence of parts; no two different sequences share an encoding."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)
    return total.hexdigest()


def file_stamp(path: Path) -> str:
    """What tells a changed file cheaply: path, inode, size in bytes, mtime and ctime in nanoseconds.

    A build that clamps its mtimes (SOURCE_DATE_EPOCH, tar --mtime) leaves another file of the same size
    and mtime; no program sets the inode and the ctime. Raises OSError when the file cannot be stat'ed.
    """
    status = path.stat()
    told = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return "\0".join(map(str, (path.absolute(), *told)))


@dataclass(frozen=True, kw_only=True)
class Cache:
    """The cache under one directory. Cheap to make; nothing is touched until it is used."""

    root: Path

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Cache:
        """The cache the environment (default: os.environ) asks for. Raises ArtifactError."""
        return cls(root=cache_directory(os.environ if environ is None else environ))

    def entry(self, kind: str, key: str) -> Path:
        """Where the entry is or would be."""
        return self.root / _checked(kind) / _checked(key)

    def build_once(self, kind: str, key: str, builder: Callable[[Path], None]) -> Path:
        """The directory `<root>/<kind>/<key>`, built by `builder(empty directory)` if not there.

        Of several processes asking at once, one builds and the others wait for it. When the builder
        raises, nothing is kept and the exception goes on. Raises NoSpaceError when the disk is
        full, ArtifactError when the cache directory cannot be written.

        Who asks uses the entry: what goes by an entry's last use goes by this, too.
        """
        entry = self.entry(kind, key)
        if entry.is_dir():
            self.touch(entry)
            return entry
        with self.lock(f"{kind}.{key}"):
            if entry.is_dir():
                return entry
            self.remove_stale()
            with self.scratch() as work:
                product = work / "product"
                product.mkdir()
                builder(product)
                _sync_tree(product)
                entry.parent.mkdir(parents=True, exist_ok=True)
                product.rename(entry)
                _sync(entry.parent)
        return entry

    def discard(self, kind: str, key: str) -> None:
        """Remove an entry if it is there. Not for entries a running machine may be using."""
        entry = self.entry(kind, key)
        with self.lock(f"{kind}.{key}"), self.scratch() as work:
            if entry.is_dir():
                entry.rename(work / "discarded")

    def keep_newest(self, kind: str, count: int) -> None:
        """Of a kind whose entries come and go with every edit, keep those used last.

        An entry counts as used when it was built, asked for or `touch`ed.
        """
        ages = []
        for entry in (self.root / _checked(kind)).iterdir():
            with suppress(FileNotFoundError):  # another run has discarded it
                ages.append((entry.stat().st_mtime_ns, entry.name))
        for _, key in sorted(ages)[: -max(count, 1)]:
            self.discard(kind, key)

    @staticmethod
    def hold(handle: int) -> None:
        """Say of an open file of an entry that it is in use, until every copy of it is closed.

        A machine that runs has its own copy, so that this outlives who started it.
        """
        with suppress(OSError):  # a file system without locks: then nobody can tell
            fcntl.flock(handle, fcntl.LOCK_SH)

    @staticmethod
    def in_use(entry: Path) -> bool:
        """Whether somebody holds a file of an entry."""
        for path in entry.iterdir():
            if not path.is_file():
                continue
            with suppress(OSError), path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
        return False

    @staticmethod
    def touch(entry: Path) -> None:
        """Mark an entry as used now; a cache that is read-only is used all the same."""
        with suppress(OSError):
            os.utime(entry)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold an exclusive lock of that name, once nobody else does; it dies with the process.

        What is locked writes to the cache: where it cannot, or the lock cannot be had, raises
        NoSpaceError or ArtifactError.
        """
        path = self.root / "locks" / _checked(name)
        with _one_line(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty directory on the cache's own file system, removed at the end.

        A locked file beside it says that its owner lives; `remove_stale` goes by that.
        """
        parent = self.root / "tmp"
        parent.mkdir(parents=True, exist_ok=True)
        work = parent / secrets.token_hex(8)
        alive = work.with_suffix(".alive")
        while True:
            handle = os.open(alive, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink:
                break
            os.close(handle)  # somebody took it for one that was left, before it was locked
        try:
            work.mkdir()
            yield work
        finally:
            remove_tree(work)
            alive.unlink(missing_ok=True)
            os.close(handle)

    def remove_stale(self) -> None:
        """Remove the temporary directories whose owners have died, and files that nobody goes on with."""
        for alive in sorted((self.root / "tmp").glob("*.alive")):
            try:
                handle = os.open(alive, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                remove_tree(alive.with_suffix(""))
                alive.unlink(missing_ok=True)
            finally:
                os.close(handle)
        for part in (self.root / "tmp").glob(f"{PART}*"):
            with suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > _FORSAKEN:
                    part.unlink()

    def note(self, name: str) -> str | None:
        """The text of a note, or None when there is none."""
        try:
            return (self.root / "notes" / _checked(name)).read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write_note(self, name: str, text: str) -> None:
        """Set a note, atomically. Raises NoSpaceError or ArtifactError."""
        path = self.root / "notes" / _checked(name)
        with _one_line(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            try:
                with fresh.open("w") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())
                fresh.replace(path)
            finally:
                fresh.unlink(missing_ok=True)

    def forget_note(self, name: str) -> None:
        """Remove a note if it is there."""
        (self.root / "notes" / _checked(name)).unlink(missing_ok=True)

    def content_digest(self, path: Path) -> str:
        """The sha256 (hex) of a file's content; a file with an unchanged stamp is not read again.

        Raises OSError when the file cannot be read.
        """
        stamp = file_stamp(path.resolve())
        name = f"digest.{digest_of(stamp)[:32]}"
        known = self.note(name)
        if known is not None:
            record = json.loads(known)
            if record["stamp"] == stamp:
                return str(record["sha256"])
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        self.write_note(name, json.dumps({"stamp": stamp, "sha256": sha256}))
        return sha256


def remove_tree(path: Path) -> None:
    """Remove a directory tree that may be absent, unless something is mounted inside it.

    A builder that was killed while it had a chroot set up could have left a mount of the host's
    /dev or /proc behind; removing through it would empty the host's directory.
    """
    real = os.path.realpath(path)
    if any(point == real or point.startswith(real + "/") for point in _mount_points()):
        return
    shutil.rmtree(path, ignore_errors=True)


def _mount_points() -> list[str]:
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return []
    return [line.split()[4].replace("\\040", " ") for line in lines]


def _checked(name: str) -> str:
    if not name or name.startswith(".") or "/" in name or len(name) > _NAME_LIMIT:
        raise ValueError(f"not a name for a cache entry: {name!r}")
    return name


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(top: Path) -> None:
    for directory, _, files in os.walk(top):
        for name in files:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                _sync(path)
        _sync(Path(directory))


@contextmanager
def _one_line(root: Path) -> Iterator[None]:
    """Turn the operating system's complaints about the cache directory into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(
                f"no space left for the cache in {root}: free some space,"
                " or point CONFORM_CACHE at a larger file system"
            ) from error
        ours = str(error.filename or "").startswith(str(root))
        if ours and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR):
            raise ArtifactError(
                f"the cache in {root} cannot be written ({error.strerror}):"
                " point CONFORM_CACHE at a directory of your own"
            ) from error
        raise
