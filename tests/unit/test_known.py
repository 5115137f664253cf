"""Known deviations: rows with their places, laid over verdicts, strict both ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.exits import Refused
from conformance.known import Known, KnownError, in_range, parse_known, parse_range, settle, stale
from conformance.library import load_library
from conformance.model import Clause, Disposition, Finding, Level, Status, Verdict
from conformance.session import known_rows

ROOT = Path(__file__).parents[2]
ROW = """\
- case: loop_full
  variant: {request: 1M}
  kernel: ">= 6.12.117, < 7.4"
  clause: acknowledged_readable
  signature: zeros
  reason: a short write completes in full
  link: drivers/block/loop.c, lo_complete_rq()
  review_by: 2027-06-01
"""


def rows(text: str = ROW) -> tuple[Known, ...]:
    return parse_known(text, "known.yaml")


def finding(
    clause: Clause = Clause.ACKNOWLEDGED_READABLE,
    signature: str = "zeros",
    level: Level = Level.MUST,
) -> Finding:
    return Finding(clause=clause, level=level, expected="x", observed="y", signature=signature)


def verdict(
    *findings: Finding,
    status: Status = Status.FAIL,
    release: str = "6.12.117+deb13-cloud-amd64",
    request: str = "1M",
) -> Verdict:
    return Verdict(
        case="loop_full",
        values={"request": request, "loop_dio": "off"},
        kernel="debian/trixie",
        release=release,
        status=status,
        findings=findings,
    )


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("- case: loop_full", "- case: [", "known.yaml:3:3"),
        ("  reason:", "  because:", "known.yaml:1:"),
        ('">= 6.12.117, < 7.4"', '"about 6.12"', "known.yaml:1:3"),
        ("acknowledged_readable", "no_such_clause", "known.yaml:1:3"),
        ("2027-06-01", "soon", "known.yaml:1:3"),
        ("  signature: zeros", '  signature: ""', "known.yaml:1:3"),
        ("  link: drivers/block/loop.c, lo_complete_rq()\n", "", "known.yaml:1:"),
    ],
    ids=["yaml", "key", "range", "clause", "date", "signature", "missing"],
)
def test_a_wrong_row_is_told_with_its_place(old: str, new: str, place: str) -> None:
    with pytest.raises(KnownError) as told:
        rows(ROW.replace(old, new))
    assert str(told.value).startswith(place)


def test_the_place_is_that_of_the_row() -> None:
    with pytest.raises(KnownError, match=r"^known\.yaml:9:"):
        rows(ROW + ROW.replace("7.4", "next year"))


@pytest.mark.parametrize("text", ["case: x\n", "- 5\n", "- [1]\n"])
def test_what_is_no_list_of_rows_is_refused(text: str) -> None:
    with pytest.raises(KnownError, match=r"^known\.yaml:1:"):
        rows(text)


def test_a_row_is_itself_wherever_it_stands_and_however_it_is_explained() -> None:
    said = ("loop_full", "request=1M", "acknowledged_readable", "zeros", "<7.4", ">=6.12.117")
    assert rows()[0].identity == said
    other = ROW.replace(">= 6.12.117, < 7.4", "<7.4, >=6.12.117").replace("a short", "another")
    assert rows(f"# moved\n{other}")[0].identity == said


def test_an_empty_file_has_no_rows() -> None:
    assert rows("# nothing known\n") == ()


def test_a_file_of_a_mebibyte_is_the_longest() -> None:
    longest = ROW + "#" * ((1 << 20) - len(ROW))
    assert len(rows(longest)) == 1
    with pytest.raises(KnownError, match=r"^known\.yaml:1:1: longer than 1048576 characters"):
        rows(longest + "#")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 5000, "known.yaml:1:1: nested too deeply"),
        (ROW.replace("2027-06-01", "2027-13-45"), "known.yaml:1:1: month must be in 1..12"),
        (ROW.replace("a short", "a \x07 short"), "known.yaml:1:1: unacceptable character"),
        ("  - 5\n", "known.yaml:1:5: a row is a mapping"),
        ("- {case: [1]}\n", "known.yaml:1:4: case"),
        ("- {case: x, kernel: about 6}\n", "known.yaml:1:3: clause"),
    ],
    ids=["depth", "no date", "no character", "no mapping", "a key", "no key"],
)
def test_each_refusal_says_where_and_why(text: str, told: str) -> None:
    with pytest.raises(KnownError) as error:
        rows(text)
    assert str(error.value).startswith(told)


FLOW = (
    "- {case: c, variant: {request: 1M}, kernel: '> 6', clause: reusable, signature: s, "
    "reason: r, link: l, review_by: 2027-06-01}\n"
)


def test_a_key_of_two_lines_is_told_in_one() -> None:
    with pytest.raises(KnownError, match=r"'a\\nb': Extra") as caught:
        parse_known(ROW + '  "a\\nb": 1\n', "known.yaml")
    assert "\n" not in str(caught.value)


def test_a_text_of_one_character_is_a_text() -> None:
    (row,) = rows(FLOW)
    assert (row.signature, row.reason, row.link) == ("s", "r", "l")


@pytest.mark.parametrize("key", ["signature", "reason", "link"])
def test_an_empty_text_says_nothing(key: str) -> None:
    empty = FLOW.replace(f"{key}: {key[0]}", f"{key}: ''")
    with pytest.raises(KnownError) as error:
        rows(empty)
    assert str(error.value).startswith(f"known.yaml:1:{empty.index(key) + 1}: {key}: ")


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("{request: 1M}", "{request: {a: b}}", "variant"),
        ("'> 6'", "six", "kernel"),
        ("clause: reusable, signature: s", "clause: none, signature: ''", "clause"),
    ],
    ids=["below a key", "a range", "the first of two"],
)
def test_the_place_is_that_of_the_key(old: str, new: str, key: str) -> None:
    wrong = FLOW.replace(old, new)
    with pytest.raises(KnownError) as error:
        rows(wrong)
    assert str(error.value).startswith(f"known.yaml:1:{wrong.index(key) + 1}: ")


@pytest.mark.parametrize(
    ("release", "text", "inside"),
    [
        ("6.12.117+deb13-cloud-amd64", ">= 6.12.117", True),
        ("6.12.117+deb13-cloud-amd64", ">= 6.12.118", False),
        ("6.12.117+deb13-cloud-amd64", "== 6.12.117", True),
        ("6.1.0-56-cloud-amd64", "< 6.2", True),
        ("6.10.3", "< 6.9", False),
        ("7.3-rc7-amd64", ">= 7.3", True),
        ("7.3-rc7-amd64", ">= 6.12, < 7.3", False),
        ("5.10.0-33-cloud-amd64", "> 5.10", False),
        ("5.10.0-33-cloud-amd64", "<= 5.10", True),
        ("6.1-rc3-amd64", "== 6.1.0", True),
        ("6.1-rc3-amd64", ">= 6.1.1", False),
        ("6.1.0-56-cloud-amd64", "== 6.1", True),
        ("6.1.1-amd64", "<= 6.1", False),
        ("6.12.26-amd64", ">= 6.12.25, < 6.13 or >= 6.15", True),
        ("6.14.2-amd64", ">= 6.12.25, < 6.13 or >= 6.15", False),
        ("7.3-rc7-amd64", ">= 6.12.25, < 6.13 or >= 6.15", True),
    ],
)
def test_a_release_lies_in_a_range_by_its_numbers(release: str, text: str, inside: bool) -> None:
    assert in_range(release, text) is inside


@pytest.mark.parametrize("text", ["", "6.12", ">= six", ">= 6.1 < 6.2", "~ 6.1", ">= 6.1 or", "or"])
def test_a_range_that_says_nothing_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="not a range"):
        parse_range(text)


def test_a_failure_that_rows_tell_of_wholly_is_as_known() -> None:
    settled = settle(verdict(finding()), rows())
    assert settled.status is Status.FAIL
    assert settled.disposition is Disposition.AS_KNOWN
    assert settled.known == ("known.yaml:1",)


@pytest.mark.parametrize(
    "other",
    [
        finding(Clause.ERROR_SURFACED, "lost-in-silence"),
        finding(Clause.ACKNOWLEDGED_READABLE, "foreign"),
    ],
    ids=["another clause", "another signature"],
)
def test_a_deviation_that_no_row_tells_of_is_unexpected(other: Finding) -> None:
    settled = settle(verdict(finding(), other), rows())
    assert settled.disposition is Disposition.UNEXPECTED
    assert settled.known == ("known.yaml:1",)


def test_an_advisory_needs_no_row() -> None:
    advice = finding(Clause.ERRNO_PRECISE, "EIO", Level.SHOULD)
    assert settle(verdict(finding(), advice), rows()).disposition is Disposition.AS_KNOWN


@pytest.mark.parametrize(
    "other",
    [verdict(finding(), release="6.1.0-56-cloud-amd64"), verdict(finding(), request="4K")],
    ids=["another kernel", "another variant"],
)
def test_a_row_speaks_of_nothing_else(other: Verdict) -> None:
    assert settle(other, rows()).disposition is Disposition.UNEXPECTED
    assert stale([other], rows()) == ()


def test_a_row_may_list_values() -> None:
    several = rows(ROW.replace("{request: 1M}", "{request: [64K, 1M]}"))
    for request in ("64K", "1M"):
        assert settle(verdict(finding(), request=request), several).known
    assert not settle(verdict(finding(), request="4K"), several).known


def test_a_signature_may_be_a_glob() -> None:
    (row,) = rows(ROW.replace("signature: zeros", 'signature: "oom-killed:*"'))
    assert row.tells_of(finding(signature="oom-killed:idle"))
    assert not row.tells_of(finding(signature="zeros"))


def test_what_passes_against_a_row_is_fixed_and_the_row_is_stale() -> None:
    passed = verdict(status=Status.PASS)
    assert settle(passed, rows()).disposition is Disposition.FIXED
    (told,) = stale([passed], rows())
    assert "known.yaml:1" in told
    assert "debian/trixie" in told


def test_a_row_for_what_is_seen_by_chance_is_not_stale_where_it_is_not_seen() -> None:
    by_chance = rows(ROW + "  sometimes: true\n")
    passed = verdict(status=Status.PASS)
    assert settle(passed, by_chance).disposition is Disposition.NONE
    assert stale([passed], by_chance) == ()
    assert settle(verdict(finding()), by_chance).disposition is Disposition.AS_KNOWN


def test_what_depends_on_chance_hides_no_other_row() -> None:
    both = rows(ROW + "  sometimes: true\n" + ROW)
    (told,) = stale([verdict(status=Status.PASS)], both)
    assert told.startswith("known.yaml:10: ")


def test_a_stale_row_names_the_first_variant_that_contradicts_it() -> None:
    first = verdict(status=Status.PASS)
    later = first.model_copy(update={"kernel": "debian/sid"})
    (told,) = stale([first, later], rows())
    assert told.endswith("not seen in [1M-off] on debian/trixie (6.12.117+deb13-cloud-amd64)")


def test_a_row_is_stale_although_the_case_fails_for_another_reason() -> None:
    other = verdict(finding(Clause.KERNEL_SOUND, "warning:x"))
    assert len(stale([other], rows())) == 1


@pytest.mark.parametrize("status", [Status.SKIP, Status.BROKEN])
def test_where_nothing_is_known_no_row_is_contradicted(status: Status) -> None:
    unknown = verdict(status=status)
    assert settle(unknown, rows()) == unknown
    assert stale([unknown], rows()) == ()


def test_a_deviation_that_is_seen_keeps_its_row() -> None:
    assert stale([verdict(finding())], rows()) == ()


@pytest.mark.parametrize("others", [(), ("rows.yaml",)])
def test_rows_in_a_file_that_nobody_reads_are_refused(
    others: tuple[str, ...], tmp_path: Path
) -> None:
    for name in (*others, "more.yml"):
        (tmp_path / name).write_text("[]")
    with pytest.raises(
        Refused, match=r"more\.yml: rows are read from \*\.yaml alone; call it more"
    ):
        known_rows(tmp_path)
    (tmp_path / "more.yml").unlink()
    assert known_rows(tmp_path) == ()


FILES = sorted((ROOT / "results" / "known").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_suite_s_own_rows_speak_of_cases_that_exist(path: Path) -> None:
    variants = load_library([ROOT / "cases"], ROOT / "fixtures").variants
    for row in parse_known(path.read_text(), path.name):
        assert any(row.of(v.case, v.values) for v in variants), f"{row}: no such variant"
