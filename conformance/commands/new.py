"""``new``: a case to be filled in. It loads, and lint refuses it until nothing is left to be done."""

from __future__ import annotations

import re
from pathlib import Path

import click

from conformance.commands.common import CASES, examples, options, say
from conformance.commands.lookup import nearest
from conformance.exits import Refused
from conformance.rundir import shown, write_atomically
from conformance.session import CASES as SUITE
from conformance.session import open_library

_NAME = re.compile(r"[a-z][a-z0-9_]*")

TEMPLATE = """\
title: TODO say in one sentence, in the indicative, what happens ({name})
level: must
claims: [S1]  # TODO which claims of docs/norm.md it covers, in order
norm:
  - source: write(2)  # TODO where the norm says so: a manual page, lkml:<id>, linux:<path>, posix:, https:
    section: TODO the section, or a quote of two lines at most
rig: {rig}
requires: []  # TODO what has to be probed for, or nothing: "module:...", "probe:...", "fs:...", "tool:..."
# TODO what runs short; docs/case-language.md has the kinds. The limit is met while the writer is at it.
shortage: {{tmpfs_size: {{layer: back, size: 4M}}}}
matrix:
  submit: [buffered, direct]
steps: {procedure}
expect:
  clauses: [error_surfaced, errno_precise]  # TODO the clauses that are this case's own claim
notes: |
  TODO the fault that makes it fail, and the control that shows that the rig alone does not.
"""

RIG, PROCEDURE = "loop_on_tmpfs", "device_short"


@click.command(
    epilog=examples(
        "conform new loop_enospc/loop_enospc_my_backing",
        "conform new mine/full_too --to ../cases",
        "conform lint --cases ../cases",
    )
)
@click.argument("name", metavar="FAMILY/CASE")
@click.option(
    "--to",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of cases that it becomes part of; the suite's own if absent.",
)
@options(CASES)
def new(*, name: str, to: Path | None, cases: tuple[Path, ...]) -> int:
    """Write a new case, to be filled in: FAMILY is the folder, CASE the file's name and the case's id.

    It loads and could run as it is, on a loop device over a full tmpfs; `conform lint` names every
    place that is still to be done.
    """
    family, slash, case = name.partition("/")
    for part in (family, case):
        if not slash or not _NAME.fullmatch(part):
            raise Refused(f"{name!r}: a name is FAMILY/CASE, in small letters, digits and '_'")
    library = open_library(cases)
    if case in library.cases:
        raise Refused(f"the id {case!r} is taken by {library.cases[case][1].file}")
    folder = (to or SUITE) / family
    path = folder / f"{case}.yaml"
    if path.exists():
        raise Refused(f"{shown(path)} is there already")
    families = {variant.family for variant in library.variants}
    if family not in families:
        say(f"{family} is a new family{nearest(family, families)}")
    folder.mkdir(parents=True, exist_ok=True)
    text = TEMPLATE.format(name=case, rig=RIG, procedure=PROCEDURE)
    write_atomically(path, text)
    own = f" --cases {to}" if to else ""
    click.echo(shown(path))
    say(f"next: edit it, ./conform lint{own}, ./conform run -k {case}{own}")
    return 0
