"""``explain``: all there is to know of a case: norm, rig, steps, clauses, known rows, history."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from conformance.commands.common import CASES, KNOWN, console, examples, options
from conformance.commands.lookup import variants_of
from conformance.drawing import shortage_words, stack, step_words
from conformance.exits import Refused
from conformance.known import Known
from conformance.model import CLAIMS, CLAUSE_LEVEL, STARRED, Arm, Clause, Norm, Variant, Verdict
from conformance.planner import requirements
from conformance.published import verdicts_of
from conformance.record import RecordError
from conformance.report.console import SIGN
from conformance.session import PUBLISHED, ROOT, known_rows, open_library

NORM = ROOT / "docs" / "norm.md"
_ROW = re.compile(r"^\| `(\w+)`[^|]*\| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_LINK = re.compile(r" ?\(?\[[^\]]*\]\([^)]*\)\)?")


@click.command(
    epilog=examples(
        "conform explain loop_enospc_short_write",
        "conform explain 'loop_enospc_short_write[1M-off]'",
    )
)
@click.argument("case", metavar="CASE[variant]")
@options(CASES, KNOWN)
def explain(*, case: str, cases: tuple[Path, ...], known: Path | None) -> int:
    """Show a case: its norm, its rig as a stack, steps, clauses, known deviations, history.

    Of a case with several variants the first is drawn; name one, as case[variant], for another.
    """
    library = open_library(cases)
    found = variants_of(library, case)
    rows = [
        row
        for row in known_rows(known)
        if any(row.of(variant.case, variant.values) for variant in found)
    ]
    try:
        history = verdicts_of(PUBLISHED, found[0].case)
    except RecordError as error:
        raise Refused(str(error)) from error
    out = console(sys.stdout)
    notes = library.cases[found[0].case][0].notes
    _head(out, found)
    for arm in found[0].arms:
        _arm(out, arm, many=len(found[0].arms) > 1)
    _clauses(out, found[0], clause_texts(NORM.read_text(encoding="utf-8")))
    _known(out, rows)
    _history(out, found, history)
    if notes.strip():
        _title(out, "Notes")
        _print(out, notes.strip())
    return 0


def clause_texts(norm: str) -> dict[str, str]:
    """What each clause holds for, from the table of the norm's page."""
    return {name: _LINK.sub("", text).strip() for name, text, _ in _ROW.findall(norm)}


def _title(out: Console, text: str) -> None:
    out.print(Text(f"\n{text}", style="bold"))


def _print(out: Console, text: str) -> None:
    out.print(Padding(Text(text), (0, 0, 0, 2), expand=False))


def _head(out: Console, found: Sequence[Variant]) -> None:
    first = found[0]
    out.print(Text(first.id if len(found) == 1 else first.case, style="bold"))
    out.print(Text(first.title))
    where = f"{first.where.file}:{first.where.line}"
    out.print(Text(f"{where}, family {first.family}, level {first.level.value}", style="dim"))
    if len(found) > 1:
        axes: dict[str, dict[str, None]] = {}
        for variant in found:
            for axis, value in variant.values.items():
                axes.setdefault(axis, {})[value] = None
        told = "; ".join(f"{axis}: {', '.join(values)}" for axis, values in axes.items())
        out.print(Text(f"{len(found)} variants: {told}; below is {first.id}", style="dim"))
    _title(out, "Claims")
    for claim in first.claims:
        _print(out, f"{claim:<4}{CLAIMS[claim]}")
    _title(out, "Norm")
    for norm in first.norm:
        _print(out, _cited(norm))
    needs = requirements(first)
    if needs:
        _title(out, "Needs")
        _print(out, ", ".join(needs))


def _cited(norm: Norm) -> str:
    section = f", {norm.section}" if norm.section else ""
    quote = f'\n  "{norm.quote.strip()}"' if norm.quote else ""
    return f"{norm.source}{section}{quote}"


def _arm(out: Console, arm: Arm, *, many: bool) -> None:
    _title(out, f"Rig of the arm {arm.name}" if many else "Rig")
    for line in stack(arm):
        out.print(Padding(Text(line, no_wrap=True, overflow="ignore"), (0, 0, 0, 2), expand=False))
    for path in arm.cgroups:
        bound = path == arm.shortage.binds
        _print(out, f"cgroup {path}{f' ◄ {shortage_words(arm.shortage)}' if bound else ''}")
    for bystander in arm.bystanders:
        place = bystander.cgroup or "the root cgroup"
        _print(out, f"bystander {bystander.name} in {place}")
    _title(out, "Steps")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "step", "verb", "for", "what"):
        table.add_column(name, justify="left" if name else "right")
    for number, step in enumerate(arm.steps, 1):
        table.add_row(str(number), step.name, step.verb, step.role.value, step_words(step))
    out.print(Padding(table, (0, 0, 0, 2), expand=False))


def _clauses(out: Console, variant: Variant, texts: dict[str, str]) -> None:
    _title(out, "Clauses (* holds for every case)")
    table = Table(box=None, pad_edge=False, show_header=False)
    expect = variant.expect
    for clause in Clause:
        if clause in expect.clauses or clause in STARRED:
            own = "" if clause in expect.clauses else " *"
            level = CLAUSE_LEVEL.get(clause, variant.level).value
            told = texts.get(clause.value, "")
            if clause is Clause.ERRNO_PRECISE:
                told = f"the errno is {' or '.join(expect.errno)}, where the path can carry it"
            if clause in expect.documented_by:
                told += f" (the contrary is documented: {expect.documented_by[clause]})"
            table.add_row(f"{clause.value}{own}", level, Text(told))
    out.print(Padding(table, (0, 0, 0, 2), expand=False))


def _known(out: Console, rows: Sequence[Known]) -> None:
    _title(out, "Known deviations")
    for row in rows:
        _print(out, f"{row.where}: {row.clause.value} ({row.signature}) on {row.kernel}")
        _print(out, f"  {' '.join(row.reason.split())}\n  {row.link}, review by {row.review_by}")
    if not rows:
        _print(out, "none")


def _history(out: Console, found: Sequence[Variant], history: Sequence[Verdict]) -> None:
    _title(out, "On published kernels")
    ids = {tuple(variant.values.items()): variant for variant in found}
    mine = [verdict for verdict in history if tuple(verdict.values.items()) in ids]
    if not mine:
        _print(out, "nothing is published of it yet")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("variant", "kernel", "release", "status", "how it deviates, or why not run"):
        table.add_column(name)
    for verdict in sorted(mine, key=lambda v: (list(ids).index(tuple(v.values.items())), v.kernel)):
        sign, style = SIGN[verdict.status]
        cell = "-".join(verdict.values.values()) or "-"
        status = Text(f"{sign} {verdict.status.value}", style=style)
        table.add_row(cell, verdict.kernel, Text(verdict.release), status, Text(_how(verdict)))
    out.print(Padding(table, (0, 0, 0, 2), expand=False))


def _how(verdict: Verdict) -> str:
    return "; ".join(dict.fromkeys(_ways(verdict)))


def _ways(verdict: Verdict) -> Iterator[str]:
    for finding in verdict.deviations:
        yield f"{finding.clause.value} ({finding.signature})"
    yield from verdict.reasons
