"""A conforming control for each family: a variant that passes where the kernel and the device do right.

A judge that finds fault with everything would catch each saboteur too. What each control rests on is
said beside it: who it is that answers, and why the answer is right. Its verdict is in the published records
(PASS, and no finding at all), or, where no released kernel conforms, in the table of saboteurs, as *nobody*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from conformance.model import Status, Variant, Verdict
from tests.planted.saboteurs import SABOTEURS, Saboteur

BOOKWORM: Final = "debian/bookworm"
TRIXIE: Final = "debian/trixie"
SID: Final = "debian/sid"


@dataclass(frozen=True, kw_only=True)
class Control:
    """A family's control. ``planted``: it is a saboteur's row without a saboteur."""

    family: str
    variant: str
    kernel: str = TRIXIE
    why: str
    planted: bool = False


CONTROLS: Final = (
    Control(
        family="dm_snapshot",
        variant="snapshot_writer_overflows[buffered-PO]",
        why="the store of the snapshot has a flag for its overflow, and the write that met it fails",
    ),
    Control(
        family="dm_stack",
        variant="stack_full[linear-buffered]",
        why="dm-linear hands on what the thin device below answers",
    ),
    Control(
        family="dm_thin",
        variant="thin_full[buffered]",
        why="a pool with `error_if_no_space` ends the write with BLK_STS_NOSPC",
    ),
    Control(
        family="dm_vdo",
        variant="vdo_full[buffered]",
        kernel=SID,
        why="the volume ends the write with BLK_STS_NOSPC; released kernels have dm-vdo since 6.9",
    ),
    Control(
        family="equivalence",
        variant="equivalence_causes[direct-off]",
        why="ext4, its quota and a thin pool below all refuse to allocate, before anything is stored",
    ),
    Control(
        family="fs_on_loop_data",
        variant="fs_on_loop_fs_full[ext4-buffered]",
        why="the filesystem itself is full, reserves at the write, and refuses there",
    ),
    Control(
        family="fs_on_loop_metadata",
        variant="fs_on_loop_metadata_tmpfs_full[xfs]",
        why="XFS shuts down at the log write that failed, and tells every fsync",
    ),
    Control(
        family="isolation",
        variant="isolation_two_devices[buffered-64K]",
        why="who has no space of his own is told, and the neighbour's blocks are stored",
    ),
    Control(
        family="loop_enospc",
        variant="loop_enospc_disk_fs_full[ext4-direct-on]",
        why="a loop device by direct I/O over a full ext4, which refuses before it stores",
    ),
    Control(
        family="loop_memcg",
        variant="loop_enospc_memcg_limit[direct-off]",
        kernel=BOOKWORM,
        planted=True,
        why="with the loop.ko of tests/module, whose failed charge is ENOSPC; Debian's own kills",
    ),
    Control(
        family="loop_quota",
        variant="quota_direct_write[ext4-user-buffered]",
        why="no device in between: ext4 refuses at the quota with EDQUOT",
    ),
    Control(
        family="machine_disk",
        variant="virtio_scsi_host_full[buffered]",
        why="QEMU answers with the sense data of SPACE ALLOCATION FAILED (`werror=report`)",
    ),
    Control(
        family="md_raid",
        variant="raid_all_short[raid1-1.2-first]",
        why="an array without a leg that has space fails the write",
    ),
    Control(
        family="nbd",
        variant="nbd_server_full[buffered]",
        why="an honest server: it answers NBD_ENOSPC, and stores nothing of the request",
    ),
    Control(
        family="nvme",
        variant="nvme_file_full[buffered-on]",
        why="the target answers with a status that becomes ENOSPC (buffered I/O is off: no short write)",
    ),
    Control(
        family="post_kill_reuse",
        variant="loop_reuse_after_sigkill[buffered]",
        why="the device is still attached, and whoever comes next is answered",
    ),
    Control(
        family="scsi_debug",
        variant="scsi_space_allocation_failed[buffered]",
        why="an emulated disk with the sense data that the standard has for this",
    ),
    Control(
        family="sync_semantics",
        variant="sync_told_once[fsync-device]",
        why="errseq_t tells each descriptor once, as it was written to do",
    ),
    Control(
        family="ublk",
        variant="ublk_server_full[buffered]",
        why="an honest server: it completes the request with -ENOSPC, and stores nothing of it",
    ),
    Control(
        family="ram_disk",
        variant="ram_disk_small_limit[brd-buffered]",
        why="what a RAM disk keeps is charged to no cgroup, and the page cache that is can be written back",
    ),
    Control(
        family="zram",
        variant="zram_full[buffered]",
        why="zram ends the write that met its limit with an error",
    ),
)

NO_CONTROL: Final[Mapping[str, str]] = {
    "block_status": "needs CONFIG_BLK_ERROR_INJECTION, which none of Debian's kernels has: it has never run "
    "on one; the conforming guest of the model passes it (tests/unit/oracle/test_planted_faults.py)",
    "zloop": "needs CONFIG_BLK_DEV_ZONED_LOOP, which none of Debian's cloud kernels has",
}
"""Families without one, and why."""


def lacking(
    controls: Iterable[Control],
    variants: Iterable[Variant],
    verdicts: Mapping[str, Iterable[Verdict]],
    saboteurs: Iterable[Saboteur] = SABOTEURS,
) -> list[str]:
    """What is wrong with the controls: a line each. ``verdicts``: by case."""
    wrong = []
    known = {variant.id: variant for variant in variants}
    rows = list(saboteurs)
    for control in controls:
        variant = known.get(control.variant)
        if variant is None or variant.family != control.family:
            wrong.append(f"{control.variant}: no variant of {control.family}")
        elif control.planted:
            if not any(_nobody(row, control) for row in rows):
                wrong.append(f"{control.variant}: no row without a saboteur on {control.kernel}")
        elif not any(_passed(v, variant, control) for v in verdicts.get(variant.case, ())):
            wrong.append(f"{control.variant}: no PASS without a finding on {control.kernel}")
    return wrong


def _nobody(row: Saboteur, control: Control) -> bool:
    same = row.variant == control.variant and control.kernel in row.kernels
    return same and not (row.acts or row.clauses or row.should or row.broken)


def _passed(verdict: Verdict, variant: Variant, control: Control) -> bool:
    same = dict(verdict.values) == dict(variant.values) and verdict.kernel == control.kernel
    return same and verdict.status is Status.PASS and not verdict.findings


def table() -> str:
    """The controls as docs/detection.md shows them."""
    lines = [
        "| family | control | kernel | verdict | why it conforms |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {one.family} | `{one.variant}` | {one.kernel.removeprefix('debian/')} | "
        f"PASS{' (planted)' if one.planted else ''} | {one.why} |"
        for one in CONTROLS
    ]
    lines += [f"| {family} | none | | | {why} |" for family, why in NO_CONTROL.items()]
    return "\n".join(lines)
