"""The JUnit file is valid for Jenkins, and says of each status what the decision says."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from junitparser import JUnitXml
from lxml import etree

from conformance.model import Status
from conformance.report import junit
from conformance.report.junit import document, strict
from conformance.report.result import Asked, NotRun, Result
from conformance.report.short import short
from conformance.report.story import Line, Story
from conformance.report.text import clean
from tests.support.results import finding, one_of_each, result, variant

XSD = Path(__file__).parent.parent / "data" / "junit-10.xsd"
ASKED = Asked(folder="results/runs/now")


def parsed(text: str) -> etree._Element:
    return etree.fromstring(text.encode())


def case(text: str, name: str) -> etree._Element:
    [found] = parsed(text).xpath("//testcase[@name=$name]", name=name)
    return found


@pytest.fixture(scope="module")
def text() -> str:
    waits = NotRun(variant("waits"), "debian/trixie")
    return document(one_of_each(), ASKED.model_copy(update={"not_run": (waits,)}))


def test_valid_for_jenkins_but_for_what_readers_take_beyond_the_schema(text: str) -> None:
    root = parsed(text)
    for element in root.iter("testcase"):
        for name in ("file", "line"):  # read by GitLab and by annotations on GitHub
            del element.attrib[name]
        element.remove(element.find("properties"))  # read by Jenkins and GitLab of today
    etree.XMLSchema(etree.parse(XSD)).assertValid(root)


def test_schema_check_can_fail(text: str) -> None:
    assert not etree.XMLSchema(etree.parse(XSD)).validate(parsed(text))


def test_what_is_attached_are_files() -> None:
    quoting = result(Status.FAIL, finding(evidence=("fill: sync() = 0",)))
    told = document([quoting.model_copy(update={"record": "published/a.jsonl.xz"})], ASKED)
    attached = [
        line
        for line in case(told, "loop_full").findtext("system-out").splitlines()
        if line.startswith("[[ATTACHMENT|")
    ]
    assert attached == [
        "[[ATTACHMENT|results/runs/now/loop_full/main/console.log]]",
        "[[ATTACHMENT|published/a.jsonl.xz]]",
    ]


def test_the_strict_flavour_is_valid_for_jenkins() -> None:
    told = parsed(strict(with_story(), ASKED, started="2026-11-24T08:00:00"))
    etree.XMLSchema(etree.parse(XSD)).assertValid(told)
    assert len(told.findall(".//testcase")) == len(one_of_each())
    assert len(told.findall(".//system-err")) == len(one_of_each())


def with_story(lines: int = 3, text: str = "loop0: lost async page write") -> list[Result]:
    log = tuple(Line(n, 6, f"{text} {n}") for n in range(lines))
    return [
        one.model_copy(update={"story": (Story(arm="main", log=log),)}) for one in one_of_each()
    ]


def test_output_is_the_short_report_and_the_kernel_log() -> None:
    told = document(with_story(), ASKED)
    for one in one_of_each():
        element = case(told, one.variant.case)
        assert element.findtext("system-out").startswith(short(one, ASKED))
        assert "lost async page write 2" in element.findtext("system-err")
    assert "[[ATTACHMENT|" in case(told, "fails").findtext("system-out")
    assert "[[ATTACHMENT|" not in case(told, "passes").findtext("system-out")


def test_of_a_good_case_s_log_no_more_than_jenkins_keeps() -> None:
    told = document(with_story(lines=5000), ASKED)
    assert len(case(told, "passes").findtext("system-err")) <= junit.GOOD_LIMIT
    log = case(told, "fails").findtext("system-err")
    assert junit.GOOD_LIMIT < len(log) <= junit.BODY_LIMIT
    assert "characters left out" in log


def test_readers_limits_are_kept_and_what_is_left_out_is_told() -> None:
    some = with_story(lines=1000)
    many = [
        one.model_copy(
            update={"variant": one.variant.model_copy(update={"case": f"{one.variant.case}_{n}"})}
        )
        for n in range(400)
        for one in some
    ]
    told = document(many, ASKED)
    assert len(told.encode()) <= junit.FILE_LIMIT
    root = parsed(told)
    assert len(root.findall(".//testcase")) == len(many)
    assert junit.objects(ET.fromstring(told)) <= 250_000
    [left_out] = root.xpath("//testsuite/properties/property[starts-with(@name, 'left out')]")
    assert "properties" in left_out.get("value")
    assert case(told, "fails_0").find("properties") is not None
    assert case(told, "passes_0").find("properties") is None


def test_junitparser_reads_it(text: str) -> None:
    xml = JUnitXml.fromstring(text.encode())
    assert (xml.tests, xml.failures, xml.errors) == (9, 2, 2)


@pytest.mark.parametrize(
    ("name", "tag", "kind"),
    [
        ("fails", "failure", "error_surfaced"),
        ("known", "skipped", "xfail"),
        ("fixed", "failure", "xpass"),
        ("broken", "error", "BROKEN"),
        ("skipped", "skipped", "skipped"),
        ("waits", "error", "NotRun"),
    ],
)
def test_what_becomes_of_each_status(text: str, name: str, tag: str, kind: str) -> None:
    told = [child for child in case(text, name) if child.tag not in ("properties", "system-out")]
    assert [(child.tag, child.get("type")) for child in told] == [(tag, kind)]
    assert told[0].text.strip()
    assert told[0].get("message")


def test_a_record_that_is_cut_short_is_an_error_that_readers_count() -> None:
    cut = ASKED.model_copy(update={"lacks": ("record.jsonl:9: no footer", "and more")})
    told = document([result(Status.PASS)], cut, started="2026-11-24T08:00:00")
    assert (parsed(told).get("tests"), parsed(told).get("errors")) == ("2", "1")
    error = case(told, "incomplete").find("error")
    assert (error.get("type"), error.text) == ("NotRun", "record.jsonl:9: no footer\nand more")
    etree.XMLSchema(etree.parse(XSD)).assertValid(parsed(strict([result(Status.PASS)], cut)))


@pytest.mark.parametrize("name", ["passes", "advised", "surveyed"])
def test_good_ones_have_properties_and_output_only(text: str, name: str) -> None:
    assert [child.tag for child in case(text, name)] == ["properties", "system-out"]


def test_strict_makes_the_known_fail() -> None:
    told = document(one_of_each(), Asked(strict=True))
    assert case(told, "known").find("failure").get("type") == "error_surfaced"


def test_should_makes_advisories_fail() -> None:
    told = document(one_of_each(), Asked(should=True))
    assert case(told, "advised").find("failure").get("type") == "errno_precise"


def test_properties(text: str) -> None:
    told = [(p.get("name"), p.get("value")) for p in case(text, "fails").iter("property")]
    assert ("release", "6.12.117") in told
    assert ("claims", "S1 S12") in told
    assert ("level", "must") in told
    assert ("norm", "https://man7.org/linux/man-pages/man2/write.2.html") in told
    assert ("norm", "seed/thread.txt") in told
    assert ("clause", "error_surfaced") in told
    assert ("clause", "errno_precise") in told
    assert any(key == "advisory" and value.startswith("errno_precise") for key, value in told)


def test_skip_tells_all_reasons_in_message_and_body(text: str) -> None:
    skipped = case(text, "skipped").find("skipped")
    assert skipped.get("message") == skipped.text
    assert skipped.text == "no module dm_thin_pool; no tool thin_check"


def test_suites_by_kernel_and_family_with_names_that_survive() -> None:
    results = [
        result(Status.PASS, of=variant(family="loop_quota")),
        result(Status.PASS, of=variant(family="loop_memcg")),
        result(Status.PASS, of=variant(family="loop_memcg"), kernel="../linux-6.1.y/arch/bzImage"),
    ]
    root = parsed(document(results, Asked(many_kernels=True)))
    assert [suite.get("name") for suite in root] == [
        "loop_quota-debian_trixie",
        "loop_memcg-debian_trixie",
        "loop_memcg-linux-6_1_y_arch_bzImage",
    ]
    names = [(c.get("classname"), c.get("name")) for c in root.iter("testcase")]
    assert len(set(names)) == len(names)
    assert not any(set(" ./") & set(name) for _, name in names)


def test_a_long_log_is_cut_in_the_middle() -> None:
    told = document([result(Status.BROKEN, reasons=("x" * 200_000,))], ASKED)
    error = parsed(told).find(".//error")
    assert len(error.text) < 70_000
    assert "characters left out" in error.text


def test_times_have_three_decimals() -> None:
    many = [
        result(Status.PASS, of=variant(f"c{n}"), seconds={"total": 0.1 + n / 3}) for n in range(9)
    ]
    for element in parsed(document(many, ASKED)).iter("testsuites", "testsuite", "testcase"):
        assert len(element.get("time").partition(".")[2]) == 3


@given(st.text(st.characters()))
def test_any_text_gives_well_formed_xml(noise: str) -> None:
    told = document(
        [
            result(Status.FAIL, finding(observed=noise, evidence=(noise,)), known=(noise,)),
            result(Status.BROKEN, reasons=(noise,), of=variant("other")),
            result(Status.SKIP, reasons=(noise,), of=variant("third")),
        ],
        ASKED,
    )
    root = parsed(told)
    assert len(root.findall(".//testcase")) == 3
    assert len(root.findall(".//failure")) == len(root.findall(".//error")) == 1


def test_terminal_colours_leave_no_trace() -> None:
    assert clean("\x1b[1;31mred\x1b[0m\x00\ufffe\ud800") == "red"
