"""Files of values, a line each with tabs between: small, fit for a diff, and added to by several at once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from conformance.model import Value, as_json

V = TypeVar("V", bound=Value)


def head(model: type[Value]) -> str:
    """The first line: the names of the fields."""
    return "\t".join(model.model_fields) + "\n"


def line(value: Value) -> str:
    """A value's line."""
    return "\t".join(str(field) for field in as_json(value).values()) + "\n"


def document(model: type[V], values: Iterable[V]) -> str:
    """A whole file."""
    return head(model) + "".join(line(value) for value in values)


def read(model: type[V], text: str) -> tuple[V, ...]:
    """The values of a file. Raises ValueError, with the line's number, for a line that is none of its."""
    names = tuple(model.model_fields)
    found = []
    for number, one in enumerate(text.splitlines(), 1):
        words = one.split("\t")
        if not one or words == list(names):
            continue  # a head stands again where files were joined
        if len(words) != len(names):
            raise ValueError(f"line {number} has {len(words)} columns, not {len(names)}")
        try:
            found.append(model.model_validate(dict(zip(names, words, strict=True))))
        except ValueError as error:
            raise ValueError(f"line {number}: {str(error).splitlines()[0]}") from error
    return tuple(found)


def append(path: Path, value: Value) -> None:
    """Add a line, in one write: those of several writers do not mix."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        first = "" if os.fstat(fd).st_size else head(type(value))
        os.write(fd, f"{first}{line(value)}".encode())
    finally:
        os.close(fd)
