"""A run as LAVA signals: what a test shell prints so that LAVA takes the results.

Between STARTTC and ENDTC stands the short report, which tuxrun and SQUAD cut out as a test's log. What a
report lacks is a test case that fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from conformance.report.result import INCOMPLETE, Asked, Outlook, Result, lacking
from conformance.report.short import short
from conformance.report.text import clean

RESULT = {
    Outlook.GOOD: "pass",
    Outlook.BAD: "fail",
    Outlook.KNOWN: "skip",
    Outlook.FIXED: "fail",
    Outlook.BROKEN: "unknown",
    Outlook.SKIPPED: "skip",
}
_UNSAFE = re.compile(r"[^A-Za-z0-9_.+:@\[\]-]+")


def document(results: Sequence[Result], asked: Asked, *, started: str = "") -> str:
    """All lines, with a final newline."""
    del started
    lines = [line for result in results for line in _judged(result, asked)]
    if lacks := lacking(asked):
        lines += _signals(INCOMPLETE, "\n".join(lacks), "fail")
    return "\n".join(lines) + "\n"


def _judged(result: Result, asked: Asked) -> Iterator[str]:
    seconds = result.verdict.seconds.get("total")
    measured = f" MEASUREMENT={seconds} UNITS=seconds" if seconds is not None else ""
    told = RESULT[result.outlook(asked)]
    return _signals(result.name(asked), short(result, asked), f"{told}{measured}")


def _signals(name: str, log: str, told: str) -> Iterator[str]:
    # LAVA refuses blanks, slashes and shell characters in a name.
    name = _UNSAFE.sub("_", name)
    yield f"<LAVA_SIGNAL_STARTTC {name}>"
    # What stands between is data: a line of it must not be taken for a signal.
    yield clean(log).replace("<LAVA_SIGNAL", "<_LAVA_SIGNAL")
    yield f"<LAVA_SIGNAL_ENDTC {name}>"
    yield f"<LAVA_SIGNAL_TESTCASE TEST_CASE_ID={name} RESULT={told}>"
