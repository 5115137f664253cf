"""pytest glue: each variant of each case is an item, on each kernel that was asked for.

The guest runs in an item's set-up and the verdict is looked at in its call: BROKEN is pytest's
*error*, FAIL its *failure*. With xdist each worker opens its own bench; outcomes travel in reports
to the main process, which alone writes the record. docs/decisions/0012-pytest-items.md has more.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from conformance.engine import DEFAULT_KERNEL, Setup, load_engine
from conformance.exits import REFUSED, Refused
from conformance.report.console import totals
from conformance.report.result import Asked, Outlook, Result, label
from conformance.report.short import brief, short
from conformance.rundir import new_run, own_run, point_latest, shown
from conformance.runner import Outcome
from conformance.scheduler import Job, Slot
from conformance.session import (
    CASES,
    ROOT,
    Library,
    Recorder,
    known_rows,
    now,
    open_library,
    pack,
    repeat_options,
    result_of,
    settled,
    unpack,
)

_FOLDER = "conformance_folder"
"""The run's folder, as the main process tells its xdist workers."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of ``./conform run`` that pytest does not have itself."""
    group = parser.getgroup("conformance", "kernels and cases")
    group.addoption(
        "--kernel",
        action="append",
        metavar="SPEC",
        help=f"a name ({DEFAULT_KERNEL} if absent), build tree, bzImage or .deb files; repeatable",
    )
    group.addoption(
        "--module",
        action="append",
        default=[],
        metavar="FILE.ko",
        help="replace one module of the kernel; repeatable",
    )
    group.addoption(
        "--cases",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of cases of your own, beside the suite's; repeatable",
    )
    group.addoption("--known", metavar="DIR", help="known deviations in place of results/known/")
    group.addoption("--should", action="store_true", help="advisories count like deviations")
    group.addoption("--out", metavar="DIR", help="write to DIR in place of results/runs/<time>/")


def pytest_configure(config: pytest.Config) -> None:
    """Register a ``Face`` for the session. It does nothing unless cases are collected."""
    config.pluginmanager.register(Face(config), "conformance-face")


class CaseFile(pytest.File):
    """A case's file; its items are the variants, on each kernel."""

    def collect(self) -> Iterator[CaseItem]:
        """The items. What is wrong in a case has ended the session before."""
        for job in _face(self.config).jobs_of(self.path):
            name = _face(self.config).name(job)
            yield CaseItem.from_parent(self, name=name, nodeid=name, job=job)


class CaseItem(pytest.Item):
    """A variant on a kernel."""

    def __init__(self, *, job: Job, **rest: Any) -> None:  # noqa: ANN401 - pytest's own
        super().__init__(**rest)
        self.job = job
        self.outcome: Outcome | None = None
        self.result: Result | None = None

    def setup(self) -> None:
        """Run the guest, and judge."""
        face = _face(self.config)
        self.outcome = face.run(self.job)
        self.result = result_of(self.job.variant, self.outcome)
        match self.result.outlook(face.asked):
            case Outlook.BROKEN:
                raise _ToldError(self.name)
            case Outlook.SKIPPED:
                pytest.skip("; ".join(self.result.verdict.reasons))

    def runtest(self) -> None:
        """Look at the verdict."""
        assert self.result is not None
        verdict = self.result.verdict
        match self.result.outlook(_face(self.config).asked):
            case Outlook.KNOWN:
                told = "; ".join([*map(brief, verdict.deviations[:1]), *verdict.known])
                pytest.xfail(f"known deviation: {told}")
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

    def toterminal(self, terminal: Any) -> None:  # noqa: ANN401 - private to pytest
        """Called by pytest."""
        for line in self._text.splitlines():
            terminal.line(line)


class Face:
    """What the plugin keeps for a session, and its hooks."""

    def __init__(self, config: pytest.Config) -> None:
        option = config.option
        self._config = config
        self._input: dict[str, Any] | None = getattr(config, "workerinput", None)
        self._cases = tuple(Path(name) for name in option.cases)
        self._out = Path(option.out) if option.out else None
        self._known = Path(option.known) if option.known else None
        self._setup = Setup(modules=tuple(str(Path(name).absolute()) for name in option.module))
        self.kernels: tuple[str, ...] = tuple(dict.fromkeys(option.kernel or [DEFAULT_KERNEL]))
        self.asked = Asked(
            # pytest's own --strict; the suite needs no second one.
            strict=bool(config.getini("strict")),
            should=option.should,
            many_kernels=len(self.kernels) > 1,
            options=repeat_options(self._cases, [Path(name) for name in option.module]),
        )
        self._library: Library | None = None
        self._jobs: dict[str, Job] = {}
        self._slot: Slot | None = None
        self._folder: Path | None = None
        self._planned: list[str] = []
        self._recorder: Recorder | None = None
        self._host: dict[str, object] = {}
        config.args += [str(path) for path in self._cases]

    # -- collection ---------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Load the library, if a case may be collected, so that its errors are told once."""
        if not self._touches_cases():
            return
        try:
            self._library = open_library(self._cases)
            self._rows = known_rows(self._known)
        except Refused as error:
            raise pytest.UsageError(str(error)) from error
        for variant in self._library.variants:
            for kernel in self.kernels:
                job = Job(variant=variant, kernel=kernel)
                self._jobs[self.name(job)] = job

    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        """A case's file, if it is below one of the folders of cases."""
        if self._library is None or file_path.suffix != ".yaml":
            return None
        if not any(folder in file_path.parents for folder in self._folders()):
            return None
        return CaseFile.from_parent(parent, path=file_path)

    def jobs_of(self, path: Path) -> Sequence[Job]:
        """The variants of a case's file on each kernel."""
        return [job for job in self._jobs.values() if job.variant.case == path.stem]

    def name(self, job: Job) -> str:
        """The id of an item."""
        return label(job.variant, job.kernel, many_kernels=self.asked.many_kernels)

    def _touches_cases(self) -> bool:
        start = self._config.invocation_params.dir
        for word in self._config.args:
            path = (start / word.partition("::")[0]).resolve()
            for folder in self._folders():
                if path == folder or folder in path.parents or path in folder.parents:
                    return True
        return False

    def _folders(self) -> tuple[Path, ...]:
        return tuple(path.resolve() for path in (CASES, *self._cases))

    # -- running ------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Prepare the kernels, where the user sees it: not in an xdist worker."""
        distributed = bool(getattr(self._config.option, "numprocesses", None))
        items = [item for item in getattr(session, "items", ()) if isinstance(item, CaseItem)]
        if self._config.option.collectonly or self._input is not None:
            return
        if items or (distributed and self._library is not None):
            self._prepare()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:  # noqa: ANN401 - an xdist controller's
        """Tell an xdist worker where to write."""
        node.workerinput[_FOLDER] = str(self._run_folder())

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:  # noqa: ANN401, ARG002 - xdist's
        """What was planned, where workers collect."""
        self._planned = list(ids)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """What was planned, where this process collects."""
        self._planned = [item.name for item in session.items if isinstance(item, CaseItem)]

    def run(self, job: Job) -> Outcome:
        """Run a variant on this process's own bench, and settle it with the known deviations."""
        if self._slot is None:
            self._slot = Slot(load_engine(self._setup), self._run_folder())
        return settled(self._slot.run(job), self._rows)

    def _prepare(self) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        try:
            engine = load_engine(self._setup)
            for kernel in self.kernels:
                told = terminal.write_line if terminal else lambda _: None
                self._host[kernel] = engine.prepare(kernel, told)
        except Refused as error:
            pytest.exit(str(error), returncode=REFUSED)

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
            report.conformance = pack(item.outcome)
        if call.excinfo is not None and isinstance(call.excinfo.value, _ToldError):
            reasons = [*map(brief, item.result.verdict.findings), *item.result.verdict.reasons]
            message = reasons[0] if reasons else item.result.verdict.status
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
        self._recorder.add(self._jobs[report.nodeid], unpack(packed))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Close machines and record. A stale known deviation fails a session that passed."""
        if self._slot is not None:
            self._slot.close()
        if self._recorder is not None:
            self._recorder.close()
            if self._recorder.ending().stale and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        elif self._folder is not None and self._input is None and self._out is None:
            self._folder.rmdir()  # nothing ran

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:  # noqa: ANN401 - private
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
        assert self._library is not None
        jobs = [self._jobs[name] for name in self._planned if name in self._jobs]
        if self._out is None:
            point_latest(ROOT, self._run_folder())
        return Recorder(
            self._run_folder(),
            library=self._library,
            jobs=jobs,
            rows=self._rows,
            asked=self.asked,
            host=self._host,
        )


def _face(config: pytest.Config) -> Face:
    face = config.pluginmanager.get_plugin("conformance-face")
    assert isinstance(face, Face)
    return face
