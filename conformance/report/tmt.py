"""A run as tmt's results.yaml: what a test with ``result: custom`` leaves in $TMT_TEST_DATA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from conformance.model import Status
from conformance.report.result import Asked, Outlook, Result
from conformance.report.short import brief
from conformance.report.text import clean

RESULT = {
    Status.PASS: "pass",
    Status.RECORDED: "info",
    Status.FAIL: "fail",
    Status.BROKEN: "error",
    Status.SKIP: "skip",
}


def document(results: Sequence[Result], asked: Asked, *, started: str = "") -> str:
    """The whole YAML text: a list with an entry for each variant and kernel."""
    del started
    return yaml.safe_dump(
        [_entry(result, asked) for result in results], sort_keys=False, allow_unicode=False
    )


def _entry(result: Result, asked: Asked) -> dict[str, Any]:
    verdict = result.verdict
    known = result.outlook(asked) is Outlook.KNOWN
    notes = [brief(finding) for finding in verdict.findings] + list(verdict.reasons)
    if spread := result.told_spread():
        notes.append(f"attempts: {spread}")
    if known:
        notes += [f"known: {row}" for row in verdict.known]
    entry: dict[str, Any] = {
        "name": f"/{result.variant.family}/{result.name(asked)}",
        "result": "pass" if known else RESULT[verdict.status],
        "note": [clean(" ".join(note.split())) for note in notes],
        "log": list(result.consoles),
    }
    if known:
        entry["original-result"] = "fail"
    if "total" in verdict.seconds:
        entry["duration"] = _duration(verdict.seconds["total"])
    return entry


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
