"""What a run leaves while it goes on, and at its end."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from lxml import etree

from conformance.exits import STALE, status
from conformance.model import Status, Verdict
from conformance.record import read_record
from conformance.report.result import Asked
from conformance.runner import Outcome
from conformance.session import open_library, rejudge, settled
from conformance.task import broken
from tests.support.recorders import recorder
from tests.support.results import known_row


def test_junit_may_lag_behind_and_is_whole_at_the_end(tmp_path: Path) -> None:
    made, jobs = recorder(tmp_path, variants=3)

    def untold() -> int:
        root = etree.parse(tmp_path / "junit.xml").getroot()
        return len(root.findall(".//error[@type='NotRun']"))

    with made:
        assert untold() == 3
        made._render_from = 0.0
        made.add(jobs[0], broken(jobs[0], "no guest"))
        assert untold() == 2
        made._render_from = math.inf  # writing it took that long
        made.add(jobs[1], broken(jobs[1], "no guest"))
        assert untold() == 2
        made.add(jobs[2], broken(jobs[2], "no guest"))
    assert untold() == 0
    assert len(read_record(tmp_path / "record.jsonl").entries) == 3


@pytest.mark.parametrize("strict", [False, True])
def test_a_row_is_stale_only_where_it_counts(tmp_path: Path, strict: bool) -> None:
    """Under --strict no row counts: the exit status must not speak of what no report shows."""
    asked = Asked(strict=strict)
    library = open_library(())
    of = library.variants[0]
    row = known_row(case=of.case)
    made, [job] = recorder(tmp_path, variants=1, rows=[row], asked=asked)
    verdict = Verdict(
        case=of.case,
        values=of.values,
        kernel=job.kernel,
        release="6.12.117",
        status=Status.PASS,
    )
    with made:
        made.add(job, settled(Outcome(plan=None, observation=None, verdict=verdict), [row]))
    for ending in (made.ending(), rejudge(tmp_path / "record.jsonl", library, [row], asked)):
        code = status(ending.results, asked, stale=bool(ending.stale))
        assert code == (0 if strict else STALE)
        assert bool(ending.stale) is not strict
