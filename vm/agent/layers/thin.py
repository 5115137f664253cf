"""Thin pools, thin devices on them, and snapshots of these."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from agent import cgroups
from agent.basics import Json, RigError, one_line, read_text
from agent.layers import dm
from agent.layers.base import Attachable, Fact, Layer, Site, said, succeeded
from agent.layers.command import in_child

TIMEOUT = "/sys/module/dm_thin_pool/parameters/no_space_timeout"
METADATA_BLOCK = 4096
_DETACH_LIMIT = 5.0
_GROWS = 2
"""How many times as large as at first the devices of a pool can become."""


@dataclass(frozen=True, kw_only=True)
class State:
    """The status of a pool: blocks of its metadata, chunks of its data, and its mode.

    Of metadata the kernel counts as used what it keeps back for itself (``__reserve_metadata()`` in
    dm-thin-metadata.c).
    """

    metadata_used: int
    metadata: int
    used: int
    chunks: int
    mode: str
    needs_check: bool

    @classmethod
    def parse(cls, line: str) -> State:
        """Of a status line. Raises OSError: the pool has failed, and there is nothing to count."""
        words = line.split()
        if len(words) < 5 or "/" not in words[1]:
            raise OSError(f"the pool's status is {line!r}")
        metadata_used, metadata = map(int, words[1].split("/"))
        used, chunks = map(int, words[2].split("/"))
        return cls(
            metadata_used=metadata_used,
            metadata=metadata,
            used=used,
            chunks=chunks,
            mode=words[4],
            needs_check="needs_check" in words,
        )


def mapped_bytes(name: str) -> int:
    """What a thin device maps, by its own status, which needs no commit. Raises RigError."""
    try:
        [(_, line)] = dm.status(name)
        return int(line.split()[0]) * dm.SECTOR
    except (OSError, ValueError) as error:
        raise RigError(f"{name} does not tell what it maps: {one_line(error)}") from error


class ThinPool(Layer):
    """A pool over two linear devices, which can grow, side by side on the layer below.

    In this order: metadata, spare metadata for a repair, data. ``path`` is the pool's device, of
    which only the pool's own tools make use.
    """

    def __init__(self, spec: Json, rig: Mapping[str, Layer], site: Site) -> None:
        super().__init__(spec, rig, site)
        self.chunk: int = spec["chunk"]
        self._ids = 0
        self._before = ""
        self._room = _GROWS * spec["metadata"]
        self._metadata_at = 0
        self._made = False
        self.devices: set[str] = set()
        """Thin devices that are in use."""

    def up(self) -> None:
        """Make it."""
        self.site.must(["modprobe", "dm-thin-pool"])
        if self.spec["no_space"] == "queue":
            self._before = read_text(TIMEOUT)
            cgroups.write(TIMEOUT, str(self.spec["timeout"]))
        self.path = dm.device(self.name)
        self._made = True
        meta = dm.create(self.site, self._meta, self._metadata_table(self.spec["metadata"]))
        _clear(meta)
        dm.create(self.site, self._data, self._data_table(self.spec["data"]))
        command = self.activate()
        if not succeeded(command):
            raise RigError(f"thin pool: {said(command)}")

    @property
    def _meta(self) -> str:
        return f"{self.name}-tmeta"

    @property
    def _data(self) -> str:
        return f"{self.name}-tdata"

    def _metadata_table(self, size: int) -> dm.Table:
        return [dm.linear(self.base(), self._metadata_at, size)]

    def _data_table(self, size: int) -> dm.Table:
        return [dm.linear(self.base(), 2 * self._room, size)]

    def _table(self) -> dm.Table:
        size = _device_bytes(self._data)
        words = f"{dm.device(self._meta)} {dm.device(self._data)} {self.chunk // dm.SECTOR} 0"
        features = " 1 error_if_no_space" if self.spec["no_space"] == "error" else ""
        return [(size, "thin-pool", words + features)]

    # -- in use, and not ------------------------------------------------------------------------

    def activate(self) -> Json:
        """Bring the pool into use; the command."""
        return dm.try_create(self.site, self.name, self._table())

    def active(self) -> bool:
        """Whether it is in use."""
        return self._made and dm.exists(self.name)

    def deactivate(self) -> Json:
        """Take the pool out of use, which no thin device may be any more; the command."""
        return dm.remove(self.site, self.name)

    def down(self) -> list[Json]:
        """Take it away."""
        names = (self.name, self._data, self._meta)
        commands = [dm.remove(self.site, name) for name in names if self._made and dm.exists(name)]
        if self._before:
            cgroups.write(TIMEOUT, self._before)
        return commands

    def left(self) -> list[str]:
        """What is still there of it."""
        names = (self.name, self._data, self._meta)
        return [dm.device(name) for name in names if self._made and dm.exists(name)]

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        state = self.state()
        return {
            "path": self.path,
            "size": state.chunks * self.chunk,
            "metadata": state.metadata * METADATA_BLOCK,
            "no_space": str(self.spec["no_space"]),
            "timeout": read_text(TIMEOUT),
        }

    # -- what shortages do with it ----------------------------------------------------------------

    def state(self) -> State:
        """Its status. Raises OSError where there is none."""
        [(_, line)] = dm.status(self.name)
        return State.parse(line)

    def tell(self, *messages: str) -> None:
        """Send the pool messages, in bounded time. Raises RigError."""
        argv = ["dmsetup", "message", self.name, "0", messages[0]]
        command = in_child(argv, lambda: dm.message(self.name, *messages), dm.LIMIT, self.site)
        if not succeeded(command):
            raise RigError(f"the pool refuses {messages[0]!r}: {said(command)}")

    def next_id(self) -> int:
        """A number that no thin device of the pool has."""
        self._ids += 1
        return self._ids

    def grow(self, by: int | None = None) -> None:
        """Give it more data space, by so many bytes, or all that there is. Raises RigError."""
        most = _GROWS * int(self.spec["data"])
        size = most if by is None else min(most, _device_bytes(self._data) + by)
        dm.reload(self.site, self._data, self._data_table(size))
        self._reload()

    def grow_metadata(self) -> None:
        """Give it all the metadata space that there is. Raises RigError."""
        dm.reload(self.site, self._meta, self._metadata_table(self._room))
        if self.active():
            self._reload()

    def _reload(self) -> None:
        # Writes that wait in the pool's queue are what it is to be given space for.
        dm.reload(self.site, self.name, self._table(), flush=False)

    def repair(self) -> None:
        """Check the metadata of the pool out of use, and have it written anew if it is not sound.

        Where nothing helps it stays as it is, and the kernel will say what it makes of it.
        """
        if succeeded(self._check()):
            return
        spare = f"{self.name}-spare"
        table = [dm.linear(self.base(), self._other_place(), self._room)]
        path = dm.create(self.site, spare, table)
        _clear(path)
        repaired = self.site.run(["thin_repair", "-i", dm.device(self._meta), "-o", path])
        dm.remove(self.site, spare)
        if succeeded(repaired):
            self._metadata_at = self._other_place()
            dm.reload(self.site, self._meta, self._metadata_table(self._room))
            self._check()

    def _check(self) -> Json:
        """thin_check, which also takes the mark away that has the kernel ask for one."""
        return self.site.run(["thin_check", "--clear-needs-check-flag", dm.device(self._meta)])

    def _other_place(self) -> int:
        return 0 if self._metadata_at else self._room


class Thin(Attachable):
    """One thin device. The pool goes out of use with the last of its devices, and comes with the
    first: so what is read after a re-attachment comes from the metadata on the medium.
    """

    number = -1

    def up(self) -> None:
        """Make it."""
        self.number = self.pool().next_id()
        self.path = dm.device(self.name)
        self.create()
        command = self.attach()
        if not succeeded(command):
            raise RigError(f"{self.name}: {said(command)}")

    def create(self) -> None:
        """Have the pool make it. Raises RigError."""
        self.pool().tell(f"create_thin {self.number}")

    def pool(self) -> ThinPool:
        """The pool that it is in. Raises RigError."""
        pool = self.base()
        if not isinstance(pool, ThinPool):
            raise RigError(f"{pool.name} is no thin pool")
        return pool

    def size(self) -> int:
        """Bytes that it offers."""
        return int(self.spec["size"])

    def attach(self) -> Json:
        """Bring it into use."""
        pool = self.pool()
        if not pool.active():
            command = pool.activate()
            if not succeeded(command):
                return command
        command = dm.try_create(
            self.site, self.name, [(self.size(), "thin", f"{pool.path} {self.number}")]
        )
        if succeeded(command):
            pool.devices.add(self.name)
        return command

    def detach(self) -> Json:
        """Take it out of use, and the pool after the last."""
        pool = self.pool()
        command = dm.remove(self.site, self.name)
        self.site.poll(lambda: not self.attached(), _DETACH_LIMIT)
        if not self.attached():
            pool.devices.discard(self.name)
        if not pool.devices and succeeded(command):
            return pool.deactivate()
        return command

    def attached(self) -> bool:
        """Whether it is in use, by the kernel's own word."""
        return self.number >= 0 and dm.exists(self.name)

    def down(self) -> list[Json]:
        """Take it away."""
        if not self.attached():
            return []
        self.pool().devices.discard(self.name)
        return [dm.remove(self.site, self.name)]

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        return {"path": self.path, "size": _device_bytes(self.name), "number": self.number}

    def left(self) -> list[str]:
        """What is still there of it."""
        return [self.path] if self.attached() else []


class ThinSnapshot(Thin):
    """A snapshot of a thin device: to the pool one device more, whose blocks are shared at first."""

    def origin(self) -> Thin:
        """The thin device that it is of. Raises RigError."""
        origin = self.base()
        if not isinstance(origin, Thin):
            raise RigError(f"{origin.name} is no thin device")
        return origin

    def pool(self) -> ThinPool:
        """The pool that both are in."""
        return self.origin().pool()

    def size(self) -> int:
        """Bytes that it offers."""
        return self.origin().size()

    def create(self) -> None:
        """Have the pool make it. The origin is suspended meanwhile, as the documentation wants it."""
        origin = self.origin()
        dm.suspend(self.site, origin.name)
        try:
            self.pool().tell(f"create_snap {self.number} {origin.number}")
        finally:
            self.site.must(["dmsetup", "resume", origin.name], dm.LIMIT, dm.ENV)

    def take(self) -> None:
        """Take it anew. Raises RigError."""
        self.down()
        self.pool().tell(f"delete {self.number}")
        self.create()
        command = self.attach()
        if not succeeded(command):
            raise RigError(f"{self.name}: {said(command)}")


def _device_bytes(name: str) -> int:
    """Bytes of a device, by sysfs: to open the node may wait for what is under way."""
    number = os.minor(os.stat(dm.device(name)).st_rdev)
    return int(read_text(f"/sys/block/dm-{number}/size", "0")) * dm.SECTOR


def _clear(path: str) -> None:
    """Zero the first block of a metadata device: it is a new one. Raises RigError."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_SYNC)
        os.pwrite(fd, bytes(METADATA_BLOCK), 0)
        os.close(fd)
    except OSError as error:
        raise RigError(f"cannot clear {path}: {error}") from error
