"""Disks that the machine has been given: virtio and NVMe. They are known by their serial number."""

from __future__ import annotations

import glob
import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from agent import cgroups, kernel
from agent.basics import Json, RigError, read_text
from agent.layers.base import Attachable, Fact, Layer, Site
from agent.layers.command import in_child

LIMIT = 30.0
"""Seconds for a disk to come, or to go."""
_BUSES = ("virtio", "pci")
_PAGE = 256
_PAGE_HEADER = 4


class MachineDisk(Attachable):
    """One such disk. Detached, its device has no driver, and its data stays where it is."""

    MODULES: ClassVar[tuple[str, ...]]
    NAMES: ClassVar[str]
    """The names of such disks in /sys/block, for glob."""

    def __init__(self, spec: Json, rig: Mapping[str, Layer], site: Site) -> None:
        super().__init__(spec, rig, site)
        self._driver = ""
        self._device = ""

    def up(self) -> None:
        """Make it."""
        for module in self.MODULES:
            self.site.must(["modprobe", module])
        if not self._settle():
            raise RigError(f"no disk came up with the serial number {self.name}")
        place = _on_its_bus(os.path.realpath(f"{self.path.replace('/dev/', '/sys/block/')}/device"))
        self._device = os.path.basename(place)
        self._driver = os.path.realpath(f"{place}/driver")

    def _settle(self) -> bool:
        """Wait for the disk, and learn its name."""

        def found() -> bool:
            self.site.tick()
            return self.attached()

        if not self.site.poll(found, LIMIT):
            return False
        self.path = f"/dev/{os.path.basename(self._disks()[0])}"
        return True

    def _disks(self) -> list[str]:
        disks = glob.glob(f"/sys/block/{self.NAMES}")
        return [disk for disk in disks if self.serial(disk) == self.name]

    @abstractmethod
    def serial(self, disk: str) -> str:
        """The serial number of a disk, by its folder in sysfs; nothing if it has none yet."""

    def attach(self) -> Json:
        """Give its device its driver back."""
        command = self._write("bind")
        self._settle()
        return command

    def detach(self) -> Json:
        """Take its driver away from its device."""
        command = self._write("unbind")
        self.site.poll(lambda: not self.attached(), LIMIT)
        return command

    def _write(self, door: str) -> Json:
        path = f"{self._driver}/{door}"
        argv = [os.path.basename(self._driver), door, self._device]
        return in_child(argv, lambda: cgroups.write(path, self._device), LIMIT, self.site)

    def attached(self) -> bool:
        """Whether there is such a disk, by sysfs."""
        return bool(self._disks())

    def down(self) -> list[Json]:
        """Take it away."""
        return [self.detach()] if self._device else []

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        name = os.path.basename(self.path)
        return {
            "path": self.path,
            "size": kernel.device_size(self.path),
            "cache": read_text(f"/sys/block/{name}/queue/write_cache"),
        }

    def left(self) -> list[str]:
        """What is still there of it."""
        return [self.path] if self._device and self.attached() else []


class VirtioBlk(MachineDisk):
    """A virtio-blk disk."""

    MODULES = ("virtio_blk",)
    NAMES = "vd*"

    def serial(self, disk: str) -> str:
        """See ``MachineDisk``."""
        return read_text(f"{disk}/serial")


class VirtioScsi(MachineDisk):
    """A SCSI disk behind virtio-scsi: its host goes and comes."""

    MODULES = ("virtio_scsi", "sd_mod")
    NAMES = "sd*"

    def serial(self, disk: str) -> str:
        """Vital product data page 80h: four bytes, and the number (SPC-4, 7.8.15)."""
        try:
            with open(f"{disk}/device/vpd_pg80", "rb", buffering=0) as file:
                page = file.read(_PAGE)
        except OSError:
            return ""
        return page[_PAGE_HEADER:].decode("ascii", "replace").strip("\0 ")


class Nvme(MachineDisk):
    """The first namespace of an NVMe controller."""

    MODULES = ("nvme",)
    NAMES = "nvme*n1"

    def serial(self, disk: str) -> str:
        """See ``MachineDisk``."""
        return read_text(f"{disk}/device/serial")


def _on_its_bus(path: str) -> str:
    """The first device from ``path`` upwards that a driver of virtio's or PCI's has."""
    while path.startswith("/sys/devices/"):
        bus = os.path.basename(os.path.realpath(f"{path}/subsystem"))
        if bus in _BUSES and os.path.exists(f"{path}/driver"):
            return path
        path = os.path.dirname(path)
    raise RigError("no driver is known of the disk's device")
