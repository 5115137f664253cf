"""A disk of the scsi_debug driver, which answers commands with the sense data that it is told to."""

from __future__ import annotations

import glob
import os

from agent import cgroups, kernel
from agent.basics import Json, RigError, read_text
from agent.layers.base import Attachable, Fact, Site, said, succeeded
from agent.layers.command import in_child

LIMIT = 30.0
"""Seconds for a disk to come, or to go."""
_HOSTS = "/sys/bus/pseudo/drivers/scsi_debug/adapter*/host*"
_RULES = "/sys/kernel/debug/scsi_debug"


class ScsiDebug(Attachable):
    """One disk of one host. Detached, it is deleted and its memory stays; a scan finds it again."""

    _host = ""
    _address = ""

    def up(self) -> None:
        """Make it."""
        load(self.site, self.spec["size"] >> 20)
        hosts = glob.glob(_HOSTS)
        if not hosts:
            raise RigError("scsi_debug has made no host")
        self._host = hosts[0]
        if not self._settle():
            raise RigError("scsi_debug has made no disk")

    def _settle(self) -> bool:
        """Wait for the disk, and learn its names."""

        def found() -> bool:
            self.site.tick()
            return bool(self._disks())

        if not self.site.poll(found, LIMIT):
            return False
        disk = self._disks()[0]
        self.path = f"/dev/{os.path.basename(disk)}"
        self._address = disk.split("/")[-3]
        return True

    def _disks(self) -> list[str]:
        return glob.glob(f"{self._host}/target*/*/block/*")

    @property
    def rules(self) -> str:
        """The file of its injected errors; it is not there while the disk is detached."""
        return f"{_RULES}/{self._address}/error"

    def attach(self) -> Json:
        """Scan its host."""
        scan = f"/sys/class/scsi_host/{os.path.basename(self._host)}/scan"
        argv = ["scsi", "scan", scan]
        command = in_child(argv, lambda: cgroups.write(scan, "- - -"), LIMIT, self.site)
        self._settle()
        return command

    def detach(self) -> Json:
        """Delete the disk from its host."""
        door = f"/sys/block/{os.path.basename(self.path)}/device/delete"
        argv = ["scsi", "delete", door]
        command = in_child(argv, lambda: cgroups.write(door, "1"), LIMIT, self.site)
        self.site.poll(lambda: not self.attached(), LIMIT)
        return command

    def attached(self) -> bool:
        """Whether its host has a disk, by sysfs."""
        return bool(self._host and self._disks())

    def down(self) -> list[Json]:
        """Take it away."""
        return [self.site.run(["modprobe", "-r", "scsi_debug"], LIMIT)] if self._host else []

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
        return [self.path] if self.attached() else []


def load(site: Site, mebibytes: int) -> None:
    """Load the driver anew with one disk of so many MiB. Raises RigError."""
    site.must(["modprobe", "sd_mod"])
    if os.path.exists("/sys/module/scsi_debug"):
        site.must(["modprobe", "-r", "scsi_debug"], LIMIT)
    words = [f"dev_size_mb={mebibytes}", "delay=0", "num_tgts=1", "max_luns=1"]
    command = site.run(["modprobe", "scsi_debug", *words])
    if not succeeded(command):
        raise RigError(f"scsi_debug: {said(command)}")


def can_inject() -> bool:
    """Whether the driver, which is loaded, takes rules for sense data (since Linux 6.7)."""
    return bool(glob.glob(f"{_RULES}/*/error"))
