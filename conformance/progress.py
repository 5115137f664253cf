"""Live progress: a bar where a person watches, plain lines where a log is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from conformance.report.console import SIGN
from conformance.report.result import Asked, Outlook, Result
from conformance.report.short import brief
from conformance.report.text import one_line


class Display(Protocol):
    """What a run tells while it goes on."""

    def started(self, name: str) -> None:
        """A variant was handed out."""

    def finished(self, name: str, result: Result) -> None:
        """A variant was judged."""


@contextmanager
def display(
    console: Console,
    total: int,
    asked: Asked,
    clock: Callable[[], float] = time.monotonic,
    *,
    expected: Mapping[str, float] | None = None,
) -> Iterator[Display]:
    """The display that fits ``console``, while the run goes on.

    ``expected`` says how long each variant takes, by its name; without it all take the same. A run
    that begins with the longest would else seem to take for ever.
    """
    left = Clock(total, clock, expected or {})
    if console.is_terminal:
        live = Live(console, total, asked, left)
        with live.bar:
            yield live
    else:
        yield Lines(console, total, asked, left)


@contextmanager
def preparing(console: Console) -> Iterator[Callable[[str], None]]:
    """What is done before the first case: one line that changes, or a line each in a log."""
    if console.is_terminal:
        with console.status("preparing") as status:
            yield lambda text: status.update(escape(one_line(text)))
    else:
        yield lambda text: console.print(
            one_line(text), markup=False, highlight=False, soft_wrap=True
        )


_LEAST = 0.01
"""Seconds."""


class Clock:
    """How long is left, by what was done so far."""

    def __init__(
        self, total: int, clock: Callable[[], float], expected: Mapping[str, float]
    ) -> None:
        self._clock = clock
        self._began = clock()
        # What is skipped takes no time to speak of, and some all the same.
        self._expected = {name: max(spent, _LEAST) for name, spent in expected.items()}
        self._work = sum(self._expected.values()) if expected else float(total)
        self._worked = 0.0
        self.done = 0

    def finished(self, name: str) -> None:
        """A variant is done."""
        self.done += 1
        self._worked += self._expected.get(name, 1.0)

    def left(self) -> str:
        """``3 min left``; nothing before the first case is done."""
        if not self.done:
            return ""
        spent = self._clock() - self._began
        return f"{span(spent / self._worked * (self._work - self._worked))} left"


def span(seconds: float) -> str:
    """A length of time in one unit, or two: ``42 s``, ``3 min``, ``1 h 05 min``."""
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def remark(result: Result, asked: Asked) -> str:
    """Why a result deserves a line: the first finding or reason; nothing for a good one."""
    verdict = result.verdict
    match result.outlook(asked):
        case Outlook.BAD | Outlook.KNOWN if result.verdict.findings:
            return one_line(brief(verdict.findings[0]))
        case Outlook.FIXED:
            return "no longer deviates, but is listed"
        case Outlook.GOOD:
            return ""
        case _:
            return "; ".join(one_line(reason) for reason in verdict.reasons)


class Live:
    """A bar with cases done, running and time left; what is not good scrolls by above it."""

    def __init__(self, console: Console, total: int, asked: Asked, clock: Clock) -> None:
        self._console = console
        self._asked = asked
        self._clock = clock
        self._running: dict[str, None] = {}
        self.bar = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[running]}", style="dim"),
            console=console,
        )
        self._task = self.bar.add_task("", total=total, left="", running="")

    def started(self, name: str) -> None:
        """See ``Display``."""
        self._running[name] = None
        self._show()

    def finished(self, name: str, result: Result) -> None:
        """See ``Display``."""
        self._running.pop(name, None)
        self._clock.finished(name)
        self.bar.advance(self._task)
        outlook = result.outlook(self._asked)
        if outlook not in (Outlook.GOOD, Outlook.SKIPPED):
            sign, style = SIGN[result.verdict.status]
            known = " as known" if outlook is Outlook.KNOWN else ""
            told = escape(f"{sign} {result.verdict.status}{known} {name}")
            self._console.print(f"[{style}]{told}[/] {escape(remark(result, self._asked))}")
        self._show()

    def _show(self) -> None:
        names = list(self._running)
        more = f" +{len(names) - 1}" if len(names) > 1 else ""
        running = escape(f"running {names[0]}{more}") if names else ""
        self.bar.update(self._task, left=self._clock.left(), running=running, refresh=True)


class Lines:
    """One line for each variant that is done."""

    def __init__(self, console: Console, total: int, asked: Asked, clock: Clock) -> None:
        self._console = console
        self._asked = asked
        self._total = total
        self._clock = clock
        self._running = 0

    def started(self, name: str) -> None:  # noqa: ARG002 - a log tells of what is done
        """See ``Display``."""
        self._running += 1

    def finished(self, name: str, result: Result) -> None:
        """See ``Display``."""
        self._running -= 1
        self._clock.finished(name)
        known = " as known" if result.outlook(self._asked) is Outlook.KNOWN else ""
        place = f"[{self._clock.done}/{self._total}, {self._running} running, {self._clock.left()}]"
        told = remark(result, self._asked)
        line = f"{place} {result.verdict.status}{known} {name}" + (f": {told}" if told else "")
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
