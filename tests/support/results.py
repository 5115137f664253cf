"""Variants and verdicts, short to write: for tests of what is made of them."""

from __future__ import annotations

from datetime import date
from typing import Any

from conformance.known import Known
from conformance.model import (
    Arm,
    Clause,
    Disposition,
    Expect,
    Finding,
    Level,
    Norm,
    NoShortage,
    Role,
    Status,
    TmpfsLayer,
    Variant,
    Verdict,
    Verify,
    Where,
)
from conformance.report.result import Result


def variant(
    case: str = "loop_full", family: str = "loop_enospc", line: int = 1, **values: str
) -> Variant:
    return Variant(
        case=case,
        family=family,
        values=values,
        title="A write past the space of a full device fails with an error to its submitter",
        level=Level.MUST,
        claims=("S1", "S12"),
        norm=(
            Norm(source="seed/thread.txt", quote="it *must* return ENOSPC to the IO submitter"),
            Norm(source="write(2)", section="ERRORS, ENOSPC"),
        ),
        arms=(
            Arm(
                layers=(TmpfsLayer(name="back", layer="tmpfs", size=4096),),
                shortage=NoShortage(kind="none"),
                steps=(Verify(name="look", role=Role.OBSERVE, verb="verify", length=4096),),
            ),
        ),
        expect=Expect(),
        where=Where(file=f"cases/{family}/{case}.yaml", line=line),
    )


def finding(
    clause: Clause = Clause.ERROR_SURFACED, level: Level = Level.MUST, **more: Any
) -> Finding:
    return Finding(
        **{
            "clause": clause,
            "level": level,
            "expected": "an error at write, fsync or close",
            "observed": "every call succeeded, and 12 blocks read back as zero",
            "claims": ("S1",),
            "signature": "lost-in-silence",
            "step": "fill",
            "evidence": ("loop_full/main/console.log",),
            **more,
        }
    )


def result(
    status: Status,
    *findings: Finding,
    of: Variant | None = None,
    kernel: str = "debian/trixie",
    disposition: Disposition | None = None,
    reasons: tuple[str, ...] = (),
    **more: Any,
) -> Result:
    about = of or variant()
    if disposition is None:
        failed = status is Status.FAIL
        disposition = Disposition.UNEXPECTED if failed else Disposition.NONE
    return Result(
        variant=about,
        verdict=Verdict(
            case=about.case,
            values=about.values,
            kernel=kernel,
            status=status,
            findings=findings,
            disposition=disposition,
            reasons=reasons,
            **{"release": "6.12.117", "seconds": {"total": 1.25}, **more},
        ),
        consoles=("loop_full/main/console.log",),
    )


def known_row(where: str = "results/known/loop.toml:3", **more: Any) -> Known:
    return Known(
        **{
            "case": "known",
            "kernel": ">= 6.1",
            "clause": Clause.ERROR_SURFACED,
            "signature": "lost-in-silence",
            "reason": "write-back drops the error",
            "link": "docs/findings/loop.md; https://lore.kernel.org/r/20261124@example.org/",
            "review_by": date(2027, 6, 1),
            "where": where,
            **more,
        }
    )


def one_of_each() -> list[Result]:
    """A result for each outlook, and the advisory that is none."""
    advisory = finding(Clause.ERRNO_PRECISE, Level.SHOULD, observed="EIO", signature="eio")
    row = known_row()
    known = (row.where,)
    return [
        result(Status.PASS, of=variant("passes")),
        result(Status.PASS, advisory, of=variant("advised")),
        result(Status.FAIL, finding(), advisory, of=variant("fails")),
        result(
            Status.FAIL,
            finding(),
            of=variant("known"),
            disposition=Disposition.AS_KNOWN,
            known=known,
        ).model_copy(update={"rows": (row,)}),
        result(
            Status.PASS, of=variant("fixed"), disposition=Disposition.FIXED, known=known
        ).model_copy(update={"rows": (row,)}),
        result(Status.BROKEN, of=variant("broken"), reasons=("the shortage never arrived",)),
        result(
            Status.SKIP,
            of=variant("skipped"),
            reasons=("no module dm_thin_pool", "no tool thin_check"),
        ),
        result(Status.RECORDED, of=variant("surveyed"), notes=("answers EIO",)),
    ]
