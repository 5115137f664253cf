"""Devices of the device mapper that pass I/O on to others, or keep a part of it themselves."""

from __future__ import annotations

from collections.abc import Mapping

from agent.basics import Json, RigError
from agent.layers import dm
from agent.layers.base import Attachable, Fact, Layer, Site, said, succeeded

KEY = bytes(range(64)).hex()
"""Of dm-crypt: nothing here is a secret."""
REGION = 1024
"""Sectors that a mirror keeps one note of."""
BLOCK = 4096
CACHE_METADATA = 2 << 20
CACHE_BLOCK = 65536
_DETACH_LIMIT = 5.0
_CHECKSUMS_LIMIT = 60.0


class Stacked(Attachable):
    """One device of the name of its layer, over linear ones that stay while it goes and comes."""

    MODULE = "dm-mod"

    def __init__(self, spec: Json, rig: Mapping[str, Layer], site: Site) -> None:
        super().__init__(spec, rig, site)
        self.parts: list[str] = []
        self._made = False

    def table(self) -> dm.Table:
        """What it is made with."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make what it needs besides. Raises RigError."""

    def up(self) -> None:
        """Make it."""
        self.site.must(["modprobe", self.MODULE])
        self.path = dm.device(self.name)
        self._made = True
        self.prepare()
        command = self.attach()
        if not succeeded(command):
            raise RigError(f"{self.name}: {said(command)}")

    def size(self) -> int:
        """Bytes that it offers: by default those of the layer below."""
        return int(self.spec["size"]) if "size" in self.spec else int(self.base().facts()["size"])

    def part(self, word: str, base: Layer, offset: int, length: int) -> None:
        """A stretch of another layer, as a device of its own. Raises RigError."""
        name = f"{self.name}-{word}"
        self.parts.append(name)
        dm.create(self.site, name, [dm.linear(base, offset, length)])

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
        return self._made and dm.exists(self.name)

    def down(self) -> list[Json]:
        """Take it away."""
        commands = [self.detach()] if self.attached() else []
        return commands + [dm.remove(self.site, name) for name in self.parts if dm.exists(name)]

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        [(target, line)] = dm.status(self.name)
        return {"path": self.path, "size": self.size(), "target": target, "status": line}

    def left(self) -> list[str]:
        """What is still there of it."""
        names = [self.name, *self.parts] if self._made else []
        return [dm.device(name) for name in names if dm.exists(name)]


class Linear(Stacked):
    """All of the layer below."""

    def table(self) -> dm.Table:
        """See ``Stacked``."""
        return [dm.linear(self.base(), 0, self.size())]


class Crypt(Stacked):
    """All of the layer below, enciphered."""

    MODULE = "dm-crypt"

    def table(self) -> dm.Table:
        """See ``Stacked``."""
        return [(self.size(), "crypt", f"aes-xts-plain64 {KEY} 0 {self.base().path} 0")]


class Integrity(Stacked):
    """A superblock of zeros has the kernel format the device. All checksums are computed before it is
    used: a block that has none cannot be read.
    """

    MODULE = "dm-integrity"
    _first = True

    def table(self) -> dm.Table:
        """See ``Stacked``."""
        options = ["internal_hash:crc32c", f"block_size:{BLOCK}"]
        options += ["recalculate"] if self._first else []
        words = f"{self.base().path} 0 - {self.spec['mode']} {len(options)} {' '.join(options)}"
        return [(self.size(), "integrity", words)]

    def attach(self) -> Json:
        """Bring it into use."""
        command = super().attach()
        if self._first and succeeded(command):
            self._first = False
            if not self.site.poll(self._computed, _CHECKSUMS_LIMIT):
                raise RigError(f"{self.name}: the checksums are not computed")
        return command

    def _computed(self) -> bool:
        [(_, line)] = dm.status(self.name)
        return computed(line)


def computed(status: str) -> bool:
    """Whether all checksums are there, by the status: mismatches, sectors of data, and how far the
    computation is, which stays at its end, or a dash.
    """
    _, sectors, done = status.split()[:3]
    return done == "-" or int(done) >= int(sectors)


class Writecache(Stacked):
    """Its cache is the beginning of another layer, which holds zeros: a cache that is empty."""

    MODULE = "dm-writecache"

    def prepare(self) -> None:
        """See ``Stacked``."""
        self.part("cache", self.rig[self.spec["cache"]], 0, self.spec["cache_size"])

    def table(self) -> dm.Table:
        """See ``Stacked``."""
        words = f"s {self.base().path} {dm.device(self.parts[0])} {BLOCK} 0"
        return [(self.size(), "writecache", words)]


class Cache(Stacked):
    """Its metadata and its cache are side by side on another layer, which holds zeros."""

    MODULE = "dm-cache"

    def prepare(self) -> None:
        """See ``Stacked``."""
        base = self.rig[self.spec["cache"]]
        self.site.must(["modprobe", "dm-cache-smq"])
        self.part("meta", base, 0, CACHE_METADATA)
        self.part("cache", base, CACHE_METADATA, self.spec["cache_size"])

    def table(self) -> dm.Table:
        """See ``Stacked``."""
        meta, cache = (dm.device(name) for name in self.parts)
        words = f"{meta} {cache} {self.base().path} {CACHE_BLOCK // dm.SECTOR}"
        return [(self.size(), "cache", f"{words} 1 {self.spec['mode']} smq 0")]


class Mirror(Stacked):
    """Its notes on what is in sync are kept in memory. So whoever makes it anew says which leg is good:
    the one that the kernel did not mark as failed, from which the other is written again.
    """

    MODULE = "dm-mirror"

    def __init__(self, spec: Json, rig: Mapping[str, Layer], site: Site) -> None:
        super().__init__(spec, rig, site)
        self._failed: set[str] = set()

    def legs(self) -> list[Layer]:
        """The legs, those that failed last."""
        legs = [self.rig[name] for name in self.spec["legs"]]
        return sorted(legs, key=lambda leg: leg.name in self._failed)

    def table(self) -> dm.Table:
        """See ``Stacked``."""
        legs = self.legs()
        sync = "sync" if self._failed else "nosync"
        words = f"core 2 {REGION} {sync} {len(legs)} " + " ".join(f"{leg.path} 0" for leg in legs)
        return [(self.size(), "mirror", words)]

    def detach(self) -> Json:
        """Take it out of use, and keep in mind which legs failed."""
        states = health(dm.status(self.name)[0][1])
        legs = self.legs()
        failed = {leg.name for leg, state in zip(legs, states, strict=False) if state != "A"}
        if len(failed) < len(legs):
            self._failed |= failed
        return super().detach()

    def files_below(self) -> list[str]:
        """See ``Layer``."""
        return [path for leg in self.legs() for path in leg.files_below()]


def health(status: str) -> str:
    """A letter for each leg of a mirror, A for alive, in its status: ``2 254:1 254:2 24/24 1 AD ...``."""
    words = status.split()
    return words[3 + int(words[0])] if words and words[0].isdigit() else ""
