"""The summary: a cell for each case and kernel, findings by clause, counts."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console

from conformance.model import Status
from conformance.report.console import print_summary, totals
from conformance.report.result import Asked, Result
from tests.support.results import finding, one_of_each, result, variant


def printed(results: Sequence[Result], asked: Asked | None = None, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    print_summary(results, asked or Asked(), Console(file=file, width=120))
    file.flush()
    return raw.getvalue().decode(encoding)


def row(text: str, case: str) -> str:
    [line] = [line for line in text.splitlines() if line.startswith(f"{case} ")]
    return line.removeprefix(case).strip()


def test_a_cell_for_each_status() -> None:
    told = printed(one_of_each())
    assert row(told, "passes") == "✓ PASS"
    assert row(told, "advised") == "✓ PASS +1 advisory"
    assert row(told, "fails") == "✗ FAIL +1 advisory"
    assert row(told, "known") == "✗ FAIL known"
    assert row(told, "broken") == "! BROKEN"
    assert row(told, "skipped") == "- SKIP"
    assert row(told, "surveyed") == "· RECORDED"


def test_strict_shows_no_known() -> None:
    assert row(printed(one_of_each(), Asked(strict=True)), "known") == "✗ FAIL"


def test_the_worst_variant_decides_and_is_counted() -> None:
    results = [
        result(Status.PASS, of=variant("mixed", n="1")),
        result(Status.FAIL, finding(), of=variant("mixed", n="2")),
        result(Status.BROKEN, of=variant("mixed", n="3")),
    ]
    assert row(printed(results), "mixed") == "✗ FAIL 1 of 3"


def test_kernels_stand_side_by_side() -> None:
    results = [
        result(Status.PASS, of=variant("a")),
        result(Status.FAIL, finding(), of=variant("a"), kernel="debian/sid"),
        result(Status.PASS, of=variant("b")),
    ]
    told = printed(results)
    assert row(told, "a").split() == ["✓", "PASS", "✗", "FAIL"]
    assert row(told, "b").split() == ["✓", "PASS", "not", "run"]


class Terminal(io.StringIO):
    """A file that says that it is one."""

    def isatty(self) -> bool:
        return True


def test_no_name_is_cut_where_no_terminal_is() -> None:
    kernels = [f"debian/{name}-backports-and-more" for name in ("trixie", "bookworm", "sid")] * 2
    kernels = [f"{kernel}-{number}" for number, kernel in enumerate(kernels)]
    results = [result(Status.PASS, kernel=kernel) for kernel in kernels]
    [head] = [line for line in printed(results).splitlines() if "backports" in line]
    assert head.split() == kernels
    terminal = Terminal()
    print_summary(results, Asked(), Console(file=terminal, width=120, color_system=None))
    assert max(map(len, terminal.getvalue().splitlines())) <= 120


def test_findings_name_the_clause_first_and_like_ones_are_one() -> None:
    results = [result(Status.FAIL, finding(), of=variant("a", n=str(n))) for n in range(5)]
    lines = printed(results).splitlines()
    assert [line for line in lines if line.startswith("error_surfaced")] == [
        "error_surfaced (must) at fill"
    ]
    assert "  a[0], a[1], a[2] and 2 more on debian/trixie" in lines


def test_reasons_are_told() -> None:
    told = printed(one_of_each())
    assert "BROKEN: the shortage never arrived" in told
    assert "SKIP: no module dm_thin_pool; no tool thin_check" in told
    assert "no longer deviates, but is listed in results/known/loop.toml:3" in told


def test_totals() -> None:
    assert totals(one_of_each()).plain == (
        "8 variants: 2 FAIL (1 as known), 1 BROKEN, 3 PASS, 1 RECORDED, 1 SKIP, 2 with advisories"
    )


def test_terminals_that_are_not_utf8() -> None:
    assert row(printed(one_of_each(), encoding="latin-1"), "passes") == "+ PASS"


def test_markup_in_names_is_text() -> None:
    assert "a[red]" in printed([result(Status.FAIL, finding(), of=variant("a", n="red"))])


def test_nothing() -> None:
    assert printed([]) == "No result.\n"
