"""A filesystem made on a block layer, mounted, unmounted, checked."""

from __future__ import annotations

import os
from dataclasses import dataclass

from agent import kernel
from agent.basics import Json, RigError, read_text
from agent.cgroups import write
from agent.layers.base import Fact, Layer, mounts_at, succeeded

_SMALL_BTRFS = 120 << 20
"""Bytes below which btrfs is made with data and metadata mixed: it refuses otherwise."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How one type of filesystem is made, mounted and checked.

    mkfs must not discard or zero the whole device: a sparse backing file stays sparse, so that
    what runs short is what the filesystem itself writes.
    """

    mkfs: tuple[str, ...]
    check: tuple[str, ...]
    mount: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    quota: tuple[tuple[str, str], ...] = ()
    module: str = ""


KINDS = {
    # The inode tables stay unwritten (lazy_itable_init), and nothing writes them in the background
    # at a time of its own choosing (noinit_itable). The journal is written by mkfs, as always.
    "ext4": Kind(
        mkfs=("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1"),
        check=("e2fsck", "-fn"),
        mount=("noinit_itable",),
        quota=(("user", "usrquota"), ("group", "grpquota"), ("project", "prjquota")),
        module="quota_v2",
    ),
    # mkfs.xfs refuses filesystems below 300 MiB since xfsprogs 5.19, "mkfs: stop allowing tiny
    # filesystems" (6e0ed3d19c54), unless it believes to be run by xfstests: these three variables.
    "xfs": Kind(
        mkfs=("mkfs.xfs", "-q", "-f", "-K"),
        check=("xfs_repair", "-n"),
        env=(("TEST_DIR", "/"), ("TEST_DEV", "/"), ("QA_CHECK_FS", "1")),
        quota=(("user", "uquota"), ("group", "gquota"), ("project", "pquota")),
    ),
    "btrfs": Kind(
        mkfs=("mkfs.btrfs", "-q", "-f", "--nodiscard"), check=("btrfs", "check", "--readonly")
    ),
    "f2fs": Kind(
        mkfs=("mkfs.f2fs", "-q", "-f", "-t", "0"),
        check=("fsck.f2fs", "--dry-run"),
        quota=(("user", "usrquota"), ("group", "grpquota"), ("project", "prjquota")),
        module="quota_v2",
    ),
}


class Subvolume(Layer):
    """``path`` is the subvolume's directory on the filesystem below."""

    def up(self) -> None:
        """Make it, with quota accounting that is up to date. Raises RigError."""
        self.path = f"{self.base().path}/{self.name}"
        self.site.must(["btrfs", "subvolume", "create", self.path])
        self.site.must(["btrfs", "quota", "enable", self.base().path])
        self.site.must(["btrfs", "quota", "rescan", "-w", self.base().path])
        self.mounted = True

    def down(self) -> list[Json]:
        """It goes with its filesystem."""
        self.mounted = False
        return []

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        uuid, number = kernel.btrfs_subvolume(self.path)
        return {"path": self.path, "uuid": uuid, "id": number}

    def left(self) -> list[str]:
        """What is still there of it."""
        return []


class Filesystem(Layer):
    """``path`` is the mount point; ``base().path`` the device."""

    refused = False
    """Whether it stayed mounted although it was to be unmounted."""

    def up(self) -> None:
        """Make it."""
        kind = KINDS[self.spec["type"]]
        device = self.base().path
        if self.spec.get("quota") and kind.module:
            self.site.must(["modprobe", kind.module])
        self.site.must([*self._mkfs(kind), device], limit=80, env=dict(kind.env))
        self.path = self.site.directory(self.name)
        self.site.must(self._mount_words(), limit=60)
        self.mounted = True
        if self.spec.get("project", 0):
            kernel.set_project(self.path, self.spec["project"], inherit=True)
        self._settle()

    def make(self, limit: float) -> Json:
        """Make it anew by its mkfs, unmounted; the command. Its exit status is a fact."""
        kind = KINDS[self.spec["type"]]
        return self.site.run([*self._mkfs(kind), self.base().path], limit, env=dict(kind.env))

    def trim(self, directory: str, limit: float) -> list[Json]:
        """Remove a directory, sync, and trim, as far as it goes; the commands."""
        # An error of what was written before is told to whoever syncs first, and is not this step's.
        self.site.run(["sync", "-f", self.path], limit)
        commands = []
        for argv in (
            ["rm", "-rf", f"{self.path}/{directory}"],
            ["sync", "-f", self.path],
            ["fstrim", "-v", self.path],
        ):
            commands.append(self.site.run(argv, limit))
            if not succeeded(commands[-1]):
                break
        return commands

    def _settle(self) -> None:
        """Set what the case wants in sysfs; a mount has its own. Raises RigError."""
        device = os.path.basename(self.base().path)
        for setting in self.spec.get("sysfs") or []:
            name, _, value = setting.partition("=")
            path = f"/sys/fs/{self.spec['type']}/{device}/{name}"
            try:
                write(path, value)
                found = read_text(path)
            except OSError as error:
                raise RigError(f"cannot set {path}: {error}") from error
            if found != value:
                raise RigError(f"{path} is {found}, not {value}")

    def _mkfs(self, kind: Kind) -> list[str]:
        words = list(kind.mkfs)
        quota = self.spec.get("quota") or []
        if self.spec["type"] == "ext4" and quota:
            types = ":".join(option for name, option in kind.quota if name in quota)
            # Files may have a project id without a quota on it.
            words += ["-O", "quota,project", "-E", f"quotatype={types}"]
        if self.spec["type"] == "f2fs" and quota:
            words += ["-O", "extra_attr,quota,project_quota"]
        if self.spec["type"] == "btrfs" and kernel.device_size(self.base().path) < _SMALL_BTRFS:
            words.append("--mixed")
        return [*words, *self.spec.get("mkfs_options", [])]

    def _mount_words(self) -> list[str]:
        kind = KINDS[self.spec["type"]]
        options = list(kind.mount)
        options += [option for name, option in kind.quota if name in self.spec.get("quota", [])]
        if self.spec.get("mount_options"):
            options.append(self.spec["mount_options"])
        words = ["-o", ",".join(options)] if options else []
        return ["mount", "-t", self.spec["type"], *words, self.base().path, self.path]

    def mount(self, limit: float) -> Json:
        """As it was mounted first, by the command that people use."""
        command = self.site.run(self._mount_words(), limit)
        self.mounted = mounts_at(self.path)
        if self.mounted:
            self._settle()
        return command

    def unmount(self, limit: float) -> Json:
        """Run umount(8); its exit status is a fact, whatever it is."""
        command = self.site.run(["umount", self.path], limit)
        self.mounted = self.refused = mounts_at(self.path)
        return command

    def check(self, limit: float) -> Json:
        """The filesystem's own checker, read-only, on the unmounted device.

        A log that was not replayed is an inconsistency to xfs_repair -n: mount and unmount first.
        """
        return self.site.run([*KINDS[self.spec["type"]].check, self.base().path], limit)

    def down(self) -> list[Json]:
        """Take it away."""
        return [self.unmount(60)] if self.mounted else []

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        room = os.statvfs(self.path)
        return {
            "path": self.path,
            "device": self.base().path,
            "type": str(self.spec["type"]),
            "size": room.f_blocks * room.f_frsize,
            "options": _options_at(self.path),
        }

    def left(self) -> list[str]:
        """What is still there of it."""
        return [f"mount {self.path}"] if self.path and mounts_at(self.path) else []

    def files_below(self) -> list[str]:
        """Its own file, and what is below."""
        return [self.base().path, *super().files_below()]


def _options_at(path: str) -> str:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.split()
            if words[4] == path:
                return words[-1]
    return ""
