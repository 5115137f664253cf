"""Commands on records of runs: ``judge``, ``report``, ``merge``, ``compare``. None starts a machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click

from conformance.commands.common import CASES, JUDGING, KNOWN, console, examples, options, say
from conformance.commands.conclude import conclude
from conformance.compare import ORDER, Change, Incomparable, Pair, compare, told
from conformance.exits import BROKEN, DEVIATES, Refused
from conformance.model import as_json
from conformance.record import Record, RecordError, merge_records, read_record
from conformance.report.formats import FORMATS
from conformance.report.html import comparison
from conformance.report.junit import document
from conformance.report.result import Asked, Result
from conformance.rundir import shown, write_atomically
from conformance.session import Ending, known_rows, open_library, rejudge, repeat_options
from conformance.shards import missing

RECORD = click.Path(exists=True, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


def record_at(path: Path) -> Path:
    """A run's record, by its own path or by its folder's. Raises Refused if there is none there."""
    if not path.is_dir():
        return path
    for name in ("record.jsonl", "record.jsonl.xz"):
        if (path / name).exists():
            return path / name
    raise Refused(f"{path}: no record.jsonl in this folder")


def _asked(ending: Ending, path: Path, cases: tuple[Path, ...], **more: bool) -> Asked:
    kernels = {result.verdict.kernel for result in ending.results}
    kernels.update(missing.kernel for missing in ending.not_run)
    return Asked(
        folder=shown(path.parent),
        many_kernels=len(kernels) > 1,
        options=repeat_options(cases, ()),
        not_run=ending.not_run,
        lacks=ending.lacks,
        **more,
    )


@click.command(
    epilog=examples(
        "conform judge results/latest", "conform judge results/latest --junit junit.xml --strict"
    )
)
@click.argument("record", type=RECORD)
@click.option("--junit", metavar="FILE", type=FILE, help="Write the run as JUnit XML too.")
@JUDGING
def judge(
    *,
    record: Path,
    junit: Path | None,
    strict: bool,
    should: bool,
    cases: tuple[Path, ...],
    known: Path | None,
) -> int:
    """Judge an old run again, by today's cases and judge, without a machine.

    RECORD is a run's folder or its record.jsonl, which may be compressed (.xz).
    """
    path = record_at(record)
    counts = Asked(strict=strict, should=should)
    ending = _there(rejudge(path, open_library(cases), known_rows(known), counts), path)
    asked = _asked(ending, path, cases, strict=strict, should=should)
    if junit is not None:
        write_atomically(junit, document(ending.results, asked, started=ending.started))
    for warning in ending.warnings:
        say(warning)
    return conclude(ending, asked, console(sys.stdout), record=shown(path), complete=True)


def together(endings: Sequence[tuple[Path, Ending]]) -> Ending:
    """Several runs as one. Of two results of a variant on a kernel the later run's is taken."""
    endings = [(path, _there(ending, path)) for path, ending in endings]
    if len(endings) == 1:
        return endings[0][1]
    results = {}
    for path, ending in endings:
        folder = shown(path.parent)
        for result in ending.results:
            # Each run has a folder of its own; the paths say which.
            names = {name: f"{folder}/{name}" for name in _consoles(result)}
            results[result.variant.id, result.verdict.kernel] = _named(result, names)
    last = endings[-1][1]
    # Another record may have a verdict of what one has none of.
    not_run = {
        (missing.variant.id, missing.kernel): missing
        for _, ending in endings
        for missing in ending.not_run
    }
    return replace(
        last,
        started=min((ending.started for _, ending in endings if ending.started), default=""),
        results=tuple(results.values()),
        warnings=tuple(warning for _, ending in endings for warning in ending.warnings),
        lacks=tuple(line for _, ending in endings for line in ending.lacks),
        not_run=tuple(missing for key, missing in not_run.items() if key not in results),
    )


def _there(ending: Ending, path: Path) -> Ending:
    """An ending that names no console but those beside its record: that may have come here alone."""
    named = {name for result in ending.results for name in _consoles(result)}
    names = {name: name if (path.parent / name).is_file() else "" for name in named}
    return replace(ending, results=tuple(_named(result, names) for result in ending.results))


def _consoles(result: Result) -> set[str]:
    return {name for attempt in (result, *result.attempts) for name in attempt.consoles}


def _named(result: Result, names: Mapping[str, str]) -> Result:
    """``result`` with its consoles, wherever they are named, called otherwise, or not at all."""

    def renamed(paths: Iterable[str]) -> tuple[str, ...]:
        return tuple(path for path in (names.get(path, path) for path in paths) if path)

    findings = tuple(
        finding.model_copy(update={"evidence": renamed(finding.evidence)})
        for finding in result.verdict.findings
    )
    return result.model_copy(
        update={
            "verdict": result.verdict.model_copy(update={"findings": findings}),
            "consoles": renamed(result.consoles),
            "attempts": tuple(_named(attempt, names) for attempt in result.attempts),
        }
    )


@click.command(
    epilog=examples(
        "conform report results/latest --format html --to report.html",
        "conform report results/published/*.xz --format html --to all.html",
        "conform report results/latest --format kcidb --to kcidb.json",
    )
)
@click.argument("records", metavar="RECORD...", type=RECORD, nargs=-1, required=True)
@click.option(
    "--format", "form", type=click.Choice(sorted(FORMATS)), required=True, help="What to make."
)
@click.option("--to", metavar="FILE", type=FILE, help="Write here instead of standard output.")
@click.option("--salvage", is_flag=True, help="Take what is whole of a record that is not.")
@JUDGING
def report(
    *,
    records: tuple[Path, ...],
    form: str,
    to: Path | None,
    salvage: bool,
    strict: bool,
    should: bool,
    cases: tuple[Path, ...],
    known: Path | None,
) -> int:
    """Make a report of one or several runs, judged by today's cases and judge.

    Of two results of a variant on one kernel, the one of the later RECORD is taken.
    """
    library, rows = open_library(cases), known_rows(known)
    counts = Asked(strict=strict, should=should)
    endings = [(path, rejudge(path, library, rows, counts)) for path in map(record_at, records)]
    ending = together(endings)
    if ending.incomplete and not salvage:
        raise Refused(f"{ending.lacks[0]} (--salvage takes what is whole)")
    for warning in ending.warnings:
        say(warning)
    asked = _asked(ending, endings[0][0], cases, strict=strict, should=should)
    if len(endings) > 1:
        asked = asked.model_copy(update={"folder": ""})
    _put(FORMATS[form](ending.results, asked, started=ending.started), to)
    return BROKEN if ending.incomplete else 0


def _put(text: str, to: Path | None) -> None:
    if to is None:
        click.echo(text, nl=False)
    else:
        write_atomically(to, text)


@click.command(
    epilog=examples(
        "conform merge run1 run2 --to all.jsonl.xz",
        "conform merge shard-*/record.jsonl --to all.jsonl --mark-missing",
        "conform merge killed whole --to both.jsonl --salvage",
    )
)
@click.argument("records", type=RECORD, nargs=-1, required=True)
@click.option("--to", metavar="FILE", type=FILE, required=True, help="Must not exist yet.")
@click.option(
    "--mark-missing",
    is_flag=True,
    help="BROKEN is what a missing shard would have had, or the rest of one.",
)
@click.option("--salvage", is_flag=True, help="Take what is whole of a record that is not.")
def merge(*, records: tuple[Path, ...], to: Path, mark_missing: bool, salvage: bool) -> int:
    """Make one record of several that were made with the same cases.

    A variant that two of them have on one kernel is refused, and so are modules that differ, a shard
    that is missing or there twice, and, without --salvage, a record that is not whole: what is made of
    that is not whole either, and says so. A name that ends in .xz is compressed.
    """
    try:
        read = [(path, _read(path, salvage, mark_missing)) for path in map(record_at, records)]
        more = missing(read, mark=mark_missing)
        whole = merge_records(read, to, more=more.entries)
    except RecordError as error:
        raise Refused(str(error)) from error
    say(f"{to}: {whole} variants of {len(records)} records")
    problems = [problem for _, record in read for problem in record.problems]
    for problem in problems:
        say(problem)
    if more.entries:
        say(f"{len(more.entries)} of them BROKEN: {more.entries[0].verdict.reasons[0]}")
    elif more.wrong:
        say(f"{'; '.join(more.wrong)}: of what was planned nothing is missing")
    return BROKEN if more.entries or more.wrong or problems else 0


def _read(path: Path, salvage: bool, mark_missing: bool) -> Record:
    try:
        return read_record(path, salvage=salvage or mark_missing)
    except RecordError as error:
        hint = "" if salvage else " (--salvage takes what is whole)"
        raise RecordError(f"{error}{hint}") from error


@click.command(
    name="compare",
    epilog=examples(
        "conform compare results/runs/A results/runs/B",
        "conform compare old.jsonl.xz new.jsonl.xz --format json",
        "conform compare old.jsonl.xz new.jsonl.xz --format html --to changes.html",
    ),
)
@click.argument("before", type=RECORD)
@click.argument("after", type=RECORD)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "html"]),
    default="text",
    help="JSON is for other programs, HTML is one file that needs nothing else.",
)
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
@click.option("--salvage", is_flag=True, help="Take what is whole of a record that is not.")
@click.option("--to", metavar="FILE", type=FILE, help="Write here instead of standard output.")
@click.option(
    "--all", "every", is_flag=True, help="Tell of what is the same, too; JSON always does."
)
@options(CASES, KNOWN)
def compare_runs(
    *,
    before: Path,
    after: Path,
    form: str,
    salvage: bool,
    to: Path | None,
    every: bool,
    cases: tuple[Path, ...],
    known: Path | None,
) -> int:
    """Say what changed from run BEFORE to run AFTER, both judged by today's judge.

    The exit status is 1 if something regressed or deviates in another way, plus 2 if something is
    BROKEN that was not, or if a record is not whole. What known rows say to depend on chance, on
    both kernels, is told apart, and is no regression.
    """
    library, rows = open_library(cases), known_rows(known)
    runs = [rejudge(record_at(path), library, rows) for path in (before, after)]
    for run in runs:
        if run.incomplete and not salvage:
            raise Refused(f"{run.lacks[0]} (--salvage takes what is whole)")
        for warning in run.warnings:
            say(warning)
    try:
        old, new = ([one.verdict for result in run.results for one in result.each] for run in runs)
        pairs = compare(old, new, rows)
    except Incomparable as error:
        raise Refused(str(error)) from error
    shown_pairs = [pair for pair in pairs if every or pair.change is not Change.SAME]
    match form:
        case "json":
            text = json.dumps([as_json(pair) for pair in pairs], indent=1) + "\n"
        case "html":
            text = comparison(shown_pairs, shown(before), shown(after))
        case _:
            text = "".join(f"{line}\n" for pair in shown_pairs for line in told(pair))
            text += f"{_tally(pairs)}\n"
    _put(text, to)
    changes = {pair.change for pair in pairs}
    code = DEVIATES if changes & {Change.REGRESSED, Change.CHANGED} else 0
    broke = Change.BROKE in changes or any(run.incomplete for run in runs)
    return code | (BROKEN if broke else 0)


def _tally(pairs: Sequence[Pair]) -> str:
    counted = {change: sum(pair.change is change for pair in pairs) for change in ORDER}
    return ", ".join(f"{n} {change.value}" for change, n in counted.items() if n)
