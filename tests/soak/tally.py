"""What the soak's rounds have come to so far: how often each variant had which status, and failed how. Pure.

The file is small where the records of twenty rounds would be a gigabyte, so it can be kept and added to. A
count is of one plan on one release: when a case or a kernel moves on, what was counted before is dropped.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence

from conformance import tsv
from conformance.compare import ways
from conformance.model import Status, Value, as_json
from conformance.record import Entry

_Cell = tuple[str, str]
"""A variant's id and a kernel."""


class Count(Value):
    """How often a variant came to the same on a kernel: a line of the file."""

    variant: str
    kernel: str
    release: str
    plan: str
    """Changes when what is done does."""
    status: Status
    how: str
    """The ``must`` findings, each by clause and signature."""
    times: int = 1

    @property
    def cell(self) -> _Cell:
        """What is counted together."""
        return self.variant, self.kernel


def counted(entry: Entry) -> Count:
    """One attempt."""
    verdict = entry.verdict
    plan = json.dumps(as_json(entry.plan) if entry.plan else None, sort_keys=True)
    return Count(
        variant=verdict.variant,
        kernel=verdict.kernel,
        release=verdict.release,
        plan=hashlib.sha256(plan.encode()).hexdigest()[:12],
        status=verdict.status,
        how=", ".join(sorted(": ".join(way) for way in ways(verdict))),
    )


def entered(counts: Sequence[Count], entries: Iterable[Entry]) -> tuple[Count, ...]:
    """The counts with the attempts of a record added, in the order of variants and kernels."""
    found: Counter[Count] = Counter()
    new = [counted(entry) for entry in entries]
    newest = {one.cell: (one.release, one.plan) for one in new}
    for one in (*counts, *new):
        if newest.get(one.cell, (one.release, one.plan)) == (one.release, one.plan):
            found[one.model_copy(update={"times": 1})] += one.times
    return tuple(
        one.model_copy(update={"times": times})
        for one, times in sorted(
            found.items(), key=lambda pair: (pair[0].cell, -pair[1], tsv.line(pair[0]))
        )
    )


def least(counts: Iterable[Count], entries: Iterable[Entry]) -> int:
    """Of the variants and kernels of a record: the smallest number of attempts. 0 if it has none."""
    attempts: Counter[_Cell] = Counter()
    for one in counts:
        attempts[one.cell] += one.times
    return min((attempts[counted(entry).cell] for entry in entries), default=0)
