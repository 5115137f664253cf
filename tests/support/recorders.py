"""A run's recorder over the library's first variants, for tests of what it leaves."""

from __future__ import annotations

from pathlib import Path

from conformance.report.result import Asked
from conformance.session import Recorder, open_library
from conformance.task import Job


def recorder(folder: Path, *, variants: int) -> tuple[Recorder, list[Job]]:
    """One that writes to ``folder``, and its jobs; none of them is done."""
    library = open_library(())
    jobs = [Job(variant=one, kernel="debian/trixie") for one in library.variants[:variants]]
    made = Recorder(
        folder,
        library=library,
        jobs=jobs,
        rows=(),
        asked=Asked(),
        kernels={"debian/trixie": {}},
        modules=(),
    )
    return made, jobs
