"""Limits that a filesystem keeps for an id: on blocks and on inodes, and on a btrfs subvolume."""

from __future__ import annotations

from collections.abc import Mapping

from agent import kernel
from agent.basics import Json, RigError, read_text
from agent.cgroups import Tree
from agent.layers.base import Layer
from agent.layers.tmpfs import Tmpfs
from agent.shortages.base import Shortage


class Quota(Shortage):
    """The gauge is the filesystem's own account of the id, in bytes, by quotactl(2)."""

    inodes = False
    _last: Json | None = None

    def _place(self) -> str:
        """What quotactl(2) knows the filesystem by: its device; a tmpfs has none."""
        layer = self.layer()
        return layer.path if isinstance(layer, Tmpfs) else layer.base().path

    def _limit(self, limit: int) -> None:
        layer = self.layer()
        kind, ident = self.spec["type"], self.spec["id"]
        try:
            kernel.quota_limit(self._place(), kind, ident, limit, inodes=self.inodes)
            found = kernel.quota_read(self._place(), kind, ident, inodes=self.inodes)[1]
        except OSError as error:
            raise RigError(f"cannot set a {kind} quota on {layer.name}: {error}") from error
        if found != limit:
            raise RigError(f"the {kind} quota on {layer.name} is {found}, not {limit}")

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        self._limit(self.spec["limit"])

    def relieve(self) -> None:
        """Take it away again. Raises RigError."""
        self._limit(0)

    def reading(self) -> Json:
        """The gauge. Bytes, or inodes."""
        used, limit = kernel.quota_read(
            self._place(), self.spec["type"], self.spec["id"], inodes=self.inodes
        )
        return self.gauge(used, limit or None)


class InodeQuota(Quota):
    """The same for inodes."""

    inodes = True


_MAX_REFERENCED = 1
"""BTRFS_QGROUP_LIMIT_MAX_RFER in limit_flags."""
_RESERVED = ("rsv_data", "rsv_meta_pertrans", "rsv_meta_prealloc")


class Qgroup(Shortage):
    """The gauge is what the kernel holds against the limit: what the subvolume refers to by the last
    commit, and what has been reserved since (qgroup_check_limits() in fs/btrfs/qgroup.c). By sysfs.
    """

    def __init__(self, spec: Json, layers: Mapping[str, Layer], cgroups: Tree) -> None:
        super().__init__(spec, layers, cgroups)
        uuid, number = kernel.btrfs_subvolume(self.layer().path)
        self._folder = f"/sys/fs/btrfs/{uuid}/qgroups/0_{number}"

    def _set(self, limit: str) -> None:
        layer = self.layer()
        layer.site.must(["btrfs", "qgroup", "limit", limit, layer.path])

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        self._set(str(self.spec["limit"]))

    def relieve(self) -> None:
        """Take it away again. Raises RigError."""
        self._set("none")

    def _number(self, name: str) -> int:
        text = read_text(f"{self._folder}/{name}")
        if not text:
            raise FileNotFoundError(2, "no such account", f"{self._folder}/{name}")
        return int(text, 0)

    def reading(self) -> Json:
        """The gauge. Bytes."""
        used = self._number("referenced") + sum(self._number(name) for name in _RESERVED)
        limited = self._number("limit_flags") & _MAX_REFERENCED
        return self.gauge(used, self._number("max_referenced") if limited else None)
