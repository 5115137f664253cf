"""What a run leaves while it goes on, and at its end."""

from __future__ import annotations

import math
from pathlib import Path

from lxml import etree

from conformance.record import read_record
from conformance.report.result import Asked
from conformance.session import Recorder, open_library
from conformance.task import Job, broken


def test_junit_may_lag_behind_and_is_whole_at_the_end(tmp_path: Path) -> None:
    library = open_library(())
    jobs = [Job(variant=variant, kernel="debian/trixie") for variant in library.variants[:3]]

    def untold() -> int:
        root = etree.parse(tmp_path / "junit.xml").getroot()
        return len(root.findall(".//error[@type='NotRun']"))

    with Recorder(
        tmp_path,
        library=library,
        jobs=jobs,
        rows=(),
        asked=Asked(),
        kernels={"debian/trixie": {}},
        modules=(),
    ) as recorder:
        assert untold() == 3
        recorder._render_from = 0.0
        recorder.add(jobs[0], broken(jobs[0], "no guest"))
        assert untold() == 2
        recorder._render_from = math.inf  # writing it took that long
        recorder.add(jobs[1], broken(jobs[1], "no guest"))
        assert untold() == 2
        recorder.add(jobs[2], broken(jobs[2], "no guest"))
    assert untold() == 0
    assert len(read_record(tmp_path / "record.jsonl").entries) == 3
