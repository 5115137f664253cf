"""``reproduce``: a variant as one shell script that needs nothing of this suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from conformance.commands.common import CASES, examples, options, say
from conformance.commands.lookup import one_variant
from conformance.exits import Refused
from conformance.model import Status, Verdict
from conformance.published import verdicts_of
from conformance.record import RecordError
from conformance.reproduce import Inexpressible, script
from conformance.rundir import write_atomically
from conformance.session import PUBLISHED, open_library


@click.command(
    epilog=examples(
        "conform reproduce 'loop_enospc_short_write[1M-off]'",
        "conform reproduce loop_memcg_seed_script --to seed.sh",
        "conform reproduce 'loop_memcg_nested[direct]' --arm parent",
    )
)
@click.argument("case", metavar="CASE[variant]")
@click.option(
    "--to",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write here, as a program, instead of to standard output.",
)
@click.option("--arm", default="", metavar="NAME", help="Of a case that compares several, which.")
@options(CASES)
def reproduce(*, case: str, to: Path | None, arm: str, cases: tuple[Path, ...]) -> int:
    """Print one shell script that shows what a variant shows, to be posted or run anywhere.

    It needs root, a virtual machine to be thrown away, coreutils, util-linux and mkfs; it ends with
    PASS (0), FAIL (1), or with why it cannot tell (77). What a script cannot do is refused by name.
    """
    variant = one_variant(open_library(cases), case)
    try:
        verdicts = verdicts_of(PUBLISHED, variant.case)
    except RecordError as error:
        raise Refused(str(error)) from error
    mine = [verdict for verdict in verdicts if verdict.values == variant.values]
    try:
        text = script(variant, arm=arm, seen=tuple(told(mine)))
    except Inexpressible as error:
        raise Refused(f"{variant.id} cannot be a plain script: {error}") from error
    if to is None:
        click.echo(text, nl=False)
    else:
        write_atomically(to, text)
        to.chmod(0o755)
        say(f"{to}: {len(text.splitlines())} lines; run it as root in a virtual machine")
    return 0


def told(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Lines for a script's head: where its variant was seen to fail, and to pass."""
    for status in (Status.FAIL, Status.PASS):
        releases = [v.release for v in verdicts if v.status is status]
        if releases:
            yield f"{status} was seen on {', '.join(releases)}."
