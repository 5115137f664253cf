"""The short report says what a reader needs, and its command repeats the variant."""

from __future__ import annotations

import shlex

import pytest

from conformance.model import CLAIMS, HERE, Clause, Disposition, Level, Status
from conformance.report.result import Asked, Outlook, again, label, slug
from conformance.report.short import brief, short
from tests.support.results import finding, one_of_each, result, variant

ASKED = Asked(folder="results/runs/now")


def test_whole_report() -> None:
    failed = result(Status.FAIL, finding(), of=variant(submit="direct", loop_dio="off"))
    where = "cases/loop_enospc/loop_full.yaml:1"
    assert short(failed, ASKED).splitlines() == [
        f"{where}: FAIL loop_full[direct-off] on debian/trixie (6.12.117)",
        "  case      A write past the space of a full device fails with an error to its submitter",
        "  claim     S1  A storage shortage is an I/O error to the submitter, not an OOM kill.",
        f"  claim     S12  {CLAIMS['S12']}",
        '  norm      seed/thread.txt: "it *must* return ENOSPC to the IO submitter"',
        "  norm      write(2), ERRORS, ENOSPC",
        "  clause    error_surfaced (must, S1), step fill",
        "  expected  an error at write, fsync or close",
        "  observed  every call succeeded, and 12 blocks read back as zero",
        "  evidence  results/runs/now/loop_full/main/console.log",
        "  evidence  results/runs/now/record.jsonl",
        "  again     ./conform run -k 'loop_full[direct-off]' --kernel debian/trixie --strict",
    ]


def test_documented_deviation_says_where() -> None:
    told = short(
        result(Status.FAIL, finding(documented_by="cgroup-v2.rst, memory.max", arm="quota")), ASKED
    )
    assert "deviates from the thesis, as documented: cgroup-v2.rst, memory.max" in told
    assert "step fill, arm quota" in told


def test_every_reason_is_told() -> None:
    told = short(result(Status.SKIP, reasons=("no module a", "no tool b")), ASKED)
    assert "skipped   no module a" in told
    assert "skipped   no tool b" in told


def test_long_text_is_wrapped_and_lines_are_kept() -> None:
    told = short(result(Status.FAIL, finding(observed="word " * 60 + "\nsecond line")), ASKED)
    assert max(map(len, told.splitlines())) <= 110
    assert "            second line" in told.splitlines()


def test_command_repeats_options_and_quotes() -> None:
    asked = Asked(options=("--cases", "my cases", "--module", "loop.ko"))
    words = shlex.split(again(result(Status.FAIL, of=variant(a="x")), asked))
    assert words[:4] == ["./conform", "run", "-k", "loop_full[x]"]
    assert words[4:] == [
        "--kernel", "debian/trixie", "--cases", "my cases", "--module", "loop.ko", "--strict"
    ]  # fmt: skip


def test_what_ran_on_the_machine_itself_is_repeated_there() -> None:
    here = result(Status.FAIL, of=variant(a="x"), kernel=HERE)
    asked = Asked(options=("--cases", "mine"))
    words = shlex.split(again(here, asked))
    assert words == [
        "./conform",
        "run",
        "-k",
        "loop_full[x]",
        "--here",
        "--cases",
        "mine",
        "--strict",
    ]


def test_brief_is_one_line_and_names_the_clause_first() -> None:
    told = brief(finding(observed="a\nb"))
    assert "\n" not in told
    assert told.startswith("error_surfaced at fill: expected ")


@pytest.mark.parametrize(
    ("number", "strict", "should", "expected"),
    [
        (0, False, False, Outlook.GOOD),
        (1, False, False, Outlook.GOOD),
        (1, False, True, Outlook.BAD),
        (2, False, False, Outlook.BAD),
        (3, False, False, Outlook.KNOWN),
        (3, True, False, Outlook.BAD),
        (4, False, False, Outlook.FIXED),
        (4, True, False, Outlook.GOOD),
        (5, False, False, Outlook.BROKEN),
        (6, False, False, Outlook.SKIPPED),
        (7, False, False, Outlook.GOOD),
    ],
)
def test_outlook(number: int, strict: bool, should: bool, expected: Outlook) -> None:
    assert one_of_each()[number].outlook(Asked(strict=strict, should=should)) is expected


def test_unexpected_failure_is_never_known() -> None:
    told = result(Status.FAIL, finding(), disposition=Disposition.UNEXPECTED)
    assert told.outlook(Asked()) is Outlook.BAD


def test_names_have_no_blanks_and_no_slashes() -> None:
    name = label(variant(a="x"), "/home/me/linux 6.1/bzImage", many_kernels=True)
    assert name == "loop_full[x]@home_me_linux_6_1_bzImage"
    assert slug("debian/trixie") == "debian_trixie"


def test_should_puts_advisories_among_what_offends() -> None:
    advised = result(Status.PASS, finding(Clause.ERRNO_PRECISE, Level.SHOULD))
    assert not advised.offending(Asked())
    assert advised.offending(Asked(should=True))
