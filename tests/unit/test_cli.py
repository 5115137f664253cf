"""The command line's own share: options, and that what a user got wrong is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.cli import main
from conformance.exits import DEVIATES, NOTHING, REFUSED
from conformance.scheduler import slots_from

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "--nonsense"], "--nonsense"),
        (["fly"], "fly"),
        (["run", "--cases", "/no/such"], "/no/such"),
        (["run", "--module", "/no/such.ko"], "/no/such.ko"),
        (["run", "-k", "a and"], "column"),
        (["run", "-n", "0"], "-n: '0' is neither auto nor a whole number from 1"),
        (["run", "-n", "many"], "'many'"),
        (["run", "--known", "/no/such"], "/no/such"),
        (["judge", "/no/such"], "/no/such"),
        (["judge"], "RECORD"),
    ],
)
def test_usage_errors_are_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == REFUSED
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert err.startswith("conform: ")
    assert err.count("\n") == 1


def test_list_begins_with_the_id(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--list", "-k", "loop_enospc_short_write and 64K"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    for line in lines:
        assert line.startswith("loop_enospc_short_write[64K-")
        assert "cases/loop_enospc/loop_enospc_short_write.yaml:1" in line


def test_list_by_what_a_variant_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--claim", "s9"]) == 0
    assert {line.partition("[")[0] for line in capsys.readouterr().out.splitlines()} == {
        "fs_on_loop_metadata_tmpfs_full",
        "fs_on_loop_metadata_kinds",
        "fs_on_loop_metadata_modes",
    }
    assert main(["list", "--family", "loop_quota", "--requirement", "quota_xfs"]) == 0
    assert all("[xfs-" in line for line in capsys.readouterr().out.splitlines())
    assert main(["list", "--families"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("in all")
    assert main(["list", "--family", "no_such"]) == NOTHING


def test_lint_has_nothing_to_say_of_the_suite_s_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint"]) == 0
    assert "nothing to say" in capsys.readouterr().err


def test_lint_complains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = (ROOT / "cases/loop_enospc/loop_enospc_tmpfs_full.yaml").read_text()
    mine = tmp_path / "mine" / "full_too.yaml"
    mine.parent.mkdir()
    mine.write_text(case)
    assert main(["lint", "--cases", str(tmp_path)]) == DEVIATES
    assert "L006" in capsys.readouterr().out  # the title is there already


def test_selecting_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--list", "-k", "no_such_case"]) == NOTHING
    assert "selects none" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["run", "--help"], ["judge", "-h"], ["--version"]):
        assert main(words) == 0
    assert "--kernel" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "-1", "1.5", "two", " 2"])
def test_slots_are_checked(text: str) -> None:
    with pytest.raises(ValueError, match="neither auto"):
        slots_from(text)


def test_slots() -> None:
    assert slots_from("3") == 3
    assert slots_from("auto") >= 1
