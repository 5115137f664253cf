"""A run in equal parts, for machines that know nothing of each other.

Every machine works out the same division from the same checkout, runs its own part, and writes in its
record which part that was, what fell to it and what the whole run is; ``missing`` is how a reader of
several records knows whether they are the whole. Nothing here depends on a machine, a time or an order
of arrival.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from conformance.model import Status, Value, Verdict
from conformance.record import PART, Entry, Key, Record, RecordError, key_of
from conformance.task import Job

AUTO = "auto"

GITLAB = ("CI_NODE_INDEX", "CI_NODE_TOTAL")
"""From 1. docs.gitlab.com, "Predefined CI/CD variables"; set by ``parallel:``."""
TUXLAVA = ("SHARD_INDEX", "SHARD_NUMBER")
"""From 1; the names of test-definitions' sharded tests, as tuxlava passes them."""
KUBERNETES = ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS")
"""From 0; the first is set for an Indexed Job, the second by our manifest (docs/scale.md), since
Kubernetes does not tell a pod how many there are."""
SLURM = "SLURM_ARRAY_TASK_"
"""ID, MIN, MAX, STEP and COUNT: sbatch(1), "Output environment variables"."""


class ShardError(ValueError):
    """What was asked for is no part of anything. One line."""


class Shard(Value):
    """Part ``index``, from 1, of ``count``."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class Part(Value):
    """What a record's header says of a part: the whole run's kernels and variants, each on each."""

    index: int
    count: int
    kernels: tuple[str, ...]
    variants: tuple[tuple[str, dict[str, str]], ...]
    repeat: int = Field(default=1, ge=1, description="attempts at each variant on each kernel")
    mine: tuple[int, ...] | None = Field(
        default=None, description="which of the whole run's jobs, from 0, fell to this part"
    )

    @property
    def whole(self) -> frozenset[Key]:
        """All that was planned, in this part and the others."""
        return frozenset(
            Key(case=case, values=values, kernel=kernel, attempt=attempt)
            for kernel in self.kernels
            for case, values in self.variants
            for attempt in range(1, self.repeat + 1)
        )


def shard_from(text: str, environ: Mapping[str, str]) -> Shard | None:
    """The part that ``--shard`` asks for: ``I/N``, or what the CI system says of this machine.

    None for ``auto`` where nothing is said. Raises ShardError.
    """
    if text == AUTO:
        return _announced(environ)
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None:
        raise ShardError(f"{text!r} is neither auto nor I/N, as 1/4")
    return _checked(int(found[1]), int(found[2]), repr(text))


def _announced(environ: Mapping[str, str]) -> Shard | None:
    for (index, count), first in ((GITLAB, 1), (TUXLAVA, 1), (KUBERNETES, 0)):
        if index in environ:
            if count not in environ:
                raise ShardError(f"{index} is set, and {count} is not")
            number, total = _number(environ, index), _number(environ, count)
            return _checked(number - first + 1, total, f"{index}={number}, {count}={total}")
    if f"{SLURM}ID" not in environ:
        return None
    numbers = {name: _number(environ, SLURM + name) for name in ("ID", "MIN", "MAX", "COUNT")}
    step = int(environ.get(f"{SLURM}STEP", "1")) or 1
    told = ", ".join(f"{SLURM}{name}={number}" for name, number in numbers.items())
    if (numbers["MAX"] - numbers["MIN"]) // step + 1 != numbers["COUNT"]:
        raise ShardError(f"{told}: an array with gaps; use --array=1-N")
    return _checked((numbers["ID"] - numbers["MIN"]) // step + 1, numbers["COUNT"], told)


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    if not text.isdecimal():
        raise ShardError(f"{name}={text!r} is not a whole number")
    return int(text)


def _checked(index: int, count: int, told: str) -> Shard:
    if not 1 <= index <= count:
        raise ShardError(f"{told}: no part of {count}")
    return Shard(index=index, count=count)


# -- durations -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Durations:
    """Seconds that each variant takes, by its id; ``conform report --format durations`` makes them."""

    seconds: Mapping[str, float]

    @classmethod
    def parse(cls, text: str) -> Durations:
        """The table as it is kept: seconds, a tab, an id.

        Raises ValueError for another line; the text begins with the line's number.
        """
        seconds = {}
        for number, line in enumerate(text.splitlines(), 1):
            if line.startswith("#"):
                continue
            spent, _, name = line.partition("\t")
            if not name or (spent != "-" and not _is_time(spent)):
                raise ValueError(f"{number}: not seconds, a tab and an id: {line!r}")
            if spent != "-":
                seconds[name] = float(spent)
        return cls(seconds=seconds)

    @classmethod
    def load(cls, path: Path) -> Durations:
        """The table in a file; an empty one if there is no file. Raises ValueError, OSError."""
        return cls.parse(path.read_text(encoding="utf-8")) if path.exists() else cls(seconds={})

    def of(self, job: Job) -> float:
        """Of a job; of one that nobody has measured, the median of its case, or of all."""
        known = self.seconds.get(job.variant.id)
        if known is not None:
            return known
        begins = f"{job.variant.case}["
        alike = [spent for name, spent in self.seconds.items() if name.startswith(begins)]
        return median(alike or self.seconds.values() or [1.0])


def _is_time(text: str) -> bool:
    try:
        seconds = float(text)
    except ValueError:
        return False
    return isfinite(seconds) and seconds >= 0


LONG = 4.0
"""So many times the median: longer ones wait for a time limit, and leave their processor to others."""
BESIDE_LONG = 2.0
"""Seconds of other jobs for each of a long one's."""


def longest_first(jobs: Sequence[Job], durations: Durations) -> list[Job]:
    """Kernel by kernel, as they came, and of each the longest first: no slot is left with a long one
    at the end.

    But not all long ones at once. They wait for the most part, and slots that are full of them leave the
    processors idle: so between them come others, for two slots while a third one waits.
    """
    kernels: dict[str, list[Job]] = {}
    for job in jobs:
        kernels.setdefault(job.kernel, []).append(job)
    return [job for some in kernels.values() for job in _woven(some, durations)]


def _woven(jobs: Sequence[Job], durations: Durations) -> list[Job]:
    spent = {id(job): durations.of(job) for job in jobs}
    order = sorted(jobs, key=lambda job: (job.attempt, -spent[id(job)], job.variant.id))
    much = LONG * median(spent.values())
    rest = deque(job for job in order if spent[id(job)] <= much)
    woven: list[Job] = []
    for job in order:
        if spent[id(job)] <= much:
            continue
        woven.append(job)
        room = BESIDE_LONG * spent[id(job)]
        while rest and room > 0:
            woven.append(rest.popleft())
            room -= spent[id(woven[-1])]
    return [*woven, *rest]


def deal(jobs: Sequence[Job], shard: Shard, durations: Durations) -> list[Job]:
    """The jobs of a part, in the order of ``jobs``.

    Every part gets the same time, and few kernels: each kernel costs a template. So the kernels are
    laid end to end over the parts, and within the parts that a kernel falls on its jobs go, longest
    first, to where most room is left.
    """
    spent = {id(job): durations.of(job) for job in jobs}
    total = sum(spent.values())
    room = dict.fromkeys(range(1, shard.count + 1), total / shard.count)
    mine: set[int] = set()
    by_kernel: dict[str, list[Job]] = {}
    for job in jobs:
        by_kernel.setdefault(job.kernel, []).append(job)
    for some in by_kernel.values():
        need = sum(spent[id(job)] for job in some)
        parts = _parts_for(need, room, total)
        for job in sorted(some, key=lambda job: (-spent[id(job)], job.variant.id)):
            part = max(parts, key=lambda part: (room[part], -part))
            room[part] -= spent[id(job)]
            if part == shard.index:
                mine.add(id(job))
    return [job for job in jobs if id(job) in mine]


def _parts_for(need: float, room: Mapping[int, float], total: float) -> list[int]:
    """The first parts that have room for ``need`` seconds together."""
    found: list[int] = []
    for part, left in room.items():
        if left > total * 1e-3:
            found.append(part)
            need -= left
            if need <= total * 1e-3:
                break
    return found or list(room)


# -- records -------------------------------------------------------------------------------------


def described(shard: Shard, jobs: Sequence[Job], mine: Iterable[Job]) -> dict[str, Any]:
    """What a part's record says of it.

    ``jobs`` are those of the whole run, every variant on every kernel, and ``mine`` those among them
    that fell to the part.
    """
    kernels: dict[str, None] = {}
    variants: dict[str, tuple[str, dict[str, str]]] = {}
    places = {id(job): place for place, job in enumerate(jobs)}
    for job in jobs:
        kernels[job.kernel] = None
        variants[job.variant.id] = (job.variant.case, dict(job.variant.values))
    part = Part(
        index=shard.index,
        count=shard.count,
        kernels=tuple(kernels),
        variants=tuple(variants.values()),
        repeat=max((job.attempt for job in jobs), default=1),
        mine=tuple(places[id(job)] for job in mine),
    )
    return part.model_dump(mode="json")


class Missing(NamedTuple):
    """What parts that are not there would have had, BROKEN, and what is wrong with the parts."""

    entries: tuple[Entry, ...]
    wrong: tuple[str, ...]


def missing(records: Sequence[tuple[Path, Record]], *, mark: bool) -> Missing:
    """What is not in the parts of a run, and why, if ``mark`` asks for that.

    Nothing if the parts of every run are all there, or if the records are no parts. Raises RecordError,
    one line, if a part is there twice, or, without ``mark``, if one is missing or was cut short.
    """
    runs: dict[tuple[int, frozenset[Key]], dict[int, Path]] = {}
    had: set[Key] = set()
    wrong: list[str] = []
    for path, record in records:
        had.update(key_of(entry.verdict, entry.attempt) for entry in record.entries)
        part = part_of(path, record)
        if part is None:
            continue
        parts = runs.setdefault((part.count, part.whole), {})
        if part.index in parts:
            raise RecordError(
                f"{path}: shard {part.index}/{part.count} is in {parts[part.index]} already"
            )
        parts[part.index] = path
        wrong += [f"shard {part.index}/{part.count}: {problem}" for problem in record.problems]
    for (count, _), parts in runs.items():
        lacking = [f"{index}/{count}" for index in range(1, count + 1) if index not in parts]
        if lacking:
            wrong.append(f"shard {', '.join(lacking)} is missing")
    if wrong and not mark:
        raise RecordError(
            f"{'; '.join(wrong)} (--mark-missing makes BROKEN of what it would have had)"
        )
    absent = sorted((key for _, whole in runs for key in whole if key not in had), key=str)
    entries = tuple(
        Entry(
            attempt=key.attempt,
            verdict=Verdict(
                case=key.case,
                values=key.values,
                kernel=key.kernel,
                release="",
                status=Status.BROKEN,
                reasons=tuple(wrong) or ("in no shard, though all of them are there",),
            ),
        )
        for key in absent
    )
    return Missing(entries=entries, wrong=tuple(wrong))


def part_of(path: Path, record: Record) -> Part | None:
    """Which part of a run a record is; None if it is none. Raises RecordError if that is not readable."""
    told = record.header.host.get(PART)
    if told is None:
        return None
    try:
        return Part.model_validate(told)
    except ValidationError as error:
        raise RecordError(f"{path}:1: not a shard: {str(error).splitlines()[0]}") from error
