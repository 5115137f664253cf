"""A run as JUnit XML, for dashboards. Made with the junit-xml package, extended in ``_Suite``.

One testsuite for each kernel and family; docs/decisions/0010-junit.md says what becomes of each
status and why. The text is always well-formed XML 1.0, whatever a kernel log held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from junit_xml import TestCase, TestSuite

from conformance.model import Variant
from conformance.report.result import Asked, Outlook, Result, first_clause, label, slug
from conformance.report.short import brief, evidence, short
from conformance.report.text import clean, middle_out

PACKAGE = "conformance"
BODY_LIMIT = 64_000
"""Characters of one body; GitHub's annotation tools cut there. What is left out is the middle."""


class NotRun(NamedTuple):
    """A variant that was planned and has no verdict: the run was cut short, or still goes on."""

    variant: Variant
    kernel: str


def document(
    results: Sequence[Result],
    asked: Asked,
    *,
    not_run: Sequence[NotRun] = (),
    started: str = "",
) -> str:
    """The whole file. ``started`` is an ISO 8601 time without a zone, in UTC."""
    groups: dict[tuple[str, str], list[_Case]] = {}
    releases: dict[str, str] = {}
    for result in results:
        kernel = result.verdict.kernel
        releases[kernel] = releases.get(kernel) or result.verdict.release
        groups.setdefault((kernel, result.variant.family), []).append(_judged(result, asked))
    for missing in not_run:
        key = (missing.kernel, missing.variant.family)
        groups.setdefault(key, []).append(_not_run(missing, asked))
    root = ET.Element("testsuites", {"name": PACKAGE})
    for (kernel, family), cases in groups.items():
        properties = {"kernel": kernel, "release": releases.get(kernel, "")}
        root.append(_Suite(family, slug(kernel), cases, properties, started).element())
    suites = list(root)
    for total in ("tests", "failures", "errors"):
        root.set(total, str(sum(int(suite.get(total, 0)) for suite in suites)))
    root.set("time", _seconds(sum(float(suite.get("time", 0)) for suite in suites)))
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


class _Case(NamedTuple):
    """A case of the package's model, and what that model has no place for."""

    case: TestCase
    properties: Sequence[tuple[str, str]]
    skipped_type: str = "skipped"


class _Suite(NamedTuple):
    """The one place where the package's model is extended.

    It lacks properties of a testcase and the type of ``skipped``; its ``disabled`` counts are not
    in the schema that Jenkins publishes, nor are times with more than three decimals.
    """

    family: str
    kernel: str
    cases: Sequence[_Case]
    properties: Mapping[str, str]
    started: str

    def element(self) -> ET.Element:
        suite = TestSuite(
            # openQA cuts a suite's name at the first dot; Jenkins reads dots as packages.
            clean(f"{self.family}-{self.kernel}"),
            [item.case for item in self.cases],
            package=PACKAGE,
            timestamp=self.started or None,
            properties={key: clean(value) for key, value in self.properties.items()},
        )
        element: ET.Element = suite.build_xml_doc()
        element.attrib.pop("disabled", None)
        element.set("time", _seconds(float(element.get("time", 0))))
        for item, case in zip(self.cases, element.iter("testcase"), strict=True):
            case.set("time", _seconds(float(case.get("time", 0))))
            for skipped in case.iter("skipped"):
                skipped.set("type", item.skipped_type)
            properties = ET.Element("properties")
            for key, value in item.properties:
                ET.SubElement(properties, "property", {"name": key, "value": clean(value)})
            case.insert(0, properties)
        return element


def _judged(result: Result, asked: Asked) -> _Case:
    verdict = result.verdict
    body = middle_out(clean(short(result, asked)), BODY_LIMIT)
    case = _bare(result.variant, result.name(asked), seconds=verdict.seconds.get("total", 0.0))
    reasons = clean("; ".join(verdict.reasons)) or f"no reason is given ({verdict.status})"
    kind = "skipped"
    match result.outlook(asked):
        case Outlook.BAD:
            offending = result.offending(asked)
            told = clean(brief(offending[0])) if offending else f"{verdict.status}, no finding"
            case.add_failure_info(told, body, str(first_clause(offending) or verdict.status))
        case Outlook.KNOWN:
            told = clean("; ".join([*map(brief, verdict.deviations[:1]), *verdict.known]))
            case.add_skipped_info(f"known deviation: {told}", body)
            kind = "xfail"
        case Outlook.FIXED:
            told = clean("; ".join(verdict.known)) or "a known deviation"
            case.add_failure_info(f"no longer deviates, but is listed: {told}", body, "xpass")
        case Outlook.BROKEN:
            case.add_error_info(reasons, body, "BROKEN")
        case Outlook.SKIPPED:
            case.add_skipped_info(reasons, reasons)  # GitLab shows the body, Jenkins the message
        case Outlook.GOOD:
            pass
    if result.outlook(asked) not in (Outlook.GOOD, Outlook.SKIPPED):
        attached = [f"[[ATTACHMENT|{clean(path)}]]" for path in evidence(result, asked)[:4]]
        case.stdout = "\n".join(attached)  # GitLab links these
    return _Case(case, _properties(result), kind)


def _properties(result: Result) -> list[tuple[str, str]]:
    variant, verdict = result.variant, result.verdict
    told = [
        ("kernel", verdict.kernel),
        ("release", verdict.release),
        ("status", str(verdict.status)),
        ("disposition", str(verdict.disposition)),
        ("level", str(variant.level)),
        ("claims", " ".join(variant.claims)),
        ("title", variant.title),
    ]
    told += [
        ("clause", str(clause)) for clause in dict.fromkeys(f.clause for f in verdict.findings)
    ]
    told += [("advisory", brief(finding)) for finding in verdict.advisories]
    told += [("known", row) for row in verdict.known]
    told += [("note", note) for note in verdict.notes]
    return told


def _not_run(missing: NotRun, asked: Asked) -> _Case:
    name = label(missing.variant, missing.kernel, many_kernels=asked.many_kernels)
    case = _bare(missing.variant, name, seconds=0.0)
    text = "planned, and not run: the run was cut short"
    case.add_error_info(text, text, "NotRun")
    return _Case(case, [("kernel", missing.kernel), ("level", str(missing.variant.level))])


def _bare(variant: Variant, name: str, *, seconds: float) -> Any:
    return TestCase(
        clean(name),
        classname=clean(variant.family),
        elapsed_sec=round(seconds, 3),
        file=clean(variant.where.file),
        line=variant.where.line,
    )


def _seconds(value: float) -> str:
    return f"{value:.3f}"
