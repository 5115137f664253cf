"""``shell``: what is asked of a guest line by line, and what is told of its answers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import main
from conformance.commands.shell import converse
from conformance.exits import REFUSED, Refused
from conformance.machine.fake import FakeMachine, Mischief
from conformance.model import Arm
from conformance.session import open_library
from conformance.shell import default_step
from tests.support.model_guest import ModelGuest

LIBRARY = open_library(())


def arm_of(name: str) -> Arm:
    return next(variant.arms[0] for variant in LIBRARY.variants if variant.id == name)


ARM = arm_of("loop_enospc_short_write[1M-off]")
MEMCG = arm_of("loop_enospc_memcg_limit[direct-off]")


class Recording:
    """A model of a guest that keeps what lines it was asked to run."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def handlers(self) -> dict[str, Any]:
        model = dict(ModelGuest().handlers())
        honest = model["step"]

        def step(args: dict[str, Any]) -> Any:
            self.asked.append(args["step"])
            return honest(args)

        return {**model, "step": step}


def talk(arm: Arm, stop: str, *lines: str, **machine: Any) -> tuple[list[str], Recording]:
    recording = Recording()
    told: list[str] = []
    left: Iterator[str] = iter(lines)
    fake = FakeMachine(recording.handlers, **machine)
    assert converse(fake, arm, stop, read=lambda: next(left, None), tell=told.append) == 0
    return told, recording


def test_it_stops_where_it_is_told() -> None:
    told, recording = talk(ARM, "impose")
    assert [step["as"] for step in recording.asked] == ["control", "control_read", "impose"]
    assert any("  3 impose (impose)" in line for line in told)
    assert any("device /" in line for line in told)
    assert all("role" not in step for step in recording.asked)


def test_by_default_the_shortage_was_met() -> None:
    assert default_step(ARM) == "fill"
    survey = arm_of("loop_quota_file_size_limit[direct]")
    assert default_step(survey) == survey.steps[-1].name


def test_lines_and_steps() -> None:
    told, recording = talk(ARM, "impose", "", "echo {a}", ":steps", ":next", ":help", "exit", "no")
    run = recording.asked[3]
    assert (run["verb"], run["cgroup"]) == ("run", "")
    assert recording.asked[4]["as"] == "fill"
    assert len(recording.asked) == 5
    assert any(line.startswith(">  4 fill (write, provoke)") for line in told)


def test_a_cgroup_of_the_case() -> None:
    told, recording = talk(MEMCG, "impose", ":cgroup limited", "true", ":cgroup nowhere", ":cgroup")
    assert recording.asked[3]["cgroup"] == "limited"
    assert "no cgroup nowhere; the case has: limited" in told


def test_what_a_line_may_take() -> None:
    _, recording = talk(ARM, "impose", ":limit 7", "true")
    assert recording.asked[3]["limit"] < 60


def test_no_step_is_left() -> None:
    told, _ = talk(ARM, ARM.steps[-1].name, ":next")
    assert "no step is left" in told


def test_a_lost_guest_is_told_with_its_console() -> None:
    with pytest.raises(Refused, match="the guest was lost"):
        talk(ARM, "impose", mischief={"step": Mischief.PANIC})


def test_cd_and_export_last_and_braces_are_the_shell_s(tmp_path: Path) -> None:
    """What the guest is asked to run is run here, with its state in a folder of the test's."""
    _, recording = talk(
        ARM, "impose", 'cd /; export A="b c"; echo {x}', 'pwd; echo "$A $BACK"', "false"
    )
    said = []
    for step in recording.asked[3:]:
        words = [word.format_map({}) for word in step["argv"]]
        words[-1] = words[-1].replace("/run/shell", str(tmp_path / "shell"))
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=os.sep)
        said.append((done.returncode, done.stdout, done.stderr))
    back = next(line for line in said[1][1].splitlines() if line.startswith("b c "))
    assert said[0] == (0, "{x}\n", "")
    assert said[1][1].startswith("/\n")
    assert back.removeprefix("b c ").startswith("/")
    assert said[2][0] == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["loop_enospc_short_write"], "name one"),
        (["loop_enospc_short_write[1M-off]", "--at", "fil"], "did you mean fill"),
        (["loop_enospc_short_write[1M-off]", "--arm", "x"], "there are main"),
        (["loop_enospc_short_write[1M-off]", "--kernel", "/no/such"], "no kernel /no/such"),
    ],
)
def test_refusals(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shell", *words]) == REFUSED
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
