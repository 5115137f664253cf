"""What a kernel must have been configured with to boot the guest, and what a given one lacks."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

_SET = re.compile(r"^(CONFIG_\w+)=(.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Need:
    """An option the guest needs to reach its agent, and its module if it can be one."""

    option: str
    module: str | None = None
    why: str


# Only what booting takes. What a case needs, it declares and probes itself.
NEEDS: tuple[Need, ...] = (
    Need(option="CONFIG_64BIT", why="the guest's programs are amd64"),
    Need(option="CONFIG_BINFMT_ELF", why="programs"),
    Need(option="CONFIG_BINFMT_SCRIPT", why="/init is a script"),
    Need(option="CONFIG_BLK_DEV_INITRD", why="the initramfs"),
    Need(option="CONFIG_PROC_FS", why="/proc"),
    Need(option="CONFIG_SYSFS", why="/sys"),
    Need(option="CONFIG_DEVTMPFS", why="/dev"),
    Need(option="CONFIG_TMPFS", why="the writable layer of the root"),
    Need(option="CONFIG_SERIAL_8250_CONSOLE", why="the kernel log on ttyS0"),
    Need(option="CONFIG_PCI", why="the virtio devices"),
    Need(option="CONFIG_VIRTIO_PCI", module="virtio_pci", why="the virtio devices"),
    Need(option="CONFIG_VIRTIO_BLK", module="virtio_blk", why="the disks"),
    Need(option="CONFIG_VIRTIO_CONSOLE", module="virtio_console", why="the agent's port"),
    Need(option="CONFIG_EROFS_FS", module="erofs", why="the root image"),
    Need(option="CONFIG_EROFS_FS_ZIP", why="the root image is compressed (lz4)"),
    Need(option="CONFIG_OVERLAY_FS", module="overlay", why="the writable layer of the root"),
)

# Loaded when there, in this order with their dependencies; a kernel without them boots as well.
# virtio_mmio is for machine types without PCI; virtio_rng spares the guest a wait for entropy.
OPTIONAL_MODULES = ("virtio_mmio", "virtio_rng")


def parse(text: str) -> dict[str, str]:
    """Option to value ("y", "m", a number, a quoted string) of a .config file's text."""
    return dict(_SET.findall(text))


def missing(
    *,
    config: Mapping[str, str] | None,
    builtin: Collection[str] | None,
    modules: Collection[str],
) -> list[str]:
    """What the kernel lacks to boot the guest, as words for a message; empty when it can boot.

    `config` is None when unknown; then `builtin` (module names of modules.builtin, or None when
    unknown too) and `modules` (names of the modules at hand) decide what they can. Names use
    underscores. What nothing tells is let through: the guest's console will say it.
    """
    lacks = []
    for need in NEEDS:
        at_hand = need.module is not None and need.module in modules
        if config is not None:
            value = config.get(need.option)
            if value == "m" and not at_hand:
                lacks.append(f"{need.option} (=m, but {need.module}.ko is not at hand)")
            elif value not in ("y", "m"):
                lacks.append(need.option)
        elif need.module and not at_hand and builtin is not None and need.module not in builtin:
            lacks.append(need.option)
    return lacks
