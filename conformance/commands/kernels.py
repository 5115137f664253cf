"""``kernels``: the names, what is cached of each, what each lacks; and that by case, for ``list --why``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from conformance.commands.common import CASES, console, examples, options, say, tell
from conformance.engine import Setup, load_engine
from conformance.exits import Refused
from conformance.machine.cache import Cache
from conformance.machine.facts import Probed, keep, recall
from conformance.machine.kernel import cached_kernel, kernel_names
from conformance.machine.tool import ArtifactError
from conformance.model import NotApplicable, Variant
from conformance.planner import Target, plan, requirements
from conformance.progress import preparing
from conformance.published import lacking
from conformance.record import RecordError
from conformance.session import PUBLISHED, open_library


@click.command(
    name="kernels",
    epilog=examples(
        "conform kernels",
        "conform kernels --why debian/bookworm",
        "conform kernels --why ../linux",
    ),
)
@click.option(
    "--why", "asked", multiple=True, metavar="KERNEL", help="Ask a guest of it now. Repeatable."
)
@options(CASES)
def kernels(*, asked: tuple[str, ...], cases: tuple[Path, ...]) -> int:
    """Show the kernels that have names, what is cached of each, and what each lacks.

    What a kernel lacks is known from the last time that --why asked it, or else from the published
    records, which tell only of what some variant was skipped for.
    """
    cache = Cache.from_environ()
    if asked:
        needs = needs_of(open_library(cases).variants)
        for kernel in asked:
            probed = probe(kernel, needs, cache)
            console(sys.stdout).print(_lacks(probed, len(needs)))
        return 0
    try:
        published = lacking(PUBLISHED)
    except RecordError as error:
        raise Refused(str(error)) from error
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("kernel", "package", "cached", "lacks"):
        table.add_column(name)
    for name, (suite, package) in kernel_names().items():
        table.add_row(name, f"{suite}: {package}", *_known_of(name, cache, published.get(name, {})))
    console(sys.stdout).print(table)
    return 0


def needs_of(variants: Iterable[Variant]) -> tuple[str, ...]:
    """Everything that some variant needs, in order."""
    return tuple(sorted({need for variant in variants for need in requirements(variant)}))


def probe(kernel: str, needs: Sequence[str], cache: Cache) -> Probed:
    """Have a guest of a kernel say what it meets, and keep that. Raises Refused."""
    engine = load_engine(Setup())
    with preparing(console(sys.stderr)) as progress, tempfile.TemporaryDirectory() as folder:
        described = engine.prepare(kernel, progress)
        bench = engine.open(kernel, progress)
        try:
            progress(f"asking a guest of {kernel} for {len(needs)} requirements")
            facts: dict[str, str] = {}
            for group in _groups(needs):
                facts |= bench.probe(group, folder=Path(folder))
        finally:
            bench.close()
    probed = Probed(kernel=kernel, release=str(described["release"]), facts=facts)
    try:
        keep(probed, cache=cache)
    except ArtifactError as error:  # what was found is told all the same
        say(str(error))
    return probed


def _groups(needs: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """What one guest is asked: a probe that tries something leaves traces that hinder the next."""
    yield tuple(need for need in needs if not need.startswith("probe:"))
    for need in needs:
        if need.startswith("probe:"):
            yield (need,)


def skipped(variants: Iterable[Variant], probed: Probed) -> Iterator[tuple[Variant, NotApplicable]]:
    """The variants that a kernel cannot run, each with every reason."""
    target = Target(kernel=probed.kernel, release=probed.release, facts=probed.facts)
    for variant in variants:
        planned = plan(variant, target)
        if isinstance(planned, NotApplicable):
            yield variant, planned


def show_skipped(variants: Sequence[Variant], kernel: str) -> None:
    """Print what of the variants would be skipped on a kernel, and why. Raises Refused."""
    probed = probe(kernel, needs_of(variants), Cache.from_environ())
    by_reason: dict[tuple[str, ...], list[str]] = {}
    count = 0
    for variant, absent in skipped(variants, probed):
        by_reason.setdefault(absent.reasons, []).append(variant.id)
        count += 1
    for reasons, ids in by_reason.items():
        for reason in reasons:
            tell(reason)
        for one in ids:
            tell(f"    {one}")
    told = f"{count} of {len(variants)} variants would be skipped"
    say(f"{told} on {kernel} ({probed.release})")


def _known_of(name: str, cache: Cache, published: Mapping[str, str]) -> tuple[Text, Text]:
    found = cached_kernel(name, cache=cache)
    cached = Text(found.release) if found else Text("no: the first run fetches it", style="dim")
    probed = recall(name, cache=cache)
    if probed is not None and (found is None or found.release == probed.release):
        return cached, Text(", ".join(probed.lacks) or "nothing")
    if published:
        return cached, Text(f"{', '.join(sorted(published))} (published)")
    return cached, Text(f"not asked yet: --why {name}", style="dim")


def _lacks(probed: Probed, count: int) -> Table:
    title = Text(f"{probed.kernel} ({probed.release}) lacks {len(probed.lacks)} of {count}")
    table = Table(box=None, pad_edge=False, show_header=False, title=title, title_justify="left")
    for need, why in probed.lacks.items():
        table.add_row(need, Text(why))
    return table
