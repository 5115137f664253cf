"""How a finding tells who was not told of a lost write, or too often, and which scripts are judged by it.

Who must be told is test_calls.py's; the scripts and the helper that makes them are the same.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace

import pytest

from conformance.model import Clause, Ended, Finding, Level, Role
from conformance.oracle.clauses.telling import nothing_lost
from conformance.oracle.scene import scenes
from tests.support import trials
from tests.support.builders import (
    Act,
    Story,
    calls,
    imposed,
    read,
    relieved,
    stored,
    synced,
    write,
)
from tests.unit.oracle.test_calls import LOST, W

E = -errno.EIO
EPERM = -errno.EPERM
KEPT = "22"
SILENT = ("open a; write a; fsync a", [0, W, 0])
"""A script that is told nothing."""


def lose(script: str, results: Sequence[int], name: str = "lose", role: Role = Role.PROVOKE) -> Act:
    return calls(name, role, script, results, first=0, generation=2)


def found(*acts: Act) -> list[Finding]:
    story = Story(acts=acts)
    return trials.found(Clause.REPORTED_ONCE, story)


def after(script: str, results: Sequence[int], content: str = LOST) -> list[Finding]:
    """What is found of a script while there is no space."""
    return found(imposed(), lose(script, results), read("read_short", content), relieved())


# -- what a finding says ----------------------------------------------------------------------------

WORDS: dict[str, tuple[str, list[int], Level, str, str]] = {
    "not-told:fsync": (
        *SILENT,
        Level.MUST,
        "a lost write is reported on every descriptor that was open at the time",
        "fsync a = 0, call 3 of lose, although a write was lost while the descriptor was open, "
        "and it had not been told",
    ),
    "late-opener-not-told:fdatasync": (
        "open a; write a; close a; open b; fdatasync b",
        [0, W, 0, 0, 0],
        Level.SHOULD,
        "a lost write that nobody was told of is reported to who opens the file next",
        "fdatasync b = 0, call 5 of lose, although a write was lost, and nobody had been told "
        "when the file was opened",
    ),
    "told-again:fsync": (
        "open a; write a; fsync a; fsync a",
        [0, W, E, E],
        Level.MUST,
        "a lost write is reported on a descriptor once, and not again",
        "fsync a = -1 EIO, call 4 of lose, although the descriptor had been told before, "
        "and nothing was lost since",
    ),
    "told-stranger:fsync": (
        "open a; write a; fsync a; open b; fsync b",
        [0, W, E, 0, E],
        Level.MUST,
        "a lost write is not reported on a descriptor that was opened after the report",
        "fsync b = -1 EIO, call 5 of lose, although others had been told when the file was "
        "opened, and nothing was lost since",
    ),
    "not-told:sync_file_range": (
        "open a; write a; sync_file_range a; fsync a",
        [0, W, 0, E],
        Level.SHOULD,
        "a lost write is reported on every descriptor that was open at the time",
        "sync_file_range a = 0, call 3 of lose, although a write was lost while the descriptor "
        "was open, and it had not been told",
    ),
    "told-again:sync_file_range": (
        "open a; write a; fsync a; sync_file_range a",
        [0, W, E, E],
        Level.MUST,
        "a lost write is reported on a descriptor once, and not again",
        "sync_file_range a = -1 EIO, call 4 of lose, although the descriptor had been told "
        "before, and nothing was lost since",
    ),
}


@pytest.mark.parametrize("signature", WORDS)
def test_a_finding_names_the_call_and_why_it_is_wrong(signature: str) -> None:
    script, results, level, expected, observed = WORDS[signature]
    (finding,) = after(script, results)
    assert (finding.clause, finding.signature) == (Clause.REPORTED_ONCE, signature)
    assert (finding.level, finding.arm, finding.step) == (level, "main", "lose")
    assert (finding.expected, finding.observed) == (expected, observed)


def test_all_calls_are_evidence() -> None:
    (finding,) = after(*SILENT)
    assert finding.evidence == ("open a = 0; write a = 8192; fsync a = 0",)


def test_of_calls_that_are_wrong_alike_the_first_is_told() -> None:
    script = "open a; open b; open c; write a; fsync c; fdatasync b; fsync a"
    findings = after(script, [0, 0, 0, W, 0, 0, 0])
    assert [(f.signature, f.observed.partition(", although")[0]) for f in findings] == [
        ("not-told:fsync", "fsync c = 0, call 5 of lose"),
        ("not-told:fdatasync", "fdatasync b = 0, call 6 of lose"),
    ]


def test_each_step_is_told_of_for_itself() -> None:
    findings = found(
        imposed(),
        lose(*SILENT, name="first"),
        lose(*SILENT, name="second", role=Role.REUSE),
        read("read_short", LOST),
        relieved(),
    )
    assert [finding.step for finding in findings] == ["first", "second"]


# -- what is judged ---------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.SETUP, Role.CONTROL])
def test_a_script_that_has_to_work_is_the_rig_s(role: Role) -> None:
    assert found(imposed(), lose(*SILENT, role=role), read("read_short", LOST)) == []


def test_a_script_before_the_shortage_or_after_relief_is_not_judged() -> None:
    early = lose(*SILENT, name="early", role=Role.OBSERVE)
    late = lose(*SILENT, name="late", role=Role.RECOVER)
    look = read("look", LOST)
    assert found(early, look, imposed(), relieved(), late, read("look_again", LOST)) == []


# -- scripts that were to lose a write, and did not -------------------------------------------------

KEEPS = lose(*SILENT)
WRITER = write("writer", Role.PROVOKE, (0, 2), [*stored(0, 2), synced()], generation=2)


def owed_to_nobody(*acts: Act, content: str = KEPT) -> list[str]:
    story = Story(acts=(*acts, read("look", content)))
    (scene,) = scenes(story.variant, story.observation)
    return list(nothing_lost(scene))


def but(act: Act, **seen: object) -> Act:
    return replace(act, seen={**act.seen, **seen})


def killed(act: Act) -> Act:
    return but(act, submitter=act.seen["submitter"].model_copy(update={"ended": Ended(signal=9)}))


def test_a_script_that_lost_nothing_and_was_refused_nothing_shows_nothing() -> None:
    told = "arm main: lose lost nothing, so that nobody was owed a report"
    assert owed_to_nobody(imposed(), KEEPS) == [told]


QUIET: dict[str, tuple[Act, str]] = {
    "it lost a write": (KEEPS, LOST),
    "it lost a write, and was told": (lose(SILENT[0], [0, W, E]), LOST),
    "it was refused something": (lose(SILENT[0], [0, W, EPERM]), KEPT),
    "it was not there to lose anything": (lose(*SILENT, role=Role.REUSE), KEPT),
    "the rig failed": (but(KEEPS, problem="the agent is gone"), KEPT),
    "it was killed": (killed(KEEPS), KEPT),
    "it is no script": (WRITER, KEPT),
}


@pytest.mark.parametrize("name", QUIET)
def test_nothing_is_said_of_a_step_where(name: str) -> None:
    act, content = QUIET[name]
    assert owed_to_nobody(imposed(), act, content=content) == []


def test_a_step_of_which_nothing_is_said_leaves_those_after_it() -> None:
    later = lose(*SILENT, name="later")
    told = "arm main: later lost nothing, so that nobody was owed a report"
    assert owed_to_nobody(imposed(), killed(KEEPS), later) == [told]
