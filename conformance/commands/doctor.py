"""``doctor``: whether this machine can run the suite, and what to type where it cannot."""

from __future__ import annotations

import sys

import click
from rich.text import Text

from conformance.commands.common import console, examples
from conformance.doctor import State, examine, here
from conformance.session import ROOT

SIGNS = {
    State.GOOD: ("✓", "green"),
    State.NOTICE: ("·", "yellow"),
    State.WRONG: ("✗", "bold red"),
}


@click.command(epilog=examples("conform doctor"))
def doctor() -> int:
    """Check this machine: processor, Python, packages, QEMU, KVM, memory, space, image, kernel.

    Whatever is not as it should be comes with the command that mends it. The exit status is 1 if
    something is wrong, and 0 if there is nothing or only something to know (·).
    """
    found = examine(here(ROOT))
    out = console(sys.stdout)
    for one in found:
        sign, style = SIGNS[one.state]
        out.print(Text(f"{sign} {one.subject:<9}{one.text}", style=style), soft_wrap=True)
        if one.mend:
            out.print(Text(f"             {one.mend}"), soft_wrap=True)
    return int(any(one.state is State.WRONG for one in found))
