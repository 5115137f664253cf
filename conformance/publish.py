"""Makes anew what is made of the published records: ``python -m conformance.publish [PART ...]``.

Without a part all of them, from every record in results/published/, judged by today's judge and cases:
``findings`` (the tables of docs/findings.md), ``scripts`` (docs/findings/scripts/), ``catalogue``
(docs/catalogue/), ``durations`` (results/durations.tsv), ``reproduced`` (docs/reproduce.md) and ``html``
(results/published/report.html.xz). ``tox -e publish`` makes the pictures of the page as well.
"""

from __future__ import annotations

import lzma
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from conformance.commands.catalogue import catalogue
from conformance.commands.common import say
from conformance.commands.lookup import nearest
from conformance.commands.records import together
from conformance.exits import REFUSED, Refused
from conformance.library import Library
from conformance.model import Verdict
from conformance.oracle import OTHER_STEP
from conformance.published import all_verdicts
from conformance.record import RecordError
from conformance.report.durations import document as durations
from conformance.report.findings import claims_table, families_table, refresh, results_table
from conformance.report.html import document as html
from conformance.report.result import Asked
from conformance.reproduce.page import page
from conformance.reproduce.trials import Outcome, Refusal, Trial, read, trials
from conformance.rundir import shown, write_atomically
from conformance.session import (
    PUBLISHED,
    ROOT,
    Ending,
    known_rows,
    open_library,
    rejudge,
)

FINDINGS = ROOT / "docs" / "findings.md"
REPRODUCED = ROOT / "results" / "reproduced.tsv"
SCRIPTED = ROOT / "docs" / "reproduce.md"
DURATIONS = ROOT / "results" / "durations.tsv"
HTML = PUBLISHED / "report.html.xz"


class Records:
    """The published records, judged again; once, and only if a part needs it."""

    def __init__(self, folder: Path = PUBLISHED) -> None:
        self.folder = folder

    @cached_property
    def library(self) -> Library:
        """The suite's own cases."""
        return open_library(())

    @cached_property
    def ending(self) -> Ending:
        """All of them as one run, of which a later file's word counts. Raises Refused."""
        rows = known_rows(None)
        endings = []
        for path in sorted(self.folder.glob("*.jsonl.xz")):
            say(f"judging {shown(path)}")
            endings.append((path, rejudge(path, self.library, rows)))
        return together(endings)

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What today's judge says, but of what a case no longer asks. Raises Refused."""
        if self.ending.incomplete:
            raise Refused("; ".join(self.ending.warnings))
        found = (result.verdict for result in self.ending.results)
        return tuple(v for v in found if not any(OTHER_STEP in reason for reason in v.reasons))

    def tables(self) -> dict[str, str]:
        """Every table of docs/findings.md, by the name in its marker. Raises Refused."""
        claimed = {variant.case: tuple(variant.claims) for variant in self.library.variants}
        family = {variant.case: variant.family for variant in self.library.variants}
        return {
            "results": results_table(self.verdicts),
            "families": families_table(self.verdicts, family),
            "claims": claims_table(self.verdicts, claimed),
        }


def outcomes() -> tuple[Outcome, ...]:
    """What scripts said so far. Raises Refused if the file is not what this program writes."""
    if not REPRODUCED.exists():
        return ()
    try:
        return read(REPRODUCED.read_text(encoding="utf-8"))
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise Refused(f"{shown(REPRODUCED)}: {first}") from error


def reproduced_trials() -> tuple[tuple[Trial, ...], tuple[Refusal, ...]]:
    """The scripts of the published deviations, and the deviations that have none.

    By the verdicts as they were published: to judge all records again takes minutes. Raises Refused.
    """
    try:
        history = all_verdicts(PUBLISHED)
    except RecordError as error:
        raise Refused(str(error)) from error
    return trials(open_library(()).variants, history, known_rows(None))


# -- the parts ------------------------------------------------------------------------------------


def _findings(records: Records) -> str:
    text = FINDINGS.read_text(encoding="utf-8")
    write_atomically(FINDINGS, refresh(text, records.tables()))
    return shown(FINDINGS)


def _catalogue(records: Records) -> str:
    del records
    catalogue.main(args=[], standalone_mode=False)
    return "docs/catalogue/"


def _durations(records: Records) -> str:
    write_atomically(DURATIONS, durations(records.ending.results, Asked()))
    return shown(DURATIONS)


def _reproduced(records: Records) -> str:
    del records
    found, refused = reproduced_trials()
    write_atomically(SCRIPTED, page(found, refused, outcomes()))
    return shown(SCRIPTED)


def _html(records: Records) -> str:
    ending = records.ending
    text = html(ending.results, Asked(many_kernels=True), started=ending.started)
    HTML.write_bytes(lzma.compress(text.encode(), preset=9))
    return shown(HTML)


PARTS: Mapping[str, Callable[[Records], str]] = {
    "findings": _findings,
    "catalogue": _catalogue,
    "durations": _durations,
    "reproduced": _reproduced,
    "html": _html,
}


def main(arguments: Sequence[str]) -> int:
    """Make the parts that are named, or all. The exit status is 0, or that of a refusal."""
    unknown = next((name for name in arguments if name not in PARTS), None)
    if unknown is not None:
        say(f"there is no part {unknown!r}{nearest(unknown, PARTS)}")
        return REFUSED
    records = Records()
    try:
        for name in arguments or PARTS:
            say(PARTS[name](records))
    except Refused as refused:
        say(str(refused))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
