"""The HTML report needs nothing else, tells of every result, and runs nothing that a guest wrote."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from typing import Any

import pytest
from lxml import html as lxml_html

from conformance.compare import compare
from conformance.model import CLAIMS, Level, Status
from conformance.report.html import comparison, document
from conformance.report.html.data import LOG_LINES, code_of
from conformance.report.result import Asked, Result
from conformance.report.story import stories
from tests.support.results import finding, one_of_each, result, variant
from tests.support.stories import OOM, observed

ASKED = Asked(folder="results/runs/now")
HOSTILE = (
    "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\x1b[31m\x00"
)


def made(results: list[Result] | None = None) -> str:
    return document(results or one_of_each(), ASKED, started="2026-11-24T08:00:00")


def parsed(text: str) -> Any:
    return lxml_html.document_fromstring(text)


def index(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(parsed(text).get_element_by_id("index").text)
    return found


def reports(text: str) -> list[dict[str, Any]]:
    """The details of every variant, in the order of the index."""
    root = parsed(text)
    chunks = {
        number: json.loads(
            zlib.decompress(base64.b64decode(root.get_element_by_id(f"chunk-{number}").text))
        )
        for number in {variant[7] for variant in index(text)["variants"]}
    }
    return [chunks[one[7]][one[8]] for one in index(text)["variants"]]


def with_story(status: Status, *log: str, **more: Any) -> Result:
    one = result(status, finding(evidence=OOM[:1]), **more)
    return one.model_copy(update={"story": stories(one.variant, observed(one.variant, *log))})


def test_every_result_is_in_the_index_with_its_status() -> None:
    data = index(made())
    assert [data["texts"][one[1]] for one in data["variants"]] == [
        one.variant.case for one in one_of_each()
    ]
    assert [one[5][0][0] for one in data["variants"]] == [code_of(one) for one in one_of_each()]
    assert list(data["signs"]) == ["F", "K", "B", "P", "R", "S"]
    assert list(data["claims"]) == list(CLAIMS)


def test_the_table_is_there_without_scripts() -> None:
    root = parsed(made([*one_of_each(), result(Status.PASS, kernel="debian/sid")]))
    [row] = root.get_element_by_id("rows").findall("tr")
    cells = [" ".join(td.text_content().split()) for td in row.findall("td")]
    assert sorted(cells) == ["✓ 1 PASS of 1", "✗ 1 FAIL of 8"]
    assert len(root.get_element_by_id("standings").findall("tr")) == len(CLAIMS)
    first = root.get_element_by_id("standings").find("tr")
    assert "fails 1 case" not in first.find("th").text_content()
    assert any("fails" in td.text_content() for td in first.findall("td"))


def test_it_asks_for_nothing_else() -> None:
    text = made([with_story(Status.FAIL)])
    root = parsed(text)
    assert not root.xpath(
        "//@src | //link | //iframe | //object | //embed | //base | //form[@action]"
    )
    assert all(href.startswith("#") for href in root.xpath("//@href"))
    assert not re.search(r"@import|url\(", text)


@pytest.mark.parametrize("kind", ["style", "script"])
def test_the_policy_names_what_the_page_has(kind: str) -> None:
    root = parsed(made())
    [policy] = root.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    [text] = [e.text for e in root.iter(kind) if "type" not in e.attrib]
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not root.xpath("//@style | //@*[starts-with(name(), 'on')]")


def test_what_a_guest_wrote_is_text() -> None:
    bad = with_story(Status.FAIL, HOSTILE, of=variant("hostile"), kernel=f"k{HOSTILE}")
    bad = bad.model_copy(
        update={
            "variant": bad.variant.model_copy(update={"title": HOSTILE[:140]}),
            "verdict": bad.verdict.model_copy(
                update={
                    "findings": (
                        finding(observed=HOSTILE, signature=HOSTILE, evidence=(HOSTILE,)),
                    ),
                    "release": HOSTILE,
                }
            ),
        }
    )
    broken = result(Status.BROKEN, of=variant("broken"), reasons=(HOSTILE,))
    text = made([bad, broken])
    assert "\x1b" not in text
    assert "\x00" not in text
    root = parsed(text)
    assert len([e for e in root.iter("script") if "type" not in e.attrib]) == 1
    assert not list(root.iter("img"))
    observed_ = [
        f["observed"] for one in reports(text) for r in one["on"].values() for f in r["findings"]
    ]
    assert any("window.hacked" in told for told in observed_)


def test_the_log_s_lines_that_matter_are_marked() -> None:
    [one] = reports(made([with_story(Status.FAIL, "nothing", "Buffer I/O error on dev loop0")]))
    [arm] = one["on"]["0"]["arms"]
    assert [(line[2].split(":")[0], line[3]) for line in arm["log"]] == [
        ("loop", 0),
        ("kworker/u4", 1),
        ("Memory cgroup out of memory", 1),
        ("nothing", 0),
        ("Buffer I/O error on dev loop0", 1),
    ]


def test_a_long_log_keeps_its_ends_and_what_matters() -> None:
    lines = [f"line {n}" for n in range(5000)]
    lines[2500] = "Buffer I/O error on dev loop0"
    [one] = reports(made([with_story(Status.FAIL, *lines)]))
    log = one["on"]["0"]["arms"][0]["log"]
    assert len([line for line in log if len(line) == 4]) == LOG_LINES + 1
    assert sum(line[0] for line in log if len(line) == 1) == 5003 - LOG_LINES - 1
    assert any("Buffer I/O error" in str(line) for line in log)


def test_a_report_has_claim_norm_findings_and_the_command() -> None:
    one = with_story(Status.FAIL)
    [told] = reports(made([one]))
    assert told["norm"][1] == [
        "write(2), ERRORS, ENOSPC",
        "https://man7.org/linux/man-pages/man2/write.2.html",
        "",
    ]
    report = told["on"]["0"]
    assert report["again"].startswith("./conform run -k loop_full --kernel debian/trixie")
    assert report["findings"][0]["expected"] == one.verdict.findings[0].expected
    assert [mark[1] for mark in report["arms"][0]["marks"]] == ["impose", "error", "kill", "relief"]


def test_a_run_without_a_result_is_a_page_too() -> None:
    text = document((), ASKED)
    assert index(text)["variants"] == []
    assert "0 variants of 0 cases on 0 kernels" in text


def test_lone_surrogates_do_no_harm() -> None:
    made([with_story(Status.FAIL, "a \ud800 b")]).encode()


def test_modules_and_parts_of_the_page_are_small() -> None:
    from pathlib import Path

    import conformance.report.html as package

    for path in Path(package.__file__).parent.rglob("*.*"):
        if path.suffix in (".py", ".js", ".css", ".j2"):
            assert len(path.read_text().splitlines()) < 600, path


# -- two runs -----------------------------------------------------------------------------------


def test_a_comparison_tells_each_change() -> None:
    before = [result(Status.PASS, of=variant("a")), result(Status.FAIL, finding(), of=variant("b"))]
    after = [
        result(Status.FAIL, finding(observed=HOSTILE, signature=HOSTILE), of=variant("a")),
        result(Status.PASS, of=variant("b")),
        result(Status.PASS, finding(level=Level.SHOULD), of=variant("new")),
    ]
    pairs = compare([r.verdict for r in before], [r.verdict for r in after])
    text = comparison(pairs, "before", "after<script>")
    root = parsed(text)
    assert [s.get("id") for s in root.iter("section")] == ["regressed", "fixed", "new"]
    assert not [e for e in root.iter("script", "img") if (e.text or "").strip() or e.tag == "img"]
    [row] = root.get_element_by_id("regressed").find(".//tbody").findall("tr")
    assert "window.hacked" in row.text_content()
    assert "✓ PASS" in " ".join(row.text_content().split())
    assert "\x00" not in text


def test_a_comparison_of_what_is_the_same() -> None:
    assert "Nothing changed." in comparison((), "a", "b")
