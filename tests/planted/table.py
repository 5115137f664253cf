"""Makes the tables of docs/detection.md: runs every saboteur, and tells which clauses caught it.

``python -m tests.planted.table``; the exit status is 1 if one was not caught by what it violates, or by more.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from conformance.model import Clause, Status
from tests.planted import controls
from tests.planted.menders import MENDERS
from tests.planted.saboteurs import SABOTEURS, Saboteur
from tests.planted.trial import Caught, Trials
from tests.support.detection import put

HEAD = """\
| saboteur | what it does | variant, kernels | caught by |
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


def row(saboteur: Saboteur, caught: Sequence[Caught]) -> str:
    """One row of the table: what caught it, on each of its kernels."""
    by = " or ".join(dict.fromkeys(_by(one) for one in caught))
    on = " and ".join(kernel.removeprefix("debian/") for kernel in saboteur.kernels)
    where = f"`{saboteur.variant}`, {on}" + (f": {saboteur.only}" if saboteur.only else "")
    if saboteur.mends:
        by += f"; without it {', '.join(f'`{clause}`' for clause in sorted(saboteur.mends))}"
    why = f" ({saboteur.why})" if saboteur.why else ""
    return f"| {saboteur.name} | {saboteur.does} | {where} | {by}{why} |\n"


def _by(caught: Caught) -> str:
    if caught.status is Status.BROKEN:
        return f"no verdict: {caught.reasons[0]}"
    told = [*caught.must, *(f"{clause} (should)" for clause in caught.should)]
    return ", ".join(f"`{clause}`" for clause in told) or "none"


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
            caught = []
            for kernel in saboteur.kernels:
                one = trials.of(saboteur, kernel, Path(folder) / f"{number}-{Path(kernel).name}")
                caught.append(one)
                good = right(saboteur, one)
                wrong += not good
                say(f"{'caught' if good else 'WRONG '} {kernel} {saboteur.name}: {_by(one)}\n")
                if not good:
                    say("\n".join((*one.failed, *one.reasons, *one.observed, "")))
            rows.append(row(saboteur, caught))
    put("planted", (HEAD + "".join(rows)).rstrip())
    put("clauses", coverage(SABOTEURS))
    put("controls", controls.table())
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
