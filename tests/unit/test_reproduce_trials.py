"""What a script said is held against what the suite said, and nothing else counts as agreement."""

from __future__ import annotations

import re
import subprocess
from contextlib import suppress
from datetime import date
from pathlib import Path

import pytest

from conformance import tsv
from conformance.known import Known
from conformance.model import Clause, Finding, Level, Status, Variant, Verdict
from conformance.reproduce import Inexpressible, script
from conformance.reproduce.page import page
from conformance.reproduce.trials import (
    AGREES,
    CHANCE,
    DISAGREES,
    UNTOLD,
    Outcome,
    Trial,
    agreed,
    attempt,
    deeds,
    done,
    read,
    trials,
    violated,
    word,
)
from conformance.session import open_library

VARIANTS = {variant.id: variant for variant in open_library(()).variants}
SHORT = VARIANTS["loop_enospc_short_write[1M-off]"]
SERVER = next(v for v in VARIANTS.values() if v.case == "nbd_server_gone")
SAID = """\
read_short
  of 1048576 bytes acknowledged at 7340032, 733184 bytes from byte 7655424 on read back as zeros

On 6.12.117:
  acknowledged_readable: of 1048576 bytes acknowledged at 7340032, 733184 read back as zeros
  kernel_sound: WARNING: something
FAIL
"""


def finding(clause: Clause) -> Finding:
    return Finding(
        clause=clause, level=Level.MUST, expected="", observed="", claims=("S1",), signature="zeros"
    )


def verdict(variant: Variant, kernel: str, status: Status, *clauses: Clause) -> Verdict:
    return Verdict(
        case=variant.case,
        values=variant.values,
        kernel=kernel,
        release="6.12.117",
        status=status,
        findings=tuple(finding(clause) for clause in clauses),
    )


def trial(
    status: Status = Status.FAIL,
    *,
    chance: bool = False,
    clauses: str = "",
    may: str = "",
    by_chance: str = "",
) -> Trial:
    return Trial(
        variant=SHORT,
        kernel="k",
        release="6.12.117",
        status=status,
        clauses=tuple(clauses.split()),
        may=tuple(may.split()),
        by_chance=tuple(by_chance.split()),
        chance=chance,
        text="#!/bin/sh\n",
    )


def row(*, sometimes: bool) -> Known:
    return Known(
        case=SHORT.case,
        kernel=">= 6.1",
        clause=Clause.ACKNOWLEDGED_READABLE,
        signature="zeros",
        reason="r",
        link="l",
        review_by=date(2027, 6, 1),
        sometimes=sometimes,
    )


def test_what_is_kept_of_a_script_has_the_release_that_it_ran_on() -> None:
    """The newest record may be of a later release."""
    one = trial(clauses="acknowledged_readable")
    kept = Outcome(
        variant=one.name,
        kernel=one.kernel,
        release="6.12.111",
        suite=Status.FAIL,
        script=AGREES,
        clauses="",
        seconds=1,
        digest=one.digest,
    )
    assert agreed(one, [kept]) == kept
    assert agreed(one, [kept.model_copy(update={"digest": "0"})]) is None
    assert agreed(one, [kept.model_copy(update={"script": DISAGREES})]) is None


def test_what_a_script_violated_is_what_it_names_at_its_end() -> None:
    assert violated(SAID) == ("acknowledged_readable", "kernel_sound")
    assert violated("bounded: not at the end\nPASS on 6.1\n") == ()


@pytest.mark.parametrize(
    ("of", "status", "clauses", "told"),
    [
        (trial(clauses="no_oom_kill bounded"), 1, ("no_oom_kill",), AGREES),
        (trial(clauses="no_oom_kill"), 1, ("no_oom_kill", "reusable"), DISAGREES),
        (trial(clauses="no_oom_kill", may="reusable"), 1, ("no_oom_kill", "reusable"), AGREES),
        (trial(clauses="error_surfaced"), 1, ("acknowledged_readable",), AGREES),
        (trial(clauses="no_oom_kill"), 1, ("reusable",), DISAGREES),
        (trial(clauses="no_oom_kill"), 0, (), DISAGREES),
        (trial(clauses="no_oom_kill"), 77, (), UNTOLD),
        (trial(clauses="no_oom_kill", chance=True), 77, (), CHANCE),
        (trial(clauses="no_oom_kill", chance=True), 0, (), CHANCE),
        (trial(clauses="no_oom_kill", chance=True), 1, ("reusable",), DISAGREES),
        (trial(clauses="no_oom_kill"), 2, (), DISAGREES),
        (trial(clauses="no_oom_kill", by_chance="bounded"), 1, ("bounded",), AGREES),
        (trial(clauses="no_oom_kill", may="bounded"), 1, ("bounded",), DISAGREES),
        (trial(Status.PASS, by_chance="bounded"), 1, ("bounded",), CHANCE),
        (trial(Status.PASS, by_chance="bounded"), 1, ("bounded", "reusable"), DISAGREES),
        (trial(Status.PASS, by_chance="bounded"), 1, (), DISAGREES),
        (trial(Status.PASS), 0, (), AGREES),
        (trial(Status.PASS), 1, ("reusable",), DISAGREES),
        (trial(Status.PASS), 77, (), UNTOLD),
    ],
)
def test_agreement(of: Trial, status: int, clauses: tuple[str, ...], told: str) -> None:
    assert word(of, status, clauses) == told


def test_trials_are_of_what_deviates_on_the_kernels_that_judged_it() -> None:
    history = {
        SHORT.case: (
            verdict(SHORT, "new", Status.FAIL, Clause.ACKNOWLEDGED_READABLE),
            verdict(SHORT, "old", Status.PASS),
            verdict(SHORT, "older", Status.SKIP),
        ),
        SERVER.case: (verdict(SERVER, "new", Status.FAIL, Clause.BOUNDED),),
    }
    for sometimes in (False, True):
        found, refused = trials([SHORT, SERVER], history, [row(sometimes=sometimes)])
        assert [(one.kernel, one.status, one.chance) for one in found] == [
            ("new", Status.FAIL, sometimes),
            ("old", Status.PASS, False),
        ]
        by_chance = ("acknowledged_readable",) if sometimes else ()
        assert {one.by_chance for one in found} == {by_chance}
        assert [(one.variant.id, one.kernels) for one in refused] == [(SERVER.id, ("new",))]
    passing, none = trials([SHORT], {SHORT.case: history[SHORT.case][1:]}, [])
    assert (passing, none) == ((), ())


@pytest.mark.parametrize(
    ("clause", "may"), [(Clause.BOUNDED, ("kernel_sound",)), (Clause.REUSABLE, ())]
)
def test_a_script_waits_until_the_kernel_tells_of_a_blocked_task(
    clause: Clause, may: tuple[str, ...]
) -> None:
    history = {SHORT.case: (verdict(SHORT, "new", Status.FAIL, clause),)}
    found, _ = trials([SHORT], history, [])
    assert [one.may for one in found] == [may]


def outcome(of: Trial, said: str) -> Outcome:
    return Outcome(
        variant=of.variant.id,
        kernel=of.kernel,
        release=of.release,
        suite=of.status,
        script=said,
        clauses="",
        seconds=1.5,
        digest=of.digest,
    )


def test_what_has_agreed_is_not_run_again_until_the_script_is_another() -> None:
    mine = trial(clauses="no_oom_kill")
    assert done(mine, [outcome(mine, AGREES)])
    assert not done(mine, [outcome(mine, DISAGREES)])
    assert not done(mine, [])
    other = mine.model_copy(update={"text": "#!/bin/sh\nexit 1\n"})
    assert not done(other, [outcome(mine, AGREES)])
    passed = mine.model_copy(update={"status": Status.PASS})
    assert not done(passed, [outcome(mine, AGREES)])


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("# loop_enospc_short_write[1M-off]", "# renamed", True),
        ("trap 'exit 77' HUP INT PIPE TERM", "trap 'exit 77' INT", True),
        ('    eval "$undo"\n    rm -rf', "    rm -rf", True),
        ("later 'umount \"$BACK\"'\n", "", True),
        (' || unable "it cannot be relieved"', "", True),
        ("unable 'no such tmpfs'", "unable 'no tmpfs'", True),
        ("mount -o remount,size=$before", "mount -o remount", False),
        ("resolves=no", "resolves=yes", False),
        ("\nlimit=", "\nlimit=1", False),
        ('if [ "$own" = yes ]', 'if [ "$own" = no ]', False),
        ('unable "the shortage never came', 'say "the shortage never came', False),
        ("\nwrite fill provoke", "\nwrite fill observe", False),
        ("export GLIBC_TUNABLES", "GLIBC_TUNABLES", False),
    ],
)
def test_a_script_is_the_same_while_it_does_and_judges_the_same(
    old: str, new: str, same: bool
) -> None:
    text = script(SHORT)
    changed = text.replace(old, new)
    assert changed != text
    mine = trial().model_copy(update={"text": text})
    other = trial().model_copy(update={"text": changed})
    assert (other.digest == mine.digest) == same


def test_what_is_left_of_a_script_is_a_script(tmp_path: Path) -> None:
    """Nothing is cut out of the middle of a command, and no command is lost."""
    for family in {variant.family for variant in VARIANTS.values()}:
        for variant in [one for one in VARIANTS.values() if one.family == family][:9]:
            with suppress(Inexpressible):
                text = script(variant, arm=variant.arms[0].name if len(variant.arms) > 1 else "")
                (tmp_path / f"{variant.case}.sh").write_text(deeds(text))
                steps = text[text.index("# -- the steps") :].splitlines()[1:]
                left = [re.sub(' *[|][|] unable ".*"$', "", s) for s in steps if s[0] != "#"]
                assert deeds(text).splitlines()[-len(left) :] == left
    for path in tmp_path.iterdir():
        done = subprocess.run(["sh", "-n", path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_file_is_read_as_it_was_written_and_its_later_line_counts() -> None:
    mine = trial()
    lines = [tsv.line(outcome(mine, DISAGREES)), tsv.line(outcome(mine, AGREES))]
    assert [one.script for one in read("".join(lines))] == [AGREES]
    with pytest.raises(ValueError, match="line 1 has 2 columns"):
        read("a\tb\n")


def test_a_script_that_cannot_tell_gets_three_tries_and_no_more_than_it_needs() -> None:
    mine = trial(clauses="acknowledged_readable")
    answers = iter([(77, ""), (1, SAID), (0, "")])
    assert attempt(mine.model_copy(update={"may": ("kernel_sound",)}), lambda _: next(answers))[
        :2
    ] == (AGREES, 1)
    assert next(answers) == (0, "")
    tries: list[str] = []

    def never(text: str) -> tuple[int, str]:
        tries.append(text)
        return 77, ""

    assert attempt(mine, never)[0] == UNTOLD
    assert len(tries) == 3


@pytest.mark.parametrize(
    ("status", "answers"),
    [(Status.FAIL, [(0, ""), (1, SAID)]), (Status.PASS, [(1, SAID), (0, "")])],
)
def test_a_script_that_disagrees_once_is_not_tried_until_it_agrees(
    status: Status, answers: list[tuple[int, str]]
) -> None:
    mine = trial(clauses="acknowledged_readable").model_copy(update={"status": status})
    said = iter(answers)
    assert attempt(mine, lambda _: next(said))[0] == DISAGREES
    assert next(said) == answers[1]


def test_the_page_tells_of_agreement_of_none_and_of_what_has_no_script() -> None:
    history = {
        SHORT.case: (
            verdict(SHORT, "new", Status.FAIL, Clause.ACKNOWLEDGED_READABLE),
            verdict(SHORT, "old", Status.PASS),
        ),
        SERVER.case: (verdict(SERVER, "new", Status.FAIL, Clause.BOUNDED),),
    }
    found, refused = trials([SHORT, SERVER], history, [])
    text = page(found, refused, [outcome(found[0], AGREES), outcome(found[1], DISAGREES)])
    assert f"| `{SHORT.id}` | ✗ | **!** |" in text
    assert "Of 2 scripts and kernels: 1 agrees, 1 disagrees." in text
    assert f"| `{SERVER.id}` | shortage server_space | no plain command imposes it |" in text
    assert f"| `{SHORT.id}` | … | … |" in page(found, refused, [])
