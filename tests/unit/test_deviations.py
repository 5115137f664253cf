"""Each known deviation is told of in one place, in all its parts; what is generated says what was seen."""

from __future__ import annotations

import re
import subprocess
from datetime import date
from pathlib import Path

import pytest

from conformance.deviations import NEVER, PARTS, Deviation, Seen, deviations, fill, section, table
from conformance.known import Known
from conformance.model import Clause, Finding, Level, Status, Verdict
from conformance.session import known_rows

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path.read_text() for path in sorted((ROOT / "docs/findings").glob("*.md"))}
FINDINGS = (ROOT / "docs/findings.md").read_text()
FOUND = tuple(one for name, text in PAGES.items() for one in deviations(name, text))
ROWS = known_rows(None)
TEXT = """\
# Page

## One thing

<!-- deviation: a_*/bounded !a_x/bounded b/*=f2fed -->
- **Kernels.** old
<!-- end -->
- **Evidence.** Seen
  in two lines.
- **Mechanism.** m.c
- **What a fix has to do.** Fix it.
- **How sure.** Certain.

## Conforming

The rest.
"""


@pytest.mark.parametrize("one", FOUND, ids=lambda one: f"{one.page}:{one.title}")
def test_a_deviation_is_told_of_in_all_its_parts(one: Deviation) -> None:
    assert [part for part in PARTS if not one.parts.get(part)] == []
    assert [name for name in one.parts if name not in PARTS] == []
    assert any(one.has(row) for row in ROWS), "no known deviation is this one"
    # The file, and the function or commit, where the kernel does it.
    assert re.search(r"\b(drivers|fs|mm|block)/[\w/-]+\.c\b", one.parts["Mechanism"])


def test_every_known_deviation_is_told_of_in_one_place() -> None:
    wrong = {}
    for row in ROWS:
        telling = [one.title for one in FOUND if one.has(row)]
        if len(telling) != 1:
            wrong[str(row)] = telling
    assert wrong == {}


def test_no_page_says_that_what_is_published_was_not_run() -> None:
    table = re.search(r"<!-- table: families -->\n(.*?)<!-- end -->", FINDINGS, re.DOTALL)
    assert table is not None
    assert "not run" not in table[1]
    stale = re.compile(r"^Not run:|\bha(?:ve|s) not been run\b", re.MULTILINE)
    assert {name: found for name, text in PAGES.items() if (found := stale.findall(text))} == {}


def test_no_two_sections_have_one_title() -> None:
    titles = [one.title for one in FOUND]
    assert len(titles) == len(set(titles)) > 25


def test_every_script_is_linked_and_a_shell_takes_it() -> None:
    linked = set(re.findall(r"\(scripts/([^)]+\.sh)\)", "".join(PAGES.values())))
    kept = {path.name for path in (ROOT / "docs/findings/scripts").glob("*.sh")}
    assert linked == kept
    assert len(kept) > 15
    for name in sorted(kept):
        path = ROOT / "docs/findings/scripts" / name
        done = subprocess.run(["sh", "-n", path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert path.stat().st_mode & 0o100


# -- what is generated ----------------------------------------------------------------------------


def row(
    case: str,
    clause: Clause = Clause.BOUNDED,
    link: str = "l",
    kernel: str = ">= 6.1",
    *,
    sometimes: bool = False,
) -> Known:
    return Known(
        case=case,
        kernel=kernel,
        clause=clause,
        signature="s",
        reason="r",
        link=link,
        review_by=date(2027, 6, 1),
        sometimes=sometimes,
    )


def verdict(
    case: str,
    release: str,
    status: Status,
    clause: Clause = Clause.BOUNDED,
    claims: tuple[str, ...] = ("S13",),
) -> Verdict:
    finding = Finding(
        clause=clause, level=Level.MUST, expected="", observed="", claims=claims, signature="s"
    )
    return Verdict(
        case=case,
        kernel=f"k{release}",
        release=release,
        status=status,
        findings=(finding,) if status is Status.FAIL else (),
    )


def test_a_section_is_read_with_its_patterns_and_parts() -> None:
    [one] = deviations("page.md", TEXT)
    assert (one.title, one.anchor) == ("One thing", "one-thing")
    assert one.parts["Evidence"] == "Seen\n  in two lines."
    assert set(one.parts) == set(PARTS)
    assert one.has(row("a_b"))
    assert not one.has(row("a_x"))
    assert not one.has(row("a_b", Clause.REUSABLE))
    assert one.has(row("b", link="commit f2fed441c69b"))
    assert not one.has(row("b"))


def test_a_section_counts_what_its_rows_tell_of_and_nothing_else() -> None:
    [one] = deviations("page.md", TEXT)
    rows = [row("a_b"), row("c")]
    verdicts = [
        verdict("a_b", "6.1.0", Status.FAIL),
        verdict("a_b", "5.10.0", Status.PASS),
        verdict("a_b", "7.2.0", Status.SKIP),
        verdict("a_b", "7.3.0", Status.FAIL, Clause.REUSABLE),
        verdict("c", "6.1.0", Status.FAIL),
    ]
    seen = Seen(verdicts, rows)
    text = section(one, seen, {"a_b": "fam", "c": "fam"}, "none.")
    assert text.splitlines() == [
        "- **Kernels.** 6.1.0 (1 of 1 variants); not on 5.10.0, 7.3.0",
        "- **Claims.** S13; clauses `bounded`",
        "- **Cases.** [a_b](../catalogue/fam.md#a_b)",
        "- **Script.** none.",
    ]
    assert fill(TEXT, {"One thing": text}).count("- **Kernels.** ") == 1
    assert "- **Kernels.** old" not in fill(TEXT, {"One thing": text})
    assert fill(TEXT, {"One thing": "- **Kernels.** old\n"}) == TEXT
    told = table([one], seen, {"One thing": "x.sh"}).splitlines()[-1]
    assert told == (
        "| [One thing](findings/page.md#one-thing) | S13 | none | **1** of 1 |  | none "
        "| [sh](findings/scripts/x.sh) |"
    )
    assert NEVER in section(one, Seen([], rows), {}, "none.")


def test_where_it_comes_by_chance_a_kernel_is_not_said_to_be_free_of_it() -> None:
    [one] = deviations("page.md", TEXT)
    rows = [
        row("a_b", kernel=">= 7.2", sometimes=True),
        row("a_b", Clause.REUSABLE, sometimes=True),
    ]
    verdicts = [
        verdict("a_b", "6.1.0", Status.PASS),
        verdict("a_b", "7.2.0", Status.FAIL),
        verdict("a_b", "7.3.0", Status.PASS),
        verdict("a_b", "7.4.0", Status.SKIP),
    ]
    seen = Seen(verdicts, rows)
    assert section(one, seen, {"a_b": "fam"}, "none.").splitlines()[0] == (
        "- **Kernels.** 7.2.0 (1 of 1 variants); not in the published runs, but left to chance by "
        "the known rows, on 7.3.0; not on 6.1.0"
    )
    told = table([one], seen, {}).splitlines()[-1]
    assert told.endswith("| S13 | none | **1** of 1 | not met |  |  |")


def test_a_deviation_that_no_claim_speaks_of_has_none() -> None:
    [one] = deviations("page.md", TEXT)
    seen = Seen([verdict("a_b", "6.1.0", Status.FAIL, claims=())], [row("a_b")])
    assert section(one, seen, {"a_b": "fam"}, "none.").splitlines()[1] == (
        "- **Claims.** None; clauses `bounded`"
    )
