"""How the attempts of each variant spread. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from conformance.known import Known, in_range
from conformance.model import Status, Variant
from tests.soak.tally import Count


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

    @property
    def unexplained(self) -> bool:
        """Whether it wavers and no row says why: rows tell of kernels, and do not excuse a rig that broke."""
        rig = {status for status, _ in self.statuses} - {Status.PASS.value, Status.FAIL.value}
        return self.wavers and (bool(rig) or not self.known)


def spreads(
    counts: Iterable[Count], variants: Mapping[str, Variant], rows: Sequence[Known]
) -> list[Spread]:
    """One for each variant and kernel, of those variants that there are, in the order of the counts."""
    grouped: dict[tuple[str, str], list[Count]] = {}
    for one in counts:
        if one.variant in variants:
            grouped.setdefault(one.cell, []).append(one)
    return [
        Spread(
            variant=name,
            kernel=kernel,
            statuses=_added((one.status.value, one.times) for one in mine),
            ways=_added((one.how or "nothing", one.times) for one in mine),
            known=tuple(
                row.where
                for row in rows
                if row.sometimes
                and row.of(variants[name].case, variants[name].values)
                and in_range(mine[0].release, row.kernel)
            ),
        )
        for (name, kernel), mine in grouped.items()
    ]


def _added(pairs: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    found: dict[str, int] = {}
    for word, times in pairs:
        found[word] = found.get(word, 0) + times
    return tuple(sorted(found.items(), key=lambda pair: -pair[1]))


def told(found: Sequence[Spread]) -> str:
    """The spread as a table in Markdown, with a line for each variant that was not always the same."""
    lines = [
        "| kernel | variants | attempts of each | status wavers | not explained | only how it fails wavers |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kernel in dict.fromkeys(one.kernel for one in found):
        mine = [one for one in found if one.kernel == kernel]
        attempts = [sum(count for _, count in one.statuses) for one in mine]
        each = "-".join(str(count) for count in sorted({min(attempts), max(attempts)}))
        status = [one for one in mine if one.wavers]
        unknown = sum(one.unexplained for one in mine)
        how = sum(len(one.ways) > 1 and not one.wavers for one in mine)
        lines.append(f"| {kernel} | {len(mine)} | {each} | {len(status)} | {unknown} | {how} |")
    for one in found:
        if one.wavers or len(one.ways) > 1:
            spread = one.statuses if one.wavers else one.ways
            shown = "; ".join(f"{count} times {word}" for word, count in spread)
            files = ", ".join(dict.fromkeys(row.rpartition(":")[0] for row in one.known))
            known = f" (by chance, as {files} says)" if one.known else ""
            lines.append(f"\n- `{one.variant}` on {one.kernel}: {shown}{known}")
    return "\n".join(lines) + "\n"
