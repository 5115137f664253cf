"""The tables of docs/detection.md, each made by itself and put in its place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from conformance.report.findings import MARKED

PAGE: Final = Path(__file__).parents[2] / "docs" / "detection.md"


def put(name: str, text: str) -> None:
    """Write a table into the page, and nothing else. Raises KeyError if it has no place there."""
    PAGE.write_text(with_table(PAGE.read_text(), name, text))


def with_table(document: str, name: str, text: str) -> str:
    """``document`` with one marked table made anew. Raises KeyError if it has no such mark."""
    if name not in [mark["name"] for mark in MARKED.finditer(document)]:
        raise KeyError(name)

    def replaced(mark: re.Match[str]) -> str:
        return f"{mark[1]}{text}\n{mark[3]}" if mark["name"] == name else mark[0]

    return MARKED.sub(replaced, document)
