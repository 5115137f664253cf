"""A dm-vdo volume, which the kernel formats by itself."""

from __future__ import annotations

from agent import kernel
from agent.basics import Json, RigError
from agent.layers import dm
from agent.layers.base import Attachable, Fact, Site, said, succeeded

BLOCK = 4096
ROOM = 1 << 30
"""Bytes of logical space after the layer's own, for somebody else."""
LIMIT = 60.0
_SLAB = 8192
"""Blocks of a slab: the fewest that the driver takes."""
_CACHE, _ERA = 32768, 16380
"""Blocks of the block map's cache, the fewest that it takes; and its era, which is recommended."""
_DETACH_LIMIT = 5.0
FORMATS = (9, 2, 0)
"""The first version of the target that formats a volume whose first block is zero (Linux commit "dm
vdo: add formatting parameters to table line", which says so of itself)."""


class Vdo(Attachable):
    """The volume, and the device over its beginning, which goes and comes with it."""

    _made = False

    @property
    def volume(self) -> str:
        """The volume's own device."""
        return f"{self.name}-volume"

    def up(self) -> None:
        """Make it."""
        self.site.must(["modprobe", "dm-vdo"])
        self._made = True
        self.path = dm.device(self.name)
        command = self.attach()
        if not succeeded(command):
            raise RigError(f"dm-vdo: {said(command)}")

    def attach(self) -> Json:
        """Start the volume; the first time, that formats it."""
        storage = kernel.device_size(self.base().path) // BLOCK
        words = f"V4 {self.base().path} {storage} {BLOCK} {_CACHE} {_ERA}"
        # "deduplication off" has the index not even opened, which would take 256 MiB of memory.
        options = f"deduplication off slabSize {_SLAB}"
        table = [(int(self.spec["size"]) + ROOM, "vdo", f"{words} {options}")]
        command = dm.try_create(self.site, self.volume, table, LIMIT)
        if not succeeded(command):
            return command
        own = [dm.linear(dm.device(self.volume), 0, self.spec["size"])]
        return dm.try_create(self.site, self.name, own)

    def detach(self) -> Json:
        """Stop the volume."""
        command = dm.remove(self.site, self.name)
        if succeeded(command):
            command = dm.remove(self.site, self.volume, LIMIT)
        self.site.poll(lambda: not self.attached(), _DETACH_LIMIT)
        return command

    def attached(self) -> bool:
        """Whether it is in use, by the kernel's own word."""
        return self._made and (dm.exists(self.name) or dm.exists(self.volume))

    def blocks(self) -> tuple[int, int]:
        """Physical blocks in use, and all. Raises OSError where there is no volume."""
        [(_, line)] = dm.status(self.volume)
        used, total = line.split()[-2:]
        if not (used.isdigit() and total.isdigit()):
            raise OSError(f"the volume's status is {line!r}")
        return int(used), int(total)

    def down(self) -> list[Json]:
        """Take it away."""
        names = (self.name, self.volume)
        return [
            dm.remove(self.site, name, LIMIT) for name in names if self._made and dm.exists(name)
        ]

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        return {"path": self.path, "size": int(self.spec["size"])}

    def left(self) -> list[str]:
        """What is still there of it."""
        names = (self.name, self.volume)
        return [dm.device(name) for name in names if self._made and dm.exists(name)]


def formats(site: Site) -> str:
    """Nothing if the kernel's dm-vdo formats a volume by itself, else why not."""
    site.must(["modprobe", "dm-vdo"])
    targets = site.must(["dmsetup", "targets"], env=dm.ENV)["output"]
    for line in targets.splitlines():
        name, _, version = line.partition(" ")
        if name == "vdo":
            found = tuple(map(int, version.strip(" v").split(".")))
            if found >= FORMATS:
                return ""
            return (
                f"target vdo {version.strip()} does not format a volume (9.2.0 does), and the guest "
                "has no vdoformat"
            )
    return "the kernel has no target vdo"
