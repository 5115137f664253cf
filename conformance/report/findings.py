"""The tables of docs/findings.md, made from verdicts: what each kernel did, and where each claim stands.

Pure: verdicts in, Markdown out. Prose stays in the document; the tables stand between markers, so
that they are made anew from records and never edited by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from conformance.model import CLAIMS, ROLL_UP, Status, Verdict

SIGN = {
    Status.PASS: "pass",
    Status.FAIL: "**FAIL**",
    Status.BROKEN: "broken",
    Status.SKIP: "skip",
    Status.RECORDED: "recorded",
}

MARKED = re.compile(r"(<!-- table: (?P<name>[a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def roll_up(statuses: Iterable[Status]) -> Status | None:
    """The worst of some statuses, or None of none."""
    found = set(statuses)
    return next((status for status in ROLL_UP if status in found), None)


def kernels_of(verdicts: Iterable[Verdict]) -> tuple[tuple[str, str], ...]:
    """(name, release) of each kernel, oldest release first; of one that was updated, all its releases."""
    seen: dict[str, set[str]] = {}
    for verdict in verdicts:
        seen.setdefault(verdict.kernel, set()).add(verdict.release)
    named = [(name, " and ".join(sorted(releases))) for name, releases in seen.items()]
    return tuple(sorted(named, key=lambda item: _release_key(item[1])))


def families_table(verdicts: Sequence[Verdict], family: Mapping[str, str]) -> str:
    """Families down, kernels across; a cell counts the variants by status. ``family`` is by case."""
    kernels = kernels_of(verdicts)
    body = []
    for name in sorted(set(family.values())):
        mine = [v for v in verdicts if family[v.case] == name]
        row = [name]
        for kernel, _ in kernels:
            seen = [v.status for v in mine if v.kernel == kernel]
            counts = [(seen.count(status), status) for status in SIGN]
            row.append(", ".join(f"{n} {SIGN[status]}" for n, status in counts if n) or "not run")
        body.append(row)
    return _markdown(["family", *(f"{name}<br>{release}" for name, release in kernels)], body)


def results_table(verdicts: Sequence[Verdict]) -> str:
    """Variants that fail somewhere down, kernels across; a cell is the status and what deviated."""
    kernels = kernels_of(verdicts)
    cells = {(v.variant, v.kernel): v for v in verdicts}
    rows = sorted({v.variant for v in verdicts if v.deviations})
    head = ["variant", *(f"{name}<br>{release}" for name, release in kernels)]
    body = [[f"`{row}`", *(_cell(cells.get((row, name))) for name, _ in kernels)] for row in rows]
    return _markdown(head, body)


def claims_table(verdicts: Sequence[Verdict], claimed: Mapping[str, Sequence[str]]) -> str:
    """S1 to S14 down, kernels across.

    ``claimed`` gives the claims of each case. A claim *fails* where a finding of level must speaks
    to it; it *holds* where a case that covers it passed and none failed; an advisory is told beside.
    """
    kernels = kernels_of(verdicts)
    body = []
    for claim, text in CLAIMS.items():
        row = [f"**{claim}** {text}"]
        for name, _ in kernels:
            mine = [v for v in verdicts if v.kernel == name]
            row.append(_told(standing(claim, mine, claimed)))
        body.append(row)
    return _markdown(["claim", *(name for name, _ in kernels)], body)


class Standing(NamedTuple):
    """Where a claim stands on a kernel, and which cases say so."""

    word: Literal["fails", "holds", "not applicable", "not tested"]
    failed: frozenset[str] = frozenset()
    advised: frozenset[str] = frozenset()


def standing(
    claim: str, verdicts: Sequence[Verdict], claimed: Mapping[str, Sequence[str]]
) -> Standing:
    """Where ``claim`` stands by the verdicts of one kernel; ``claimed`` is as for the table."""
    failed = frozenset(v.case for v in verdicts if any(claim in f.claims for f in v.deviations))
    advised = frozenset(v.case for v in verdicts if any(claim in f.claims for f in v.advisories))
    if failed:
        return Standing("fails", failed, advised)
    covering = [v for v in verdicts if claim in claimed.get(v.case, ())]
    if any(v.status in (Status.PASS, Status.FAIL) for v in covering):
        return Standing("holds", failed, advised)
    skipped = any(v.status is Status.SKIP for v in covering)
    return Standing("not applicable" if skipped else "not tested")


def refresh(document: str, tables: Mapping[str, str]) -> str:
    """``document`` with each marked table made anew.

    Raises KeyError if a marker names a table that is not there.
    """
    return MARKED.sub(lambda m: f"{m[1]}{tables[m['name']]}\n{m[3]}", document)


def _told(standing: Standing) -> str:
    advised = f", advisories in {_count(standing.advised)}" if standing.advised else ""
    match standing.word:
        case "fails":
            return f"**fails** in {_count(standing.failed)}"
        case "holds":
            return f"holds{advised}"
    return standing.word


def _count(cases: frozenset[str]) -> str:
    return f"{len(cases)} case" + ("s" if len(cases) != 1 else "")


def _cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return "not run"
    told = [f"{f.clause.value}: {f.signature}" for f in verdict.deviations]
    reasons = list(verdict.reasons) if verdict.status is Status.BROKEN else []
    parts = dict.fromkeys([SIGN[verdict.status], *told, *reasons])
    return "<br>".join(part.replace("|", "\\|") for part in parts)


def _release_key(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", release)[:3])


def _markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
