"""How the attempts of each variant spread. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from conformance.compare import ways
from conformance.known import Known
from conformance.model import Verdict
from conformance.record import Entry


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What the attempts of one variant on one kernel came to: how often each status, each set of ways."""

    variant: str
    kernel: str
    statuses: tuple[tuple[str, int], ...]
    ways: tuple[tuple[str, int], ...]
    known: tuple[str, ...]
    """Rows that say that this variant deviates by chance on this kernel."""

    @property
    def wavers(self) -> bool:
        """Whether the status was not the same each time."""
        return len(self.statuses) > 1


def spreads(entries: Iterable[Entry], rows: Sequence[Known]) -> list[Spread]:
    """One for each variant and kernel, in the order of the record."""
    grouped: dict[tuple[str, str], list[Verdict]] = {}
    for entry in entries:
        verdict = entry.verdict
        grouped.setdefault((verdict.variant, verdict.kernel), []).append(verdict)
    return [
        Spread(
            variant=name,
            kernel=kernel,
            statuses=_counted(v.status.value for v in verdicts),
            ways=_counted(
                ", ".join(sorted(": ".join(way) for way in ways(v))) or "nothing" for v in verdicts
            ),
            known=tuple(row.where for row in rows if row.sometimes and row.covers(verdicts[0])),
        )
        for (name, kernel), verdicts in grouped.items()
    ]


def _counted(words: Iterable[str]) -> tuple[tuple[str, int], ...]:
    return tuple(Counter(words).most_common())


def told(found: Sequence[Spread]) -> str:
    """The spread as a table in Markdown, with a line for each variant that was not always the same."""
    lines = ["", "| kernel | variants | attempts | status wavers | only how it fails wavers |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for kernel in dict.fromkeys(one.kernel for one in found):
        mine = [one for one in found if one.kernel == kernel]
        attempts = sum(count for one in mine for _, count in one.statuses)
        status = sum(one.wavers for one in mine)
        how = sum(len(one.ways) > 1 and not one.wavers for one in mine)
        lines.append(f"| {kernel} | {len(mine)} | {attempts} | {status} | {how} |")
    for one in found:
        if one.wavers or len(one.ways) > 1:
            spread = one.statuses if one.wavers else one.ways
            shown = "; ".join(f"{count} times {word}" for word, count in spread)
            known = f" (by chance, as {', '.join(one.known)} says)" if one.known else ""
            lines.append(f"\n- `{one.variant}` on {one.kernel}: {shown}{known}")
    return "\n".join(lines) + "\n"
