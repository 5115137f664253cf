"""A run as JSON Lines: a header, then plan, observation and verdict of each variant, then a footer.

Other tools read these files, so the names in them are fixed. A line is written whole and reaches
the disk before the next variant is judged; what a crash leaves can be read up to there, by those
who ask for it. The footer counts what is above it and carries its sha256: a record without it, or
one that was edited, is told apart from a whole one.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError

from conformance.model import (
    NotApplicable,
    Observation,
    Plan,
    Status,
    Value,
    Verdict,
    as_json,
)

V = TypeVar("V", bound=Value)
P = TypeVar("P", Plan | NotApplicable, Observation, Verdict)

FORMAT = 1
XZ = ".xz"
"""Of a compressed record's name."""
PART = "shard"
"""In a header's ``host``: which part of a run the record is, see ``shards``."""
MAX_LINE = 64 << 20
"""Bytes of a line: far above the largest observation, far below what a reader has to fear."""


class RecordError(Exception):
    """A record that cannot be read or written. The text is one line and names the file and line."""


class Cases(Value):
    """Which cases a run was made with."""

    sha256: str


class Header(Value):
    """How a run was asked for, and where it ran."""

    format: int = FORMAT
    started: str = Field(description="ISO 8601, UTC")
    command: tuple[str, ...]
    host: dict[str, Any] = {}
    cases: Cases


class Footer(Value):
    """What a whole record ends with."""

    counts: dict[Status, int]
    planned: int
    judged: int
    sha256: str = Field(description="of all bytes before this line")


class Key(Value):
    """What an entry is found by: a case, a cell of its matrix, a kernel."""

    case: str
    values: dict[str, str] = {}
    kernel: str

    def __hash__(self) -> int:
        return hash((self.case, frozenset(self.values.items()), self.kernel))

    def __str__(self) -> str:
        cell = "-".join(self.values.values())
        return f"{self.case}[{cell}] on {self.kernel}" if cell else f"{self.case} on {self.kernel}"


class Entry(Value):
    """All that was recorded of one variant on one kernel."""

    plan: Plan | NotApplicable | None = None
    observation: Observation | None = None
    verdict: Verdict


class Record(Value):
    """A record as it was read. ``problems`` is empty unless it was salvaged."""

    header: Header
    entries: tuple[Entry, ...]
    footer: Footer | None
    problems: tuple[str, ...] = ()

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts, in the order in which they were reached."""
        return tuple(entry.verdict for entry in self.entries)


def key_of(part: Plan | NotApplicable | Observation | Verdict) -> Key:
    """The key that a part of an entry belongs to."""
    return Key(case=part.case, values=part.values, kernel=part.kernel)


# -- writing ------------------------------------------------------------------------------------


def _opened(path: Path, mode: Literal["rb", "xb"]) -> IO[bytes]:
    if path.suffix == XZ:
        return lzma.open(path, mode)
    return path.open(mode, buffering=0) if mode == "xb" else path.open(mode)


class RecordWriter:
    """Writes a record. As a context manager it writes the footer, unless an exception passes.

    ``planned`` is how many variants, on all kernels together, are to be judged.
    """

    def __init__(self, path: Path, header: Header, *, planned: int) -> None:
        """Make ``path``, which must not exist. Raises OSError (FileExistsError if it does)."""
        self._path = path
        self._planned = planned
        self._counts = dict.fromkeys(Status, 0)
        self._digest = hashlib.sha256()
        # What is compressed is written at once by ``merge``, and not read while it grows.
        self._durable = path.suffix != XZ
        self._file = _opened(path, "xb")
        self._write([_line("header", as_json(header))])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.abandon()

    def add(
        self,
        *,
        plan: Plan | NotApplicable | None,
        observation: Observation | None,
        verdict: Verdict,
    ) -> None:
        """Write what came of one variant, and wait until it is on the disk.

        Raises OSError, and RecordError if it is more than a line takes; nothing is written then.
        """
        lines = []
        if plan is not None:
            lines.append(_line("plan", _renamed(as_json(plan))))
        if observation is not None:
            lines.append(_line("observation", _renamed(as_json(observation))))
        lines.append(_line("verdict", _renamed(as_json(verdict))))
        longest = max(map(len, lines))
        if longest > MAX_LINE:
            raise RecordError(f"{self._path}: {key_of(verdict)}: {longest} bytes in one line")
        self._write(lines)
        self._counts[verdict.status] += 1

    def finish(self) -> None:
        """Write the footer and close.

        Raises RecordError if not everything that was planned was judged: such a record stays
        without a footer, which is how a reader knows.
        """
        judged = sum(self._counts.values())
        try:
            if judged != self._planned:
                raise RecordError(
                    f"{self._path}: {judged} of {self._planned} judged; no footer is written"
                )
            footer = Footer(
                counts=self._counts,
                planned=self._planned,
                judged=judged,
                sha256=self._digest.hexdigest(),
            )
            self._write([_line("footer", as_json(footer))])
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close without a footer: the run was cut short."""
        self._file.close()

    def _write(self, lines: list[bytes]) -> None:
        data = memoryview(b"".join(lines))
        self._digest.update(data)
        while data:
            data = data[self._file.write(data) :]
        if self._durable:
            os.fsync(self._file.fileno())


def _line(kind: str, values: Mapping[str, Any]) -> bytes:
    text = json.dumps({"kind": kind, **values}, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii") + b"\n"


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    """``values`` is called ``variant`` in a record, where it stands beside ``case``."""
    return {"variant" if key == "values" else key: item for key, item in values.items()}


def merge_records(
    records: Sequence[tuple[Path, Record]], to: Path, *, more: Sequence[Entry] = ()
) -> int:
    """Write one record of several, compressed if ``to`` ends in .xz; how many entries.

    ``more`` is what none of them has, and the whole has.

    Raises RecordError if they were not made with the same cases, or if two have the same variant on the
    same kernel; OSError (FileExistsError if ``to`` is there already).
    """
    owner: dict[Key, Path] = {}
    first_path, first = records[0]
    host: dict[str, Any] = {}
    for path, record in records:
        if record.header.cases != first.header.cases:
            raise RecordError(f"{path}: made with other cases than {first_path}")
        for entry in record.entries:
            key = key_of(entry.verdict)
            if key in owner:
                raise RecordError(f"{path}: {key} is in {owner[key]} already")
            owner[key] = path
        for name, value in record.header.host.items():
            held = host.setdefault(name, value)
            if isinstance(held, dict) and isinstance(value, dict):
                host[name] = {**held, **value}
    host.pop(PART, None)
    header = first.header.model_copy(update={"host": host})
    planned = len(owner) + len(more)
    with RecordWriter(to, header, planned=planned) as writer:
        for entry in (*(entry for _, record in records for entry in record.entries), *more):
            writer.add(plan=entry.plan, observation=entry.observation, verdict=entry.verdict)
    return planned


# -- reading ------------------------------------------------------------------------------------


def read_record(path: Path, *, salvage: bool = False) -> Record:
    """The record at ``path``, which must be whole.

    With ``salvage`` what is whole of it is taken, and what is wrong is listed in ``problems``; only
    the header must be good. Raises RecordError, one line that names the line, and OSError.
    """
    reader = _Reader(path)
    try:
        reader.read()
    except RecordError as error:
        if not salvage or reader.header is None:
            raise
        return reader.record((str(error),))
    return reader.record(())


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = 0
        self._digest = hashlib.sha256()
        self.header: Header | None = None
        self._footer: Footer | None = None
        self._plans: dict[Key, Plan | NotApplicable] = {}
        self._observations: dict[Key, Observation] = {}
        self._verdicts: dict[Key, Verdict] = {}

    def record(self, problems: tuple[str, ...]) -> Record:
        assert self.header is not None
        return Record(
            header=self.header,
            entries=tuple(
                Entry(
                    plan=self._plans.get(key),
                    observation=self._observations.get(key),
                    verdict=verdict,
                )
                for key, verdict in self._verdicts.items()
            ),
            footer=self._footer,
            problems=problems,
        )

    def read(self) -> None:
        with _opened(self._path, "rb") as file:
            while line := self._next(file):
                self._number += 1
                before = self._digest.copy()
                self._digest.update(line)
                self._take(line, before.hexdigest())
        if self._number == 0:
            raise RecordError(f"{self._path}: empty")
        if self._footer is None:
            self._number += 1
            raise self._wrong("no footer: the run did not come to its end")

    def _next(self, file: IO[bytes]) -> bytes:
        try:
            return file.readline(MAX_LINE + 1)
        except (lzma.LZMAError, EOFError) as error:
            self._number += 1
            raise self._wrong(f"the compressed file is damaged: {error}") from error

    def _take(self, line: bytes, digest: str) -> None:
        kind, values = self._parsed(line)
        if self.header is None:
            self._take_header(kind, values)
        elif self._footer is not None:
            raise self._wrong("something follows the footer")
        elif kind == "footer":
            self._take_footer(values, digest)
        elif kind == "plan":
            skipped = "reasons" in values
            plan = self._valid(NotApplicable, values) if skipped else self._valid(Plan, values)
            self._keep(self._plans, plan, kind)
        elif kind == "observation":
            self._keep(self._observations, self._valid(Observation, values), kind)
        elif kind == "verdict":
            self._keep(self._verdicts, self._valid(Verdict, values), kind)
        elif kind == "header":
            raise self._wrong("a second header")
        else:
            raise self._wrong(f"unknown kind {kind!r}")

    def _parsed(self, line: bytes) -> tuple[str, dict[str, Any]]:
        if len(line) > MAX_LINE:
            raise self._wrong(f"longer than {MAX_LINE} bytes")
        if not line.endswith(b"\n"):
            raise self._wrong("cut short")
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            raise self._wrong("not JSON") from None
        if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
            raise self._wrong("not an object with a kind")
        return values.pop("kind"), values

    def _take_header(self, kind: str, values: dict[str, Any]) -> None:
        if kind != "header":
            raise self._wrong(f"a record begins with its header, not with kind {kind!r}")
        written = values.get("format")
        if not isinstance(written, int) or isinstance(written, bool) or written < 1:
            raise self._wrong("the header names no format")
        if written > FORMAT:
            raise self._wrong(f"format {written} is newer than {FORMAT}, which is what I read")
        self.header = self._valid(Header, values)

    def _take_footer(self, values: dict[str, Any], digest: str) -> None:
        footer = self._valid(Footer, values)
        judged = len(self._verdicts)
        statuses = [verdict.status for verdict in self._verdicts.values()]
        counts = {status: statuses.count(status) for status in Status}
        if footer.judged != judged or footer.counts != counts:
            raise self._wrong(f"the counts are not those of the {judged} verdicts above")
        if footer.planned != judged:
            raise self._wrong(f"{footer.planned} were planned, and {judged} judged")
        if footer.sha256 != digest:
            raise self._wrong("the lines above were changed after the run (sha256)")
        self._footer = footer

    def _keep(self, kept: dict[Key, P], part: P, kind: str) -> None:
        key = key_of(part)
        if key in kept:
            raise self._wrong(f"a second {kind} of {key}")
        kept[key] = part

    def _valid(self, model: type[V], values: dict[str, Any]) -> V:
        named = {("values" if key == "variant" else key): item for key, item in values.items()}
        try:
            # Not from JSON text: kernel logs hold lone surrogates, which that would refuse.
            return model.model_validate(named, by_alias=True, by_name=False)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise self._wrong(f"{place}: {first['msg']}") from None

    def _wrong(self, message: str) -> RecordError:
        return RecordError(f"{self._path}:{self._number}: {message}")
