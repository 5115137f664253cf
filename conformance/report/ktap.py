"""A run as KTAP version 1 (Documentation/dev-tools/ktap.rst): what kernel CI parses.

One subtest for each kernel and family, a line for each variant. A deviation that is known is an
``ok`` with XFAIL; whatever leaves nothing known is ``not ok`` with ERROR.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from conformance.model import Clause
from conformance.report.result import (
    INCOMPLETE,
    Asked,
    Outlook,
    Result,
    first_clause,
    lacking,
    slug,
    unseen,
)
from conformance.report.short import brief
from conformance.report.text import clean

VERSION = "KTAP version 1"
DIAGNOSTIC = 200
"""Characters of a diagnostic line."""


def document(results: Sequence[Result], asked: Asked, *, started: str = "") -> str:
    """The whole text, with a final newline."""
    del started
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(f"{slug(result.verdict.kernel)}.{result.variant.family}", []).append(
            result
        )
    lacks = [f"# {_flat(f'incomplete: {text}')}" for text in lacking(asked)]
    lines = [VERSION, f"1..{len(groups) + bool(lacks)}", *lacks]
    for number, (name, group) in enumerate(groups.items(), 1):
        lines += [f"  {line}" for line in _group(group, asked)]
        passed = all(_line_of(result, asked)[0] for result in group)
        skipped = all(result.outlook(asked) is Outlook.SKIPPED for result in group)
        lines.append(
            f"{'ok' if passed else 'not ok'} {number} {name}"
            + (" # SKIP every variant was skipped" if skipped else "")
        )
    if lacks:
        # A parser passes over the lines above.
        lines.append(f"not ok {len(groups) + 1} {INCOMPLETE} # ERROR the report is not whole")
    return "\n".join(lines) + "\n"


def _group(group: Sequence[Result], asked: Asked) -> Iterator[str]:
    yield VERSION
    yield f"1..{len(group)}"
    for number, result in enumerate(group, 1):
        for text in _diagnostics(result, asked):
            yield f"# {text}"
        ok, directive = _line_of(result, asked)
        # A description must not hold a #, which would begin a directive.
        name = result.variant.id.replace("#", "_")
        yield f"{'ok' if ok else 'not ok'} {number} {name}" + (
            f" # {directive}" if directive else ""
        )


def _line_of(result: Result, asked: Asked) -> tuple[bool, str]:
    """Whether the line says ok, and its directive."""
    verdict = result.verdict
    match result.outlook(asked):
        case Outlook.GOOD:
            return True, ""
        case Outlook.SKIPPED:
            return True, f"SKIP {_flat('; '.join(verdict.reasons))}"
        case Outlook.KNOWN:
            return True, f"XFAIL {_flat(', '.join(verdict.known) or 'known')}"
        case Outlook.FIXED:
            return False, ""
        case Outlook.BROKEN:
            return False, f"ERROR {_flat('; '.join(verdict.reasons))}"
        case Outlook.BAD:
            hung = first_clause(result.offending(asked)) is Clause.BOUNDED
            return False, "TIMEOUT" if hung else ""


def _diagnostics(result: Result, asked: Asked) -> Iterator[str]:
    if told := unseen(result, asked):
        # The line is not ok though no clause failed, and KTAP has no directive for that.
        yield _flat(told)
    for finding in result.verdict.findings:
        yield _flat(f"{finding.level}: {brief(finding)}")
    if spread := result.told_spread():
        yield _flat(f"attempts: {spread}")


def _flat(text: str) -> str:
    """One line that begins no directive and is no test line."""
    flat = " ".join(clean(text).split()).replace("#", "_")
    return flat if len(flat) <= DIAGNOSTIC else f"{flat[: DIAGNOSTIC - 3]}..."
