"""The formats of ``conform report``, by name. Each is a function of results to a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from conformance.report import durations, html, junit, kcidb, ktap, lava, squad, timing, tmt
from conformance.report.result import Asked, Result


class Render(Protocol):
    """Makes a report."""

    def __call__(self, results: Sequence[Result], asked: Asked, *, started: str = "") -> str:
        """The whole text. ``started`` is an ISO 8601 time in UTC, without a zone.

        It stands in for that of results which do not say when their run began.
        """


FORMATS: Mapping[str, Render] = {
    "html": html.document,
    "junit": junit.document,
    "junit-strict": junit.strict,
    "ktap": ktap.document,
    "kcidb": kcidb.document,
    "squad": squad.document,
    "lava": lava.document,
    "tmt": tmt.document,
    "timing": timing.document,
    "durations": durations.document,
}
