"""All ratios of the suite's speed in one table, their history, and its picture.

    benchmarks/run [--only clone|one|two ...] [--sample 60] [--show]

A part that was measured is kept at once, as a line of history/ratios.jsonl; the table has the newest of each
part on a machine like this one, so that a part which failed can be measured again by itself. ``--show``
measures nothing. Exit status 1 if a target is missed, 2 if a part has no figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import picture, ratios
from conformance.exits import Refused
from conformance.machine.protocol import MachineError
from conformance.machine.qemu import find_qemu
from conformance.rundir import write_atomically

HERE = Path(__file__).parent
HISTORY = HERE / "history" / "ratios.jsonl"
PICTURE = HERE.parent / "docs" / "pictures" / "ratios.svg"

Found = Mapping[str, Mapping[str, Any]]
"""Figures of each part."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A figure that has a target. ``of`` raises KeyError where a part is missing."""

    name: str
    title: str
    target: float
    least: bool  # the target is the least, and not the most
    unit: str
    of: Callable[[Found], float]

    def met(self, value: float) -> bool:
        """Whether the target is."""
        return value >= self.target if self.least else value < self.target


def _library_minutes(found: Found) -> float:
    two = found["two"]
    return float(two["wall_seconds"]) * float(two["library_times_the_sample"]) / 60


RATIOS = (
    Ratio(
        name="clone",
        title="vng --exec true / a clone's first answer",
        target=75,
        least=True,
        unit="x",
        of=lambda found: (
            found["clone"]["vng_seconds"]["median"] / found["clone"]["clone_seconds"]["median"]
        ),
    ),
    Ratio(
        name="answer",
        title="a clone's first answer, median",
        target=0.10,
        least=False,
        unit="s",
        of=lambda found: found["clone"]["clone_seconds"]["median"],
    ),
    Ratio(
        name="overhead",
        title="not rig, steps and observation, of one slot's time",
        target=15,
        least=False,
        unit="%",
        of=lambda found: 100 * (1 - found["one"]["guest_seconds"] / found["one"]["wall_seconds"]),
    ),
    Ratio(
        name="slots",
        title="throughput of two slots / of one",
        target=1.8,
        least=True,
        unit="x",
        of=lambda found: found["one"]["wall_seconds"] / found["two"]["wall_seconds"],
    ),
    Ratio(
        name="library",
        title="the library on one kernel, two slots (from the sample)",
        target=5,
        least=False,
        unit="min",
        of=_library_minutes,
    ),
    Ratio(
        name="five",
        title="the library on five kernels (from the sample)",
        target=25,
        least=False,
        unit="min",
        of=lambda found: 5 * _library_minutes(found),
    ),
    Ratio(
        name="memory",
        title="private memory of a slot but for what a case uses, peak",
        target=150,
        least=False,
        unit="MB",
        of=lambda found: max(
            found[part]["slot_megabytes"] + found[part]["qemu_megabytes"]["max"]
            for part in ("one", "two")
        ),
    ),
)


def machine() -> dict[str, object]:
    """The machine that measures, as far as it matters for a figure: no name."""
    told = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in told if "model name" in line), "")
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory) / 2**20),
        "kernel": platform.release(),
        "qemu": find_qemu().text,
    }


def newest(lines: Iterable[Mapping[str, Any]], on: Mapping[str, object]) -> dict[str, Any]:
    """The figures of each part that were measured last on such a machine."""
    return {line["part"]: line["figures"] for line in lines if line["machine"] == on}


def rows(found: Found) -> list[tuple[Ratio, float | None]]:
    """Each ratio, and what it is; None where a part is missing."""
    told: list[tuple[Ratio, float | None]] = []
    for ratio in RATIOS:
        try:
            told.append((ratio, ratio.of(found)))
        except KeyError:
            told.append((ratio, None))
    return told


def table(told: Sequence[tuple[Ratio, float | None]]) -> str:
    """The rows as text."""
    width = max(len(ratio.title) for ratio, _ in told)
    lines = [f"{'ratio':{width}}  {'measured':>12}  {'target':>12}"]
    for ratio, value in told:
        said = "-" if value is None else f"{_number(value)} {ratio.unit}"
        target = f"{'>=' if ratio.least else '<'} {_number(ratio.target)} {ratio.unit}"
        sign = "" if value is None else "  met" if ratio.met(value) else "  missed"
        lines.append(f"{ratio.title:{width}}  {said:>12}  {target:>12}{sign}")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.3g}"


def series(lines: Sequence[Mapping[str, Any]], on: Mapping[str, object]) -> list[picture.Panel]:
    """What each ratio was after each line of the history, where it changed."""
    panels = []
    for ratio in RATIOS:
        points: list[picture.Point] = []
        for number, line in enumerate(lines):
            value = dict(rows(newest(lines[: number + 1], on)))[ratio]
            if value is not None and (not points or points[-1].value != value):
                points.append(picture.Point(day=line["at"][:10], value=value))
        panels.append(
            picture.Panel(
                title=ratio.title,
                unit=ratio.unit,
                target=ratio.target,
                least=ratio.least,
                points=tuple(points),
            )
        )
    return panels


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, keep, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--only", action="append", choices=tuple(ratios.PARTS))
    parser.add_argument("--sample", type=int, default=ratios.SAMPLE, help="variants")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    parser.add_argument("--history", type=Path, default=HISTORY)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args(argv)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    on = machine()
    failed = False
    for part in () if options.show else options.only or ratios.PARTS:
        more = {} if part == "clone" else {"count": options.sample}
        try:
            figures = ratios.PARTS[part](say, **more)
        except (Refused, MachineError, OSError) as error:
            say(f"{part}: {error}")
            failed = True
            continue
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = json.dumps({"at": at, "part": part, "machine": on, "figures": figures})
        options.history.parent.mkdir(parents=True, exist_ok=True)
        with options.history.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    text = options.history.read_text(encoding="utf-8") if options.history.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    told = rows(newest(lines, on))
    print(table(told))
    write_atomically(options.picture, picture.svg(series(lines, on)))
    if failed or any(value is None for _, value in told):
        return 2
    return 1 if any(value is not None and not ratio.met(value) for ratio, value in told) else 0


if __name__ == "__main__":
    sys.exit(main())
