"""How a finding is made: how much it weighs, which claims it speaks to, and what it shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from conformance.model import Clause, Expect, Finding, Level
from conformance.oracle.trial import Act, Trial
from tests.support.builders import Story, story
from tests.support.trials import joined

MUST, SHOULD, MAY, SURVEY = Level.MUST, Level.SHOULD, Level.MAY, Level.SURVEY


def finding(of: Trial, clause: Clause = Clause.BOUNDED, **more: Any) -> Finding:
    scene = of.acts[0].scene
    return of.finding(clause, scene, **{"signature": "s", "expected": "e", "observed": "o", **more})


def claiming(*claims: str, level: Level = MUST) -> Trial:
    """A trial of a case of this level that makes these claims."""
    whole = joined(story())
    variant = whole.variant.model_copy(update={"claims": claims, "level": level})
    return replace(whole, variant=variant)


@pytest.mark.parametrize(
    ("own", "clause", "case", "level"),
    [
        (MUST, Clause.BOUNDED, MUST, "must"),
        (SHOULD, Clause.BOUNDED, MUST, "should"),
        (MUST, Clause.BOUNDED, SHOULD, "should"),
        (MUST, Clause.ERRNO_PRECISE, MUST, "should"),
        (MUST, Clause.ERRNO_PRECISE, MAY, "may"),
        (MAY, Clause.ERRNO_PRECISE, SHOULD, "may"),
        (SHOULD, Clause.BOUNDED, SURVEY, "survey"),
    ],
)
def test_a_finding_weighs_as_little_as_the_weakest_of_itself_its_clause_and_its_case(
    own: Level, clause: Clause, case: Level, level: str
) -> None:
    assert finding(claiming("S1", level=case), clause, level=own).level.value == level


def test_a_finding_weighs_what_its_clause_does_unless_it_is_said() -> None:
    assert finding(claiming("S1")).level is MUST


@pytest.mark.parametrize(
    ("claims", "clause", "spoken"),
    [
        (("S1",), Clause.NO_OOM_KILL, ("S1",)),
        (("S9", "S13", "S6"), Clause.NO_OOM_KILL, ("S6", "S9")),
        (("S1",), Clause.REUSABLE, ("S4",)),
        (("S1",), Clause.KERNEL_SOUND, ()),
    ],
)
def test_a_finding_speaks_to_the_claims_of_its_case_or_else_to_its_clause_s_first(
    claims: tuple[str, ...], clause: Clause, spoken: tuple[str, ...]
) -> None:
    assert finding(claiming(*claims), clause).claims == spoken


def with_console(path: str) -> Trial:
    """A trial of an arm whose console was kept there."""
    whole = joined(story())
    (act,) = whole.acts
    scene = replace(act.scene, seen=act.scene.seen.model_copy(update={"console": path}))
    return replace(whole, acts=(replace(act, scene=scene),))


def test_twelve_lines_of_evidence_are_kept_and_the_console_s_path() -> None:
    lines = ["", *(f"line {number}" for number in range(1, 14))]
    shown = tuple(f"line {number}" for number in range(1, 13))
    assert finding(with_console(""), evidence=lines).evidence == shown
    assert finding(with_console("console.log"), evidence=lines).evidence == (
        *shown,
        "console.log",
    )
    assert finding(with_console("console.log")).evidence == ("console.log",)


def test_a_finding_is_of_one_arm_or_of_all() -> None:
    both = joined(story(), other=story())
    words: dict[str, Any] = {"signature": "s", "expected": "e", "observed": "o"}
    one = both.finding(Clause.EQUIVALENT, both.acts[1].scene, step="fill", **words)
    all_of_them = both.finding(Clause.EQUIVALENT, None, evidence=["line"], **words)
    assert (one.arm, one.step) == ("other", "fill")
    assert (all_of_them.arm, all_of_them.step) == ("main, other", "")
    assert all_of_them.evidence == ("line",)


def test_a_finding_names_the_documentation_that_tells_of_the_deviation() -> None:
    tale = story().with_(expect=Expect(documented_by={Clause.BOUNDED: "cgroup-v2.rst"}))
    assert finding(joined(tale)).documented_by == "cgroup-v2.rst"
    assert finding(joined(tale), Clause.EQUIVALENT).documented_by == ""


def test_what_was_joined_stays_as_it_is() -> None:
    whole = joined(Story(acts=story().acts))
    for one, name in ((whole, "acts"), (whole.acts[0], "losses")):
        with pytest.raises(AttributeError):
            setattr(one, name, ())
        assert not hasattr(one, "__dict__")


def test_the_parts_of_a_trial_are_told_by_their_names() -> None:
    whole = joined(story())
    (act,) = whole.acts
    act_of: Any = Act
    trial_of: Any = Trial
    with pytest.raises(TypeError):
        act_of(act.scene, act.accounts, act.losses, act.damages, act.kills)
    with pytest.raises(TypeError):
        trial_of(whole.variant, whole.observation, whole.acts)
