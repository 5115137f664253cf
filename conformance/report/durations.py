"""How long each variant takes, for ``--shard`` and for the order of a run: results/durations.tsv."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from conformance.model import Status
from conformance.report.result import Asked, Result, lacking
from conformance.report.text import clean

_HEAD = (
    "# Seconds that a variant takes, the median over the kernels that it ran on. Made by\n"
    "# ./conform report RECORD... --format durations --to results/durations.tsv\n"
)


def document(results: Sequence[Result], asked: Asked, *, started: str = "") -> str:
    """Seconds, a tab, a variant's id; ``-`` where nobody has measured. In the order of the ids."""
    del started
    ran: dict[str, list[float]] = {}
    skipped: dict[str, list[float]] = {}
    for result in results:
        seconds = result.verdict.seconds.get("total")
        kept = skipped if result.verdict.status is Status.SKIP else ran
        # Both have a line for it, so that none is left out.
        ran.setdefault(result.variant.id, [])
        if seconds is not None and result.verdict.status is not Status.BROKEN:
            kept.setdefault(result.variant.id, []).append(seconds)
    lines = []
    for name in sorted(ran):
        spent = ran[name] or skipped.get(name)
        lines.append(f"{median(spent):.1f}\t{name}" if spent else f"-\t{name}")
    lacks = [f"# incomplete: {clean(' '.join(text.split()))}" for text in lacking(asked)]
    return _HEAD + "".join(f"{line}\n" for line in [*lacks, *lines])
