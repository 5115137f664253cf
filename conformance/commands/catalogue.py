"""``catalogue``: the pages of docs/catalogue/, made from cases, known deviations and published records."""

from __future__ import annotations

from pathlib import Path

import click

from conformance.catalogue import MADE, pages
from conformance.commands.common import CASES, KNOWN, examples, options, say
from conformance.commands.explain import NORM, clause_texts
from conformance.exits import Refused
from conformance.published import all_verdicts
from conformance.record import RecordError
from conformance.rundir import shown, write_atomically
from conformance.session import PUBLISHED, ROOT, known_rows, open_library

HOME = ROOT / "docs" / "catalogue"


@click.command(epilog=examples("conform catalogue", "conform catalogue --cases ../mine --to pages"))
@click.option(
    "--to",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write to DIR in place of docs/catalogue/.",
)
@options(CASES, KNOWN)
def catalogue(*, to: Path | None, cases: tuple[Path, ...], known: Path | None) -> int:
    """Write a page for each family of cases: norm, rig, steps, clauses, history on published kernels.

    A page of a family that is gone is removed. Nothing else in DIR is touched.
    """
    folder = to or HOME
    texts = clause_texts(NORM.read_text(encoding="utf-8"))
    try:
        history = all_verdicts(PUBLISHED)
    except RecordError as error:
        raise Refused(str(error)) from error
    made = pages(open_library(cases).variants, known_rows(known), history, texts)
    folder.mkdir(parents=True, exist_ok=True)
    there = [page for page in sorted(folder.glob("*.md")) if page.is_file()]
    ours = [page for page in there if page.read_bytes().startswith(MADE.encode())]
    for page in there:
        if page.name in made and page not in ours:
            raise Refused(f"{shown(page)}: not made by this command, and would be overwritten")
    for old in ours:
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        write_atomically(folder / name, text)
    say(f"{shown(folder)}: {len(made)} pages")
    return 0
