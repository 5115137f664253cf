"""Where a run's time went: a line for each variant, and the sum.

A column is a part of ``seconds`` in the record. What is left of a variant's total when all parts are
taken off is ``other``. The harness's own are all but the guest's work: building the rig, the steps, and
what is observed between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conformance.report.result import Asked, Result, lacking
from conformance.report.text import clean

COLUMNS: Mapping[str, str] = {
    "spawn": "spawn",
    "restore": "restore",
    "boot": "boot",
    "answer": "answer",
    "build": "rig",
    "steps": "steps",
    "observation": "observe",
    "teardown": "teardown",
    "close": "close",
    "judge": "judge",
}
"""The parts, by their names in a record, and their headings."""
GUEST = ("build", "steps", "observation")
"""The guest's own work; all else is the harness's."""
_OTHER = "other"


def document(results: Sequence[Result], asked: Asked, *, started: str = "") -> str:
    """A table of seconds, the longest first; then sums, shares, and the harness's share."""
    del started
    rows = [(clean(result.name(asked)), parts(result.verdict.seconds)) for result in results]
    rows.sort(key=lambda row: (-row[1]["total"], row[0]))
    shown = [name for name in COLUMNS if any(seconds.get(name) for _, seconds in rows)]
    shown.append(_OTHER)
    whole = {
        name: sum(seconds.get(name, 0.0) for _, seconds in rows)
        for name in ("total", *COLUMNS, _OTHER)
    }
    width = max([len("variant"), *(len(name) for name, _ in rows)])
    lines = [_line("variant", ["total", *(COLUMNS.get(name, name) for name in shown)], width)]
    for name, seconds in rows:
        lines.append(_line(name, [_told(seconds.get(part)) for part in ("total", *shown)], width))
    lines.append(_line("sum", [f"{whole[part]:.1f}" for part in ("total", *shown)], width))
    lines.append(_line("share", [_share(whole[part], whole) for part in ("total", *shown)], width))
    lines.append(f"harness overhead: {_share(overhead(whole), whole)} of the time")
    lines += [clean(f"incomplete: {text}") for text in lacking(asked)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def parts(seconds: Mapping[str, float]) -> dict[str, float]:
    """A verdict's seconds with what no part accounts for."""
    total = seconds.get("total", 0.0)
    known = {name: seconds[name] for name in COLUMNS if name in seconds}
    return {"total": total, **known, _OTHER: max(0.0, total - sum(known.values()))}


def overhead(seconds: Mapping[str, float]) -> float:
    """Seconds that are not the guest's work."""
    return seconds["total"] - sum(seconds.get(name, 0.0) for name in GUEST)


def _told(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f}"


def _share(part: float, whole: Mapping[str, float]) -> str:
    return f"{part / whole['total']:.1%}" if whole["total"] else "-"


def _line(name: str, cells: Sequence[str], width: int) -> str:
    return f"{name:{width}}" + "".join(f"{cell:>10}" for cell in cells)
