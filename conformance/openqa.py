"""Known issues as openQA keeps them, made into rows of results/known/. Pure.

The file (os-autoinst-distri-opensuse, lib/LTP/WhiteList.pm) is YAML or JSON: suite, test, then entries whose
other keys are regular expressions, with ``message`` and ``bugzilla``. It says which tests fail where, but not
how. Our rows say how, so they are made of what a record has seen fail where an entry says that it would.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import yaml

from conformance.model import Value, Verdict

REVIEW = timedelta(days=90)
_TOLD = frozenset({"message", "bugzilla", "skip", "keep_fail", "test"})
_ASKED = "kernel"
"""The one condition that a record answers. An entry with another one is taken only if that is given."""


class OpenqaError(ValueError):
    """A file that is none of known issues. One line."""


class Issue(Value):
    """An entry."""

    suite: str
    test: str  # a regular expression for the whole name
    conditions: dict[str, str] = {}
    message: str = ""
    bugzilla: str = ""

    def tells_of(self, verdict: Verdict, given: Mapping[str, str]) -> bool:
        """Whether the entry is about this variant on this kernel, where ``given`` holds."""
        names = {verdict.case, verdict.variant}
        if not any(re.fullmatch(self.test, name) for name in names):
            return False
        asked = {**given, _ASKED: verdict.release}
        return all(
            key in asked and re.search(pattern, asked[key]) is not None
            for key, pattern in self.conditions.items()
        )


def parse(text: str, file: str) -> tuple[Issue, ...]:
    """The entries. Raises OpenqaError, one line, with what is wrong."""
    try:
        raw = yaml.safe_load(text)
        return tuple(_issues(raw))
    except yaml.YAMLError as error:
        raise OpenqaError(f"{file}: {' '.join(str(error).split())}") from error
    except (AttributeError, TypeError, ValueError, re.error) as error:
        raise OpenqaError(
            f"{file}: not openQA's known issues (suite, test, entries): {error}"
        ) from error


def _issues(raw: Any) -> Iterator[Issue]:
    for suite, tests in raw.items():
        for name, entries in tests.items():
            for entry in entries:
                test = str(entry.get("test", ".*")) if name == "*" else re.escape(name)
                conditions = {k: str(v) for k, v in entry.items() if k not in _TOLD}
                for pattern in (test, *conditions.values()):
                    re.compile(pattern)
                yield Issue(
                    suite=str(suite),
                    test=test,
                    conditions=conditions,
                    message=str(entry.get("message", "")),
                    bugzilla=str(entry.get("bugzilla", "")),
                )


def rows(
    issues: Sequence[Issue],
    verdicts: Iterable[Verdict],
    given: Mapping[str, str],
    today: date,
) -> list[dict[str, Any]]:
    """A row for each way in which a variant failed that an entry tells of, on that release only."""
    made = []
    for verdict in verdicts:
        issue = next((one for one in issues if one.tells_of(verdict, given)), None)
        numbers = re.match(r"\d+(?:\.\d+)*", verdict.release)
        if issue is None or numbers is None:
            continue
        for finding in verdict.deviations:
            row: dict[str, Any] = {"case": verdict.case}
            if verdict.values:
                row["variant"] = dict(verdict.values)
            row |= {
                "kernel": f"== {numbers[0]}",
                "clause": finding.clause.value,
                "signature": finding.signature,
                "reason": issue.message or f"openQA's known issue of {issue.suite}",
                "link": issue.bugzilla or "none is given",
                "review_by": today + REVIEW,
            }
            if row not in made:
                made.append(row)
    return made
