"""A run as LAVA signals: what a test shell prints so that LAVA takes the results.

Between STARTTC and ENDTC stands the short report, which tuxrun and SQUAD cut out as a test's log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from conformance.model import Status
from conformance.report.result import Asked, Outlook, Result
from conformance.report.short import short
from conformance.report.text import clean

RESULT = {
    Status.PASS: "pass",
    Status.RECORDED: "pass",
    Status.FAIL: "fail",
    Status.BROKEN: "unknown",
    Status.SKIP: "skip",
}
_UNSAFE = re.compile(r"[^A-Za-z0-9_.+:@\[\]-]+")


def document(results: Sequence[Result], asked: Asked, *, started: str = "") -> str:
    """All lines, with a final newline."""
    del started
    return "\n".join(line for result in results for line in _signals(result, asked)) + "\n"


def _signals(result: Result, asked: Asked) -> Iterator[str]:
    # LAVA refuses blanks, slashes and shell characters in a name.
    name = _UNSAFE.sub("_", result.name(asked))
    # What stands between is data: a line of it must not be taken for a signal.
    log = clean(short(result, asked)).replace("<LAVA_SIGNAL", "<_LAVA_SIGNAL")
    known = result.outlook(asked) is Outlook.KNOWN
    yield f"<LAVA_SIGNAL_STARTTC {name}>"
    yield log
    yield f"<LAVA_SIGNAL_ENDTC {name}>"
    told = "skip" if known else RESULT[result.verdict.status]
    seconds = result.verdict.seconds.get("total")
    measured = f" MEASUREMENT={seconds} UNITS=seconds" if seconds is not None else ""
    yield f"<LAVA_SIGNAL_TESTCASE TEST_CASE_ID={name} RESULT={told}{measured}>"
