"""A run that was killed, taken up again: what it was asked for, and whether that still holds.

The options are those in the record's header, read by the command line's own parser. Whatever decides
what a result is (cases, kernels, modules, known deviations) must be what it was: a record speaks of
one thing. What differs is told in one line, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from conformance.exits import Refused
from conformance.known import Known, settle
from conformance.library import Library
from conformance.record import Interrupted, RecordError, key_of, read_interrupted
from conformance.rundir import shown
from conformance.session import key_of_job
from conformance.shards import part_of
from conformance.task import Job

CHANGING = frozenset({"speed", "start", "start_why", "accelerator_why"})
"""What a machine tells of itself that may differ from one hour to the next: how fast it was made."""

FREE = frozenset({"resume", "slots"})
"""Options that decide nothing about a result, by their parameters' names."""


def interrupted_run(folder: Path) -> Interrupted:
    """The record that a run left in ``folder``. Raises Refused if it cannot be gone on with."""
    path = folder / "record.jsonl"
    try:
        return read_interrupted(path)
    except RecordError as error:
        raise Refused(f"{error}; this cannot be resumed") from error
    except OSError as error:
        raise Refused(f"{shown(path)}: {error.strerror}") from error


def same_options(context: click.Context, interrupted: Interrupted) -> dict[str, Any]:
    """The parameters of the run that was interrupted, for the command of ``context``.

    Those that are given again must be the same, but for ``-n``. Raises Refused, which says what
    differs.
    """
    folder = shown(interrupted.path.parent)
    program, *words = interrupted.record.header.command
    if program != "conform" or words[:1] != [context.command.name]:
        raise Refused(f"{folder}: made by {program}; only ./conform run can resume, its own runs")
    try:
        was = context.command.make_context(context.info_name, words[1:]).params
    except click.UsageError as error:
        raise Refused(f"{folder}: was run with {words[1:]}: {error.format_message()}") from error
    for option in context.command.params:
        name = str(option.name)
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        given = context.params[name]
        if name == "slots":
            was[name] = given
        elif name not in FREE and _plain(given) != _plain(was[name]):
            flag = option.opts[-1]
            raise Refused(
                f"{folder}: was run {_spelt(flag, was[name])}, and is to be resumed"
                f" {_spelt(flag, given)}; leave {flag} out"
            )
    del was["resume"]
    return was


def check_library(interrupted: Interrupted, library: Library) -> None:
    """Raises Refused if the cases are not those that the run began with."""
    if interrupted.record.header.cases.sha256 != library.sha256:
        folder = shown(interrupted.path.parent)
        raise Refused(f"{folder}: the cases have changed since that run; ./conform judge judges it")


def check_known(interrupted: Interrupted, rows: Sequence[Known]) -> None:
    """Raises Refused if the known deviations would now lie otherwise over what was judged."""
    for verdict in interrupted.record.verdicts:
        if settle(verdict, rows) != verdict:
            folder = shown(interrupted.path.parent)
            raise Refused(
                f"{folder}: the known deviations have changed since that run: {key_of(verdict)}"
            )


def check_host(
    interrupted: Interrupted, kernels: Mapping[str, Mapping[str, object]], modules: Sequence[str]
) -> None:
    """Raises Refused if a kernel, the machine that it runs on, or a module is not what it was."""
    folder = shown(interrupted.path.parent)
    host = interrupted.record.header.host
    if list(host.get("modules", ())) != list(modules):
        raise Refused(f"{folder}: was run with modules {host.get('modules')}, not {list(modules)}")
    before = host.get("kernels", {})
    if list(before) != list(kernels):
        raise Refused(f"{folder}: was run on {', '.join(before)}, not on {', '.join(kernels)}")
    for kernel, now in kernels.items():
        was = before[kernel]
        for name in sorted({*was, *now} - CHANGING):
            if was.get(name) != now.get(name):
                raise Refused(
                    f"{folder}: {kernel} is not what it was: {name} {was.get(name)},"
                    f" now {now.get(name)}"
                )


def same_part(interrupted: Interrupted, jobs: Sequence[Job]) -> list[Job]:
    """Those of a whole run's ``jobs`` that fell to the part that was interrupted; all if it was none.

    By the record alone: today's environment and table of durations may give another part. Raises
    Refused if the record does not say, or if the whole run would be another one.
    """
    folder = shown(interrupted.path.parent)
    try:
        part = part_of(interrupted.path, interrupted.record)
    except RecordError as error:
        raise Refused(f"{error}; this cannot be resumed") from error
    if part is None:
        return list(jobs)
    shard = f"{folder}: shard {part.index}/{part.count}"
    if part.mine is None:
        raise Refused(f"{shard}: the record does not say what fell to it; this cannot be resumed")
    if part.whole != {key_of_job(job) for job in jobs}:
        raise Refused(f"{shard}: of another whole than the options of that run select now")
    if any(not 0 <= place < len(jobs) for place in part.mine):
        raise Refused(f"{shard}: has what is not among the {len(jobs)} jobs of the whole")
    mine = set(part.mine)
    return [job for place, job in enumerate(jobs) if place in mine]


def left_over(interrupted: Interrupted, jobs: Sequence[Job]) -> list[Job]:
    """The jobs that were not judged. Raises Refused if something was that is no job."""
    judged = {key_of(entry.verdict, entry.attempt) for entry in interrupted.record.entries}
    strange = judged - {key_of_job(job) for job in jobs}
    if strange:
        folder = shown(interrupted.path.parent)
        first = min(map(str, strange))
        raise Refused(f"{folder}: has {first}, which the options of that run do not select")
    return [job for job in jobs if key_of_job(job) not in judged]


def _plain(value: object) -> object:
    """A parameter's value as it can be compared: paths are what they lead to."""
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    return value.absolute() if isinstance(value, Path) else value


def _spelt(flag: str, value: object) -> str:
    """An option as one types it."""
    if isinstance(value, bool) or not value:
        return f"with {flag}" if value else f"without {flag}"
    values = value if isinstance(value, tuple) else (value,)
    return "with " + " ".join(f"{flag} {item}" for item in values)
