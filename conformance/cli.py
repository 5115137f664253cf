"""The command line: ``run``, ``test``, ``judge``, and the commands of ``conformance.commands``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import click

from conformance.commands import cases as case_commands
from conformance.commands import records as record_commands
from conformance.commands.bisect import bisect
from conformance.commands.cases import lines_of
from conformance.commands.catalogue import catalogue
from conformance.commands.common import EXPRESSION, JUDGING, examples, say, say_traceback, tell
from conformance.commands.common import console as console_on
from conformance.commands.conclude import conclude
from conformance.commands.doctor import doctor
from conformance.commands.explain import explain
from conformance.commands.gc import gc
from conformance.commands.kernels import kernels as kernels_command
from conformance.commands.known import known as known_command
from conformance.commands.lookup import nearest
from conformance.commands.new import new
from conformance.commands.reproduce import reproduce
from conformance.commands.shell import shell
from conformance.commands.worker import worker
from conformance.engine import DEFAULT_KERNEL, Setup, load_engine
from conformance.exits import CRASHED, INTERRUPTED, NOTHING, REFUSED, Refused
from conformance.here import allow
from conformance.machine.tool import ArtifactError
from conformance.model import HERE, Variant
from conformance.progress import display, preparing
from conformance.record import PART, Interrupted
from conformance.report.result import Asked, label
from conformance.resume import (
    check_host,
    check_known,
    check_library,
    interrupted_run,
    left_over,
    same_options,
    same_part,
)
from conformance.rundir import check_own, new_run, own_run, point_latest, shown
from conformance.runner import Outcome
from conformance.scheduler import run_jobs, sigterm_as_ctrl_c, slots_from
from conformance.session import (
    DURATIONS,
    ROOT,
    Recorder,
    choose,
    distinct,
    known_rows,
    now,
    open_library,
    repeat_options,
    settled,
)
from conformance.shards import Durations, ShardError, deal, described, longest_first, shard_from
from conformance.task import Job


@sigterm_as_ctrl_c()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status. Whatever a user got wrong is told in one line."""
    try:
        code = cli.main(args=arguments, prog_name="conform", standalone_mode=False)
    except click.UsageError as error:
        hint = f" ({error.ctx.command_path} --help tells more)" if error.ctx else ""
        return _refuse(f"{error.format_message()}{hint}")
    except click.ClickException as error:
        return _refuse(error.format_message())
    except (Refused, ArtifactError) as error:
        return _refuse(str(error))
    except OSError as error:  # a full disk, a folder that cannot be written
        return _refuse(str(error))
    except (KeyboardInterrupt, click.Abort):
        say("interrupted before the first case; nothing was run")
        return INTERRUPTED
    except Exception:  # noqa: BLE001 - Python's own status, 1, would say that a kernel deviates
        say_traceback()
        say("the suite itself failed, as above; that says nothing of any kernel")
        return CRASHED
    return code if isinstance(code, int) else 0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=None, version="0.1.0", prog_name="conform")
def cli() -> None:
    """Whether a Linux kernel reports a storage shortage as an I/O error, case by case."""


@cli.command(
    epilog=examples(
        "conform run",
        "conform run -k 'loop_enospc and not fio' --kernel debian/bookworm --kernel ../linux -n 2",
        "conform run -k 'thin_relief[discard-queue]' --repeat 10",
        "conform run --resume results/latest",
    )
)
@EXPRESSION
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    metavar="SPEC",
    help=f"A name ({DEFAULT_KERNEL} if absent), a build tree, a bzImage, .deb files. Repeatable.",
)
@click.option(
    "--module",
    "modules",
    multiple=True,
    metavar="FILE.ko",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Replace one module of the kernel. Repeatable.",
)
@click.option("-n", "slots", default="auto", metavar="N|auto", help="Machines at the same time.")
@click.option(
    "--repeat",
    default=1,
    metavar="N",
    type=click.IntRange(min=1),
    help="Run each variant N times, each in fresh guests, and tell how the statuses spread.",
)
@click.option(
    "--here",
    is_flag=True,
    help="Run on this machine, which is to be thrown away, instead of in guests. Needs root.",
)
@click.option(
    "--here-anyway",
    is_flag=True,
    help="--here, although somebody seems to work at this machine. It may hang or lose processes.",
)
@click.option(
    "--shard",
    metavar="I/N|auto",
    help="Only part I of N, of equal length; auto: what GitLab, Kubernetes, Slurm or tuxlava say.",
)
@click.option(
    "--engine",
    metavar="dask://HOST:PORT",
    help="Run on the workers of a Dask scheduler; dask: on so many workers here (docs/scale.md).",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write to DIR, which must be new or empty, in place of results/runs/<time>/.",
)
@click.option(
    "--list", "only_list", is_flag=True, help="Show the variants, one a line; run nothing."
)
@click.option(
    "--resume",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Finish the run that was killed and left DIR, with its own options.",
)
@JUDGING
@click.pass_context
def run(context: click.Context, /, *, resume: Path | None, **asked: Any) -> int:
    """Run cases on kernels and say how each kernel answers."""
    if resume is None:
        return _run(**asked, interrupted=None)
    interrupted = interrupted_run(resume)
    return _run(**same_options(context, interrupted), interrupted=interrupted)


def _run(
    *,
    expression: str,
    kernels: tuple[str, ...],
    modules: tuple[Path, ...],
    slots: str,
    repeat: int,
    here: bool,
    here_anyway: bool,
    shard: str | None,
    engine: str | None,
    out: Path | None,
    only_list: bool,
    strict: bool,
    should: bool,
    cases: tuple[Path, ...],
    known: Path | None,
    interrupted: Interrupted | None,
) -> int:
    library = open_library(cases)
    if interrupted:
        check_library(interrupted, library)
    variants = choose(library, expression)
    if only_list and variants:
        jobs = _jobs(variants, distinct(kernels), repeat)
        mine = {job.variant.id for job in _part(shard, jobs, _durations())[1]}
        for line in lines_of(variant for variant in variants if variant.id in mine):
            tell(line)
        return 0
    if not variants:
        say(
            f"-k {expression!r} selects none of the variants{nearest(expression, library.cases)}"
            if expression
            else "there are no cases"
        )
        return NOTHING
    own = here or here_anyway
    count = _slots("1" if own and slots == "auto" else slots)
    durations = _durations()
    rows = known_rows(known)
    if interrupted:
        check_known(interrupted, rows)
    if own:
        if kernels or modules or count != 1 or engine:
            raise Refused(
                "--here: one machine, with its own kernel: no --kernel, no --module, no --engine, -n 1"
            )
        allow(anyway=here_anyway)
    kernels = (HERE,) if own else distinct(kernels)
    setup = Setup(modules=tuple(str(path.absolute()) for path in modules), here=own)
    jobs = _jobs(variants, kernels, repeat)
    part, jobs = _part(shard, jobs, durations, interrupted)
    kernels = tuple(kernel for kernel in kernels if any(job.kernel == kernel for job in jobs))
    if out and not interrupted:
        check_own(out)
    makes = load_engine(setup)
    away = _away(engine)
    console, told = console_on(sys.stdout), console_on(sys.stderr)
    with preparing(told) as progress:
        described = {kernel: makes.prepare(kernel, progress) for kernel in kernels}
    setup = makes.prepared()
    left = jobs
    if interrupted:
        folder = interrupted.path.parent
        check_host(interrupted, described, setup.modules)
        left = _taken_up(interrupted, jobs)
    else:
        folder = _folder(out)
    asked = Asked(
        strict=strict,
        should=should,
        folder=shown(folder),
        many_kernels=len(kernels) > 1,
        options=repeat_options(cases, [Path(name) for name in setup.modules]),
    )
    record = f"{asked.folder}/record.jsonl"
    with _naming(record):
        with (
            Recorder(
                folder,
                library=library,
                jobs=jobs,
                rows=rows,
                asked=asked,
                kernels=described,
                modules=setup.modules,
                interrupted=interrupted,
                more=part,
            ) as recorder,
            display(
                told,
                len(left),
                asked,
                expected={_name(job, asked): durations.of(job) for job in left},
            ) as live,
        ):
            handlers: _Handlers = {
                "started": lambda job: live.started(_name(job, asked)),
                "finished": lambda job, outcome: live.finished(
                    _name(job, asked), recorder.add(job, settled(outcome, rows))
                ),
            }
            order = longest_first(left, durations)
            if away and order:
                complete = away(order, engine=makes, slots=count, folder=folder, **handlers)
            else:
                complete = run_jobs(
                    order, slots=count, setup=setup, folder=folder, progress=say, **handlers
                )
        return conclude(recorder.ending(), asked, console, record=record, complete=complete)


@cli.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog=examples(
        "conform test", "conform test -e lint,types", "conform test -e unit -- -k record"
    ),
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(*, arguments: tuple[str, ...]) -> int:
    """Pass the project's own tests: tox, with ARGUMENTS."""
    command = [sys.executable, "-m", "tox", "run", "--conf", str(ROOT / "tox.ini"), *arguments]
    return subprocess.run(command, check=False).returncode


for one in (
    case_commands.list_cases,
    case_commands.lint,
    explain,
    reproduce,
    shell,
    catalogue,
    known_command,
    bisect,
    worker,
    kernels_command,
    new,
    doctor,
    gc,
    record_commands.judge,
    record_commands.report,
    record_commands.merge,
    record_commands.compare_runs,
):
    cli.add_command(one)


def _slots(text: str) -> int:
    try:
        return slots_from(text)
    except ValueError as error:
        raise Refused(f"-n: {error}") from error


def _durations() -> Durations:
    try:
        return Durations.load(DURATIONS)
    except ValueError as error:
        raise Refused(f"{shown(DURATIONS)}:{error}") from error


def _folder(out: Path | None) -> Path:
    """Where a run writes: what was asked for, or a new folder, which is then the latest."""
    if out:
        return own_run(out)
    folder = new_run(ROOT, now())
    point_latest(ROOT, folder)
    return folder


def _jobs(variants: Sequence[Variant], kernels: Sequence[str], repeat: int) -> list[Job]:
    """The whole once, then the whole again: what a run that is cut short has seen is of all variants."""
    return [
        Job(variant=variant, kernel=kernel, attempt=attempt)
        for kernel in kernels
        for attempt in range(1, repeat + 1)
        for variant in variants
    ]


def _taken_up(interrupted: Interrupted, jobs: Sequence[Job]) -> list[Job]:
    """What a run that was cut short has left, with a word on what it had done."""
    left = left_over(interrupted, jobs)
    if interrupted.dropped:
        say(interrupted.dropped)
    say(f"{len(jobs) - len(left)} of {len(jobs)} variants were judged before")
    return left


@contextmanager
def _naming(record: str) -> Iterator[None]:
    """Where the record is, after a Ctrl-C beside the jobs: ``run_jobs`` takes signals by itself."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted; what was judged is in {record}")
        raise click.exceptions.Exit(INTERRUPTED) from None


class _Handlers(TypedDict):
    """What a run calls as it goes on."""

    started: Callable[[Job], None]
    finished: Callable[[Job, Outcome], None]


def _away(text: str | None) -> Callable[..., bool] | None:
    """What runs jobs where ``--engine`` says; None for this machine's own slots."""
    if text is None:
        return None
    try:
        from conformance.cluster.client import Place, run_away  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise Refused(f"--engine: {error}: pip install -r requirements-dask.lock") from error
    return partial(run_away, Place.parse(text), progress=say)


def _part(
    text: str | None,
    jobs: list[Job],
    durations: Durations,
    interrupted: Interrupted | None = None,
) -> tuple[dict[str, object], list[Job]]:
    """What ``--shard`` leaves of a run's jobs, which may be nothing, and what the record says of it.

    Of a run that is resumed its record says what fell to it, whatever would today.
    """
    if interrupted:
        return {}, same_part(interrupted, jobs)
    try:
        shard = shard_from(text, os.environ) if text else None
    except ShardError as error:
        raise Refused(f"--shard: {error}") from error
    if shard is None:
        return {}, jobs
    mine = deal(jobs, shard, durations)
    if not mine:
        say(f"--shard {shard}: nothing falls to it of {len(jobs)} variants")
    return {PART: described(shard, jobs, mine)}, mine


def _name(job: Job, asked: Asked) -> str:
    name = label(job.variant, job.kernel, many_kernels=asked.many_kernels)
    return f"{name} #{job.attempt}" if job.attempt > 1 else name


def _refuse(text: str) -> int:
    say(text)
    return REFUSED
