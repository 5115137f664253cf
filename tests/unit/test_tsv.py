"""Files of values with tabs between."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance import tsv
from conformance.model import Status, Value


class One(Value):
    name: str
    status: Status
    seconds: float = 0.5


A, B = One(name="a b", status=Status.PASS), One(name="", status=Status.FAIL, seconds=12.0)


def test_what_is_written_is_read() -> None:
    text = tsv.document(One, (A, B))
    assert text == "name\tstatus\tseconds\na b\tPASS\t0.5\n\tFAIL\t12.0\n"
    assert tsv.read(One, text) == (A, B)
    assert tsv.read(One, "") == ()


def test_what_is_added_has_one_head(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    for one in (A, B):
        tsv.append(path, one)
    assert path.read_text() == tsv.document(One, (A, B))


def test_files_may_be_joined() -> None:
    text = tsv.document(One, (A,)) + "\n" + tsv.document(One, (B,))
    assert tsv.read(One, text) == (A, B)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a\tPASS", "line 3 has 2 columns, not 3"),
        ("a\tPERHAPS\t1", "line 3: 1 validation error for One"),
        ("a\tPASS\tlong", "line 3: 1 validation error for One"),
    ],
)
def test_a_line_that_is_none_is_told_with_its_number(line: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        tsv.read(One, f"{tsv.document(One, (A,))}{line}\n")
