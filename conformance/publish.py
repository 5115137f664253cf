"""Makes anew what is made of the published records: ``python -m conformance.publish [PART ...]``.

Without a part all of them, from every record in results/published/, judged by today's judge and cases:
``findings`` (the tables of docs/findings.md, what is generated of each deviation in docs/findings/, and a
script of each in docs/findings/scripts/), ``catalogue`` (docs/catalogue/), ``durations``
(results/durations.tsv), ``reproduced`` (docs/reproduce.md) and ``html`` (results/published/report.html).
``tox -e publish`` makes the pictures of the page as well.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from conformance.commands.catalogue import catalogue
from conformance.commands.common import say
from conformance.commands.lookup import nearest
from conformance.commands.records import together
from conformance.commands.reproduce import told
from conformance.deviations import Deviation, Seen, deviations, fill, section, table
from conformance.exits import REFUSED, Refused
from conformance.library import Library
from conformance.model import Status, Variant, Verdict
from conformance.planner import planned_arms
from conformance.published import all_verdicts
from conformance.record import RecordError
from conformance.report.durations import document as durations
from conformance.report.findings import claims_table, families_table, refresh, results_table
from conformance.report.html import document as html
from conformance.report.result import Asked, Result
from conformance.reproduce import script
from conformance.reproduce.page import page
from conformance.reproduce.trials import (
    AGREES,
    CHANCE,
    Outcome,
    Refusal,
    Trial,
    agreed,
    read,
    sees,
    trials,
)
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
PAGES = ROOT / "docs" / "findings"
SCRIPTS = PAGES / "scripts"
REPRODUCED = ROOT / "results" / "reproduced.tsv"
SCRIPTED = ROOT / "docs" / "reproduce.md"
DURATIONS = ROOT / "results" / "durations.tsv"
HTML = PUBLISHED / "report.html"


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
        asked = {variant.id: planned_arms(variant) for variant in self.library.variants}
        return tuple(
            result.verdict
            for result in self.ending.results
            if planned_arms(result.variant) == asked[result.variant.id]
        )

    def tables(self) -> dict[str, str]:
        """Tables of docs/findings.md, by the name in their markers. Raises Refused."""
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


class Chosen:
    """For each deviation the script that shows it best: on most kernels, not by chance, whole and short."""

    def __init__(self, records: Records, seen: Seen) -> None:
        self._seen = seen
        self._history: dict[str, list[Verdict]] = {}
        for verdict in records.verdicts:
            self._history.setdefault(verdict.case, []).append(verdict)
        self._trials, self._refused = trials(
            records.library.variants, self._history, known_rows(None)
        )
        self._outcomes = outcomes()
        self.files: dict[str, str] = {}
        """The file of each deviation that has one, by the deviation's title."""
        self.texts: dict[str, str] = {}
        """Each file's text."""

    def told(self, one: Deviation) -> str:
        """What is said of its script, which is kept."""
        mine: dict[str, list[Trial]] = {}
        for trial in self._trials:
            if self._shows(one, trial):
                mine.setdefault(trial.name, []).append(trial)
        if not mine:
            return f"None: {self._why(one)}."
        best = min(
            mine, key=lambda name: (*worth(mine[name], self._clauses(one, mine[name])), name)
        )
        trial = mine[best][0]
        name = re.sub(r"[^\w.-]+", "-", best).strip("-") + ".sh"
        verdicts = self._verdicts(trial.variant)
        self.files[one.title] = name
        self.texts[name] = script(trial.variant, arm=trial.arm, seen=tuple(told(verdicts)))
        command = f"./conform reproduce '{trial.variant.id}'" + (
            f" --arm {trial.arm}" if trial.arm else ""
        )
        kept = [agreed(trial, self._outcomes) for trial in mine[best]]
        ran = alone([one for one in kept if one is not None])
        more = f" ({len(mine) - 1} more variants have one)" if len(mine) > 1 else ""
        return f"`{command}`, [here as a file](scripts/{name}){ran}{more}"

    def _verdicts(self, variant: Variant) -> list[Verdict]:
        return [v for v in self._history.get(variant.case, ()) if v.values == variant.values]

    def _clauses(self, one: Deviation, mine: Sequence[Trial]) -> frozenset[str]:
        """The clauses that the variant's findings of a deviation are about, on those kernels."""
        kernels = {trial.kernel for trial in mine}
        found = [v for v in self._verdicts(mine[0].variant) if v.kernel in kernels]
        return frozenset(f.clause.value for v in found for f in self._seen.of(one, v))

    def _shows(self, one: Deviation, trial: Trial) -> bool:
        if trial.status is not Status.FAIL:
            return False
        verdict = next(v for v in self._verdicts(trial.variant) if v.kernel == trial.kernel)
        found = self._seen.of(one, verdict)
        return any(sees(f.clause) and (not trial.arm or f.arm == trial.arm) for f in found)

    def _why(self, one: Deviation) -> str:
        shown = self._seen.showing(one)
        for refused in self._refused:
            if refused.variant.id in shown:
                return f"{refused.part}: {refused.why}"
        if not shown:
            return "no published record has it"
        return "a plain script does not see to whom an error belongs, or what is left behind"


def alone(kept: Sequence[Outcome]) -> str:
    """Where a script, run alone, met what the suite had met, and where it did not; nothing of no outcome.

    By the release that it ran on, which is not always that of the newest record.
    """
    told = ""
    for word, text in (
        (AGREES, "it agreed on"),
        (CHANCE, "it did not meet this in three tries on"),
    ):
        if ran := [one.release for one in kept if one.script == word]:
            told += f"{', and ' if told else '; run alone '}{text} {', '.join(ran)}"
    return told


def worth(mine: Sequence[Trial], own: frozenset[str]) -> tuple[int, int, bool, int, int, int]:
    """The less, the better a script shows a deviation whose clauses are ``own``: on most kernels, not by
    chance, whole, with little else, as much as possible of it, and short.
    """
    first = mine[0]
    chance = sum(trial.chance for trial in mine)
    said = set(first.clauses)
    return (
        *(-len(mine), chance, bool(first.arm)),
        *(len(said - own), -len(said & own), len(first.text)),
    )


def _findings(records: Records) -> str:
    seen = Seen(records.verdicts, known_rows(None))
    families = {variant.case: variant.family for variant in records.library.variants}
    chosen = Chosen(records, seen)
    found: list[Deviation] = []
    for path in sorted(PAGES.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        mine = deviations(path.name, text)
        made = {one.title: section(one, seen, families, chosen.told(one)) for one in mine}
        write_atomically(path, fill(text, made))
        found += mine
    SCRIPTS.mkdir(exist_ok=True)
    for old in SCRIPTS.glob("*.sh"):
        if old.name not in chosen.texts:
            old.unlink()
    for name, text in chosen.texts.items():
        write_atomically(SCRIPTS / name, text)
        (SCRIPTS / name).chmod(0o755)
    tables = {**records.tables(), "deviations": table(found, seen, chosen.files)}
    write_atomically(FINDINGS, refresh(FINDINGS.read_text(encoding="utf-8"), tables))
    return f"{shown(FINDINGS)}, {len(found)} deviations, {len(chosen.texts)} scripts"


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
    results = tuple(_compact(result) for result in ending.results)
    text = html(results, Asked(many_kernels=True), started=ending.started)
    write_atomically(HTML, text)
    return f"{shown(HTML)}, {len(text.encode()) >> 10} KiB"


def _compact(result: Result) -> Result:
    """Of what ended well nobody asks for the course and the log here; the records have them."""
    if result.verdict.status in (Status.FAIL, Status.BROKEN):
        return result
    attempts = tuple(attempt.model_copy(update={"story": ()}) for attempt in result.attempts)
    return result.model_copy(update={"story": (), "attempts": attempts})


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
