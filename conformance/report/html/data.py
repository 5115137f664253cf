"""What the page is made of: an index of all results, small, and the short reports in chunks.

A text that occurs more than once in the index is there once and named by its number. A chunk is JSON,
compressed by zlib, in base64: its alphabet has no character that means anything to HTML.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from conformance.model import CLAIMS, Finding, Status, Verdict
from conformance.report.findings import Standing, kernels_of, standing
from conformance.report.norm import link, linked, told
from conformance.report.result import Asked, Outlook, Result, again, lacking, starts
from conformance.report.story import Line, Story
from conformance.report.text import clean, middle_out

CHUNK = 512 << 10
"""Characters of JSON in a chunk: opened in some milliseconds, and enough for texts to repeat in."""
LOG_LINES = 400
"""Lines of an arm's kernel log that are kept, besides those that matter."""
LINE_LIMIT = 500
TEXT_LIMIT = 4000

Json = dict[str, Any]


class Sign(NamedTuple):
    """How a kind of result is shown: never by colour alone."""

    sign: str
    word: str
    means: str


SIGN: Mapping[str, Sign] = {
    "F": Sign("✗", "FAIL", "the kernel deviates from the norm"),
    "K": Sign("✗", "FAIL, known", "it deviates, as results/known/ tells"),
    "B": Sign("!", "BROKEN", "the rig failed, or the shortage never came: nothing is known"),
    "P": Sign("✓", "PASS", "every clause held, and the shortage was shown to have arrived"),
    "R": Sign("·", "RECORDED", "the case makes no claim; its behaviour is noted"),
    "S": Sign("-", "SKIP", "a declared requirement is absent here"),
}
"""By code, worst first: a cell shows the first of these that it has."""

STANDING = {"fails": "F", "holds": "P", "not applicable": "S", "not tested": "N"}

_TELLING = re.compile(
    r"invoked oom-killer|^oom-kill:|[Oo]ut of memory|I/O error|lost async page write|No space left"
    r"|out of data space|EXT4-fs (?:error|\(.*\): (?:Delayed block|This should|failed))|Remounting"
    r"|XFS .*(?:error|[Ss]hutdown|Shutting)|BTRFS.*(?:error|critical|forced readonly)|F2FS-fs.*error"
    r"|\bBUG\b|WARNING:|Oops|blocked for more than|soft lockup|Call trace|Kernel panic|KASAN|UBSAN"
)
"""Lines that matter whatever the verdict says: what a reader of such a log looks for first."""


class Cell(NamedTuple):
    """Some results on one kernel: how many have each code."""

    kernel: int
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.counts.values())

    @property
    def worst(self) -> str:
        """The code that the cell shows, or nothing."""
        return next((code for code in SIGN if self.counts.get(code)), "")


class Row(NamedTuple):
    """A family of the matrix."""

    family: str
    cases: int
    cells: tuple[Cell, ...]


class ClaimRow(NamedTuple):
    """A claim, and where it stands on each kernel."""

    claim: str
    text: str
    cells: tuple[Standing, ...]


class Page(NamedTuple):
    """All that the templates need."""

    started: tuple[str, ...]  # of one run one time, of several the first and the last
    kernels: tuple[tuple[str, str], ...]
    totals: Mapping[str, int]
    lacks: tuple[str, ...]
    results: int
    variants: int
    cases: int
    rows: tuple[Row, ...]
    claims: tuple[ClaimRow, ...]
    data: Json
    chunks: tuple[str, ...]


def page(results: Sequence[Result], asked: Asked, *, started: str) -> Page:
    """Everything of a run, as the page has it."""
    verdicts = [result.verdict for result in results]
    kernels = kernels_of(verdicts)
    column = {name: number for number, (name, _) in enumerate(kernels)}
    groups: dict[str, list[Result]] = {}
    # As documents list them: by family, and in it as the cases are ordered.
    for result in sorted(results, key=lambda r: r.variant.family):
        groups.setdefault(result.variant.id, []).append(result)
    index, chunks = _index(groups, column, asked)
    claims = _claims(results, verdicts, kernels)
    index |= {
        "kernels": [[clean(name), clean(release)] for name, release in kernels],
        "claims": {claim: clean(text) for claim, text in CLAIMS.items()},
        "standing": {
            row.claim: [
                [STANDING[one.word], len(one.failed), len(one.advised)] for one in row.cells
            ]
            for row in claims
        },
        "signs": {code: list(sign) for code, sign in SIGN.items()},
        "started": started,
    }
    codes = [code_of(result) for result in results]
    began = starts(results, started)
    return Page(
        started=tuple(dict.fromkeys(time.replace("T", " ") for time in began[:1] + began[-1:])),
        kernels=tuple((clean(name), clean(release)) for name, release in kernels),
        totals={code: codes.count(code) for code in SIGN if code in codes},
        lacks=tuple(clean(text) for text in lacking(asked)),
        results=len(results),
        variants=len(groups),
        cases=len({result.variant.case for result in results}),
        rows=tuple(_rows(groups.values(), column)),
        claims=claims,
        data=index,
        chunks=chunks,
    )


def embedded(value: object) -> str:
    """JSON that can stand in a script element: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def code_of(result: Result) -> str:
    """One letter for a result, a key of ``SIGN``.

    What counts is what happened; whether a gate takes it is the exit status's business.
    """
    status = result.verdict.status
    if status is Status.FAIL:
        return "K" if result.outlook(Asked()) is Outlook.KNOWN else "F"
    return status.value[0]


# -- the first screen ---------------------------------------------------------------------------


def _rows(groups: Iterable[Sequence[Result]], column: Mapping[str, int]) -> Iterator[Row]:
    families: dict[str, list[Result]] = {}
    for group in groups:
        families.setdefault(group[0].variant.family, []).extend(group)
    for family, results in families.items():
        counts: list[dict[str, int]] = [{} for _ in column]
        for result in results:
            mine = counts[column[result.verdict.kernel]]
            code = code_of(result)
            mine[code] = mine.get(code, 0) + 1
        yield Row(
            family=clean(family),
            cases=len({result.variant.case for result in results}),
            cells=tuple(Cell(number, mine) for number, mine in enumerate(counts)),
        )


def _claims(
    results: Sequence[Result],
    verdicts: Sequence[Verdict],
    kernels: Sequence[tuple[str, str]],
) -> tuple[ClaimRow, ...]:
    claimed = {result.variant.case: result.variant.claims for result in results}
    of = {name: [v for v in verdicts if v.kernel == name] for name, _ in kernels}
    return tuple(
        ClaimRow(claim, text, tuple(standing(claim, of[name], claimed) for name, _ in kernels))
        for claim, text in CLAIMS.items()
    )


# -- the index ----------------------------------------------------------------------------------


class _Texts:
    """Texts by number, each once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self.numbers.setdefault(middle_out(clean(text), TEXT_LIMIT), len(self.numbers))


def _index(
    groups: Mapping[str, Sequence[Result]], column: Mapping[str, int], asked: Asked
) -> tuple[Json, tuple[str, ...]]:
    texts = _Texts()
    variants: list[list[object]] = []
    chunks: list[str] = []
    pending: list[str] = []
    for group in groups.values():
        variant = group[0].variant
        codes = [""] * len(column)
        said: list[list[int]] = [[] for _ in column]
        for result in group:
            kernel = column[result.verdict.kernel]
            verdict = result.verdict
            codes[kernel] = code_of(result) + ("a" if verdict.advisories else "")
            said[kernel] = [texts.number(text) for text in _said(verdict)]
        variants.append(
            [
                texts.number(variant.family),
                texts.number(variant.case),
                clean("-".join(variant.values.values())),
                texts.number(variant.title),
                sorted({int(claim[1:]) for claim in _claimed(group)}),
                codes,
                said,
                len(chunks),
                len(pending),
            ]
        )
        pending.append(_compact(_details(group, column, asked)))
        if sum(map(len, pending)) >= CHUNK:
            chunks.append(_packed(pending))
            pending = []
    if pending:
        chunks.append(_packed(pending))
    return {"texts": list(texts.numbers), "variants": variants}, tuple(chunks)


def _said(verdict: Verdict) -> list[str]:
    """A line for each thing to say of a result in a list: what deviated, or why it is not known."""
    found = [f"{f.clause.value}: {f.signature}" for f in [*verdict.deviations, *verdict.advisories]]
    if verdict.status in (Status.BROKEN, Status.SKIP):
        found += verdict.reasons
    return list(dict.fromkeys(found))


def _claimed(group: Sequence[Result]) -> set[str]:
    spoken = {claim for r in group for f in r.verdict.findings for claim in f.claims}
    return {*group[0].variant.claims, *spoken} & set(CLAIMS)


# -- the chunks ---------------------------------------------------------------------------------


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _packed(parts: Sequence[str]) -> str:
    text = f"[{','.join(parts)}]"
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def _details(group: Sequence[Result], column: Mapping[str, int], asked: Asked) -> Json:
    """What is the same on every kernel, and a report for each."""
    variant = group[0].variant
    return {
        "title": clean(variant.title),
        "level": variant.level.value,
        "claims": list(variant.claims),
        "where": clean(f"{variant.where.file}:{variant.where.line}"),
        "values": {clean(name): clean(value) for name, value in variant.values.items()},
        "norm": [[clean(told(n)), link(n), clean(n.quote)] for n in variant.norm],
        "on": {column[result.verdict.kernel]: _report(result, asked) for result in group},
    }


def _report(result: Result, asked: Asked) -> Json:
    verdict = result.verdict
    evidence = {
        line.strip()
        for finding in verdict.findings
        for e in finding.evidence
        for line in e.split("\n")
    }
    return {
        "findings": [_finding(finding) for finding in verdict.findings],
        "reasons": [_text(reason) for reason in verdict.reasons],
        "notes": [_text(note) for note in [*verdict.notes, *_spread(result)]],
        "known": [clean(row) for row in verdict.known],
        "seconds": verdict.seconds.get("total"),
        "again": clean(again(result, asked)),
        "consoles": [clean(path) for path in result.consoles],
        "arms": [_arm(story, evidence - {""}) for story in result.story],
    }


def _spread(result: Result) -> Iterator[str]:
    if spread := result.told_spread():
        yield f"{'wavers' if result.wavers else 'attempts'}: {spread}"


def _finding(finding: Finding) -> Json:
    return {
        "clause": finding.clause.value,
        "level": finding.level.value,
        "expected": _text(finding.expected),
        "observed": _text(finding.observed),
        "claims": list(finding.claims),
        "step": clean(finding.step),
        "arm": clean(finding.arm),
        "evidence": [_text(line) for line in finding.evidence],
        "documented": linked(clean(finding.documented_by)),
    }


def _text(text: str) -> str:
    return middle_out(clean(text), TEXT_LIMIT)


def _arm(story: Story, evidence: set[str]) -> Json:
    return {
        "name": clean(story.arm),
        "gauge": clean(story.gauge_of),
        "facts": {clean(key): clean(value) for key, value in story.facts.items()},
        "steps": [
            [clean(s.name), s.verb, s.role, s.start_us, s.end_us, _text(s.told), list(s.written)]
            for s in story.steps
        ],
        "used": [list(reading) for reading in story.gauge],
        "marks": [[m.t_us, m.kind, _text(m.text), clean(m.step)] for m in story.marks],
        "log": list(_log(story.log, evidence)),
    }


def _log(lines: Sequence[Line], evidence: set[str]) -> Iterator[list[object]]:
    """``[time, level, text, matters]``; or ``[count]`` for lines that are left out."""
    matters = [
        any(part in line.text for part in evidence) or bool(_TELLING.search(line.text))
        for line in lines
    ]
    half = LOG_LINES // 2
    left_out = 0
    for number, (line, marked) in enumerate(zip(lines, matters, strict=True)):
        if half <= number < len(lines) - half and not marked:
            left_out += 1
            continue
        if left_out:
            yield [left_out]
            left_out = 0
        yield [line.t_us, line.level, middle_out(clean(line.text), LINE_LIMIT), int(marked)]
