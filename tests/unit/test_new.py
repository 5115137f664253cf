"""``new``: what it writes loads, and lint refuses it until it is finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.cli import main
from conformance.exits import DEVIATES, REFUSED

FINISHED = {
    "TODO say in one sentence, in the indicative, what happens (full_too)": "A write fails with "
    "an error of its own",
    "  # TODO which claims of docs/norm.md it covers, in order": "",
    "  # TODO where the norm says so: a manual page, lkml:<id>, linux:<path>, posix:, https:": "",
    "TODO the section, or a quote of two lines at most": "ERRORS",
    "  # TODO what has to be probed for, or nothing: "
    '"module:...", "probe:...", "fs:...", "tool:..."': "",
    "# TODO what runs short; docs/case-language.md has the kinds. "
    "The limit is met while the writer is at it.\n": "",
    "  # TODO the clauses that are this case's own claim": "",
    "TODO the fault that makes it fail, and the control that shows that the rig alone does not.": (
        "The control is written before the limit."
    ),
}


def test_it_loads_and_lint_refuses_it_until_it_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "mine/full_too", "--to", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    path = tmp_path / "mine" / "full_too.yaml"
    assert out == f"{path}\n"
    assert "mine is a new family" in err
    assert main(["list", "--cases", str(tmp_path), "-k", "full_too"]) == 0
    assert "full_too[buffered]" in capsys.readouterr().out
    text = path.read_text()
    for old, new in FINISHED.items():
        assert main(["lint", "--cases", str(tmp_path)]) == DEVIATES
        assert "unfinished" in capsys.readouterr().out
        assert old in text
        text = text.replace(old, new)
        path.write_text(text)
    assert main(["lint", "--cases", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("full_too", "FAMILY/CASE"),
        ("mine/Full", "small letters"),
        ("a/b/c", "small letters"),
        ("mine/", "small letters"),
        ("mine/loop_enospc_short_write", "is taken by"),
    ],
)
def test_what_is_no_new_case(
    name: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", name, "--to", str(tmp_path)]) == REFUSED
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "mine/full_too", "--to", str(tmp_path)]) == 0
    assert main(["new", "mine/full_too", "--to", str(tmp_path)]) == REFUSED
    assert "there already" in capsys.readouterr().err
