"""Disks that the machine has: virtio and NVMe disks of QEMU's, in a file of the host that can run short."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from conformance.model.base import Bytes
from conformance.model.layers.base import Ability, Layer, SpaceOfItsOwn

HOST_FILE = "host:short_file"
"""The requirement of all of them."""


class MachineDiskLayer(SpaceOfItsOwn, Layer):
    """A disk of the machine's own, made by the host. A guest has one at most."""

    CAN: ClassVar[frozenset[Ability]] = frozenset({"block", "reattach", "machine"})

    layer: Literal["virtio_blk", "virtio_scsi", "nvme"]
    size: Bytes = Field(description="bytes that the device offers")

    @property
    def stops(self) -> bool:
        """Whether the machine stops when the host has no space for a write."""
        return False

    def wrong(self, below: Mapping[str, Layer]) -> Iterator[tuple[str, str]]:
        """See ``Layer``."""
        if any(isinstance(layer, MachineDiskLayer) for layer in below.values()):
            yield "name", "a guest has one disk of the host's at most"


class VirtioLayer(MachineDiskLayer):
    """A virtio disk, for which QEMU can be told what becomes of a write that the host cannot store."""

    on_error: Literal["report", "stop", "enospc", "ignore"] = Field(
        default="report",
        description="QEMU's werror=: the guest is told; the machine stops (`enospc`: if it is space "
        "that is missing) and goes on when it is let; or nobody is told, a lie, for tests of the judge",
    )

    @property
    def stops(self) -> bool:
        """See ``MachineDiskLayer``."""
        return self.on_error in ("stop", "enospc")


class VirtioBlkLayer(VirtioLayer):
    """A virtio-blk disk of QEMU's in a file of the host."""

    SORT: ClassVar[str] = "a virtio-blk disk"
    NEEDS: ClassVar[tuple[str, ...]] = (HOST_FILE, "module:virtio_blk")
    # VIRTIO 1.2, 5.2.6: the status is OK, IOERR or UNSUPP.
    CARRIES_ERRNO: ClassVar[bool] = False

    layer: Literal["virtio_blk"]


class VirtioScsiLayer(VirtioLayer):
    """A SCSI disk of QEMU's behind virtio-scsi, in a file of the host."""

    SORT: ClassVar[str] = "a virtio-scsi disk"
    NEEDS: ClassVar[tuple[str, ...]] = (HOST_FILE, "module:virtio_scsi", "module:sd_mod")

    layer: Literal["virtio_scsi"]


class NvmeLayer(MachineDiskLayer):
    """An NVMe disk of QEMU's in a file of the host."""

    SORT: ClassVar[str] = "an NVMe disk"
    NEEDS: ClassVar[tuple[str, ...]] = (HOST_FILE, "module:nvme")
    # QEMU says Write Fault (hw/nvme/ctrl.c, nvme_aio_err()), which names no shortage.
    CARRIES_ERRNO: ClassVar[bool] = False

    layer: Literal["nvme"]


AnyMachineDiskLayer = VirtioBlkLayer | VirtioScsiLayer | NvmeLayer
