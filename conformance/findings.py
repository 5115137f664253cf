"""Makes the tables of docs/findings.md anew: ``python -m conformance.findings RECORD ...``.

Each RECORD is a run's record.jsonl, or its folder. What it holds is judged again by today's judge and
cases, so that the page never tells of a judgement that the suite would not give now.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from conformance.exits import REFUSED, Refused
from conformance.library import Library
from conformance.model import Verdict
from conformance.oracle import OTHER_STEP
from conformance.report.findings import claims_table, families_table, refresh, results_table
from conformance.session import known_rows, open_library, rejudge

PAGE = Path(__file__).resolve().parent.parent / "docs" / "findings.md"


def verdicts_of(records: Sequence[Path], library: Library) -> tuple[Verdict, ...]:
    """What today's judge says of the records. A later record overrides an earlier one.

    Raises Refused if one is no record, or is not whole.
    """
    rows = known_rows(None)
    found: dict[tuple[str, tuple[str, ...], str], Verdict] = {}
    for path in records:
        ending = rejudge(path / "record.jsonl" if path.is_dir() else path, library, rows)
        if ending.incomplete:
            raise Refused(f"{path}: {'; '.join(ending.warnings)}")
        for result in ending.results:
            verdict = result.verdict
            if any(OTHER_STEP in reason for reason in verdict.reasons):
                continue  # what the case asks today was not asked then
            found[verdict.case, tuple(verdict.values.values()), verdict.kernel] = verdict
    return tuple(found.values())


def tables(verdicts: Sequence[Verdict], library: Library) -> dict[str, str]:
    """Every table of the page, by the name in its marker."""
    claimed = {variant.case: tuple(variant.claims) for variant in library.variants}
    family = {variant.case: variant.family for variant in library.variants}
    return {
        "results": results_table(verdicts),
        "families": families_table(verdicts, family),
        "claims": claims_table(verdicts, claimed),
    }


def main(arguments: Sequence[str]) -> int:
    """Write the page. The exit status is 0, or that of a refusal."""
    if not arguments:
        click.echo("conform: say which records: results/latest", err=True)
        return REFUSED
    library = open_library(())
    try:
        verdicts = verdicts_of([Path(name) for name in arguments], library)
    except Refused as refused:
        click.echo(f"conform: {refused}", err=True)
        return REFUSED
    PAGE.write_text(refresh(PAGE.read_text(encoding="utf-8"), tables(verdicts, library)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
