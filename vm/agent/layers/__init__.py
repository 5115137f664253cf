"""The layers that rigs are stacked from. A new device family is one module and one line here."""

from __future__ import annotations

from agent.layers import disk, file, fs, loop, swap, tmpfs
from agent.layers.base import Layer, Maker, Site, succeeded

KINDS: dict[str, Maker] = {
    "tmpfs": tmpfs.Tmpfs,
    "disk": disk.Disk,
    "fs": fs.Filesystem,
    "file": file.File,
    "loop": loop.Loop,
    "swap": swap.Swap,
}
"""The value of ``layer`` in a rig, and what makes it."""

__all__ = ["KINDS", "Layer", "Site", "succeeded"]
