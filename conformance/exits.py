"""The exit status of a run, and the errors that end one before it begins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from conformance.report.result import Asked, Outlook, Result

DEVIATES: Final = 1
"""A FAIL that no known deviation tells of; with --strict any FAIL."""
BROKEN: Final = 2
"""Of some variant nothing is known: the rig, the agent, the machine or the judge failed."""
STALE: Final = 4
"""A known deviation is no longer seen. Of one that no variant has ``lint`` tells."""
NOTHING: Final = 8
"""Nothing ran."""
REFUSED: Final = 64
"""The run was refused: an option, a case file, a kernel, a module, a full disk. A line says why.

EX_USAGE of sysexits.h, and beyond the sum of the bits above.
"""
CRASHED: Final = 70
"""The suite itself failed, with a traceback; ``bisect`` has its own. EX_SOFTWARE of sysexits.h."""
INTERRUPTED: Final = 130
"""Ended by Ctrl-C or SIGTERM, as shells say it. Takes the place of the bits."""


class Refused(Exception):
    """What the user asked for cannot be done. The text is one line and names the place."""


class HostLacks(Refused):
    """What every kernel needs cannot be had: a tool, a package, the image, space on the host's disk."""


def status(
    results: Iterable[Result], asked: Asked, *, stale: bool, selected_nothing: bool = False
) -> int:
    """The OR of what happened, in every attempt. A run whose every variant was skipped ran nothing."""
    outlooks = {attempt.outlook(asked) for result in results for attempt in result.each}
    code = 0
    if Outlook.BAD in outlooks:
        code |= DEVIATES
    if Outlook.BROKEN in outlooks:
        code |= BROKEN
    if stale or Outlook.FIXED in outlooks:
        code |= STALE
    if selected_nothing or outlooks <= {Outlook.SKIPPED}:
        code |= NOTHING
    return code
