"""A case on a kernel as data: what is asked and what is answered are JSON, whoever carries them.

``run_case`` is what a slot of the command line, a pytest item and a worker on another machine call.
Its answer is a function of what it is asked: the slot that it is given only saves it from opening the
same kernel's machine again. Consoles go to files below the slot's folder, and the answer names them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.engine import Bench, Opener
from conformance.exits import Refused
from conformance.model import Status, Variant, Verdict, as_json
from conformance.runner import STANDARD, Limits, Outcome, rebased


@dataclass(frozen=True, kw_only=True)
class Job:
    """One variant on one kernel, for the first time or again."""

    variant: Variant
    kernel: str
    attempt: int = 1
    limits: Limits = STANDARD


TRIES = 2
"""So often, one after the other, a slot tries to open a kernel that it cannot open."""


def broken(job: Job, reason: str, *, unopened: bool = False) -> Outcome:
    """What is known of a job that could not be run: nothing, and why."""
    return Outcome(
        unopened=unopened,
        plan=None,
        observation=None,
        verdict=Verdict(
            case=job.variant.case,
            values=job.variant.values,
            kernel=job.kernel,
            release="",
            status=Status.BROKEN,
            reasons=(reason,),
        ),
    )


class Slot:
    """What runs jobs one after the other on benches of its own; one bench is open at a time.

    That a kernel cannot be opened may pass: there was no space, or somebody removed what it needs. So it is
    tried ``TRIES`` times; then each job is answered at once, lest a thousand wait for the same minute.
    """

    def __init__(self, engine: Opener, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self._kernel = ""
        self._bench: Bench | None = None
        self._refused: dict[str, list[str]] = {}

    def run(self, job: Job) -> Outcome:
        """Run one job. Never raises an Exception: what goes wrong here makes the job BROKEN.

        ``unopened`` in the outcome says that it did not come to be run.
        """
        try:
            bench = self._open(job.kernel)
            if job.attempt == 1:
                return bench.run(job.variant, folder=self._folder, limits=job.limits)
            place = Path(f"attempt-{job.attempt}")
            outcome = bench.run(job.variant, folder=self._folder / place, limits=job.limits)
            return rebased(outcome, place)
        except Refused as error:
            return broken(job, str(error), unopened=True)
        except Exception as error:  # noqa: BLE001 - a bug here must not pass for a result
            return broken(job, f"the suite itself failed: {type(error).__name__}: {error}")

    def close(self) -> None:
        """Close the bench that is open, if any."""
        if self._bench is not None:
            self._bench.close()
        self._bench, self._kernel = None, ""

    def _open(self, kernel: str) -> Bench:
        if self._bench is None or self._kernel != kernel:
            self.close()
            refused = self._refused.setdefault(kernel, [])
            if len(refused) == TRIES:
                raise Refused(refused[-1])
            try:
                self._bench = self._engine.open(kernel, lambda _: None)
            except Refused as error:
                refused.append(str(error))
                raise
            refused.clear()
            self._kernel = kernel
        return self._bench


def run_case(
    case: Mapping[str, Any], kernel: str, limits: Mapping[str, Any], *, slot: Slot, attempt: int = 1
) -> dict[str, Any]:
    """Run ``case``, a variant, on ``kernel``; what came of it. All of it JSON.

    ``attempt`` says how often it has been asked for: consoles of later ones have folders of their own.

    Raises pydantic's ValidationError if ``case`` or ``limits`` is none; what befalls the guest or the
    suite is part of the answer, a BROKEN verdict.
    """
    job = Job(
        variant=Variant.model_validate(case),
        kernel=kernel,
        attempt=attempt,
        limits=Limits.model_validate(limits),
    )
    return as_json(slot.run(job))


# -- as text -------------------------------------------------------------------------------------
# Escaped ASCII, and read by json: what a guest's kernel wrote may hold lone surrogates, which
# neither UTF-8 nor pydantic's own reader takes.


def asked(job: Job) -> bytes:
    """The arguments of ``run_case`` for a job."""
    request = {
        "case": as_json(job.variant),
        "kernel": job.kernel,
        "limits": as_json(job.limits),
        "attempt": job.attempt,
    }
    return json.dumps(request).encode("ascii")


def answer(request: bytes, slot: Slot) -> bytes:
    """What ``run_case`` answers to a request that ``asked`` wrote."""
    return json.dumps(run_case(**json.loads(request), slot=slot)).encode("ascii")


def told(outcome: Outcome) -> str:
    """An outcome as text."""
    return json.dumps(as_json(outcome))


def answered(text: bytes | str) -> Outcome:
    """The outcome that ``answer`` or ``told`` wrote."""
    return Outcome.model_validate(json.loads(text))
