"""A run as JUnit XML, for dashboards. Made with the junit-xml package, extended in ``_Suite``.

One testsuite for each kernel and family; docs/decisions/0010-junit.md says what becomes of each
status and why. The text is always well-formed XML 1.0, whatever a kernel log held, and within what
readers take: GitLab's and Jenkins' limits are kept by leaving things out, which the file then says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from junit_xml import TestCase, TestSuite

from conformance.model import Status, Variant
from conformance.report.norm import link
from conformance.report.norm import told as source
from conformance.report.result import (
    INCOMPLETE,
    Asked,
    NotRun,
    Outlook,
    Result,
    first_clause,
    label,
    releases,
    slug,
    starts,
)
from conformance.report.short import brief, files, short
from conformance.report.story import log_of
from conformance.report.text import clean, middle_out

PACKAGE = "conformance"
BODY_LIMIT = 64_000
"""Characters of one body; GitHub's annotation tools cut there. What is left out is the middle."""
GOOD_LIMIT = 1_000
"""Characters of what a test that passed has printed: Jenkins keeps no more of it."""
FILE_LIMIT = 29_000_000
"""Bytes of the file: GitLab takes less than 30 MB."""
OBJECTS_LIMIT = 240_000
"""Elements, attributes (which are two) and texts: GitLab takes 250 000 objects."""


class Flavour(NamedTuple):
    """What is said beyond the result itself, and how much of it."""

    strict: bool = False  # valid against junit-10.xsd: no file, no line, no testcase's properties
    body: int = BODY_LIMIT
    properties: bool = True  # of the cases that are good or skipped; the others always have them
    output: bool = True  # of those too
    attempts: bool = True  # the report and the kernel log of each attempt of a variant that wavers
    left_out: str = ""


LESS = (
    Flavour(),
    Flavour(body=16_000),
    Flavour(body=16_000, attempts=False, left_out="reports of attempts that are not the worst"),
    Flavour(
        body=16_000,
        attempts=False,
        properties=False,
        left_out="properties of what passed or was skipped",
    ),
    Flavour(
        body=4_000,
        attempts=False,
        properties=False,
        output=False,
        left_out="properties and output of what passed or was skipped",
    ),
    Flavour(
        body=500,
        attempts=False,
        properties=False,
        output=False,
        left_out="properties and output of what passed or was skipped, and most of each report",
    ),
)
"""Tried in this order, until the file is within the limits."""


def document(results: Sequence[Result], asked: Asked, *, started: str = "") -> str:
    """The whole file. ``started`` is an ISO 8601 time without a zone, in UTC."""
    return _fitting(results, asked, started, strict=False)


def strict(results: Sequence[Result], asked: Asked, *, started: str = "") -> str:
    """The whole file, valid against junit-10.xsd, which Jenkins publishes."""
    return _fitting(results, asked, started, strict=True)


def objects(root: ET.Element) -> int:
    """How many objects a reader makes of the file, at most."""
    return sum(1 + 2 * len(element.attrib) + bool(element.text) for element in root.iter())


def _fitting(results: Sequence[Result], asked: Asked, started: str, *, strict: bool) -> str:
    told_of = [_texts(result, asked) for result in results]
    text = ""
    for flavour in LESS:
        if flavour is not LESS[-1] and _at_least(told_of, flavour) > FILE_LIMIT:
            continue
        root = _tree(told_of, asked, started, flavour._replace(strict=strict))
        few = objects(root) <= OBJECTS_LIMIT
        ET.indent(root)
        told = ET.tostring(root, encoding="unicode")
        text = f'<?xml version="1.0" encoding="utf-8"?>\n{told}\n'
        if few and len(text.encode()) <= FILE_LIMIT:
            break
    return text


class _Texts(NamedTuple):
    """A result with its long texts, which are made once, however often the file has to be."""

    result: Result
    good: bool
    report: str
    log: str

    def body(self, flavour: Flavour) -> str:
        return middle_out(self.report, flavour.body) if flavour.output or not self.good else ""

    def output(self, flavour: Flavour) -> str:
        if self.good and not flavour.output:
            return ""
        return middle_out(self.log, min(flavour.body, GOOD_LIMIT) if self.good else flavour.body)


def _texts(result: Result, asked: Asked) -> _Texts:
    return _Texts(
        result=result,
        good=result.outlook(asked) in (Outlook.GOOD, Outlook.SKIPPED),
        report=clean(short(result, asked)),
        log=clean(log_of(result.story)),
    )


def _at_least(told_of: Sequence[_Texts], flavour: Flavour) -> int:
    """A number of bytes that the file has at least: cheaper than making it."""
    return sum(
        (1 if texts.good else 2) * len(texts.body(flavour)) + len(texts.output(flavour))
        for texts in told_of
    )


def _tree(
    told_of: Sequence[_Texts],
    asked: Asked,
    started: str,
    flavour: Flavour,
) -> ET.Element:
    groups: dict[tuple[str, str], list[_Case]] = {}
    known = releases(texts.result for texts in told_of)
    began: dict[tuple[str, str], list[Result]] = {}
    for texts in told_of:
        result = texts.result
        key = (result.verdict.kernel, result.variant.family)
        groups.setdefault(key, []).append(_judged(texts, asked, flavour))
        began.setdefault(key, []).append(result)
    for missing in asked.not_run:
        key = (missing.kernel, missing.variant.family)
        groups.setdefault(key, []).append(_not_run(missing, asked))
    root = ET.Element("testsuites", {"name": PACKAGE})
    for (kernel, family), cases in groups.items():
        properties = {"kernel": kernel, "release": known.get(kernel, "")}
        if asked.lacks:
            properties["incomplete"] = "; ".join(asked.lacks)
        if flavour.left_out:
            properties["left out, to be within what readers take"] = flavour.left_out
        first = starts(began.get((kernel, family), ()), started)[:1]
        suite = _Suite(
            family, slug(kernel), cases, properties, "".join(first), strict=flavour.strict
        )
        root.append(suite.element())
    if asked.lacks:
        root.append(_incomplete(asked.lacks, started, strict=flavour.strict))
    suites = list(root)
    for total in ("tests", "failures", "errors"):
        root.set(total, str(sum(int(suite.get(total, 0)) for suite in suites)))
    root.set("time", _seconds(sum(float(suite.get("time", 0)) for suite in suites)))
    return root


class _Case(NamedTuple):
    """A case of the package's model, and what that model has no place for."""

    case: TestCase
    properties: Sequence[tuple[str, str]]
    skipped_type: str = "skipped"
    attempts: Sequence[ET.Element] = ()  # surefire's: of a variant that wavers


class _Suite(NamedTuple):
    """The one place where the package's model is extended.

    It lacks properties of a testcase, the type of ``skipped``, and attempts that ended in another
    way (surefire's flakyFailure and flakyError). Its ``disabled`` counts are not in the schema that
    Jenkins publishes, nor are times with more than three decimals.
    """

    family: str
    kernel: str
    cases: Sequence[_Case]
    properties: Mapping[str, str]
    started: str
    strict: bool

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
            case.extend(item.attempts)
            if self.strict:
                for name in ("file", "line"):
                    case.attrib.pop(name, None)
            elif item.properties:
                properties = ET.Element("properties")
                for key, value in item.properties:
                    ET.SubElement(properties, "property", {"name": key, "value": clean(value)})
                case.insert(0, properties)
        return element


def _judged(texts: _Texts, asked: Asked, flavour: Flavour) -> _Case:
    result, good = texts.result, texts.good
    verdict = result.verdict
    body = texts.body(flavour)
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
    if flavour.output or not good:
        attached = [f"[[ATTACHMENT|{clean(path)}]]" for path in files(result, asked) if path][:4]
        # GitLab links these.
        case.stdout = "\n".join([body, *(attached if not good else ())])
        case.stderr = texts.output(flavour) or None
    return _Case(
        case,
        _properties(result) if flavour.properties or not good else (),
        kind,
        tuple(_attempts(result, asked, flavour)) if result.wavers else (),
    )


_FLAKY = {Status.FAIL: "flakyFailure", Status.BROKEN: "flakyError"}


def _attempts(result: Result, asked: Asked, flavour: Flavour) -> Iterator[ET.Element]:
    """An element for each attempt that did not end well, at a variant of which others ended otherwise."""
    for attempt in result.attempts:
        verdict = attempt.verdict
        if (name := _FLAKY.get(verdict.status)) is None:
            continue
        told = [*map(brief, verdict.deviations[:1]), *verdict.reasons]
        kind = first_clause(verdict.deviations) or verdict.status
        message = f"attempt {attempt.attempt} of {len(result.attempts)}: {'; '.join(told)}"
        element = ET.Element(name, {"message": clean(message), "type": str(kind)})
        if flavour.attempts:
            for tag, text in (
                ("stackTrace", clean(short(attempt, asked))),  # where Jenkins looks for the text
                ("system-err", clean(log_of(attempt.story))),
            ):
                ET.SubElement(element, tag).text = middle_out(text, flavour.body)
        yield element


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
    told += [("norm", link(norm) or source(norm)) for norm in variant.norm]
    told += [
        ("clause", str(clause)) for clause in dict.fromkeys(f.clause for f in verdict.findings)
    ]
    told += [("advisory", brief(finding)) for finding in verdict.advisories]
    told += [("known", row) for row in verdict.known]
    told += [("note", note) for note in verdict.notes]
    if spread := result.told_spread():
        told.append(("attempts", spread))
    return told


def _not_run(missing: NotRun, asked: Asked) -> _Case:
    name = label(missing.variant, missing.kernel, many_kernels=asked.many_kernels)
    case = _bare(missing.variant, name, seconds=0.0)
    text = clean(missing.why)
    case.add_error_info(text, text, "NotRun")
    return _Case(case, [("kernel", missing.kernel), ("level", str(missing.variant.level))])


def _incomplete(lacks: Sequence[str], started: str, *, strict: bool) -> ET.Element:
    """A suite of one error: what a record that is cut short no longer tells of has no case here."""
    family, name = INCOMPLETE.split("/")
    case = TestCase(name, classname=family)
    text = clean("\n".join(lacks))
    case.add_error_info(text, text, "NotRun")
    return _Suite(family, name, [_Case(case, ())], {}, started, strict=strict).element()


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
