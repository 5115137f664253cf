"""The causes of a shortage. A new one is one module and one line here."""

from __future__ import annotations

from agent.shortages import (
    block_status,
    hog,
    inodes,
    memcg,
    memory,
    none,
    quota,
    scsi_sense,
    server_space,
    snapshot_cow,
    thin,
    tmpfs_size,
    vdo,
)
from agent.shortages.base import Maker, Shortage

KINDS: dict[str, Maker] = {
    "tmpfs_size": tmpfs_size.TmpfsSize,
    "memcg": memcg.Memcg,
    "memcg_v1": memcg.MemcgV1,
    "quota": quota.Quota,
    "inode_quota": quota.InodeQuota,
    "qgroup": quota.Qgroup,
    "inodes": inodes.Inodes,
    "hog": hog.Hog,
    "server_space": server_space.ServerSpace,
    "scsi_sense": scsi_sense.ScsiSense,
    "block_status": block_status.BlockStatus,
    "thin_data": thin.ThinData,
    "thin_metadata": thin.ThinMetadata,
    "snapshot_cow": snapshot_cow.SnapshotCow,
    "vdo_space": vdo.VdoSpace,
    "zram_limit": memory.ZramLimit,
    "guest_memory": memory.GuestMemory,
    "none": none.NoShortage,
}
"""The value of ``kind`` in a shortage, and what makes it."""

__all__ = ["KINDS", "Shortage"]
