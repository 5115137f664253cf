"""Makes the tables of docs/detection.md: runs every saboteur, and tells which clauses caught it.

``python -m tests.planted.table``; the exit status is 1 if one was not caught by what it violates, or by more.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from conformance.model import Clause, Status
from tests.planted import controls
from tests.planted.menders import MENDERS
from tests.planted.page import put
from tests.planted.saboteurs import SABOTEURS, Saboteur
from tests.planted.trial import Caught, Trials

HEAD = """\
| saboteur | what it does | variant, kernel | caught by |
| --- | --- | --- | --- |
"""


def right(saboteur: Saboteur, caught: Caught) -> bool:
    """Whether the judge said what it must, and nothing else."""
    if caught.failed:
        return False
    if saboteur.broken:
        reasons = " ".join(caught.reasons)
        return caught.status is Status.BROKEN and saboteur.broken in reasons
    if saboteur.mends and not (caught.status is Status.PASS and saboteur.mends <= caught.alone):
        return False
    wanted = (saboteur.clauses, saboteur.should, saboteur.first)
    return not caught.reasons and wanted == (
        frozenset(caught.must),
        frozenset(caught.should),
        caught.first,
    )


def row(saboteur: Saboteur, caught: Caught) -> str:
    """One row of the table."""
    if caught.status is Status.BROKEN:
        by = f"no verdict: {caught.reasons[0]}"
    else:
        told = [*caught.must, *(f"{clause} (should)" for clause in caught.should)]
        by = ", ".join(f"`{clause}`" for clause in told) or "none"
    where = f"`{saboteur.variant}`, {saboteur.kernel.removeprefix('debian/')}"
    if saboteur.mends:
        by += f"; without it {', '.join(f'`{clause}`' for clause in sorted(saboteur.mends))}"
    why = f" ({saboteur.why})" if saboteur.why else ""
    return f"| {saboteur.name} | {saboteur.does} | {where} | {by}{why} |\n"


def coverage(saboteurs: Iterable[Saboteur]) -> str:
    """Which saboteurs each clause has."""
    lines = []
    every = list(saboteurs)
    for clause in Clause:
        names = [one.name for one in every if clause in one.clauses | one.should]
        lines.append(f"- `{clause}`: {'; '.join(names) or 'none'}")
    return "\n".join(lines)


def say(text: str) -> None:
    """Tell at once, whoever reads it."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> int:
    """Run all, write the page: the exit status."""
    trials = Trials(lambda line: say(f"{line}\n"))
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for number, saboteur in enumerate((*SABOTEURS, *MENDERS)):
            caught = trials.of(saboteur, Path(folder) / str(number))
            good = right(saboteur, caught)
            wrong += not good
            say(("caught " if good else "WRONG  ") + row(saboteur, caught))
            if not good:
                say("\n".join((*caught.failed, *caught.reasons, *caught.observed, "")))
            rows.append(row(saboteur, caught))
    put("planted", (HEAD + "".join(rows)).rstrip())
    put("clauses", coverage(SABOTEURS))
    put("controls", controls.table())
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
