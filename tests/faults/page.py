"""docs/survival.md as data: which fault, what is said of it, which test shows it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "survival.md"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the page. ``says`` are its quotations; ``path`` is the test's file, below tests/."""

    fault: str
    says: tuple[str, ...]
    path: str
    function: str
    parameter: str

    @property
    def test(self) -> str:
        """The test as pytest names it, without its folder."""
        cell = f"[{self.parameter}]" if self.parameter else ""
        return f"{Path(self.path).name}::{self.function}{cell}"


def rows() -> tuple[Row, ...]:
    """Every row of every table. Raises ValueError if one is none."""
    found = []
    for line in PAGE.read_text().splitlines():
        if not line.startswith("|") or set(line) <= set("|- ") or line.startswith("| fault"):
            continue
        fault, says, test = (cell.strip() for cell in line.strip("|").split("|"))
        named = re.fullmatch(r"`(\S+\.py)::(\w+)(?:\[(.+)\])?`", test)
        if named is None:
            raise ValueError(f"no test is named: {line}")
        found.append(
            Row(
                fault=fault,
                says=tuple(re.findall(r"`([^`]+)`", says)),
                path=named[1],
                function=named[2],
                parameter=named[3] or "",
            )
        )
    return tuple(found)
