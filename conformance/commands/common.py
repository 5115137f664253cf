"""What the commands share: options, and how a line is told.

Whatever reaches the terminal goes through ``console``, ``say``, ``tell`` or ``say_traceback``: a guest, a
record or a case file may have written it, so control characters are taken out.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

from conformance.report.text import clean

Command = TypeVar("Command", bound=Callable[..., Any])

TABLE_WIDTH = 140
"""Columns of a table that goes to a file or a pipe, where no terminal says how many there are."""

EXPRESSION = click.option(
    "-k", "expression", default="", metavar="EXPR", help="Only what matches, as pytest -k."
)
CASES = click.option(
    "--cases",
    multiple=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of cases of your own, beside the suite's. Repeatable.",
)
KNOWN = click.option(
    "--known",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=None,
    help="Known deviations in place of results/known/.",
)
STRICT = click.option("--strict", is_flag=True, help="Known deviations count like any other.")
SHOULD = click.option("--should", is_flag=True, help="Advisories count like deviations.")


def options(*chosen: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order in which help shows them."""

    def decorate(command: Command) -> Command:
        for option in reversed(chosen):
            command = option(command)
        return command

    return decorate


JUDGING = options(STRICT, SHOULD, CASES, KNOWN)
"""The options that decide what a result means."""


def examples(*lines: str) -> str:
    """An epilog for a command's help: how it is called."""
    # \b on a line of its own keeps click from filling the paragraph.
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


class _Cleaned:
    """Something to be printed, with rich's own control sequences and nobody else's."""

    def __init__(self, printed: ConsoleRenderable) -> None:
        self._printed = printed

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._printed, options):
            yield segment if segment.control else Segment(clean(segment.text), segment.style)


class _Cleaning(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Cleaned(one) for one in renderables]


def console(stream: Any) -> Console:
    """Where tables go: as wide as the terminal, or as a table in a file may be."""
    width = None if stream.isatty() else TABLE_WIDTH
    made = Console(file=stream, highlight=False, width=width)
    made.push_render_hook(_Cleaning())
    return made


def say(text: str) -> None:
    """Tell the user, on standard error."""
    for line in text.splitlines() or [""]:
        click.echo(f"conform: {clean(line)}", err=True)


def say_traceback() -> None:
    """Tell the exception that is being handled, as Python does."""
    click.echo(clean(traceback.format_exc()), err=True, nl=False)


def tell(text: str) -> None:
    """Tell the user what was asked for, on standard output."""
    click.echo(clean(text))
