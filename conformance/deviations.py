"""The deviations that docs/findings/ tells of: which findings are each one's, and what is generated of it.

A deviation is a section whose heading is followed by a marker with patterns of findings. What stands
between the marker and its end is made from verdicts; the rest, the parts in ``PARTS``, is by hand. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from conformance.known import Known
from conformance.model import CLAIMS, Finding, Status, Value, Verdict
from conformance.report.findings import kernels_of

NEVER = "In no published record: it comes by chance, or on kernels that are not published yet."
PARTS = ("Evidence", "Mechanism", "What a fix has to do", "How sure")
"""What a person has to say of a deviation."""
MARKER = re.compile(
    r"^## (?P<title>[^\n]+)\n\n<!-- deviation: (?P<patterns>[^>]+?) -->\n(?P<made>.*?)<!-- end -->\n"
    r"(?P<text>.*?)(?=^## |\Z)",
    re.MULTILINE | re.DOTALL,
)
_PART = re.compile(
    r"^- \*\*(?P<name>[^*]+)\.\*\*\s+(?P<text>\S.*?)(?=^- \*\*|\Z)", re.MULTILINE | re.DOTALL
)


class Deviation(Value):
    """One section. ``page``: its file's name; ``parts``: what is said of it by hand."""

    page: str
    title: str
    patterns: tuple[str, ...]
    parts: dict[str, str]

    @property
    def anchor(self) -> str:
        """Where a link to the section leads, as forges make it of a heading."""
        return re.sub(r"[^\w\- ]", "", self.title.lower()).replace(" ", "-")

    def has(self, row: Known) -> bool:
        """Whether a row of the known deviations is of this one.

        A pattern is a glob of ``case/clause:signature``, with anything after it; ``=`` and a glob after that
        is for the row's link. One that begins with ``!`` takes away.
        """
        taken = (one[1:] for one in self.patterns if one.startswith("!"))
        if any(_speaks_of(one, row) for one in taken):
            return False
        return any(_speaks_of(one, row) for one in self.patterns)


def _speaks_of(pattern: str, row: Known) -> bool:
    name, _, link = pattern.partition("=")
    told = f"{row.case}/{row.clause.value}:{row.signature}"
    return fnmatchcase(told, f"{name}*") and fnmatchcase(row.link, f"*{link}*")


class Seen:
    """Verdicts, and which of their findings are of which deviation, by the rows that tell of them."""

    def __init__(self, verdicts: Sequence[Verdict], rows: Sequence[Known]) -> None:
        self.verdicts = verdicts
        self._rows = rows

    def of(self, one: Deviation, verdict: Verdict) -> tuple[Finding, ...]:
        """The findings of a verdict that are of a deviation."""
        mine = [row for row in self._rows if row.covers(verdict) and one.has(row)]
        return tuple(f for f in verdict.deviations if any(row.tells_of(f) for row in mine))

    def comes_by_chance(self, one: Deviation, verdict: Verdict) -> bool:
        """Whether the rows leave it to chance that what was judged shows a deviation."""
        return any(row.sometimes and row.covers(verdict) and one.has(row) for row in self._rows)

    def showing(self, one: Deviation) -> dict[str, list[Verdict]]:
        """The variants that show a deviation on some kernel, by name, each with all its verdicts."""
        cases = {row.case for row in self._rows if one.has(row)}
        found: dict[str, list[Verdict]] = {}
        for verdict in self.verdicts:
            if verdict.case in cases:
                found.setdefault(verdict.variant, []).append(verdict)
        return {name: mine for name, mine in found.items() if any(self.of(one, v) for v in mine)}


def deviations(page: str, text: str) -> tuple[Deviation, ...]:
    """The deviations of a page."""
    return tuple(
        Deviation(
            page=page,
            title=match["title"],
            patterns=tuple(match["patterns"].split()),
            parts={one["name"]: one["text"].strip() for one in _PART.finditer(match["text"])},
        )
        for match in MARKER.finditer(text)
    )


def fill(text: str, made: Mapping[str, str]) -> str:
    """A page with what is generated of each deviation made anew; ``made`` is by title."""
    return MARKER.sub(
        lambda m: (
            f"## {m['title']}\n\n<!-- deviation: {m['patterns']} -->\n{made[m['title']]}"
            f"<!-- end -->\n{m['text']}"
        ),
        text,
    )


class _Count(NamedTuple):
    """Of a deviation on a kernel: how many variants show it, of how many that were judged.

    ``chance``: none does, and the known rows leave that to chance.
    """

    shown: int
    judged: int
    chance: bool


def section(one: Deviation, seen: Seen, families: Mapping[str, str], script: str) -> str:
    """What is generated of a deviation: kernels, claims, cases, and ``script``, what is said of that."""
    shown = seen.showing(one)
    findings = [f for mine in shown.values() for verdict in mine for f in seen.of(one, verdict)]
    clauses = dict.fromkeys(f"`{f.clause.value}`" for f in findings)
    cases = dict.fromkeys(mine[0].case for mine in shown.values())
    links = [f"[{case}](../catalogue/{families[case]}.md#{case})" for case in cases]
    lines = [f"- **Kernels.** {_kernels(_counted(one, seen, shown)) or NEVER}"]
    if shown:
        lines.append(f"- **Claims.** {_claims(findings) or 'None'}; clauses {', '.join(clauses)}")
        lines.append(f"- **Cases.** {', '.join(links)}")
    lines.append(f"- **Script.** {script}")
    return "".join(f"{line}\n" for line in lines)


def _kernels(counted: Mapping[str, _Count]) -> str:
    has = [f"{name} ({n.shown} of {n.judged} variants)" for name, n in counted.items() if n.shown]
    chance = [name for name, n in counted.items() if n.chance]
    spared = [name for name, n in counted.items() if n.judged and not n.shown and not n.chance]
    parts = (
        ("", has),
        ("not in the published runs, but left to chance by the known rows, on ", chance),
        ("not on ", spared),
    )
    return "; ".join(f"{word}{', '.join(names)}" for word, names in parts if names)


def _claims(findings: Sequence[Finding]) -> str:
    return ", ".join(claim for claim in CLAIMS if any(claim in f.claims for f in findings))


def _counted(
    one: Deviation, seen: Seen, shown: Mapping[str, Sequence[Verdict]]
) -> dict[str, _Count]:
    """By release."""
    counted = {}
    for kernel, release in kernels_of(seen.verdicts):
        judged = [v for mine in shown.values() for v in mine if v.kernel == kernel]
        judged = [v for v in judged if v.status in (Status.PASS, Status.FAIL)]
        number = sum(bool(seen.of(one, v)) for v in judged)
        chance = not number and any(seen.comes_by_chance(one, v) for v in judged)
        counted[release] = _Count(number, len(judged), chance)
    return counted


def table(found: Sequence[Deviation], seen: Seen, scripts: Mapping[str, str]) -> str:
    """All deviations down, kernels across; ``scripts`` has a file's name by title, if there is one."""
    head = ["deviation", "claims", *(release for _, release in kernels_of(seen.verdicts)), "script"]
    rows = [head, ["---"] * len(head)]
    for one in found:
        shown = seen.showing(one)
        findings = [f for mine in shown.values() for v in mine for f in seen.of(one, v)]
        row = [f"[{one.title}](findings/{one.page}#{one.anchor})", _claims(findings)]
        row += [_cell(count) for count in _counted(one, seen, shown).values()]
        name = scripts.get(one.title)
        row.append(f"[sh](findings/scripts/{name})" if name else "")
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cell(count: _Count) -> str:
    if count.shown:
        return f"**{count.shown}** of {count.judged}"
    return "not met" if count.chance else "none" if count.judged else ""
