"""Mutants that no test kills, each with the reason why none can: survivors.toml."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Final, NamedTuple

FILE: Final = Path(__file__).with_name("survivors.toml")


class Survivor(NamedTuple):
    """A mutant, told by what it changes: line numbers move, and occurrences are counted anew."""

    module: str
    function: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.module}, {self.function or 'the module'}:\n    - {self.before}\n    + {self.after}"


class Explained(NamedTuple):
    """A row of survivors.toml: the mutants of one line that make no difference, and why."""

    survivor: Survivor
    why: str


def explained(text: str | None = None) -> list[Explained]:
    """The rows of survivors.toml. Raises ValueError for a row without a reason."""
    rows = []
    data = tomllib.loads(FILE.read_text() if text is None else text)
    for row in data["survivor"]:
        why = row["why"].strip()
        if not why:
            raise ValueError(f"{row}: no reason")
        for after in row["after"]:
            one = Survivor(row["module"], row["function"], row["before"], after)
            rows.append(Explained(one, why))
    return rows


def unexplained(
    survivors: Iterable[Survivor], rows: Iterable[Explained]
) -> tuple[list[Survivor], list[Survivor]]:
    """(survivors that no row explains, rows that no survivor needs)."""
    left = Counter(survivors)
    told = Counter(row.survivor for row in rows)
    return [*(left - told).elements()], [*(told - left).elements()]


def untried(names: Iterable[str], *found: Container[str]) -> list[str]:
    """The mutants that were neither killed nor survived: no test was run on them."""
    return [name for name in names if not any(name in one for one in found)]
