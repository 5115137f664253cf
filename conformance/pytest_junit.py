"""What ``pytest --junitxml`` says of cases: the same as a run's own junit.xml.

pytest knows of a variant that it passed or not. Our file has the claims, clauses and the kernel's log,
one testsuite for each kernel and family, and what was not run. So once pytest has written its file,
its testcases of variants are taken out and ours are put in; those of other tests stay as they are.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from xml.etree import ElementTree as ET

from conformance.rundir import write_atomically

COUNTS = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def path_of(option: str) -> Path:
    """The file that ``--junitxml`` names, as pytest finds it."""
    return Path(os.path.abspath(os.path.expandvars(os.path.expanduser(option))))  # noqa: PTH100, PTH111 - pytest's own way


def put_in(file: Path, run: Path, names: Collection[str]) -> None:
    """Replace the testcases of ``names`` in pytest's ``file`` by all of the run's own file ``run``.

    Raises OSError if either cannot be read or written.
    """
    ours = ET.fromstring(run.read_text(encoding="utf-8"))  # noqa: S314 - written by us a moment ago
    theirs = ET.fromstring(file.read_text(encoding="utf-8"))  # noqa: S314 - and this by pytest
    for suite in theirs.iter("testsuite"):
        for case in suite.findall("testcase"):
            # Only ours have no module: their ids are case[variant], and no path.
            if not case.get("classname") and case.get("name") in names:
                suite.remove(case)
        cases = suite.findall("testcase")
        if not cases:
            continue
        suite.set("tests", str(len(cases)))
        for count, tag in COUNTS.items():
            suite.set(count, str(sum(case.find(tag) is not None for case in cases)))
        ours.append(suite)
    for total in ("tests", "failures", "errors"):
        ours.set(total, str(sum(int(suite.get(total, "0")) for suite in ours)))
    ET.indent(ours)
    text = ET.tostring(ours, encoding="unicode")
    write_atomically(file, f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')
