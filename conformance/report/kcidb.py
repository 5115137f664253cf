"""A run as KCIDB JSON, schema 5.3: what KernelCI's database takes.

A checkout and a build stand for each kernel, since this run made neither: their ids are made of the
kernel's release. A known deviation is a FAIL with an issue and an incident. BROKEN is MISS: "the test
didn't run due to a failure in the test harness"; so is, for each build, what a report lacks.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from conformance.known import Known
from conformance.model import HERE, Status
from conformance.report.result import INCOMPLETE, Asked, Outlook, Result, lacking, releases
from conformance.report.short import short
from conformance.report.text import clean, middle_out

VERSION = {"major": 5, "minor": 3}
ORIGIN = "conform"
EXCERPT = 16_384
"""Characters of a log_excerpt, by the schema."""

_ADDRESS = re.compile(r"https?://[A-Za-z0-9._~:/?#@!$&*+=%-]+[A-Za-z0-9/_~#=-]")

STATUS: Mapping[Outlook, str] = {
    Outlook.GOOD: "PASS",
    Outlook.BAD: "FAIL",
    Outlook.KNOWN: "FAIL",
    Outlook.FIXED: "FAIL",
    Outlook.BROKEN: "MISS",
    Outlook.SKIPPED: "SKIP",
}

Json = dict[str, Any]


def document(results: Sequence[Result], asked: Asked, *, started: str = "") -> str:
    """The whole JSON text. ``started`` is an ISO 8601 time in UTC, without a zone."""
    return json.dumps(report(results, asked, started=started), indent=1, ensure_ascii=True) + "\n"


def report(results: Sequence[Result], asked: Asked, *, started: str = "") -> Json:
    """The same as a value."""
    results = _with_releases(results)
    # Of several records some may be of other releases of a kernel that has one name.
    kernels = list(dict.fromkeys((one.verdict.kernel, one.verdict.release) for one in results))
    tests = [_test(result, asked, result.started or started) for result in results]
    issues = {issue["id"]: issue for result in results for issue in map(_issue, result.rows)}
    incidents = [
        {
            "id": f"{ORIGIN}:{_id(test['id'], issue['id'], str(issue['version']))}",
            "origin": ORIGIN,
            "issue_id": issue["id"],
            "issue_version": issue["version"],
            "test_id": test["id"],
            "present": True,
        }
        for result, test in zip(results, tests, strict=True)
        if result.outlook(asked) is Outlook.KNOWN
        for issue in map(_issue, result.rows)
    ]
    if lacks := lacking(asked):
        kernels = kernels or [("no kernel", "")]  # a test is nothing without its build
        log = clean("\n".join(lacks))
        tests += [_incomplete(log, kernel, asked, started) for kernel in kernels]
    checkouts = [
        {
            "id": f"{ORIGIN}:{_id(name, release)}",
            "origin": ORIGIN,
            "valid": True,
            "comment": f"{name} {release}".strip(),
        }
        for name, release in kernels
    ]
    builds = [
        {
            "id": f"{ORIGIN}:{_id(name, release)}",
            "origin": ORIGIN,
            "checkout_id": f"{ORIGIN}:{_id(name, release)}",
            "status": "PASS",
            "comment": f"{name} {release}".strip(),
        }
        for name, release in kernels
    ]
    whole: Json = {"version": VERSION, "checkouts": checkouts, "builds": builds, "tests": tests}
    if incidents:
        whole |= {"issues": list(issues.values()), "incidents": incidents}
    return whole


def _with_releases(results: Sequence[Result]) -> list[Result]:
    """``results``, those that lost their machine with the release of their kernel's others."""
    known = releases(results)
    return [
        result.model_copy(
            update={
                "verdict": result.verdict.model_copy(
                    update={"release": result.verdict.release or known[result.verdict.kernel]}
                )
            }
        )
        for result in results
    ]


def path_of(result: Result) -> str:
    """``conform.family.case.variant``: the schema takes dots, letters, digits, _ and -."""
    parts = [ORIGIN, result.variant.family, result.variant.case, *result.variant.values.values()]
    return ".".join(re.sub(r"[^A-Za-z0-9_-]+", "_", part) or "_" for part in parts)


def _run(record: str, asked: Asked, started: str) -> str:
    """The same for a run's tests, whether it is reported alone or with others."""
    folder = asked.folder or (str(PurePosixPath(record).parent) if record else "")
    return hashlib.sha256(f"{started}{folder}".encode()).hexdigest()[:12]


def _test(result: Result, asked: Asked, started: str) -> Json:
    verdict = result.verdict
    build = _id(verdict.kernel, verdict.release)
    outlook = result.outlook(asked)
    recorded = outlook is Outlook.GOOD and verdict.status is Status.RECORDED
    test: Json = {
        "id": f"{ORIGIN}:{_id(_run(result.record, asked, started), path_of(result), verdict.kernel)}",
        "origin": ORIGIN,
        "build_id": f"{ORIGIN}:{build}",
        "path": path_of(result),
        "comment": result.variant.title,
        "status": "DONE" if recorded else STATUS[outlook],
        "environment": _environment(verdict.kernel),
        "log_excerpt": middle_out(clean(short(result, asked)), EXCERPT),
        "misc": {
            "claims": list(result.variant.claims),
            "clauses": sorted({finding.clause.value for finding in verdict.findings}),
            "disposition": verdict.disposition.value,
            "kernel": verdict.kernel,
            "release": verdict.release,
        },
    }
    if spread := result.told_spread():
        test["misc"]["attempts"] = spread
    if started:
        test["start_time"] = f"{started}Z"
    if "total" in verdict.seconds:
        test["duration"] = verdict.seconds["total"]
    return test


def _incomplete(log: str, kernel: tuple[str, str], asked: Asked, started: str) -> Json:
    """A test that stands for what is missing. Which kernel's that is, no record tells: so each has one."""
    name, release = kernel
    path = INCOMPLETE.replace("/", ".")
    test: Json = {
        "id": f"{ORIGIN}:{_id(_run('', asked, started), path, name, release)}",
        "origin": ORIGIN,
        "build_id": f"{ORIGIN}:{_id(name, release)}",
        "path": path,
        "comment": "The report is not whole",
        "status": STATUS[Outlook.BROKEN],
        "environment": _environment(name),
        "log_excerpt": middle_out(log, EXCERPT),
        "misc": {"kernel": name, "release": release},
    }
    return test | ({"start_time": f"{started}Z"} if started else {})


def _environment(kernel: str) -> Json:
    if kernel == HERE:
        # Whether that machine was a board, a server or somebody's guest, no record tells.
        return {
            "comment": "the tested machine itself, no guest (--here)",
            "misc": {"platform": HERE},
        }
    return {"comment": "QEMU", "misc": {"platform": "qemu"}}


def _issue(row: Known) -> Json:
    """A row of known deviations; it stays the same issue wherever in its file it stands."""
    issue: Json = {
        "id": f"{ORIGIN}:{_id(*row.identity)}",
        "origin": ORIGIN,
        # KCIDB goes by the highest version, and a row has no number: but whoever looks at it again
        # gives it a later date for its next review.
        "version": int(row.review_by.strftime("%Y%m%d")),
        "report_subject": clean(f"{row.case}: {row.clause.value}: {row.signature}"),
        "comment": clean(f"{row.reason} ({row.link})"),
        "culprit": {"code": True, "tool": False, "harness": False},
        "misc": {
            "case": row.case,
            "variant": {axis: list(held) for axis, held in _values(row).items()},
            "kernel": row.kernel,
            "clause": row.clause.value,
            "signature": clean(row.signature),
            "sometimes": row.sometimes,
            "where": clean(row.where),
        },
    }
    # A link may also name a page of ours and a place in the source, which are no address.
    if address := _ADDRESS.search(row.link):
        issue["report_url"] = address[0]
    return issue


def _values(row: Known) -> Mapping[str, tuple[str, ...]]:
    return {axis: (held,) if isinstance(held, str) else held for axis, held in row.variant.items()}


def _id(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
