"""A dm-snapshot whose COW device is made shorter."""

from __future__ import annotations

from collections.abc import Mapping

from agent.basics import Json, RigError
from agent.cgroups import Tree
from agent.layers.base import Layer
from agent.layers.snapshot import DmSnapshot
from agent.shortages.base import Shortage


class SnapshotCow(Shortage):
    """The gauge is the snapshot's own status, which is asked by ioctl(2).

    An invalid snapshot has no numbers any more: it has met its end, which counts as one hit, and
    what was read last stands.
    """

    def __init__(self, spec: Json, layers: Mapping[str, Layer], cgroups: Tree) -> None:
        super().__init__(spec, layers, cgroups)
        self._used = 0
        self._limit = 0

    def _snapshot(self) -> DmSnapshot:
        layer = self.layer()
        if not isinstance(layer, DmSnapshot):
            raise RigError(f"{layer.name} is no dm-snapshot")
        return layer

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        snapshot = self._snapshot()
        self._limit = self.spec["size"]
        snapshot.resize(self._limit)

    def relieve(self) -> None:
        """Give the COW device its first size back. Raises RigError."""
        snapshot = self._snapshot()
        self._limit = snapshot.spec["cow"]
        snapshot.resize(self._limit)

    def reading(self) -> Json:
        """The gauge. Bytes, and whether the snapshot has become invalid."""
        snapshot = self._snapshot()
        room = snapshot.room() if snapshot.attached() else None
        invalid = room is None and snapshot.attached()
        if room is not None:
            self._used, self._limit = room
        return self.gauge(self._used, self._limit, int(invalid))
