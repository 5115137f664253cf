"""A run as tmt's results.yaml: what a test with ``result: custom`` leaves in $TMT_TEST_DATA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from conformance.model import Status
from conformance.report.result import INCOMPLETE, Asked, Outlook, Result, lacking, unseen
from conformance.report.short import brief
from conformance.report.text import clean

RESULT = {
    Outlook.GOOD: "pass",
    Outlook.BAD: "fail",
    Outlook.KNOWN: "pass",
    Outlook.FIXED: "fail",
    Outlook.BROKEN: "error",
    Outlook.SKIPPED: "skip",
}


def document(results: Sequence[Result], asked: Asked, *, started: str = "") -> str:
    """The whole YAML text: a list with an entry for each variant and kernel."""
    del started
    entries = [_entry(result, asked) for result in results]
    if lacks := lacking(asked):
        entries.append({"name": f"/{INCOMPLETE}", "result": "error", "note": _flat(lacks)})
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=False)


def _entry(result: Result, asked: Asked) -> dict[str, Any]:
    verdict = result.verdict
    outlook = result.outlook(asked)
    known = outlook is Outlook.KNOWN
    recorded = outlook is Outlook.GOOD and verdict.status is Status.RECORDED
    notes = [brief(finding) for finding in verdict.findings] + list(verdict.reasons)
    if spread := result.told_spread():
        notes.append(f"attempts: {spread}")
    if known:
        notes += [f"known: {row}" for row in verdict.known]
    if told := unseen(result, asked):
        notes.append(told)
    entry: dict[str, Any] = {
        "name": f"/{result.variant.family}/{result.name(asked)}",
        "result": "info" if recorded else RESULT[outlook],
        "note": _flat(notes),
        "log": list(result.consoles),
    }
    if known:
        entry["original-result"] = "fail"
    if "total" in verdict.seconds:
        entry["duration"] = _duration(verdict.seconds["total"])
    return entry


def _flat(notes: Sequence[str]) -> list[str]:
    return [clean(" ".join(note.split())) for note in notes]


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
