"""What a run leaves while it goes on, and at its end."""

from __future__ import annotations

import math
from pathlib import Path

from lxml import etree

from conformance.record import read_record
from conformance.task import broken
from tests.support.recorders import recorder


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
