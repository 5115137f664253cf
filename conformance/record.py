"""A run as JSON Lines: a header, then plan, observation and verdict of each variant, then a footer.

Other tools read these files, so the names in them are fixed. A line is written whole and reaches
the disk before the next variant is judged; what a crash leaves can be read up to there, by those
who ask for it, and continued. The footer counts what is above it and carries its sha256: a record
without it, or one that was edited, is told apart from a whole one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import lzma
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    dotted,
    variant_id,
)

V = TypeVar("V", bound=Value)
P = TypeVar("P", Plan | NotApplicable, Observation, Verdict)

FORMAT = 1
XZ = ".xz"
"""Of a compressed record's name."""
_SHOWN = 10
"""What is wrong with a record that is salvaged: so many of them are told."""
PART = "shard"
"""In a header's ``host``: which part of a run the record is, see ``shards``."""
LACKS = "lacks"
"""In a header's ``host``: what was wrong with the records that it was merged of, a ``Lacks``."""
MAX_LINE = 64 << 20
"""Bytes of a line: far above the largest observation, far below what a reader has to fear."""


class RecordError(Exception):
    """A record that cannot be read or written. The text is one line and names the file and line."""


class Unfinished(RecordError):
    """A record that ends before its footer, as a run leaves it that was killed."""


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
    """What an entry is found by: a case, a cell of its matrix, a kernel, which time it was run."""

    case: str
    values: dict[str, str] = {}
    kernel: str
    attempt: int = 1

    def __hash__(self) -> int:
        return hash((self.case, frozenset(self.values.items()), self.kernel, self.attempt))

    def __str__(self) -> str:
        name = f"{variant_id(self.case, self.values)} on {self.kernel}"
        return f"{name}, attempt {self.attempt}" if self.attempt > 1 else name


class Lacks(Value):
    """What a merged record lacks for ever, as one that it was made of was not whole."""

    problems: tuple[str, ...] = ()
    unjudged: tuple[Key, ...] = ()


class Entry(Value):
    """All that was recorded of one variant on one kernel; with ``--repeat``, of one attempt."""

    attempt: int = Field(default=1, ge=1)
    plan: Plan | NotApplicable | None = None
    observation: Observation | None = None
    verdict: Verdict


class Record(Value):
    """A record as it was read. ``problems`` is empty unless it was salvaged, or merged of such."""

    header: Header
    entries: tuple[Entry, ...]
    footer: Footer | None
    problems: tuple[str, ...] = ()
    unjudged: tuple[Key, ...] = ()  # planned or observed, and without a verdict that can be read

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts, in the order in which they were reached."""
        return tuple(entry.verdict for entry in self.entries)


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """A record that a run left behind, and how much of it is worth keeping.

    ``kept`` are the bytes up to the last verdict, of ``size`` that there were; ``dropped`` tells of
    the rest, and is empty if there is none. A footer is not kept: it is written anew.
    """

    path: Path
    record: Record
    kept: int
    size: int
    sha256: Any  # hashlib's object, fed with what is kept
    dropped: str = ""


def key_of(part: Plan | NotApplicable | Observation | Verdict, attempt: int = 1) -> Key:
    """The key that a part of an entry belongs to."""
    return Key(case=part.case, values=part.values, kernel=part.kernel, attempt=attempt)


# -- writing ------------------------------------------------------------------------------------


def _opened(path: Path, mode: Literal["rb", "xb"]) -> IO[bytes]:
    if path.suffix == XZ:
        return lzma.open(path, mode)
    return path.open(mode, buffering=0) if mode == "xb" else path.open(mode)


class RecordWriter:
    """Writes a record. As a context manager it writes the footer, unless an exception passes.

    ``planned`` is how many variants, on all kernels together, are to be judged.
    """

    def __init__(self, path: Path, begin: Header | Interrupted, *, planned: int) -> None:
        """Make ``path``, which must not exist, or go on with what was interrupted there.

        What is not worth keeping of that is cut off. Raises OSError (FileExistsError if a new record's
        file exists), and RecordError if somebody else writes it, or has since it was read.
        """
        self._path = path
        self._planned = planned
        self._counts = dict.fromkeys(Status, 0)
        self._digest = hashlib.sha256()
        # What is compressed is written at once by ``merge``, and not read while it grows.
        self._durable = path.suffix != XZ
        if isinstance(begin, Header):
            self._file = _opened(path, "xb")
            _claim(self._file, path)
            self._write([_line("header", as_json(begin))])
        else:
            self._file = path.open("r+b", buffering=0)
            try:
                self._go_on(begin)
            except BaseException:
                self._file.close()
                raise

    def _go_on(self, interrupted: Interrupted) -> None:
        _claim(self._file, self._path)
        if self._file.seek(0, os.SEEK_END) != interrupted.size:
            raise RecordError(f"{self._path}: it has changed since it was read")
        self._file.truncate(interrupted.kept)
        self._file.seek(interrupted.kept)
        self._digest = interrupted.sha256.copy()
        for verdict in interrupted.record.verdicts:
            self._counts[verdict.status] += 1

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
        attempt: int = 1,
    ) -> None:
        """Write what came of one variant, and wait until it is on the disk.

        Raises OSError, and RecordError if it is more than a line takes; nothing is written then.
        """
        parts = {"plan": plan, "observation": observation, "verdict": verdict}
        # The first attempt is not numbered: most runs have no other.
        number = {"attempt": attempt} if attempt > 1 else {}
        lines = [
            _line(kind, {**_renamed(as_json(part)), **number})
            for kind, part in parts.items()
            if part is not None
        ]
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


def _claim(file: IO[bytes], path: Path) -> None:
    """Say that ``file`` is being written, as long as this process has it open. Raises RecordError."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RecordError(f"{path}: another run is writing it") from None
    except OSError:  # a file system without locks: then nobody can tell
        return


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

    ``more`` is what none of them has, and the whole has. What was wrong with a record that is no part
    of a run is written down; of the parts ``more`` has what they lack.

    Raises RecordError if they were not made with the same cases and modules, or if two have the same
    variant on the same kernel; OSError (FileExistsError if ``to`` is there already).
    """
    owner: dict[Key, Path] = {}
    first_path, first = records[0]
    host: dict[str, Any] = {}
    for path, record in records:
        if record.header.cases != first.header.cases:
            raise RecordError(f"{path}: made with other cases than {first_path}")
        if _modules(record) != _modules(first):
            raise RecordError(f"{path}: made with other modules than {first_path}")
        for entry in record.entries:
            key = _key(entry)
            if key in owner:
                raise RecordError(f"{path}: {key} is in {owner[key]} already")
            owner[key] = path
        for name, value in record.header.host.items():
            held = host.setdefault(name, value)
            if isinstance(held, dict) and isinstance(value, dict):
                host[name] = {**held, **value}
    host.pop(PART, None)
    host.pop(LACKS, None)
    judged = {*owner, *map(_key, more)}
    unjudged = dict.fromkeys(key for _, record in records for key in record.unjudged)
    alone = [record for _, record in records if PART not in record.header.host]
    lacks = Lacks(
        problems=tuple(problem for record in alone for problem in record.problems),
        unjudged=tuple(key for key in unjudged if key not in judged),
    )
    if lacks != Lacks():
        host[LACKS] = as_json(lacks)
    started = min(record.header.started for _, record in records)
    header = first.header.model_copy(update={"started": started, "host": host})
    planned = len(owner) + len(more)
    with RecordWriter(to, header, planned=planned) as writer:
        for entry in (*(entry for _, record in records for entry in record.entries), *more):
            writer.add(
                plan=entry.plan,
                observation=entry.observation,
                verdict=entry.verdict,
                attempt=entry.attempt,
            )
    return planned


def _key(entry: Entry) -> Key:
    return key_of(entry.verdict, entry.attempt)


def _modules(record: Record) -> object:
    return record.header.host.get("modules") or []


# -- reading ------------------------------------------------------------------------------------


def read_record(path: Path, *, salvage: bool = False) -> Record:
    """The record at ``path``, which must be whole.

    With ``salvage`` what is whole of it is taken, and what is wrong is listed in ``problems``; only
    the header must be good. A variant of which one line is wrong is left out. Raises RecordError, one
    line that names the line, and OSError.
    """
    reader = _Reader(path, salvage=salvage)
    reader.read()
    return reader.record()


def read_interrupted(path: Path) -> Interrupted:
    """What a run left at ``path``, to be continued. A last line that was cut short is dropped.

    Raises RecordError if there is no whole header, if anything but the last line is damaged, or if
    somebody writes the record; OSError.
    """
    with path.open("rb") as file:
        _claim(file, path)
        size = os.fstat(file.fileno()).st_size
        reader = _Reader(path, salvage=False)
        try:
            reader.read()
        except Unfinished as error:
            if reader.header is None:
                raise
            problem = str(error)
        else:
            problem = ""
        dropped = f"{problem}; what has no verdict is dropped" if reader.whole < size else ""
        return Interrupted(
            path=path,
            record=reader.record(),
            kept=reader.whole,
            size=size,
            sha256=reader.sha256,
            dropped=dropped if problem else "",
        )


class _Reader:
    def __init__(self, path: Path, *, salvage: bool) -> None:
        self._path = path
        self._salvage = salvage
        self._problems: list[str] = []
        self._lacks = Lacks()  # as the header has it
        self._spoilt = False  # a line was wrong: what follows may be the rest of the same variant
        self._number = 0
        self._at = 0  # bytes read
        self._digest = hashlib.sha256()
        # Bytes up to the last verdict, or the header.
        self.whole = 0
        self.sha256 = self._digest
        self._ended = False
        self.header: Header | None = None
        self._footer: Footer | None = None
        self._plans: dict[Key, Plan | NotApplicable] = {}
        self._observations: dict[Key, Observation] = {}
        self._verdicts: dict[Key, Verdict] = {}

    def record(self) -> Record:
        assert self.header is not None
        problems = [*map(self._inherited, self._lacks.problems), *self._problems]
        more = len(problems) - _SHOWN
        told = problems[:_SHOWN] + ([f"{self._path}: and {more} more"] if more > 0 else [])
        return Record(
            header=self.header,
            entries=tuple(
                Entry(
                    attempt=key.attempt,
                    plan=self._plans.get(key),
                    observation=self._observations.get(key),
                    verdict=verdict,
                )
                for key, verdict in self._verdicts.items()
            ),
            footer=self._footer,
            problems=tuple(told),
            unjudged=tuple(
                key
                for key in dict.fromkeys([*self._lacks.unjudged, *self._plans, *self._observations])
                if key not in self._verdicts
            ),
        )

    def read(self) -> None:
        with _opened(self._path, "rb") as file:
            while self._read_line(file):
                pass
        if self._number == 0:
            raise RecordError(f"{self._path}: empty")
        if self._footer is None and not self._problems:
            self._number += 1
            self._note(Unfinished(self._place("no footer: the run did not come to its end")))

    def _read_line(self, file: IO[bytes]) -> bool:
        """Whether there may be another line."""
        try:
            line = self._next(file)
        except RecordError as error:
            self._note(error)
            return False
        if not line:
            return False
        self._number += 1
        before = self._digest.copy()
        self._digest.update(line)
        try:
            self._take(line, before.hexdigest())
        except RecordError as error:
            self._note(error)
            self._spoilt = True
        self._at += len(line)
        if self._ended:
            self.whole, self.sha256 = self._at, self._digest.copy()
        return True

    def _note(self, error: RecordError) -> None:
        """Go on, if that is asked for and there is something to go on with."""
        if not self._salvage or self.header is None:
            raise error
        self._problems.append(str(error))

    def _next(self, file: IO[bytes]) -> bytes:
        try:
            return file.readline(MAX_LINE + 1)
        except (lzma.LZMAError, EOFError) as error:
            self._number += 1
            raise self._wrong(f"the compressed file is damaged: {error}") from error

    def _take(self, line: bytes, digest: str) -> None:
        kind, values = self._parsed(line)
        self._ended = kind in ("header", "verdict")
        if self.header is None:
            self._take_header(kind, values)
        elif self._footer is not None:
            raise self._wrong("something follows the footer")
        elif kind == "footer":
            self._take_footer(values, digest)
        elif kind == "plan":
            self._spoilt = False
            attempt = self._attempt(values)
            skipped = "reasons" in values
            plan = self._valid(NotApplicable, values) if skipped else self._valid(Plan, values)
            self._keep(self._plans, plan, kind, attempt)
        elif kind == "observation":
            attempt = self._attempt(values)
            self._keep(self._observations, self._valid(Observation, values), kind, attempt)
        elif kind == "verdict" and self._spoilt:
            self._spoilt = False  # its plan or what was observed of it is not whole
        elif kind == "verdict":
            attempt = self._attempt(values)
            self._keep(self._verdicts, self._valid(Verdict, values), kind, attempt)
        elif kind == "header":
            raise self._wrong("a second header")
        else:
            raise self._wrong(f"unknown kind {kind!r}")

    def _parsed(self, line: bytes) -> tuple[str, dict[str, Any]]:
        if len(line) > MAX_LINE:
            raise self._wrong(f"longer than {MAX_LINE} bytes")
        if not line.endswith(b"\n"):
            raise Unfinished(self._place("cut short"))
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
        header = self._valid(Header, values)
        lacks = header.host.get(LACKS, {})
        if not isinstance(lacks, dict):
            raise self._wrong(f"host.{LACKS} is not an object")
        self._lacks = self._valid(Lacks, lacks)
        if self._lacks.problems and not self._salvage:
            raise RecordError(self._inherited(self._lacks.problems[0]))
        self.header = header

    def _take_footer(self, values: dict[str, Any], digest: str) -> None:
        footer = self._valid(Footer, values)
        if self._problems:
            return  # it speaks of lines that cannot be read; what is wrong has been said
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

    def _attempt(self, values: dict[str, Any]) -> int:
        attempt = values.pop("attempt", 1)
        if not isinstance(attempt, int) or isinstance(attempt, bool) or attempt < 1:
            raise self._wrong(f"an attempt is a whole number from 1, not {attempt!r}")
        return attempt

    def _keep(self, kept: dict[Key, P], part: P, kind: str, attempt: int) -> None:
        key = key_of(part, attempt)
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
            place = dotted(first["loc"])
            raise self._wrong(f"{place}: {first['msg']}") from None

    def _inherited(self, problem: str) -> str:
        return f"{self._path}: merged of what is not whole: {problem}"

    def _wrong(self, message: str) -> RecordError:
        return RecordError(self._place(message))

    def _place(self, message: str) -> str:
        return f"{self._path}:{self._number}: {message}"
