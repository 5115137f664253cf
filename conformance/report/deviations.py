"""The deviations that docs/findings/ tells of: which findings are each one's, and what is generated of it.

A deviation is a section whose heading is followed by a marker with patterns of findings. What stands
between the marker and its end is made from verdicts; the rest, the parts in ``PARTS``, is by hand. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from conformance.model import CLAIMS, Finding, Status, Value, Verdict
from conformance.report.findings import kernels_of

PARTS = ("Evidence", "Mechanism", "What a fix has to do", "How sure")
"""What a person has to say of a deviation."""
MARKER = re.compile(
    r"^## (?P<title>.+)\n\n<!-- deviation: (?P<patterns>[^>]+?) -->\n(?P<made>.*?)<!-- end -->\n"
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

    def has(self, case: str, clause: str, signature: str) -> bool:
        """Whether a finding of that case, or a row that tells of it, is of this deviation.

        A pattern is ``case/clause:signature`` as a glob, with anything after it; one that begins with
        ``!`` takes away.
        """
        name = f"{case}/{clause}:{signature}"
        if any(fnmatchcase(name, f"{one[1:]}*") for one in self.patterns if one.startswith("!")):
            return False
        return any(fnmatchcase(name, f"{one}*") for one in self.patterns)

    def of(self, verdict: Verdict) -> tuple[Finding, ...]:
        """The deviating findings of a verdict that are of this deviation."""
        mine = (f for f in verdict.deviations if self.has(verdict.case, f.clause, f.signature))
        return tuple(mine)


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


def showing(one: Deviation, verdicts: Iterable[Verdict]) -> dict[tuple[str, str], list[Verdict]]:
    """The variants that show a deviation on some kernel, each with all its verdicts."""
    of: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        of.setdefault((verdict.case, "-".join(verdict.values.values())), []).append(verdict)
    return {key: mine for key, mine in of.items() if any(one.of(verdict) for verdict in mine)}


def section(
    one: Deviation, verdicts: Sequence[Verdict], families: Mapping[str, str], script: str
) -> str:
    """What is generated of a deviation: kernels, claims, cases, and ``script``, what is said of that."""
    shown = showing(one, verdicts)
    findings = [f for mine in shown.values() for verdict in mine for f in one.of(verdict)]
    claims = [claim for claim in CLAIMS if any(claim in f.claims for f in findings)]
    clauses = dict.fromkeys(f"`{f.clause.value}`" for f in findings)
    cases = dict.fromkeys(case for case, _ in shown)
    links = [f"[{case}](../catalogue/{families[case]}.md#{case})" for case in cases]
    lines = [f"- **Kernels.** {_kernels(one, shown, verdicts)}"]
    if shown:
        lines.append(f"- **Claims.** {', '.join(claims)}; clauses {', '.join(clauses)}")
        lines.append(f"- **Cases.** {', '.join(links)}")
    lines.append(f"- **Script.** {script}")
    return "".join(f"{line}\n" for line in lines)


def _kernels(
    one: Deviation,
    shown: Mapping[tuple[str, str], Sequence[Verdict]],
    verdicts: Sequence[Verdict],
) -> str:
    if not shown:
        return "In no published record: it depends on chance, or on a kernel that is not published yet."
    has, spared = [], []
    for kernel, release in kernels_of(verdicts):
        judged = [v for mine in shown.values() for v in mine if v.kernel == kernel]
        judged = [v for v in judged if v.status in (Status.PASS, Status.FAIL)]
        count = sum(bool(one.of(verdict)) for verdict in judged)
        if count:
            has.append(f"{release} ({count} of {len(judged)} variants)")
        elif judged:
            spared.append(release)
    told = ", ".join(has)
    return f"{told}; not on {', '.join(spared)}" if spared else told


def table(
    found: Sequence[Deviation], verdicts: Sequence[Verdict], scripts: Mapping[str, str]
) -> str:
    """All deviations down, kernels across; ``scripts`` has the file's name by title, if there is one."""
    kernels = kernels_of(verdicts)
    head = ["deviation", "claims", *(release for _, release in kernels), "script"]
    rows = [head, ["---"] * len(head)]
    for one in found:
        shown = showing(one, verdicts)
        findings = [f for mine in shown.values() for v in mine for f in one.of(v)]
        claims = [claim for claim in CLAIMS if any(claim in f.claims for f in findings)]
        row = [f"[{one.title}](findings/{one.page}#{one.anchor})", ", ".join(claims)]
        for kernel, _ in kernels:
            judged = [v for mine in shown.values() for v in mine if v.kernel == kernel]
            judged = [v for v in judged if v.status in (Status.PASS, Status.FAIL)]
            count = sum(bool(one.of(verdict)) for verdict in judged)
            row.append(f"**{count}**" if count else "0" if judged else "")
        name = scripts.get(one.title)
        row.append(f"[sh](findings/scripts/{name})" if name else "")
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
