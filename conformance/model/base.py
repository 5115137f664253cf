"""What every value of the suite has in common: frozen, closed, built by keyword."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+)([KMGT]?)")

BLOCK = 4096
"""Bytes in one ledger block: the unit in which acknowledged data is tracked and verified."""


class Value(BaseModel):
    """A frozen value. Unknown keys are errors: a misspelt key must never be a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def variant_id(case: str, values: Mapping[str, str]) -> str:
    """``case[a-b]``: what pytest, the reports and ``-k`` call a variant; no blanks, no slashes."""
    cell = "-".join(values.values())
    return f"{case}[{cell}]" if cell else case


def parse_size(text: object) -> int:
    """Bytes from ``4096``, ``"64K"``, ``"1M"`` (binary units, as dd and truncate read them).

    Raises ValueError for anything else; pydantic turns that into an error at the value's place.
    """
    if isinstance(text, bool):
        raise ValueError(f"not a size: {text!r}")  # noqa: TRY004 - pydantic takes this one
    if isinstance(text, int):
        if text < 0:
            raise ValueError(f"a size cannot be negative: {text}")
        return text
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(
            f"not a size: {text!r} (a whole number, with K, M, G or T for binary units)"
        )
    return int(match[1]) * _UNITS[match[2]]


def format_size(count: int) -> str:
    """The shortest exact form of a number of bytes: ``307200`` is ``300K``."""
    for unit in ("T", "G", "M", "K"):
        if count and count % _UNITS[unit] == 0:
            return f"{count // _UNITS[unit]}{unit}"
    return str(count)


Bytes = Annotated[int, BeforeValidator(parse_size)]
CgroupPath = Annotated[str, Field(pattern=r"^$|^[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)*$")]


def as_json(value: BaseModel) -> dict[str, Any]:
    """The JSON form that records and the wire carry; keys by their names in the case files."""
    return value.model_dump(mode="json", by_alias=True)


def dotted(loc: Iterable[str | int]) -> str:
    """Where in a value an error is, as pydantic has it, in one line: a key may be anything."""
    return ".".join(str(part) if str(part).isprintable() else repr(part) for part in loc)
