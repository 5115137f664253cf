"""The catalogue: for each family a page in Markdown, in which each case has its place. Pure.

One page for a family and not for a case: whoever looks for a case compares it with its neighbours, which
share rig and norm, and finds it by the browser's search; links lead to a case's anchor all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from conformance.drawing import shortage_words, stack, step_words
from conformance.known import Known
from conformance.model import (
    CLAIMS,
    CLAUSE_LEVEL,
    ROLL_UP,
    STARRED,
    Arm,
    Clause,
    Status,
    Variant,
    Verdict,
)
from conformance.planner import requirements
from conformance.report.norm import link
from conformance.report.norm import told as source

INDEX = "README.md"
NEVER = "It has not run on any published kernel."
MADE = "<!-- Made by `./conform catalogue`; edits are lost. -->"
"""How each page begins, which tells it from those that somebody else has written."""
_WAYS = 4
"""Ways in which a case deviates on a kernel that are named; the record has all."""


def pages(
    variants: Sequence[Variant],
    rows: Sequence[Known],
    history: Mapping[str, Sequence[Verdict]],
    texts: Mapping[str, str],
) -> dict[str, str]:
    """Each page's text by its file's name; ``texts`` says what each clause holds for."""
    families: dict[str, dict[str, list[Variant]]] = {}
    for variant in variants:
        families.setdefault(variant.family, {}).setdefault(variant.case, []).append(variant)
    made = {
        f"{family}.md": _page(family, cases, rows, history)
        for family, cases in sorted(families.items())
    }
    return {INDEX: _index(families, history, texts), **made}


def _index(
    families: Mapping[str, Mapping[str, Sequence[Variant]]],
    history: Mapping[str, Sequence[Verdict]],
    texts: Mapping[str, str],
) -> str:
    lines = [
        MADE,
        "",
        "# Catalogue",
        "",
        "Every case, by family; `./conform explain CASE` tells more.",
    ]
    lines += ["", "| case | what it shows | variants | never ran |", "|---|---|---|---|"]
    for family, cases in sorted(families.items()):
        lines.append(f"| **[{family}]({family}.md)** | | {sum(map(len, cases.values()))} | |")
        for case, group in cases.items():
            never = "" if _ran(group, history.get(case, ())) else "never ran"
            told = (
                f"[{case}]({family}.md#{case}) | {_cell(group[0].title)} | {len(group)} | {never}"
            )
            lines.append(f"| {told} |")
    lines += ["", "## Clauses", "", "| clause | holds |", "|---|---|"]
    lines += [f"| `{clause}` | {_cell(texts.get(clause, ''))} |" for clause in Clause]
    return "\n".join(lines) + "\n"


def _page(
    family: str,
    cases: Mapping[str, Sequence[Variant]],
    rows: Sequence[Known],
    history: Mapping[str, Sequence[Verdict]],
) -> str:
    lines = [MADE, "", f"# {family}", "", f"[All families]({INDEX})"]
    for case, group in cases.items():
        told = [row for row in rows if any(row.of(one.case, one.values) for one in group)]
        lines += ["", *_case(group, told, history.get(case, ()))]
    return "\n".join(lines) + "\n"


def _case(
    group: Sequence[Variant], rows: Sequence[Known], history: Sequence[Verdict]
) -> Iterator[str]:
    first = group[0]
    yield f"## {first.case}"
    yield ""
    yield f"{first.title}."
    yield ""
    yield f"[{first.where.file}](../../{first.where.file}), level {first.level}; {_variants(group)}."
    if needs := requirements(first):
        yield f"Needs {', '.join(f'`{need}`' for need in needs)}."
    yield ""
    for claim in first.claims:
        yield f"- {claim}: {CLAIMS[claim]}"
    for norm in first.norm:
        name = f"[{source(norm)}]({link(norm)})" if link(norm) else source(norm)
        quote = f': "{" ".join(norm.quote.split())}"' if norm.quote else ""
        yield f"- {name}{quote}"
    for arm in first.arms:
        yield from _arm(arm, many=len(first.arms) > 1)
    yield ""
    yield f"Clauses: {', '.join(_clauses(first))}; and those that hold for every case."
    yield ""
    yield from _history(group, history)
    if rows:
        yield ""
        yield "Known deviations:"
        yield ""
        for row in rows:
            yield f"- {row.clause} on {row.kernel}: {' '.join(row.reason.split())} ({row.link})"


def _variants(group: Sequence[Variant]) -> str:
    if len(group) == 1:
        return "one variant"
    axes: dict[str, dict[str, None]] = {}
    for variant in group:
        for axis, value in variant.values.items():
            axes.setdefault(axis, {})[value] = None
    told = "; ".join(f"{axis} {', '.join(values)}" for axis, values in axes.items())
    return f"{len(group)} variants ({told}), drawn is `{group[0].id}`"


def _arm(arm: Arm, *, many: bool) -> Iterator[str]:
    yield ""
    if many:
        yield f"Arm {arm.name}:"
        yield ""
    yield "```"
    yield from (line.rstrip() for line in stack(arm))
    for path in arm.cgroups:
        bound = f" ◄ {shortage_words(arm.shortage)}" if path == arm.shortage.binds else ""
        yield f"cgroup {path}{bound}"
    for bystander in arm.bystanders:
        yield f"bystander {bystander.name} in {bystander.cgroup or 'the root cgroup'}"
    yield ""
    for number, step in enumerate(arm.steps, 1):
        yield f"{number:>2}. {step.name} ({step.role}): {step.verb} {step_words(step)}".rstrip()
    yield "```"


def _clauses(variant: Variant) -> Iterator[str]:
    expect = variant.expect
    for clause in Clause:
        if clause in expect.clauses and clause not in STARRED:
            level = CLAUSE_LEVEL.get(clause, variant.level)
            errno = f", {' or '.join(expect.errno)}" if clause is Clause.ERRNO_PRECISE else ""
            yield f"`{clause}` ({level}{errno})"


def _ran(group: Sequence[Variant], history: Sequence[Verdict]) -> bool:
    """Whether any of the variants that there are today was judged on a kernel."""
    ids = {tuple(variant.values.items()) for variant in group}
    left = (Status.SKIP, Status.BROKEN)
    return any(tuple(v.values.items()) in ids and v.status not in left for v in history)


def _history(group: Sequence[Variant], history: Sequence[Verdict]) -> Iterator[str]:
    ids = {tuple(variant.values.items()) for variant in group}
    kernels: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in history:
        if tuple(verdict.values.items()) in ids:
            kernels.setdefault((verdict.kernel, verdict.release), []).append(verdict)
    if not _ran(group, history):
        yield NEVER
        yield ""
    if not kernels:
        return
    yield "| kernel | release | of its variants | why |"
    yield "|---|---|---|---|"
    for (kernel, release), verdicts in sorted(kernels.items()):
        statuses = [verdict.status for verdict in verdicts]
        counted = ", ".join(f"{one} {statuses.count(one)}" for one in ROLL_UP if one in statuses)
        ways = list(dict.fromkeys(way for verdict in verdicts for way in _ways(verdict)))
        more = f"; and {len(ways) - _WAYS} more" if len(ways) > _WAYS else ""
        yield f"| {kernel} | {release} | {counted} | {_cell('; '.join(ways[:_WAYS]))}{more} |"


def _ways(verdict: Verdict) -> Iterator[str]:
    for finding in verdict.deviations:
        yield f"{finding.clause} ({finding.signature})"
    yield from verdict.reasons


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
