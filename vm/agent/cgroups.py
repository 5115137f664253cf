"""The cgroups of a case: a subtree of its own below the root of cgroup v2."""

from __future__ import annotations

import contextlib
import errno
import os
import signal

from agent import kernel
from agent.basics import Json, RigError, keyed_numbers, one_line, poll_until, read_text

MOUNT = "/sys/fs/cgroup"
CONTROLLERS = ("memory", "io", "pids")
_EVENTS = ("max", "oom", "oom_kill", "oom_group_kill", "high")
_STAT = ("anon", "shmem", "file")
MOUNT_V1 = "/run/cgroup_v1"
NO_LIMIT_V1 = 1 << 60
"""A limit above this is none: cgroup v1 shows the largest number of pages."""
_V1_LIMIT = 10.0


def ensure_mounted() -> None:
    """See that cgroup v2 is mounted at its usual place. Raises RigError."""
    if os.path.exists(f"{MOUNT}/cgroup.controllers"):
        return
    try:
        kernel.mount("cgroup2", MOUNT, "cgroup2", 0, "")
    except OSError as error:
        raise RigError(f"cgroup v2 is not there: {error}") from error


def enable(directory: str) -> dict[str, str]:
    """Enable the controllers for the children of ``directory``; those that failed, with why."""
    failed = {}
    for name in CONTROLLERS:
        try:
            write(f"{directory}/cgroup.subtree_control", f"+{name}")
        except OSError as error:
            failed[name] = os.strerror(error.errno or 0)
    return failed


def enabled_in_root() -> list[str]:
    """The controllers that the root gives to its children."""
    return read_text(f"{MOUNT}/cgroup.subtree_control").split()


def write(path: str, text: str) -> None:
    """Write a cgroup or sysfs attribute in one call. Raises OSError."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


class Tree:
    """The cgroups of one case; paths are relative to its subtree, empty is the system's root."""

    def __init__(self, root: str = "case") -> None:
        self.root = f"{MOUNT}/{root}"
        self.paths: list[str] = []

    def up(self, paths: list[str]) -> None:
        """Make the cgroups, with every controller enabled at each one that has children."""
        ensure_mounted()
        wanted: list[str] = []
        for path in paths:
            parts = path.split("/")
            for depth in range(1, len(parts) + 1):
                step = "/".join(parts[:depth])
                if step and step not in wanted:
                    wanted.append(step)
        if not wanted:
            return
        parents = {path.rpartition("/")[0] for path in wanted}
        try:
            self._must_enable(MOUNT)
            os.makedirs(self.root, exist_ok=True)
            self._must_enable(self.root)
            for path in wanted:
                os.mkdir(self.directory(path))
                self.paths.append(path)
                if os.path.exists(f"{self.directory(path)}/memory.swap.max"):
                    write(f"{self.directory(path)}/memory.swap.max", "0")
                if path in parents:
                    self._must_enable(self.directory(path))
        except OSError as error:
            raise RigError(f"cannot make the cgroups: {one_line(error)}") from error

    @staticmethod
    def _must_enable(directory: str) -> None:
        failed = enable(directory)
        # Without +io nothing is charged: loop finds the memory cgroup through the block cgroup.
        for name in ("memory", "io"):
            if name in failed:
                raise RigError(f"cannot enable {name} below {directory}: {failed[name]}")

    def remove(self, path: str) -> str:
        """Remove a cgroup in which nobody is, at once: nothing, or why it stays."""
        try:
            os.rmdir(self.directory(path))
        except OSError as error:
            return one_line(error)
        self.paths.remove(path)
        return ""

    def directory(self, path: str) -> str:
        """The directory of a cgroup of the case, or of the root."""
        return f"{self.root}/{path}" if path else MOUNT

    def procs(self, path: str) -> str:
        """The file through which a process enters; nothing for the root, where all begin."""
        return f"{self.directory(path)}/cgroup.procs" if path else ""

    def anonymous(self, path: str) -> int | None:
        """Bytes of anonymous memory charged to a cgroup; None for the root."""
        if not path:
            return None
        return keyed_numbers(read_text(f"{self.directory(path)}/memory.stat")).get("anon")

    def events(self, path: str) -> Json:
        """The host's ``MemoryEvents`` of one cgroup."""
        directory = self.directory(path)
        events = keyed_numbers(read_text(f"{directory}/memory.events"))
        stat = keyed_numbers(read_text(f"{directory}/memory.stat"))
        current = read_text(f"{directory}/memory.current", "0")
        return {
            **{key: events.get(key, 0) for key in _EVENTS},
            "current": int(current or 0),
            **{key: stat.get(key, 0) for key in _STAT},
        }

    def watch(self) -> dict[str, Json]:
        """``MemoryEvents`` of every cgroup of the case."""
        return {path: self.events(path) for path in self.paths}

    def down(self, limit: float) -> list[str]:
        """End what is left in the cgroups and remove them; the names of those that stay."""
        for path in reversed(self.paths):
            for pid in read_text(f"{self.directory(path)}/cgroup.procs").split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
        left = [path for path in reversed(self.paths) if not self._remove(path, limit)]
        if self.paths and not left:
            self._remove("", limit)
        self.paths = [path for path in self.paths if path in left]
        return left

    def _remove(self, path: str, limit: float) -> bool:
        directory = f"{self.root}/{path}".rstrip("/")

        def gone() -> bool:
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                return True
            except OSError:
                return False
            return True

        return poll_until(gone, limit)


class TreeV1(Tree):
    """The cgroups of one case in a hierarchy of cgroup v1, mounted for it.

    The controllers are taken from cgroup v2 first, which can only be while no cgroup there uses them.
    """

    def __init__(self, controllers: str, root: str = "case") -> None:
        super().__init__(root)
        self.root = f"{MOUNT_V1}/{root}"
        self._controllers = controllers.replace("+", ",")
        self._mounted = False

    def mount(self) -> None:
        """Mount the hierarchy. Raises RigError: a kernel may have no cgroup v1."""
        for name in CONTROLLERS:
            with contextlib.suppress(OSError):
                write(f"{MOUNT}/cgroup.subtree_control", f"-{name}")
        os.makedirs(MOUNT_V1, exist_ok=True)
        failed: list[OSError] = []

        def mounted() -> bool:
            # The cgroups of an earlier probe go in the background.
            try:
                kernel.mount("cgroup", MOUNT_V1, "cgroup", 0, self._controllers)
            except OSError as error:
                failed.append(error)
                return error.errno != errno.EBUSY
            self._mounted = True
            return True

        poll_until(mounted, _V1_LIMIT)
        if not self._mounted:
            raise RigError(f"no hierarchy of cgroup v1 with {self._controllers}: {failed[-1]}")

    def up(self, paths: list[str]) -> None:
        """Make the cgroups; in each the controllers are in force as they are."""
        self.mount()
        try:
            os.makedirs(self.root, exist_ok=True)
            for path in paths:
                if path and path not in self.paths:
                    os.makedirs(self.directory(path))
                    self.paths.append(path)
        except OSError as error:
            raise RigError(f"cannot make the cgroups: {one_line(error)}") from error

    def directory(self, path: str) -> str:
        """The directory of a cgroup of the case, or of the root."""
        return f"{self.root}/{path}" if path else MOUNT_V1

    def anonymous(self, path: str) -> int | None:
        """Bytes of anonymous memory charged to a cgroup; None for the root."""
        if not path:
            return None
        return keyed_numbers(read_text(f"{self.directory(path)}/memory.stat")).get("rss")

    def events(self, path: str) -> Json:
        """The host's ``MemoryEvents`` of one cgroup."""
        directory = self.directory(path)
        stat = keyed_numbers(read_text(f"{directory}/memory.stat"))
        return {
            **dict.fromkeys(_EVENTS, 0),
            "max": int(read_text(f"{directory}/memory.failcnt", "0") or 0),
            "oom_kill": keyed_numbers(read_text(f"{directory}/memory.oom_control")).get(
                "oom_kill", 0
            ),
            "current": int(read_text(f"{directory}/memory.usage_in_bytes", "0") or 0),
            "anon": stat.get("rss", 0),
            "shmem": stat.get("shmem", 0),
            "file": stat.get("cache", 0),
        }

    def down(self, limit: float) -> list[str]:
        """End what is left, remove the cgroups, and give the controllers back to cgroup v2."""
        left = super().down(limit)
        if self._mounted and not left:
            with contextlib.suppress(OSError):
                kernel.umount(MOUNT_V1)
        return left
