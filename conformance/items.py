"""Cases as pytest items, and what a session of them keeps; ``plugin`` brings it in when needed.

The guest runs in an item's set-up and the verdict is looked at in its call: BROKEN is pytest's
*error*, FAIL its *failure*. With xdist each worker opens its own bench; outcomes travel in reports
to the main process, which alone writes the record. docs/decisions/0012-pytest-items.md has more.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from conformance import pytest_junit
from conformance.engine import Setup, load_engine
from conformance.exits import REFUSED, Refused
from conformance.report.console import totals
from conformance.report.result import Asked, Outlook, Result, label
from conformance.report.short import brief, short
from conformance.report.text import one_line
from conformance.rundir import check_own, new_run, own_run, point_latest, shown
from conformance.runner import Outcome
from conformance.session import (
    ROOT,
    Recorder,
    distinct,
    known_rows,
    now,
    open_library,
    repeat_options,
    result_of,
    settled,
)
from conformance.task import Job, Slot, answer, answered, asked, told

_FOLDER = "conformance_folder"
_SETUP = "conformance_setup"
"""The run's folder, as the main process tells its xdist workers."""
_NAME = "conformance-cases"


class CaseFile(pytest.File):
    """A case's file; its items are the variants, on each kernel."""

    def collect(self) -> Iterator[CaseItem]:
        """The items. What is wrong in a case has ended the session before."""
        for job in _session(self.config).jobs_of(self.path):
            name = _session(self.config).name(job)
            yield CaseItem.from_parent(self, name=name, nodeid=name, job=job)


class CaseItem(pytest.Item):
    """A variant on a kernel."""

    def __init__(self, *, job: Job, **rest: Any) -> None:
        super().__init__(**rest)
        self.job = job
        self.outcome: Outcome | None = None
        self.result: Result | None = None

    def setup(self) -> None:
        """Run the guest, and judge."""
        cases = _session(self.config)
        self.outcome = cases.run(self.job)
        self.result = result_of(self.job.variant, self.outcome)
        match self.result.outlook(cases.asked):
            case Outlook.BROKEN:
                raise _ToldError(self.name)
            case Outlook.SKIPPED:
                pytest.skip(one_line("; ".join(self.result.verdict.reasons)))

    def runtest(self) -> None:
        """Look at the verdict."""
        assert self.result is not None
        verdict = self.result.verdict
        match self.result.outlook(_session(self.config).asked):
            case Outlook.KNOWN:
                told = "; ".join([*map(brief, verdict.deviations[:1]), *verdict.known])
                pytest.xfail(f"known deviation: {one_line(told)}")
            case Outlook.BAD | Outlook.FIXED:
                raise _ToldError(self.name)

    def reportinfo(self) -> tuple[Path, int, str]:
        """The case's file and line (from 0), and the variant."""
        return self.path, self.job.variant.where.line - 1, self.name


class _ToldError(Exception):
    """The result is to be shown as a failure or an error; the item has it."""


class _Short:
    """A short report in place of a traceback; ``reprcrash`` is what pytest's summary line shows."""

    def __init__(self, text: str, message: str) -> None:
        self._text = text
        self.message = message
        self.reprcrash = self

    def __str__(self) -> str:
        return self._text

    def toterminal(self, terminal: Any) -> None:
        """Called by pytest."""
        for line in self._text.splitlines():
            terminal.line(line)


class CaseSession:
    """What the plugin keeps for a session, and its hooks."""

    def __init__(self, config: pytest.Config, folders: Sequence[Path]) -> None:
        """``folders`` hold cases. Raises Refused if a case or a known deviation is malformed."""
        option = config.option
        self._config = config
        self._folders = folders
        self._input: dict[str, Any] | None = getattr(config, "workerinput", None)
        self._cases = tuple(Path(name) for name in option.cases)
        self._out = Path(option.out) if option.out else None
        modules = tuple(str(Path(name).absolute()) for name in option.module)
        self._setup = (
            Setup(modules=modules)
            if self._input is None
            else Setup.model_validate_json(self._input[_SETUP])
        )
        self.kernels: tuple[str, ...] = distinct(option.kernel or ())
        self.asked = Asked(
            # pytest's own --strict; the suite needs no second one.
            strict=bool(config.getini("strict")),
            should=option.should,
            many_kernels=len(self.kernels) > 1,
            options=repeat_options(self._cases, [Path(m) for m in self._setup.modules]),
        )
        self._library = open_library(self._cases)
        self._rows = known_rows(Path(option.known) if option.known else None)
        # Whole rounds one after the other, as ./conform run has them.
        self._jobs: dict[str, Job] = {
            self.name(job): job
            for attempt in range(1, option.repeat + 1)
            for variant in self._library.variants
            for kernel in self.kernels
            for job in (Job(variant=variant, kernel=kernel, attempt=attempt),)
        }
        self._slot: Slot | None = None
        self._folder: Path | None = None
        self._planned: list[str] = []
        self._recorder: Recorder | None = None
        self._described: dict[str, Mapping[str, object]] = {}
        config.pluginmanager.register(self, _NAME)

    # -- collection ---------------------------------------------------------------------------

    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        """A case's file, if it is below one of the folders of cases."""
        if file_path.suffix != ".yaml":
            return None
        if not any(folder in file_path.parents for folder in self._folders):
            return None
        return CaseFile.from_parent(parent, path=file_path)

    def jobs_of(self, path: Path) -> Sequence[Job]:
        """The variants of a case's file on each kernel."""
        return [job for job in self._jobs.values() if job.variant.case == path.stem]

    def name(self, job: Job) -> str:
        """The id of an item; of a second attempt with `` #2`` after it."""
        told = label(job.variant, job.kernel, many_kernels=self.asked.many_kernels)
        return f"{told} #{job.attempt}" if job.attempt > 1 else told

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put each round after the one before it."""
        items.sort(key=lambda item: item.job.attempt if isinstance(item, CaseItem) else 1)

    # -- running ------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Prepare the kernels, unless it is done: for xdist's workers, where the user sees it."""
        items = [item for item in getattr(session, "items", ()) if isinstance(item, CaseItem)]
        if self._config.option.collectonly or self._input is not None:
            return
        if items:
            self._prepare()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker where to write, and which kernels were prepared for it."""
        self._prepare()
        node.workerinput[_SETUP] = self._setup.model_dump_json()
        node.workerinput[_FOLDER] = str(self._run_folder())

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:  # noqa: ARG002 - xdist's
        """What was planned, where workers collect."""
        self._planned = list(ids)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """What was planned, where this process collects."""
        self._planned = [item.name for item in session.items if isinstance(item, CaseItem)]

    def run(self, job: Job) -> Outcome:
        """Run a variant on this process's own bench, and settle it with the known deviations."""
        if self._slot is None:
            self._slot = Slot(load_engine(self._setup), self._run_folder())
        return settled(answered(answer(asked(job), self._slot)), self._rows)

    def _prepare(self) -> None:
        if self._described:
            return
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        try:
            if self._folder is None and self._out:
                check_own(self._out)
            engine = load_engine(self._setup)
            for kernel in self.kernels:
                self._described[kernel] = engine.prepare(
                    kernel, lambda text: terminal and terminal.write_line(one_line(text))
                )
            self._setup = engine.prepared()
        except (Refused, OSError) as error:
            pytest.exit(one_line(str(error)), returncode=REFUSED)

    def _run_folder(self) -> Path:
        if self._folder is None:
            if self._input is not None:
                self._folder = Path(self._input[_FOLDER])
            else:
                try:
                    self._folder = own_run(self._out) if self._out else new_run(ROOT, now())
                except OSError as error:
                    pytest.exit(str(error), returncode=REFUSED)
            self.asked = self.asked.model_copy(update={"folder": shown(self._folder)})
        return self._folder

    # -- reporting ----------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Give the report its text, and what the main process writes to the record."""
        report = yield
        if not isinstance(item, CaseItem) or item.outcome is None or item.result is None:
            return report
        if report.when == "setup":
            # Whatever plain attribute a report has goes along when xdist sends it.
            vars(report)["conformance"] = told(item.outcome)
        if call.excinfo is not None and isinstance(call.excinfo.value, _ToldError):
            reasons = [*map(brief, item.result.verdict.findings), *item.result.verdict.reasons]
            message = one_line(reasons[0]) if reasons else item.result.verdict.status
            report.longrepr = _Short(short(item.result, self.asked), message)  # type: ignore[assignment] # duck-typed
        if report.skipped and isinstance(report.longrepr, tuple):
            path, line, _ = item.reportinfo()
            report.longrepr = (str(path), line + 1, report.longrepr[2])
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the record; the main process does, whoever ran the variant."""
        packed = getattr(report, "conformance", None)
        if packed is None or self._input is not None:
            return
        if self._recorder is None:
            self._recorder = self._open_recorder()
        self._recorder.add(self._jobs[report.nodeid], answered(packed))

    @pytest.hookimpl(trylast=True)  # pytest has written its own JUnit file then
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Close machines and record, and put our results in pytest's JUnit file.

        A stale known deviation fails a session that passed.
        """
        if self._slot is not None:
            self._slot.close()
        if self._recorder is not None:
            self._recorder.close()
            if named := self._config.getoption("xmlpath", None):
                file = pytest_junit.path_of(named)
                pytest_junit.put_in(file, self._run_folder() / "junit.xml", self._jobs)
            if self._recorder.ending().stale and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        elif self._folder is not None and self._input is None and self._out is None:
            self._folder.rmdir()  # nothing ran

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Counts by status, stale known deviations, and where the record is."""
        if self._recorder is None:
            return
        ending = self._recorder.ending()
        terminalreporter.section("conformance")
        terminalreporter.line(totals(ending.results).plain)
        for row in ending.stale:
            terminalreporter.line(f"stale known deviation: {row}")
        terminalreporter.line(f"{self.asked.folder}/record.jsonl, junit.xml and the consoles")

    def _open_recorder(self) -> Recorder:
        jobs = [self._jobs[name] for name in self._planned if name in self._jobs]
        if self._out is None:
            point_latest(ROOT, self._run_folder())
        return Recorder(
            self._run_folder(),
            library=self._library,
            jobs=jobs,
            rows=self._rows,
            asked=self.asked,
            kernels=self._described,
            modules=self._setup.modules,
        )


def _session(config: pytest.Config) -> CaseSession:
    cases = config.pluginmanager.get_plugin(_NAME)
    assert isinstance(cases, CaseSession)
    return cases
