"""Makes the tables of docs/detection.md of what came of the saboteurs: the second half of ``tox -e planted``.

``python -m tests.planted.table``; the exit status is 1 if one was not caught by what it violates, or by
more, or was not run since it changed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from conformance.model import Clause
from tests.planted import controls
from tests.planted.menders import MENDERS
from tests.planted.outcomes import Outcome, kept, missing
from tests.planted.saboteurs import SABOTEURS, Saboteur
from tests.support.detection import put

HEAD = """\
| saboteur | what it does | variant, kernels | caught by |
| --- | --- | --- | --- |
"""


def table(saboteurs: Iterable[Saboteur], outcomes: Mapping[tuple[str, str], Outcome]) -> str:
    """A row for each: what caught it, on each of its kernels; of who was not run, that."""
    return (HEAD + "".join(_row(one, outcomes) for one in saboteurs)).rstrip()


def _row(saboteur: Saboteur, outcomes: Mapping[tuple[str, str], Outcome]) -> str:
    said = [outcomes.get((saboteur.name, kernel)) for kernel in saboteur.kernels]
    by = " or ".join(dict.fromkeys(one.by if one else "not run" for one in said))
    on = " and ".join(kernel.removeprefix("debian/") for kernel in saboteur.kernels)
    where = f"`{saboteur.variant}`, {on}" + (f": {saboteur.only}" if saboteur.only else "")
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


def main() -> int:
    """Write the page: the exit status."""
    every, outcomes = (*SABOTEURS, *MENDERS), kept()
    put("planted", table(every, outcomes))
    put("clauses", coverage(SABOTEURS))
    put("controls", controls.table())
    wrong = missing(every, outcomes)
    sys.stdout.write("".join(f"not caught as is written: {one}\n" for one in wrong))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
