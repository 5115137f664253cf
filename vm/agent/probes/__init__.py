"""What a kernel and a guest can do: found out by looking or by trying, never by a version.

Each answer is nothing if the requirement is met, else the reason why not, in one line. A device family
brings its probes in a module of its own, and one line here.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.basics import RigError, one_line
from agent.layers import Site
from agent.probes import block_status, loop, scsi, vdo, zoned
from agent.probes.kinds import KINDS

PROBES: dict[str, Callable[[Site], str]] = {
    **loop.PROBES,
    **scsi.PROBES,
    **vdo.PROBES,
    **block_status.PROBES,
    **zoned.PROBES,
}
"""The names after ``probe:``."""


def answer(requirement: str, site: Site) -> str:
    """Nothing if ``requirement`` (kind:name) is met, else why not."""
    kind, _, name = requirement.partition(":")
    try:
        if kind == "probe":
            probe = PROBES.get(name)
            return probe(site) if probe else f"the guest's program knows no probe {name}"
        if kind not in KINDS:
            return f"the guest's program knows no requirements of the kind {kind}"
        return KINDS[kind](name, site)
    except (RigError, OSError) as error:
        return f"{requirement} could not be probed: {one_line(error)}"
