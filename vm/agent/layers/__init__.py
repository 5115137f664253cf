"""The layers that rigs are stacked from. A new device family is one module and one line here."""

from __future__ import annotations

from agent.layers import (
    backings,
    disk,
    file,
    fs,
    loop,
    machine,
    md,
    memory,
    nbd,
    nvme,
    scsi,
    snapshot,
    stack,
    swap,
    thin,
    tmpfs,
    ublk,
    vdo,
    zoned,
)
from agent.layers.base import Layer, Maker, Site, succeeded

KINDS: dict[str, Maker] = {
    "tmpfs": tmpfs.Tmpfs,
    "disk": disk.Disk,
    "fs": fs.Filesystem,
    "subvolume": fs.Subvolume,
    "file": file.File,
    "loop": loop.Loop,
    "nbd": nbd.Nbd,
    "qemu_nbd": nbd.QemuNbd,
    "ublk": ublk.Ublk,
    "scsi_debug": scsi.ScsiDebug,
    "nvme_loop": nvme.NvmeLoop,
    "virtio_blk": machine.VirtioBlk,
    "virtio_scsi": machine.VirtioScsi,
    "nvme": machine.Nvme,
    "overlay": backings.Overlay,
    "bindfs": backings.Bindfs,
    "nfs": backings.Nfs,
    "swap": swap.Swap,
    "thin_pool": thin.ThinPool,
    "thin": thin.Thin,
    "thin_snapshot": thin.ThinSnapshot,
    "snapshot_origin": snapshot.SnapshotOrigin,
    "dm_snapshot": snapshot.DmSnapshot,
    "vdo": vdo.Vdo,
    "dm_linear": stack.Linear,
    "dm_crypt": stack.Crypt,
    "dm_integrity": stack.Integrity,
    "dm_writecache": stack.Writecache,
    "dm_cache": stack.Cache,
    "dm_mirror": stack.Mirror,
    "md_raid": md.MdRaid,
    "zram": memory.Zram,
    "brd": memory.Brd,
    "null_blk": memory.NullBlk,
    "zloop": zoned.Zloop,
}
"""The value of ``layer`` in a rig, and what makes it."""

__all__ = ["KINDS", "Layer", "Site", "succeeded"]
