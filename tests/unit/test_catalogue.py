"""The catalogue says what cases, known deviations and published records say today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conformance.catalogue import INDEX, MADE, NEVER, pages
from conformance.cli import main
from conformance.commands.catalogue import HOME
from conformance.exits import REFUSED
from conformance.model import Status, Verdict
from conformance.session import open_library
from tests.support.results import finding, variant


def test_it_is_up_to_date(tmp_path: Path) -> None:
    assert main(["catalogue", "--to", str(tmp_path)]) == 0
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text() for path in HOME.iterdir()}
    assert made == kept, "write it anew: ./conform catalogue"


def test_it_removes_its_own_pages_only(tmp_path: Path) -> None:
    notes, gone = tmp_path / "NOTES.md", tmp_path / "gone.md"
    notes.write_text("mine\n")
    gone.write_text(f"{MADE}\n\n# gone\n")
    assert main(["catalogue", "--to", str(tmp_path)]) == 0
    assert notes.read_text() == "mine\n"
    assert not gone.exists()


def test_it_overwrites_no_page_that_somebody_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, gone = tmp_path / INDEX, tmp_path / "gone.md"
    mine.write_text("# My project\n")
    gone.write_text(f"{MADE}\n\n# gone\n")
    assert main(["catalogue", "--to", str(tmp_path)]) == REFUSED
    assert f"{INDEX}: not made by this command" in capsys.readouterr().err
    assert mine.read_text() == "# My project\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [INDEX, "gone.md"]


def test_each_case_has_its_anchor_and_a_link_to_it() -> None:
    index = (HOME / INDEX).read_text()
    linked = set(re.findall(r"\(([\w.]+#\w+)\)", index))
    there = {
        f"{page.name}#{case}"
        for page in HOME.glob("*.md")
        for case in re.findall(r"^## (\w+)$", page.read_text(), re.MULTILINE)
        if page.name != INDEX
    }
    assert linked == there
    assert {place.partition("#")[2] for place in there} == set(open_library(()).cases)


def verdict(status: Status, kernel: str = "debian/trixie", **values: str) -> Verdict:
    return Verdict(
        case="loop_full",
        values=values,
        kernel=kernel,
        release="6.12.117",
        status=status,
        findings=(finding(),) if status is Status.FAIL else (),
        reasons=("module:ublk: none",) if status is Status.SKIP else (),
    )


def page(*history: Verdict) -> str:
    variants = [variant(submit=submit) for submit in ("buffered", "direct")]
    return pages(variants, (), {"loop_full": history}, {})["loop_enospc.md"]


def test_history_is_counted_by_kernel() -> None:
    told = page(
        verdict(Status.FAIL, submit="buffered"),
        verdict(Status.PASS, submit="direct"),
        verdict(Status.PASS, kernel="debian/sid", submit="direct"),
        verdict(Status.FAIL, submit="no_such_variant_any_more"),
    )
    row = "| debian/trixie | 6.12.117 | FAIL 1, PASS 1 | error_surfaced (lost-in-silence) |"
    assert row in told
    assert "| debian/sid | 6.12.117 | PASS 1 |  |" in told
    assert NEVER not in told


@pytest.mark.parametrize(
    "history",
    [(), (verdict(Status.SKIP, submit="direct"),), (verdict(Status.PASS, submit="gone"),)],
)
def test_a_case_that_never_ran_says_so(history: tuple[Verdict, ...]) -> None:
    assert NEVER in page(*history)


def test_why_it_never_ran_is_told() -> None:
    assert "| SKIP 1 | module:ublk: none |" in page(verdict(Status.SKIP, submit="direct"))
