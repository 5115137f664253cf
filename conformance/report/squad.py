"""A run as SQUAD JSON (LKFT): ``tests`` and ``metadata`` for POST /api/submit.

``/`` separates suite and test, variants stand in brackets. SQUAD keeps known issues on its own side, so
that a known deviation is a fail here; anything but pass and fail is shown as a skip.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from conformance.report.result import INCOMPLETE, Asked, Outlook, Result, lacking, slug, starts
from conformance.report.short import short
from conformance.report.text import clean

RESULT = {
    Outlook.GOOD: "pass",
    Outlook.BAD: "fail",
    Outlook.KNOWN: "fail",
    Outlook.FIXED: "fail",
    Outlook.BROKEN: "skip",
    Outlook.SKIPPED: "skip",
}


def document(results: Sequence[Result], asked: Asked, *, started: str = "") -> str:
    """The whole JSON text. With several kernels their names are part of the suites'."""
    several = len({result.verdict.kernel for result in results}) > 1
    tests = {}
    for result in results:
        suite = result.variant.family
        if several:
            suite = f"{slug(result.verdict.kernel)}.{suite}"
        told = {"result": RESULT[result.outlook(asked)], "log": clean(short(result, asked))}
        tests[f"{suite}/{result.variant.id}"] = told
    began = " ".join(starts(results, started))
    run = hashlib.sha256(f"{began}{asked.folder}".encode()).hexdigest()[:16]
    metadata = {
        # Mandatory, and must not have a slash.
        "job_id": f"conform-{run}",
        "kernel": ", ".join(sorted({result.verdict.kernel for result in results})),
        # A result that lost its machine has none.
        "release": ", ".join(sorted({result.verdict.release for result in results} - {""})),
    }
    if lacks := lacking(asked):
        metadata["incomplete"] = clean("; ".join(lacks))
        tests[INCOMPLETE] = {"result": "fail", "log": clean("\n".join(lacks))}
    return json.dumps({"tests": tests, "metadata": metadata}, indent=1, ensure_ascii=True) + "\n"
