"""``bisect``: one step of a ``git bisect run``, which asks whether the kernel built in a tree conforms.

git reads exit statuses in its own way (git-bisect(1), "Bisect run"): 0 is good, 1 to 127 is bad but for
125, which means that this commit cannot be tested; from 128 on it stops. So the statuses are none of
a run's, and a mistake on the command line must not pass for a bad kernel.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from conformance.commands.common import (
    CASES,
    EXPRESSION,
    console,
    examples,
    options,
    say,
    say_traceback,
)
from conformance.engine import Setup, load_engine
from conformance.exits import INTERRUPTED, HostLacks, Refused
from conformance.model import Status
from conformance.progress import display, preparing
from conformance.report.console import print_summary
from conformance.report.result import Asked, Result, label
from conformance.rundir import check_own, new_run, own_run, point_latest, shown
from conformance.scheduler import run_jobs, slots_from
from conformance.session import ROOT, Recorder, choose, now, open_library, repeat_options, settled
from conformance.task import Job

GOOD: Final = 0
BAD: Final = 1
CANNOT_TELL: Final = 125
"""git tries another commit near by."""
STOP: Final = 255
"""git stops: no commit would give an answer."""


def verdict_of(results: Sequence[Result]) -> int:
    """What git is told: one FAIL is enough, and only a PASS of every variant is good."""
    statuses = {attempt.verdict.status for result in results for attempt in result.each}
    if Status.FAIL in statuses:
        return BAD
    return GOOD if statuses == {Status.PASS} else CANNOT_TELL


class _Step(click.Command):
    """A command whose mistakes of usage stop a bisection, where click's status would steer it."""

    def make_context(self, *words: Any, **more: Any) -> click.Context:
        """See click."""
        try:
            return super().make_context(*words, **more)
        except click.UsageError as error:
            say(f"{error.format_message()} (conform bisect --help tells more)")
            raise click.exceptions.Exit(STOP) from error


@click.command(
    cls=_Step,
    epilog=examples(
        "git bisect start v6.15 v6.12",
        "git bisect run conform bisect -k 'loop_enospc_short_write[1M-off]' --build 'make -j8'",
        "",
        "git bisect start --term-old=deviates --term-new=conforms v6.15 v6.14",
        "git bisect run conform bisect -k 'fs_on_loop_sync_while_short[ext4]' --build 'make -j8' \\",
        "    --until-fixed",
    ),
)
@click.argument(
    "tree",
    default=".",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@EXPRESSION
@click.option(
    "--build",
    metavar="COMMAND",
    help="A line for the shell that builds bzImage and modules in TREE; if it fails: cannot tell.",
)
@click.option(
    "--until-fixed", is_flag=True, help="Look for the commit that mends: deviates is 0, conforms 1."
)
@click.option(
    "--repeat",
    default=1,
    metavar="N",
    type=click.IntRange(min=1),
    help="Run each variant N times: one FAIL is enough, for what depends on chance.",
)
@click.option("-n", "slots", default="auto", metavar="N|auto", help="Machines at the same time.")
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write to DIR, new or empty, in place of results/runs/<time>/.",
)
@options(CASES)
def bisect(
    *,
    tree: Path,
    expression: str,
    build: str | None,
    until_fixed: bool,
    repeat: int,
    slots: str,
    out: Path | None,
    cases: tuple[Path, ...],
) -> int:
    """Run cases on the kernel built in TREE (here, if absent), and exit as `git bisect run` reads it.

    0 if every variant conforms; 1 if one deviates, known or not; 125 if it cannot be told: TREE does
    not build or boot, or a variant is BROKEN, SKIP or makes no claim. 255 stops the bisection: no commit
    would give an answer.
    """
    try:
        variants = choose(open_library(cases), expression)
        count = slots_from(slots)
        if not expression or not variants:
            say(f"the bisection stops: -k {expression!r} selects nothing to bisect by")
            return STOP
        if out:
            check_own(out)  # before what may take an hour
        if build and subprocess.run(["sh", "-c", build], cwd=tree, check=False).returncode:
            say(f"cannot tell: {build!r} failed in {tree}")
            return CANNOT_TELL
        folder = own_run(out) if out else new_run(ROOT, now())
        if not out:
            point_latest(ROOT, folder)
        code = _run(
            [
                Job(variant=variant, kernel=str(tree.absolute()), attempt=attempt)
                for attempt in range(1, repeat + 1)
                for variant in variants
            ],
            count,
            folder,
            cases,
        )
    except (Refused, OSError, ValueError) as error:
        say(f"the bisection stops: {error}")
        return STOP
    except Exception:  # noqa: BLE001 - any other status below 128 would call this kernel good or bad
        say_traceback()
        say("the bisection stops: the suite itself failed, as above")
        return STOP
    if until_fixed and code in (GOOD, BAD):
        return BAD if code == GOOD else GOOD
    return code


def _run(jobs: Sequence[Job], slots: int, folder: Path, cases: tuple[Path, ...]) -> int:
    kernel = jobs[0].kernel
    engine = load_engine(Setup())
    told = console(sys.stderr)
    with preparing(told) as progress:
        try:
            described = {kernel: engine.prepare(kernel, progress)}
        except HostLacks:
            raise
        except Refused as error:
            say(f"cannot tell: {error}")
            return CANNOT_TELL
    # A deviation is a deviation here, whether or not results/known/ tells of it.
    asked = Asked(strict=True, folder=shown(folder), options=repeat_options(cases, []))
    with (
        Recorder(
            folder,
            library=open_library(cases),
            jobs=jobs,
            rows=(),
            asked=asked,
            kernels=described,
            modules=(),
        ) as recorder,
        display(told, len(jobs), asked) as live,
    ):
        complete = run_jobs(
            jobs,
            slots=slots,
            setup=engine.prepared(),
            folder=folder,
            progress=say,
            started=lambda job: live.started(_name(job)),
            finished=lambda job, outcome: live.finished(
                _name(job), recorder.add(job, settled(outcome, ()))
            ),
        )
    if not complete:
        say("interrupted: the bisection stops here")
        return INTERRUPTED
    results = recorder.ending().results
    print_summary(results, asked, console(sys.stdout))
    code = verdict_of(results)
    say({GOOD: "conforms", BAD: "deviates"}.get(code, "cannot tell"))
    return code


def _name(job: Job) -> str:
    name = label(job.variant, job.kernel, many_kernels=False)
    return f"{name} #{job.attempt}" if job.attempt > 1 else name
