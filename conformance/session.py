"""One run from selection to record: what the command line and the pytest plugin have in common."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from conformance.engine import DEFAULT_KERNEL
from conformance.exits import Refused
from conformance.known import Known, parse_known, settle, stale
from conformance.library import Library, LibraryErrors, SelectionError, load_library, select
from conformance.model import Variant, Verdict
from conformance.oracle import judge
from conformance.planner import as_asked, planned_arms
from conformance.record import (
    PART,
    Cases,
    Entry,
    Header,
    Interrupted,
    Key,
    Record,
    RecordError,
    RecordWriter,
    key_of,
    read_record,
)
from conformance.report.junit import document
from conformance.report.result import Asked, NotRun, Result, gathered, slug
from conformance.report.story import stories
from conformance.rundir import is_below, shown, write_atomically
from conformance.runner import Outcome
from conformance.task import Job, broken

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""
CASES = ROOT / "cases"
FIXTURES = ROOT / "fixtures"
KNOWN = ROOT / "results" / "known"
PUBLISHED = ROOT / "results" / "published"
"""Records of whole runs, compressed."""
DURATIONS = ROOT / "results" / "durations.tsv"
"""How long each variant takes."""


def _program() -> str:
    """What was called, as one types it: where it lies on this machine is no part of a record."""
    path = Path(sys.argv[0])
    name = path.parent.name if path.name == "__main__.py" else path.name
    return "conform" if name == "conformance" else name


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def open_library(cases: Sequence[Path]) -> Library:
    """The suite's cases, and those of ``cases``.

    Raises Refused with a line, ``file:line:column: message``, for everything that is wrong.
    """
    try:
        return load_library([CASES, *cases], FIXTURES)
    except LibraryErrors as error:
        raise Refused(str(error)) from error


def choose(library: Library, expression: str) -> tuple[Variant, ...]:
    """What ``-k`` selects, which may be nothing. Raises Refused if it is no expression."""
    try:
        return select(library.variants, expression)
    except SelectionError as error:
        raise Refused(f"-k {error}") from error


def known_rows(folder: Path | None) -> tuple[Known, ...]:
    """The known deviations of ``folder``, or the suite's own.

    Raises Refused, with the place, if one is malformed or a file is named so that it would be passed
    over, and OSError if a file cannot be read.
    """
    rows: list[Known] = []
    folder = folder or KNOWN
    passed_over = sorted(folder.glob("*.yml"))
    if passed_over:
        first = passed_over[0]
        raise Refused(f"{shown(first)}: rows are read from *.yaml alone; call it {first.stem}.yaml")
    for path in sorted(folder.glob("*.yaml")):
        try:
            rows += parse_known(path.read_text(encoding="utf-8"), shown(path))
        except ValueError as error:  # the parser's own, and text that is not UTF-8
            place = "" if str(error).startswith(shown(path)) else f"{shown(path)}: "
            raise Refused(f"{place}{error}") from error
    return tuple(rows)


def distinct(specs: Sequence[str]) -> tuple[str, ...]:
    """The kernels to run on, each once; the default if none is named.

    Raises Refused if two cannot be told apart by their names in results.
    """
    kernels = tuple(dict.fromkeys(specs)) or (DEFAULT_KERNEL,)
    named: dict[str, str] = {}
    for kernel in kernels:
        other = named.setdefault(slug(kernel), kernel)
        if other != kernel:
            raise Refused(f"--kernel {other} and {kernel}: results would be called {slug(kernel)}")
    return kernels


def repeat_options(cases: Sequence[Path], modules: Sequence[Path]) -> tuple[str, ...]:
    """The words that a command needs, besides ``-k`` and ``--kernel``, to run the same again."""
    pairs = [("--cases", path) for path in cases] + [("--module", path) for path in modules]
    return tuple(word for name, path in pairs for word in (name, str(path)))


def settled(outcome: Outcome, rows: Sequence[Known]) -> Outcome:
    """``outcome`` with the known deviations laid over its verdict."""
    return outcome.model_copy(update={"verdict": settle(outcome.verdict, rows)})


def result_of(
    variant: Variant,
    outcome: Outcome,
    attempt: int = 1,
    *,
    started: str = "",
    record: str = "",
    options: Sequence[str] = (),
) -> Result:
    """What reports are made of.

    ``started`` is when the run began, ``record`` the file that this was read from, if from one, and
    ``options`` what that run's command had of its own.
    """
    arms = outcome.observation.arms if outcome.observation else ()
    consoles = tuple(arm.console for arm in arms if is_below(arm.console))
    told = stories(variant, outcome.observation) if outcome.observation else ()
    return Result(
        variant=variant,
        verdict=outcome.verdict,
        started=started,
        record=record,
        options=tuple(options),
        consoles=consoles,
        story=told,
        attempt=attempt,
    )


@dataclass(frozen=True, kw_only=True)
class Ending:
    """All there is to say of a run."""

    results: tuple[Result, ...]
    not_run: tuple[NotRun, ...] = ()  # variants of which nothing was run
    missing: int = 0  # runs that were planned and not made
    stale: tuple[str, ...] = ()  # rows of known deviations: file:line and why
    warnings: tuple[str, ...] = ()
    started: str = ""  # ISO 8601, UTC
    idle: bool = False  # a part of a run to which nothing fell, and that is whole without results
    lacks: tuple[
        str, ...
    ] = ()  # of a record that is not whole, or that speaks of cases that are gone

    @property
    def incomplete(self) -> bool:
        """Whether something is missing that the record should have."""
        return bool(self.lacks)


def rejudge(
    path: Path, library: Library, rows: Sequence[Known], asked: Asked | None = None
) -> Ending:
    """Judge what a record holds by today's judge and known deviations.

    Of a variant whose case asks something else today, by what was asked then, which the record has.
    ``asked`` decides which of several attempts is shown. What was never observed keeps its verdict.
    A record that is cut short is taken as far as it is whole, with a warning. Raises Refused if it is
    no record.
    """
    try:
        record = read_record(path, salvage=True)
    except RecordError as error:
        raise Refused(str(error)) from error
    warnings = list(record.problems)
    variants = {(v.case, tuple(v.values.items())): v for v in library.variants}
    started = record.header.started.removesuffix("Z")
    host = record.header.host
    options = repeat_options((), [Path(name) for name in host.get("modules", ())])
    results = []
    missing = 0
    changed: set[str] = set()
    for entry in record.entries:
        old = entry.verdict
        variant = variants.get((old.case, tuple(old.values.items())))
        if variant is None:
            missing += 1
            warnings.append(f"{path}: {old.case} {dict(old.values)}: no case has this any more")
            continue
        verdict = old
        if entry.observation is not None:
            now, variant = variant, as_asked(variant, entry.plan)
            if planned_arms(variant) != planned_arms(now):
                changed.add(variant.id)
            new = judge(variant, entry.observation)
            verdict = new.model_copy(update={"seconds": old.seconds, "work": old.work})
        outcome = Outcome(
            plan=entry.plan, observation=entry.observation, verdict=settle(verdict, rows)
        )
        told = result_of(
            variant,
            outcome,
            entry.attempt,
            started=started,
            record=shown(path),
            options=options,
        )
        named = tuple(row for row in rows if row.where in outcome.verdict.known)
        results.append(told.model_copy(update={"rows": named}))
    if changed:
        first = f"{len(changed)}, the first {min(changed)}"
        warnings.append(f"{path}: variants judged by what was asked of them then: {first}")
    lacks = list(record.problems)
    if missing:
        lacks.append(f"{path}: {missing} verdicts on variants that no case has any more")
    # A record's order is that in which slots were done; a report's is that of the plan.
    kernels = [*host.get("kernels", ()), *(entry.verdict.kernel for entry in record.entries)]
    order = {variant.id: number for number, variant in enumerate(library.variants)}
    results.sort(key=lambda r: (kernels.index(r.verdict.kernel), order[r.variant.id], r.attempt))
    return Ending(
        results=gathered(results, Asked() if asked is None else asked),
        not_run=_unjudged(record, variants, results),
        stale=_stale([result.verdict for result in results], rows, asked),
        warnings=tuple(warnings),
        started=started,
        idle=PART in host and record.footer is not None and not record.footer.planned,
        lacks=tuple(lacks),
    )


def _unjudged(
    record: Record,
    variants: Mapping[tuple[str, tuple[tuple[str, str], ...]], Variant],
    results: Sequence[Result],
) -> tuple[NotRun, ...]:
    """What the record begins to tell of, and has no verdict of, not even of another attempt."""
    judged = {(result.variant.id, result.verdict.kernel) for result in results}
    found = {}
    for key in record.unjudged:
        variant = variants.get((key.case, tuple(key.values.items())))
        if variant is not None and (variant.id, key.kernel) not in judged:
            why = "planned, and without a verdict: the record is not whole"
            found[variant.id, key.kernel] = NotRun(variant, key.kernel, why)
    return tuple(found.values())


def key_of_job(job: Job) -> Key:
    """What a record's entry of a job is found by."""
    return Key(
        case=job.variant.case, values=job.variant.values, kernel=job.kernel, attempt=job.attempt
    )


class Recorder:
    """Writes record.jsonl and junit.xml as results come in. The only writer of a run's folder.

    After every ``add`` both can be read: the record has every line so far, and the JUnit file names
    what was planned and has not run. That file is written whole each time, which a long run cannot
    afford after each result: then it lags behind, so that a tenth of the time goes there at most.
    """

    def __init__(
        self,
        folder: Path,
        *,
        library: Library,
        jobs: Sequence[Job],
        rows: Sequence[Known],
        asked: Asked,
        kernels: Mapping[str, Mapping[str, object]],
        modules: Sequence[str],
        interrupted: Interrupted | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        """Begin the record: ``kernels`` as their engine describes them, modules put in their place.

        ``interrupted`` is gone on with: what it holds of the jobs counts as done. ``more`` is what else
        the header tells of how the run was made. Raises OSError if the record cannot be written, and
        Refused if somebody else writes it.
        """
        self._folder = folder
        self._jobs = tuple(jobs)
        self._rows = tuple(rows)
        self._asked = asked
        self._results: list[Result] = []
        self._left = dict.fromkeys((job.variant.id, job.kernel, job.attempt) for job in jobs)
        self._render_from = 0.0  # on the monotonic clock
        if interrupted is not None:
            self._started = interrupted.record.header.started.removesuffix("Z")
            try:
                self._writer = RecordWriter(interrupted.path, interrupted, planned=len(jobs))
            except RecordError as error:
                raise Refused(str(error)) from error
            self._take_up(interrupted.record.entries)
            self._render()
            return
        self._started = now().strftime("%Y-%m-%dT%H:%M:%S")
        header = Header(
            started=f"{self._started}Z",
            command=(_program(), *sys.argv[1:]),
            host={"kernels": dict(kernels), "modules": list(modules), **(more or {})},
            cases=Cases(sha256=library.sha256),
        )
        self._writer = RecordWriter(folder / "record.jsonl", header, planned=len(jobs))
        self._render()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, job: Job, outcome: Outcome) -> Result:
        """Keep what came of a job, settled. Raises OSError if it cannot be written."""
        try:
            self._write(job, outcome)
        except RecordError as error:  # more than a record's line takes
            outcome = broken(job, str(error))
            self._write(job, outcome)
        result = result_of(job.variant, outcome, job.attempt, started=self._started)
        self._results.append(result)
        self._left.pop((job.variant.id, job.kernel, job.attempt), None)
        if time.monotonic() >= self._render_from:
            self._render()
        return result

    def close(self) -> None:
        """End the record: with a footer if all that was planned was judged, else without."""
        try:
            self._render()
        finally:
            if self._left:
                self._writer.abandon()
            else:
                self._writer.finish()

    def _take_up(self, entries: Sequence[Entry]) -> None:
        variants = {key_of_job(job): job.variant for job in self._jobs}
        for entry in entries:
            variant = variants[key_of(entry.verdict, entry.attempt)]
            outcome = Outcome(plan=entry.plan, observation=entry.observation, verdict=entry.verdict)
            self._results.append(result_of(variant, outcome, entry.attempt, started=self._started))
            del self._left[variant.id, entry.verdict.kernel, entry.attempt]
        for beside in self._folder.glob(".junit.xml.*"):  # that a killed run was writing
            beside.unlink()

    def _write(self, job: Job, outcome: Outcome) -> None:
        self._writer.add(
            plan=outcome.plan,
            observation=outcome.observation,
            verdict=outcome.verdict,
            attempt=job.attempt,
        )

    def ending(self) -> Ending:
        """What the run came to."""
        verdicts = [result.verdict for result in self._results]
        return Ending(
            results=self._in_order(),
            not_run=self._not_run(),
            missing=len(self._left),
            started=self._started,
            idle=not self._jobs,
            stale=_stale(verdicts, self._rows, self._asked),
        )

    def _in_order(self) -> tuple[Result, ...]:
        """A result for each variant and kernel that was run, in the order of the plan."""
        planned = Counter((job.variant.id, job.kernel) for job in self._jobs)
        order = {key: number for number, key in enumerate(planned)}
        results = gathered(self._results, self._asked, planned=planned)
        return tuple(sorted(results, key=lambda r: order[r.variant.id, r.verdict.kernel]))

    def _not_run(self) -> tuple[NotRun, ...]:
        """What no attempt has been made at."""
        run = {(result.variant.id, result.verdict.kernel) for result in self._results}
        planned = {(job.variant.id, job.kernel): job for job in self._jobs}
        return tuple(NotRun(j.variant, j.kernel) for key, j in planned.items() if key not in run)

    def _render(self) -> None:
        begun = time.monotonic()
        asked = self._asked.model_copy(update={"not_run": self._not_run()})
        text = document(self._in_order(), asked, started=self._started)
        write_atomically(self._folder / "junit.xml", text)
        ended = time.monotonic()
        self._render_from = ended + 9 * (ended - begun)


def _stale(
    verdicts: Sequence[Verdict], rows: Sequence[Known], asked: Asked | None
) -> tuple[str, ...]:
    """Rows that are contradicted; under --strict none, which goes by no row."""
    if asked is not None and asked.strict:
        return ()
    return tuple(str(row) for row in stale(verdicts, rows))
