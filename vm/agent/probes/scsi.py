"""What scsi_debug can be told to answer."""

from __future__ import annotations

from collections.abc import Callable

from agent.layers import Site
from agent.layers.scsi import can_inject, load


def _injection(site: Site) -> str:
    load(site, 8)
    if can_inject():
        return ""
    return (
        "this kernel's scsi_debug takes no sense data by debugfs (since Linux 6.7, commit "
        'a9996d722b11, "scsi: scsi_debug: Add interface to manage error injection")'
    )


PROBES: dict[str, Callable[[Site], str]] = {"scsi_debug_injection": _injection}
"""The names after ``probe:``."""
