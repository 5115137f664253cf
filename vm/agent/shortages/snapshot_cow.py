"""A dm-snapshot whose COW device is made shorter."""

from __future__ import annotations

from collections.abc import Mapping

from agent.basics import Json, RigError
from agent.cgroups import Tree
from agent.layers.base import Layer
from agent.layers.snapshot import DmSnapshot
from agent.shortages.base import Shortage
from agent.shortages.watched import Tally, watch


class SnapshotCow(Shortage):
    """The gauge is the snapshot's own status, which is asked by ioctl(2).

    An invalid snapshot has no numbers any more: it has met its end, which counts as one hit, and
    what was read last stands.
    """

    def __init__(self, spec: Json, layers: Mapping[str, Layer], cgroups: Tree) -> None:
        super().__init__(spec, layers, cgroups)
        self._used = 0
        self._limit = 0
        self._tally = Tally()

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
        grows = int(self.spec.get("grows") or 0)
        if grows:
            self._watch(snapshot, grows)

    def _watch(self, snapshot: DmSnapshot, by: int) -> None:
        def short() -> bool:
            room = snapshot.room()
            return room is not None and room[0] * 2 > room[1]

        def extend() -> None:
            room = snapshot.room()
            if room is not None:
                snapshot.resize(min(snapshot.spec["cow"], room[1] + by))

        snapshot.watcher = watch(short, extend, self._tally)

    def relieve(self) -> None:
        """Give the COW device its first size back. Raises RigError."""
        snapshot = self._snapshot()
        snapshot.end_watch()
        self._limit = snapshot.spec["cow"]
        snapshot.resize(self._limit)

    def reading(self) -> Json:
        """The gauge. Bytes, and whether the snapshot has become invalid."""
        snapshot = self._snapshot()
        room = snapshot.room() if snapshot.attached() else None
        invalid = room is None and snapshot.attached()
        if room is not None:
            self._used, self._limit = room
        return self.gauge(self._used, self._limit, self._tally.value + int(invalid))
