"""Whether there can be zoned devices over files."""

from __future__ import annotations

import os
from collections.abc import Callable

from agent.layers import Site
from agent.layers.zoned import CONTROL


def _zloop(site: Site) -> str:
    site.run(["modprobe", "zloop"])
    if os.path.exists(CONTROL):
        return ""
    return (
        "this kernel has no CONFIG_BLK_DEV_ZONED_LOOP (since Linux 6.16, commit eb0570c7df23, "
        '"block: new zoned loop block device driver"; Debian\'s cloud kernels do not set it)'
    )


PROBES: dict[str, Callable[[Site], str]] = {"zloop": _zloop}
"""The names after ``probe:``."""
