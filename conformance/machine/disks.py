"""A disk that is short because the host is: a file on a tmpfs of limited size, plugged into a guest.

The tmpfs is no host's: a helper makes it in a mount namespace of its own (``own_tmpfs``), hands the
open file over, and gives the tmpfs another size when it is asked to. Nothing is mounted on the host, no
space is taken but what the guest writes, and all is gone when helper and file are let go.

QEMU gets the file as a descriptor and the disk by hot plug, into the port that the template has
(``qemu.PORT_FOR_DISK``): one template serves all guests, with a disk and without.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from conformance.machine import own_tmpfs
from conformance.machine.protocol import DiskOrder, DiskReading

FDSET = 10
"""Number of QEMU's descriptor set for the disk's file; those of its command line are smaller."""

_LIMIT = 30.0  # seconds for the helper to answer
_LINE = 4096  # bytes of its answer at most
_NO_SPACE = os.strerror(errno.ENOSPC)

Command = tuple[str, dict[str, object]]
"""A QMP command with its arguments."""


class ShortFile:
    """A sparse file of the host, on a tmpfs that has space for all of it, or less."""

    def __init__(self, size: int) -> None:
        """A file of ``size`` bytes. Raises OSError."""
        self._size = size
        self._squeezed = False
        with contextlib.ExitStack() as stack:
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            stack.enter_context(ours)
            ours.settimeout(_LIMIT)
            # -I and -S: nothing of the user's or of this environment is read.
            command = [sys.executable, "-I", "-S", str(Path(own_tmpfs.__file__)), str(size)]
            self._helper = helper = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                # Ctrl-C is for whoever closes the machines, and for nobody below.
                start_new_session=True,
            )
            stack.callback(_end, helper)
            theirs.close()
            _, files, _, _ = socket.recv_fds(ours, _LINE, 1)
            if not files:
                raise OSError(_last_line(helper))
            self._file = files[0]
            stack.callback(os.close, self._file)
            os.truncate(self._file, size)
            self._asked = ours
            self._close = stack.pop_all()

    def fileno(self) -> int:
        """The descriptor of the file; it stays this object's."""
        return self._file

    def reading(self) -> DiskReading:
        """By the tmpfs: bytes that it holds, and bytes that are left where some are missing."""
        space = os.fstatvfs(self._file)
        used = (space.f_blocks - space.f_bfree) * space.f_frsize
        room = space.f_bavail * space.f_frsize
        return DiskReading(used=used, room=room if self._squeezed else None)

    def squeeze(self, leave: int) -> None:
        """Take all of the space but ``leave`` bytes. Raises OSError."""
        used = self.reading().used
        if used + leave >= self._size:
            raise OSError(f"no less than {leave} bytes are left of {self._size} already")
        if used + leave == 0:
            # size=0 is no limit: Documentation/filesystems/tmpfs.rst.
            raise OSError("a tmpfs that holds nothing cannot be left without any space")
        self._resize(used + leave)
        self._squeezed = True

    def give(self, amount: int | None = None) -> bool:
        """Give so many bytes more, or all that it may need; whether any were missing."""
        space = os.fstatvfs(self._file)
        total = space.f_blocks * space.f_frsize
        if total >= self._size:
            return False
        self._resize(self._size if amount is None else min(self._size, total + amount))
        self._squeezed = self._squeezed and amount is not None
        return True

    def close(self) -> None:
        """Let all of it go; QEMU's own descriptor is the last."""
        self._close.close()

    def _resize(self, size: int) -> None:
        self._asked.sendall(f"{size}\n".encode())
        answer = self._asked.recv(_LINE).decode()
        if answer != "\n":
            raise OSError(answer.strip() or "the helper of the disk's file is gone")


class PluggedDisk:
    """A disk that a guest has. See the protocol ``Disk``."""

    def __init__(self, file: ShortFile) -> None:
        self._file = file
        self.refused = 0
        """Writes that QEMU could not carry out for want of space, by its events."""

    def reading(self) -> DiskReading:
        """See ``Disk``."""
        told = self._file.reading()
        return DiskReading(used=told.used, room=told.room, refused=self.refused)

    def squeeze(self, leave: int) -> None:
        """See ``Disk``."""
        self._file.squeeze(leave)

    def give(self, amount: int | None = None) -> bool:
        """See ``Disk``."""
        return self._file.give(amount)

    def close(self) -> None:
        """Close its file."""
        self._file.close()


def lacks() -> str:
    """Why no such file can be had here, in one line; nothing if one can."""
    try:
        ShortFile(1 << 20).close()
    except OSError as error:
        return (
            "no tmpfs of the suite's own can be mounted in a namespace on this host: "
            f"{' '.join(str(error.strerror or error).split())}"
        )
    return ""


def commands(order: DiskOrder, port: str) -> list[Command]:
    """What QEMU is told, so that the file of ``FDSET`` is a disk of the guest's in ``port``."""
    name = order.name
    file = {
        "driver": "file",
        "node-name": name,
        "filename": f"/dev/fdset/{FDSET}",
        "discard": "unmap",
        # Nothing of a guest outlives QEMU, so a flush need not reach anything.
        "cache": {"no-flush": True},
    }
    disk: dict[str, object] = {"id": f"{name}-disk", "drive": name, "serial": name}
    errors = {"werror": order.on_error, "rerror": "report"}
    added: list[Command] = [("blockdev-add", {**file})]
    match order.bus:
        case "virtio_blk":
            disk |= {"driver": "virtio-blk-pci", "bus": port, **errors}
        case "virtio_scsi":
            host = f"{name}-host"
            added += [("device_add", {"driver": "virtio-scsi-pci", "id": host, "bus": port})]
            disk |= {"driver": "scsi-hd", "bus": f"{host}.0", **errors}
        case "nvme":
            # It has no werror: hw/nvme/ctrl.c answers a failed write by an error in any case.
            disk |= {"driver": "nvme", "bus": port}
    return [*added, ("device_add", disk)]


def refused(events: Iterable[Mapping[str, object]], name: str) -> int:
    """How many of QEMU's events tell that a write to the disk of that name found no space."""
    return sum(
        isinstance(data := event.get("data"), Mapping)
        and data.get("node-name") == name
        and data.get("operation") == "write"
        # The key ``nospace`` is only there where the machine stops over errors (qapi/block-core.json).
        and (data.get("nospace") is True or data.get("reason") == _NO_SPACE)
        for event in events
        if event.get("event") == "BLOCK_IO_ERROR"
    )


def stopped_by_another(events: Iterable[Mapping[str, object]], name: str) -> str | None:
    """Why QEMU stopped over a disk that is not the plugged one of that name; None if it did not.

    A plugged disk may stop the machine, and is helped. The others are every guest's own, and where one
    of them fails, the host has no space or a bad disk itself.
    """
    for event in events:
        data = event.get("data")
        if event.get("event") == "BLOCK_IO_ERROR" and isinstance(data, Mapping):
            if data.get("action") == "stop" and data.get("node-name", "") != name:
                return str(data.get("reason", ""))
    return None


def _end(helper: subprocess.Popen[str]) -> None:
    """It ends by itself when nobody holds its socket; whatever keeps it, it goes now."""
    helper.kill()
    helper.communicate()


def _last_line(helper: subprocess.Popen[str]) -> str:
    said = helper.communicate(timeout=_LIMIT)[1].strip().splitlines()
    return said[-1] if said else f"its helper ended with status {helper.returncode}"
