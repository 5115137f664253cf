"""What the published records say of a variant: its verdicts, by kernel.

Only the lines that are asked for are read as JSON: a whole record takes seconds, and who asks about
one case does not want to wait for all others. That the records are whole is what a test holds.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from conformance.model import ROLL_UP, NotApplicable, Value, Verdict
from conformance.record import RecordError

V = TypeVar("V", bound=Value)

_Cell = tuple[str, tuple[tuple[str, str], ...], str]

_VERDICT = b'{"kind":"verdict",'
_PLAN = b'{"kind":"plan",'
_REASONS = b'"reasons":['


def verdicts_of(folder: Path, case: str) -> tuple[Verdict, ...]:
    """The verdicts on a case in all records of ``folder``; of two on the same, the later file's.

    Raises RecordError, one line, if a record cannot be read.
    """
    return _verdicts(folder, f'"case":{json.dumps(case)},'.encode())


def all_verdicts(folder: Path) -> dict[str, tuple[Verdict, ...]]:
    """The verdicts of all cases, by case; of two on the same, the later file's.

    Raises RecordError, one line, if a record cannot be read.
    """
    found: dict[str, list[Verdict]] = {}
    for verdict in _verdicts(folder, b""):
        found.setdefault(verdict.case, []).append(verdict)
    return {case: tuple(verdicts) for case, verdicts in found.items()}


def _verdicts(folder: Path, marker: bytes) -> tuple[Verdict, ...]:
    """Those whose line has ``marker`` near its beginning."""
    found: dict[_Cell, Verdict] = {}
    for path in _records(folder):
        of_file: dict[_Cell, Verdict] = {}
        for number, line in _lines(path):
            if line.startswith(_VERDICT) and marker in line[:200]:
                verdict = _read(path, number, line, Verdict)
                cell = (verdict.case, tuple(verdict.values.items()), verdict.kernel)
                before = of_file.get(cell, verdict)
                # Of several attempts the worst, as everywhere.
                of_file[cell] = min(before, verdict, key=lambda v: ROLL_UP.index(v.status))
        found |= of_file
    return tuple(found.values())


def lacking(folder: Path) -> dict[str, dict[str, str]]:
    """For each kernel of the records: each requirement that it did not meet, and why."""
    found: dict[str, dict[str, str]] = {}
    for path in _records(folder):
        for number, line in _lines(path):
            if line.startswith(_PLAN) and _REASONS in line[:400]:
                absent = _read(path, number, line, NotApplicable)
                for reason in absent.reasons:
                    need, _, why = reason.partition(": ")
                    found.setdefault(absent.kernel, {})[need] = why
    return found


def _records(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl.xz"))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with lzma.open(path, "rb") as file:
            yield from enumerate(file, 1)
    except (lzma.LZMAError, EOFError, OSError) as error:
        raise RecordError(f"{path}: cannot be read: {error}") from error


def _read(path: Path, number: int, line: bytes, kind: type[V]) -> V:
    try:
        values = json.loads(line)
        del values["kind"]
        values["values"] = values.pop("variant", {})
        values.pop("attempt", None)
        return kind.model_validate(values)
    except (ValueError, KeyError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise RecordError(f"{path}:{number}: {first}") from error
