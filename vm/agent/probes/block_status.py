"""Whether the block layer can be told to fail writes."""

from __future__ import annotations

import os
from collections.abc import Callable

from agent.layers import Site
from agent.probes.stack import MIB, Stack, loop_rig
from agent.shortages.block_status import rules


def _block_error_injection(site: Site) -> str:
    with Stack(loop_rig(4 * MIB), site) as layers:
        if os.path.exists(rules(layers["probe_device"].path)):
            return ""
    return (
        "this kernel has no CONFIG_BLK_ERROR_INJECTION (since Linux 7.2, commit e8dcf2d142bd, "
        '"block: add configurable error injection"; no kernel of Debian has it set)'
    )


PROBES: dict[str, Callable[[Site], str]] = {"block_error_injection": _block_error_injection}
"""The names after ``probe:``."""
