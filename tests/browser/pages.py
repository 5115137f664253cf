"""Pages to open: of the published records, of many times as much, of what a hostile guest wrote."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from conformance.library import load_library
from conformance.model import Finding, Status
from conformance.record import read_record
from conformance.report.html import document
from conformance.report.result import Asked, Result
from conformance.report.story import stories
from tests.support.results import finding, result, variant
from tests.support.stories import observed

ROOT = Path(__file__).parents[2]
WHOLE_LIBRARY = 5000
"""Results of the whole library on six kernels."""
HOSTILE = (
    "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
    "<svg onload='window.hacked=1'>\x1b[31m\x00\u202e\ud800 {{ 7 * 7 }} javascript:alert(1)"
)


@cache
def published() -> tuple[Result, ...]:
    """The results of the published records, as they were judged then."""
    library = load_library([ROOT / "cases"], ROOT / "fixtures")
    variants = {(v.case, tuple(v.values.items())): v for v in library.variants}
    found = []
    for path in sorted((ROOT / "results" / "published").glob("*.jsonl.xz")):
        for entry in read_record(path).entries:
            of = variants.get((entry.verdict.case, tuple(entry.verdict.values.items())))
            if of is not None:
                story = stories(of, entry.observation) if entry.observation else ()
                found.append(Result(variant=of, verdict=entry.verdict, story=story))
    assert found
    return tuple(found)


def multiplied(results: tuple[Result, ...], at_least: int) -> Iterator[Result]:
    """As many results as asked for, the copies as cases of their own in more families."""
    for copy in range(-(-at_least // len(results))):
        for one in results:
            case = f"{one.variant.case}_{copy}" if copy else one.variant.case
            family = f"{one.variant.family}_{copy % 3}" if copy % 3 else one.variant.family
            yield one.model_copy(
                update={
                    "variant": one.variant.model_copy(update={"case": case, "family": family}),
                    "verdict": one.verdict.model_copy(update={"case": case}),
                }
            )


def page(folder: Path, results: tuple[Result, ...]) -> str:
    """The address of a page made of results."""
    path = folder / "report.html"
    asked = Asked(many_kernels=True)
    path.write_text(document(results, asked, started="2026-11-24T08:00:00"), encoding="utf-8")
    return path.as_uri()


def hostile() -> tuple[Result, ...]:
    """A result in which every text that is not the suite's own means harm."""
    told: Finding = finding(
        observed=HOSTILE, expected=HOSTILE, signature=HOSTILE, evidence=(HOSTILE,), step=HOSTILE
    )
    of = variant("hostile").model_copy(update={"title": HOSTILE, "values": {HOSTILE: HOSTILE}})
    seen = observed(of, HOSTILE, f"Buffer I/O error {HOSTILE}")
    one = result(Status.FAIL, told, of=of, kernel="../linux'\"><b>x", known=(HOSTILE,))
    broken = result(
        Status.BROKEN, of=variant("broken"), reasons=(HOSTILE,), kernel="../linux'\"><b>x"
    )
    return (one.model_copy(update={"story": stories(of, seen)}), broken)
