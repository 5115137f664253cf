"""``known``: rows of known deviations from a file of openQA's known issues."""

from __future__ import annotations

from pathlib import Path

import click
import yaml

from conformance.commands.common import CASES, examples, options, say
from conformance.commands.records import RECORD, record_at
from conformance.exits import BROKEN, NOTHING, Refused
from conformance.openqa import OpenqaError, parse, rows
from conformance.session import now, open_library, rejudge


@click.command(
    epilog=examples(
        "conform known known_issues.yaml results/latest > mine/openqa.yaml",
        "conform known known_issues.json results/latest --given product=sle-15 --given arch=x86_64",
        "conform run --known mine",
    )
)
@click.argument(
    "issues", metavar="OPENQA.yaml", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.argument("record", type=RECORD)
@click.option(
    "--given",
    multiple=True,
    metavar="KEY=VALUE",
    help="What an entry's other keys are held against.",
)
@options(CASES)
def known(*, issues: Path, record: Path, given: tuple[str, ...], cases: tuple[Path, ...]) -> int:
    """Print rows of known deviations for what RECORD has seen fail and openQA's file tells of.

    An entry says which test fails where; a row says in which way, too, so it is made of what was seen.
    `kernel` is held against the kernel's release; an entry with a key that is not given is left out.
    A record that is not whole is taken as far as it goes, and adds 2 to the exit status.
    """
    pairs = dict(word.partition("=")[::2] for word in given)
    try:
        entries = parse(issues.read_text(encoding="utf-8"), str(issues))
    except (OpenqaError, UnicodeDecodeError) as error:
        raise Refused(str(error)) from error
    ending = rejudge(record_at(record), open_library(cases), ())
    for warning in ending.warnings:
        say(warning)
    code = BROKEN if ending.incomplete else 0
    verdicts = [one.verdict for result in ending.results for one in result.each]
    made = rows(entries, verdicts, pairs, now().date())
    say(f"{len(entries)} entries, {len(made)} rows")
    if not made:
        return code | NOTHING
    click.echo(yaml.safe_dump(made, sort_keys=False), nl=False)
    return code
