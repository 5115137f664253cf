"""The device mapper's old snapshots: an origin, and a snapshot with a COW device of its own."""

from __future__ import annotations

import os

from agent.basics import Json, RigError
from agent.layers import dm
from agent.layers.base import Attachable, Fact, said, succeeded

CHUNK = 16384
"""Bytes that are copied at a time."""
_DETACH_LIMIT = 5.0


class DmDevice(Attachable):
    """What both have in common: one device of the name of its layer, over linear ones."""

    made: tuple[str, ...] = ()
    """The linear devices below."""

    def table(self) -> dm.Table:
        """What it is made with."""
        raise NotImplementedError

    def attach(self) -> Json:
        """Bring it into use."""
        return dm.try_create(self.site, self.name, self.table())

    def detach(self) -> Json:
        """Take it out of use."""
        command = dm.remove(self.site, self.name)
        self.site.poll(lambda: not self.attached(), _DETACH_LIMIT)
        return command

    def attached(self) -> bool:
        """Whether it is in use, by the kernel's own word."""
        return bool(self.made) and dm.exists(self.name)

    def down(self) -> list[Json]:
        """Take it away."""
        commands = [self.detach()] if self.attached() else []
        return commands + [dm.remove(self.site, name) for name in self.made if dm.exists(name)]

    def left(self) -> list[str]:
        """What is still there of it."""
        return [
            dm.device(name) for name in (self.name, *self.made) if self.made and dm.exists(name)
        ]

    def must(self, command: Json) -> None:
        """Raise RigError for a command that failed."""
        if not succeeded(command):
            raise RigError(f"{self.name}: {said(command)}")


class SnapshotOrigin(DmDevice):
    """The origin begins the layer below; what comes after it is for COW devices."""

    def up(self) -> None:
        """Make it."""
        self.site.must(["modprobe", "dm-snapshot"])
        self.path = dm.device(self.name)
        self.made = (f"{self.name}-real",)
        dm.create(self.site, self.real, [dm.linear(self.base(), 0, self.spec["size"])])
        self.must(self.attach())

    @property
    def real(self) -> str:
        """The linear device that both the origin and its snapshot are of."""
        return self.made[0]

    def table(self) -> dm.Table:
        """See ``DmDevice``."""
        return [(self.spec["size"], "snapshot-origin", dm.device(self.real))]

    def renew(self) -> None:
        """Load its table anew: it looks for snapshots when it is resumed. Raises RigError."""
        if self.attached():
            dm.reload(self.site, self.name, self.table())

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        return {"path": self.path, "size": self.spec["size"]}


class DmSnapshot(DmDevice):
    """Its COW device is a linear one, which can be made shorter and longer while it is in use."""

    def origin(self) -> SnapshotOrigin:
        """What it is a snapshot of. Raises RigError."""
        origin = self.base()
        if not isinstance(origin, SnapshotOrigin):
            raise RigError(f"{origin.name} is no origin of dm-snapshots")
        return origin

    @property
    def cow(self) -> str:
        """The linear device that is copied to."""
        return self.made[0]

    def up(self) -> None:
        """Make it."""
        self.path = dm.device(self.name)
        self.made = (f"{self.name}-cow",)
        dm.create(self.site, self.cow, self._cow_table(self.spec["cow"]))
        self._clear()
        self.must(self.attach())

    def _cow_table(self, size: int) -> dm.Table:
        origin = self.origin()
        return [dm.linear(origin.base(), origin.spec["size"], size)]

    def table(self) -> dm.Table:
        """See ``DmDevice``."""
        origin, store = self.origin(), self.spec["store"]
        words = f"{dm.device(origin.real)} {dm.device(self.cow)} {store} {CHUNK // dm.SECTOR}"
        return [(origin.spec["size"], "snapshot", words)]

    def attach(self) -> Json:
        """Bring it into use, and have the origin know of it: else nothing would be copied."""
        command = super().attach()
        if succeeded(command):
            self.origin().renew()
        return command

    def detach(self) -> Json:
        """Take it out of use, with the origin suspended, as the documentation wants it."""
        origin = self.origin()
        if not origin.attached():
            return super().detach()
        dm.suspend(self.site, origin.name)
        try:
            return super().detach()
        finally:
            self.site.must(["dmsetup", "resume", origin.name], dm.LIMIT, dm.ENV)

    def take(self) -> None:
        """Take it anew, with a COW device that holds nothing. Raises RigError."""
        self.must(self.detach())
        self._clear()
        self.must(self.attach())

    def _clear(self) -> None:
        try:
            fd = os.open(dm.device(self.cow), os.O_WRONLY | os.O_SYNC)
            os.pwrite(fd, bytes(CHUNK), 0)
            os.close(fd)
        except OSError as error:
            raise RigError(f"cannot clear the COW device: {error}") from error

    def resize(self, size: int) -> None:
        """Make the COW device so many bytes long. Raises RigError."""
        dm.reload(self.site, self.cow, self._cow_table(size))

    def room(self) -> tuple[int, int] | None:
        """Bytes of the COW device in use, and all; None: the snapshot has become invalid."""
        [(_, line)] = dm.status(self.name)
        numbers = line.split(" ")[0].split("/")
        if len(numbers) < 2:
            return None
        return int(numbers[0]) * dm.SECTOR, int(numbers[1]) * dm.SECTOR

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        return {
            "path": self.path,
            "size": self.origin().spec["size"],
            "store": str(self.spec["store"]),
        }
