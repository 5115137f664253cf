"""The short report of a variant: its claim, what was expected and seen, how to see it again."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from conformance.model import CLAIMS, Finding, Norm, Status
from conformance.report.result import Asked, Outlook, Result, again
from conformance.report.text import clean

WIDTH = 96
LABEL = 10


def headline(result: Result) -> str:
    """``file:line: STATUS case[variant] on kernel (release)``: editors jump to the front of it."""
    where, verdict = result.variant.where, result.verdict
    release = f" ({verdict.release})" if verdict.release else ""
    return (
        f"{where.file}:{where.line}: {verdict.status} {result.variant.id} "
        f"on {verdict.kernel}{release}"
    )


def short(result: Result, asked: Asked) -> str:
    """The whole report, without a final newline."""
    variant, verdict = result.variant, result.verdict
    lines = [headline(result), *_item("case", variant.title)]
    for claim in variant.claims:
        lines += _item("claim", f"{claim}  {CLAIMS.get(claim, '')}".rstrip())
    for norm in variant.norm:
        lines += _item("norm", _norm(norm))
    for finding in verdict.findings:
        lines += _finding(finding)
    for reason in verdict.reasons:
        lines += _item(_REASON.get(verdict.status, "reason"), reason)
    for note in verdict.notes:
        lines += _item("noted", note)
    if spread := result.told_spread():
        lines += _item("attempts", spread)
    gone = " (no longer seen)" if result.outlook(asked) is Outlook.FIXED else ""
    for row in verdict.known:
        lines += _item("known", f"{row}{gone}")
    for path in evidence(result, asked):
        lines.append(f"  {'evidence':<{LABEL}}{path}")
    lines.append(f"  {'again':<{LABEL}}{again(result, asked)}")
    return "\n".join(lines)


def brief(finding: Finding) -> str:
    """One line on a finding; its clause comes first."""
    step = f" at {finding.step}" if finding.step else ""
    told = f"{finding.clause}{step}: expected {finding.expected}; observed {finding.observed}"
    return " ".join(told.split())


def evidence(result: Result, asked: Asked) -> tuple[str, ...]:
    """What to look at next, each once: consoles, the judge's pointers, the record."""
    *consoles, record = files(result, asked)
    pointers = [
        item
        for finding in result.verdict.findings
        for item in finding.evidence
        if item not in result.consoles
    ]
    return tuple(path for path in dict.fromkeys([*consoles, *pointers, record]) if path)


def files(result: Result, asked: Asked) -> tuple[str, ...]:
    """The paths of a result's consoles, then that of the record, which is empty if nobody has said."""
    base = f"{asked.folder}/" if asked.folder else ""
    consoles = [f"{base}{path}" for path in result.consoles if path]
    return (*consoles, result.record or (f"{base}record.jsonl" if base else ""))


_REASON = {Status.BROKEN: "broken", Status.SKIP: "skipped"}


def _finding(finding: Finding) -> Iterable[str]:
    place = [finding.step and f"step {finding.step}"]
    if finding.arm != "main":
        place.append(f"arm {finding.arm}")
    claims = ", ".join(finding.claims)
    told = f"{finding.clause} ({finding.level}{', ' + claims if claims else ''})"
    yield from _item("clause", ", ".join([told, *filter(None, place)]))
    yield from _item("expected", finding.expected)
    yield from _item("observed", finding.observed)
    if finding.documented_by:
        told = f"deviates from the thesis, as documented: {finding.documented_by}"
        yield from _item("", told)


def _norm(norm: Norm) -> str:
    section = f", {norm.section}" if norm.section else ""
    quote = f': "{norm.quote}"' if norm.quote else ""
    return f"{norm.source}{section}{quote}"


def _item(label: str, text: str) -> list[str]:
    """A labelled paragraph; the text's own lines are kept, long ones are wrapped."""
    indent = " " * (LABEL + 2)
    lines: list[str] = []
    for line in clean(text).splitlines() or [""]:
        lines += textwrap.wrap(
            line, WIDTH - len(indent), break_long_words=False, break_on_hyphens=False
        ) or [""]
    return [
        f"  {label:<{LABEL}}{line}" if number == 0 else f"{indent}{line}"
        for number, line in enumerate(lines)
    ]
