"""A run's recorder over the library's first variants, for tests of what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conformance.known import Known
from conformance.report.result import Asked
from conformance.session import Recorder, open_library
from conformance.task import Job


def recorder(
    folder: Path, *, variants: int, rows: Sequence[Known] = (), asked: Asked | None = None
) -> tuple[Recorder, list[Job]]:
    """One that writes to ``folder``, and its jobs; none of them is done."""
    library = open_library(())
    jobs = [Job(variant=one, kernel="debian/trixie") for one in library.variants[:variants]]
    made = Recorder(
        folder,
        library=library,
        jobs=jobs,
        rows=rows,
        asked=asked or Asked(),
        kernels={"debian/trixie": {}},
        modules=(),
    )
    return made, jobs
