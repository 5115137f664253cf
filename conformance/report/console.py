"""The summary that ends a run: a table of cases by kernels, what deviated, and counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from conformance.model import ROLL_UP, Finding, Status
from conformance.report.result import Asked, Outlook, Result, again, count, releases
from conformance.report.short import headline
from conformance.report.text import one_line

SIGN = {
    Status.PASS: ("✓", "green"),
    Status.FAIL: ("✗", "bold red"),
    Status.BROKEN: ("!", "bold magenta"),
    Status.SKIP: ("-", "dim"),
    Status.RECORDED: ("·", "cyan"),
}
PLAIN = {Status.PASS: "+", Status.FAIL: "x", Status.RECORDED: "."}
"""Signs for terminals that are not UTF-8."""
WIDEST = 10_000
"""Columns of a table that no terminal bounds: a log is scrolled, and a name that is cut is lost."""


def print_summary(results: Sequence[Result], asked: Asked, console: Console) -> None:
    """Print table, findings and counts. ``console`` decides on colour and width."""
    if not results:
        console.print("No result.")
        return
    table = _table(results, asked, unicode=_is_unicode(console))
    if console.file.isatty():
        console.print(table)
    else:
        # print() itself makes nothing wider than the console is.
        whole = console.render(table, console.options.update(max_width=WIDEST))
        console.print(Segments(whole), crop=False)
    for line in [*_told(results, asked), *_wavering(results)]:
        console.print(line, soft_wrap=True)
    console.print(totals(results), soft_wrap=True)


def totals(results: Sequence[Result]) -> Text:
    """``12 variants: 10 PASS, 2 FAIL (1 as known), 3 with advisories``."""
    counted = count(result.verdict.status for result in results)
    parts = []
    for status in ROLL_UP:
        if not counted[status]:
            continue
        known = sum(r.outlook(Asked()) is Outlook.KNOWN for r in results)
        told = f" ({known} as known)" if status is Status.FAIL and known else ""
        parts.append(Text(f"{counted[status]} {status}{told}", style=SIGN[status][1]))
    advised = sum(bool(result.verdict.advisories) for result in results)
    if advised:
        parts.append(Text(f"{advised} with advisories", style="yellow"))
    wavering = sum(result.wavers for result in results)
    if wavering:
        parts.append(Text(f"{wavering} {'wavers' if wavering == 1 else 'waver'}", style="magenta"))
    noun = "variant" if len(results) == 1 else "variants"
    return Text(f"{len(results)} {noun}: ").append_text(Text(", ").join(parts))


def _table(results: Sequence[Result], asked: Asked, *, unicode: bool) -> Table:
    kernels = releases(results)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("case", no_wrap=True)
    for kernel, release in kernels.items():
        table.add_column(Text(f"{kernel}\n{one_line(release)}".rstrip()), no_wrap=True)
    by_case: dict[str, list[Result]] = {}
    for result in results:
        by_case.setdefault(result.variant.case, []).append(result)
    for case, group in by_case.items():
        cells = [
            _cell([r for r in group if r.verdict.kernel == kernel], asked, unicode=unicode)
            for kernel in kernels
        ]
        table.add_row(Text(case), *cells)
    return table


def _cell(results: Sequence[Result], asked: Asked, *, unicode: bool) -> Text:
    """The worst status of a case's variants, and how many of them have it."""
    counted = count(result.verdict.status for result in results)
    worst = next((status for status in ROLL_UP if counted[status]), None)
    if worst is None:
        return Text("not run", style="dim")
    sign, style = SIGN[worst]
    if not unicode:
        sign = PLAIN.get(worst, sign)
    text = Text(f"{sign} {worst}", style=style)
    if counted[worst] < len(results):
        text.append(f" {counted[worst]} of {len(results)}")
    elif len(results) > 1:
        text.append(f" {len(results)}", style="dim")
    if worst is Status.FAIL:
        failed = [result for result in results if result.verdict.status is Status.FAIL]
        known = sum(result.outlook(asked) is Outlook.KNOWN for result in failed)
        if known:
            text.append(" known" if known == len(failed) else f" ({known} known)", style="yellow")
    advised = sum(bool(result.verdict.advisories) for result in results)
    if advised:
        text.append(f" +{advised} advisory", style="yellow")
    return text


class _Told(NamedTuple):
    """What makes several results one entry of the list."""

    kernel: str
    case: str
    clause: str
    signature: str
    outlook: Outlook


def _told(results: Sequence[Result], asked: Asked) -> Iterable[Text]:
    """One entry for each case, kernel and kind of finding; then what has reasons instead."""
    found: dict[_Told, list[tuple[Result, Finding]]] = {}
    for result in results:
        for finding in result.verdict.findings:
            key = _Told(
                result.verdict.kernel,
                result.variant.case,
                finding.clause,
                finding.signature,
                result.outlook(asked),
            )
            found.setdefault(key, []).append((result, finding))
    for key, group in found.items():
        yield from _entry(key, group, asked)
    reasoned: dict[tuple[Status, str, str], list[Result]] = {}
    for result in results:
        if result.verdict.status in (Status.BROKEN, Status.SKIP):
            reason = "; ".join(result.verdict.reasons) or "no reason is given"
            group_of = reasoned.setdefault(
                (result.verdict.status, reason, result.verdict.kernel), []
            )
            group_of.append(result)
    for (status, reason, kernel), alike in reasoned.items():
        yield Text(f"\n{status}: {one_line(reason)}", style=SIGN[status][1])
        yield Text(f"  {_names(alike)} on {kernel}")
    fixed = [result for result in results if result.outlook(asked) is Outlook.FIXED]
    for result in fixed:
        rows = ", ".join(result.verdict.known) or "results/known/"
        yield Text(f"\nno longer deviates, but is listed in {rows}", style="bold red")
        yield Text(f"  {headline(result)}")


def _wavering(results: Sequence[Result]) -> Iterable[Text]:
    """How the attempts at a variant spread, where they do not agree."""
    wavering = [result for result in results if result.wavers]
    if wavering:
        yield Text(
            "\nwavers: the same variant, in fresh guests, does not end alike", style="magenta"
        )
    for result in wavering:
        yield Text(f"  {result.variant.id} on {result.verdict.kernel}: {result.told_spread()}")


def _entry(key: _Told, group: Sequence[tuple[Result, Finding]], asked: Asked) -> Iterable[Text]:
    result, finding = group[0]
    known = ", as known" if key.outlook is Outlook.KNOWN and finding.level == "must" else ""
    step = f" at {one_line(finding.step)}" if finding.step else ""
    style = "bold red" if finding.level == "must" and not known else "yellow"
    yield Text(f"\n{finding.clause} ({finding.level}{known}){step}", style=style)
    yield Text(f"  {_names([item for item, _ in group])} on {key.kernel}")
    yield Text(f"  expected  {one_line(finding.expected)}")
    yield Text(f"  observed  {one_line(finding.observed)}")
    if finding.documented_by:
        yield Text(f"  deviates from the thesis, as documented: {finding.documented_by}")
    yield Text(f"  {headline(result).split(': ')[0]}   {again(result, asked)}", style="dim")


def _names(results: Sequence[Result]) -> str:
    names = [result.variant.id for result in results]
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


def _is_unicode(console: Console) -> bool:
    return console.encoding.lower().replace("-", "").startswith("utf8")
