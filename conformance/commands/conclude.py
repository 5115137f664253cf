"""How a run, or an old one that is judged again, ends: the summary, what is stale, the exit status."""

from __future__ import annotations

from rich.console import Console

from conformance.commands.common import say
from conformance.exits import BROKEN, INTERRUPTED, status
from conformance.report.console import print_summary
from conformance.report.result import Asked
from conformance.session import Ending


def conclude(ending: Ending, asked: Asked, console: Console, *, record: str, complete: bool) -> int:
    """Print what the run came to, and where its ``record`` is; the exit status."""
    print_summary(ending.results, asked, console)
    for row in ending.stale:
        console.print(
            f"stale known deviation: {row}", style="bold red", markup=False, soft_wrap=True
        )
    console.print(record, markup=False, soft_wrap=True)
    if not complete:
        planned = ending.missing + sum(len(result.each) for result in ending.results)
        noun = "attempts" if any(result.planned > 1 for result in ending.results) else "variants"
        say(f"interrupted: {ending.missing} of {planned} {noun} were not run")
        return INTERRUPTED
    code = 0 if ending.idle else status(ending.results, asked, stale=bool(ending.stale))
    return code | BROKEN if ending.incomplete else code
