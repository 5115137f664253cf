"""Commands on the library of cases: ``list``, ``lint``. None of them starts a machine."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
from rich.table import Table

from conformance.commands.common import (
    CASES,
    EXPRESSION,
    KNOWN,
    console,
    examples,
    options,
    say,
    tell,
)
from conformance.commands.kernels import show_skipped
from conformance.commands.lookup import nearest
from conformance.exits import DEVIATES, NOTHING
from conformance.library import Library
from conformance.lint import lint as remarks_on
from conformance.model import Variant
from conformance.planner import requirements
from conformance.session import choose, known_rows, open_library


@click.command(
    name="list",
    epilog=examples(
        "conform list -k 'loop_enospc and not fio'",
        "conform list --claim S14",
        "conform list --families",
        "conform list --why debian/bookworm",
    ),
)
@options(EXPRESSION, CASES)
@click.option("--family", metavar="NAME", help="Only the cases of a family.")
@click.option("--claim", metavar="S1", help="Only the cases that cover a claim of the norm.")
@click.option(
    "--requirement", metavar="NEED", help="Only what needs this: module:zram, or a part of it."
)
@click.option(
    "--why", metavar="KERNEL", help="Ask a guest of KERNEL: only what would be skipped, and why."
)
@click.option("--families", is_flag=True, help="Count cases and variants of each family instead.")
def list_cases(
    *,
    expression: str,
    cases: tuple[Path, ...],
    family: str | None,
    claim: str | None,
    requirement: str | None,
    why: str | None,
    families: bool,
) -> int:
    """Show the variants, one a line."""
    library = open_library(cases)
    found = choose(library, expression)
    chosen = [
        variant
        for variant in found
        if family in (None, variant.family)
        and (claim is None or claim.upper() in variant.claims)
        and (requirement is None or any(requirement in need for need in requirements(variant)))
    ]
    if not chosen:
        say(_none(library, expression, family=family, claim=claim, requirement=requirement))
        return NOTHING
    if why is not None:
        show_skipped(chosen, why)
    elif families:
        console(sys.stdout).print(_families(chosen))
    else:
        for line in lines_of(chosen):
            tell(line)
    return 0


def _none(
    library: Library,
    expression: str,
    *,
    family: str | None,
    claim: str | None,
    requirement: str | None,
) -> str:
    """What was asked for that no variant is, each option with the names that are like its own."""
    families = sorted({variant.family for variant in library.variants})
    claims = {claim for variant in library.variants for claim in variant.claims}
    needs = sorted({need for variant in library.variants for need in requirements(variant)})
    asked = [
        f"{option} {word!r}{nearest(word, names) if word not in names else ''}"
        for option, word, names in (
            ("-k", expression, library.cases),
            ("--family", family, families),
            ("--claim", claim and claim.upper(), sorted(claims, key=lambda name: int(name[1:]))),
            ("--requirement", requirement, needs),
        )
        if word
    ]
    return f"no variant is of that kind: {', '.join(asked)}" if asked else "there are no cases"


def lines_of(variants: Iterable[Variant]) -> Iterable[str]:
    """A line for each variant: its id, its place, its title."""
    for variant in variants:
        yield f"{variant.id}  {variant.where.file}:{variant.where.line}  {variant.title}"


def _families(variants: Sequence[Variant]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("family", "left"), ("cases", "right"), ("variants", "right")):
        table.add_column(name, justify="right" if justify == "right" else "left")
    by_family: dict[str, list[Variant]] = {}
    for variant in variants:
        by_family.setdefault(variant.family, []).append(variant)
    for name, group in sorted(by_family.items()):
        table.add_row(name, str(len({variant.case for variant in group})), str(len(group)))
    cases = len({variant.case for variant in variants})
    table.add_row("in all", str(cases), str(len(variants)), style="bold")
    return table


@click.command(epilog=examples("conform lint", "conform lint --cases ../mine"))
@options(CASES, KNOWN)
def lint(*, cases: tuple[Path, ...], known: Path | None) -> int:
    """Check cases, fixtures and known deviations by the rules that the loader does not enforce."""
    library = open_library(cases)
    rows = known_rows(known)
    remarks = remarks_on(library, rows)
    for remark in remarks:
        tell(str(remark))
    told = f"{len(library.cases)} cases, {len(library.variants)} variants, {len(rows)} known rows"
    say(f"{told}: {len(remarks)} remarks" if remarks else f"{told}: nothing to say")
    return DEVIATES if remarks else 0
