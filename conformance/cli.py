"""The command line: ``run``, ``test``, ``judge``, and the commands of ``conformance.commands``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from conformance.commands import cases as case_commands
from conformance.commands import records as record_commands
from conformance.commands.bisect import bisect
from conformance.commands.cases import lines_of
from conformance.commands.catalogue import catalogue
from conformance.commands.common import EXPRESSION, JUDGING, say
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
from conformance.engine import DEFAULT_KERNEL, HERE, Setup, load_engine
from conformance.exits import INTERRUPTED, NOTHING, REFUSED, Refused
from conformance.here import allow
from conformance.progress import display, preparing
from conformance.record import Interrupted
from conformance.report.result import Asked, label
from conformance.resume import (
    check_host,
    check_known,
    check_library,
    interrupted_run,
    left_over,
    same_options,
)
from conformance.rundir import new_run, own_run, point_latest, shown
from conformance.scheduler import Job, run_jobs, slots_from
from conformance.session import (
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status. Whatever a user got wrong is told in one line."""
    try:
        code = cli.main(args=arguments, prog_name="conform", standalone_mode=False)
    except click.UsageError as error:
        hint = f" ({error.ctx.command_path} --help tells more)" if error.ctx else ""
        return _refuse(f"{error.format_message()}{hint}")
    except click.ClickException as error:
        return _refuse(error.format_message())
    except Refused as error:
        return _refuse(str(error))
    except OSError as error:  # a full disk, a folder that cannot be written
        return _refuse(str(error))
    except (KeyboardInterrupt, click.Abort):
        say("interrupted before the first case; nothing was run")
        return INTERRUPTED
    return code if isinstance(code, int) else 0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=None, version="0.1.0", prog_name="conform")
def cli() -> None:
    """Whether a Linux kernel reports a storage shortage as an I/O error, case by case."""


@cli.command()
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
    if only_list:
        for line in lines_of(variants):
            click.echo(line)
    if not variants:
        say(
            f"-k {expression!r} selects none of the variants{nearest(expression, library.cases)}"
            if expression
            else "there are no cases"
        )
        return NOTHING
    if only_list:
        return 0
    try:
        count = 1 if (here or here_anyway) and slots == "auto" else slots_from(slots)
    except ValueError as error:
        raise Refused(f"-n: {error}") from error
    rows = known_rows(known)
    if interrupted:
        check_known(interrupted, rows)
    if here or here_anyway:
        if kernels or modules or count != 1:
            raise Refused(
                "--here: one machine, with its own kernel: no --kernel, no --module, -n 1"
            )
        allow(anyway=here_anyway)
        kernels = (HERE,)
    kernels = distinct(kernels)
    setup = Setup(modules=tuple(str(path.absolute()) for path in modules), here=here or here_anyway)
    engine = load_engine(setup)
    console, told = console_on(sys.stdout), console_on(sys.stderr)
    with preparing(told) as progress:
        described = {kernel: engine.prepare(kernel, progress) for kernel in kernels}
    if interrupted:
        folder = interrupted.path.parent
        check_host(interrupted, described, setup.modules)
    elif out:
        folder = own_run(out)
    else:
        folder = new_run(ROOT, now())
        point_latest(ROOT, folder)
    asked = Asked(
        strict=strict,
        should=should,
        folder=shown(folder),
        many_kernels=len(kernels) > 1,
        options=repeat_options(cases, [Path(name) for name in setup.modules]),
    )
    # The whole once, then the whole again: what a run that is cut short has seen is of all variants.
    jobs = [
        Job(variant=variant, kernel=kernel, attempt=attempt)
        for kernel in kernels
        for attempt in range(1, repeat + 1)
        for variant in variants
    ]
    left = jobs
    if interrupted:
        left = left_over(interrupted, jobs)
        if interrupted.dropped:
            say(interrupted.dropped)
        say(f"{len(jobs) - len(left)} of {len(jobs)} variants were judged before")
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
        ) as recorder,
        display(told, len(left), asked) as live,
    ):
        complete = run_jobs(
            left,
            slots=count,
            setup=setup,
            folder=folder,
            started=lambda job: live.started(_name(job, asked)),
            finished=lambda job, outcome: live.finished(
                _name(job, asked), recorder.add(job, settled(outcome, rows))
            ),
        )
    return conclude(recorder.ending(), asked, console, complete=complete)


@cli.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
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


def _name(job: Job, asked: Asked) -> str:
    name = label(job.variant, job.kernel, many_kernels=asked.many_kernels)
    return f"{name} #{job.attempt}" if job.attempt > 1 else name


def _refuse(text: str) -> int:
    say(text)
    return REFUSED
