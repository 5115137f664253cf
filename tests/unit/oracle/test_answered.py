"""Whether an observation is one of its variant, and what is said of a rig that did not do its part.

Each test changes one thing of a run that conforms. A reason that is fatal leaves nothing to be trusted; after
another, what was seen until then stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from conformance.model import (
    BLOCK,
    ArmSeen,
    Bystander,
    BystanderIo,
    BystanderState,
    Command,
    Ended,
    IoError,
    IoWrong,
    Lost,
    Role,
    Status,
    StepSeen,
    TornDown,
)
from conformance.oracle.answer import Reason, rig_reasons, unanswered
from conformance.oracle.scene import scenes
from tests.support.builders import (
    ENOSPC,
    Act,
    Story,
    imposed,
    log,
    read,
    relieved,
    stored,
    story,
    synced,
    told,
    write,
    wrote,
)

TALE = story()
SEEN = TALE.observation
(ARM,) = SEEN.arms
LOST = Lost(how="panicked", step="fill", title="Kernel panic - not syncing")
OTHER, UNSAID = "is not the one that was asked for there", "and nobody said why"


def changed(**arm: Any) -> ArmSeen:
    return ARM.model_copy(update=arm)


def missed(**arm: Any) -> list[str]:
    """How the observation fails to answer, its only arm being changed."""
    return unanswered(TALE.variant, SEEN.model_copy(update={"arms": (changed(**arm),)}))


def reasons(tale: Story, **arm: Any) -> list[tuple[str, bool]]:
    """The reasons that the rig gives, and whether each is fatal; the arm may be changed."""
    seen = tale.observation
    arms = tuple(one.model_copy(update=arm) for one in seen.arms)
    (scene,) = scenes(tale.variant, seen.model_copy(update={"arms": arms}))
    return [(reason.text, reason.fatal) for reason in rig_reasons(scene)]


def stopped(at: int, problem: str = "no such file") -> tuple[StepSeen, ...]:
    """The steps up to one that the rig could not do."""
    last = ARM.steps[at].model_copy(update={"problem": problem})
    return (*ARM.steps[:at], last)


# -- whether it is an answer ------------------------------------------------------------------------


def test_a_whole_answer_is_one() -> None:
    assert missed() == []
    assert reasons(TALE) == []


@pytest.mark.parametrize("change", [{"case": "another"}, {"values": {"direct": "on"}}])
def test_the_observation_of_another_variant_is_none(change: dict[str, Any]) -> None:
    told_of = unanswered(TALE.variant, SEEN.model_copy(update=change))
    assert told_of == ["the observation is of another variant"]


def test_the_arms_must_be_those_that_were_asked_for() -> None:
    twice = SEEN.model_copy(update={"arms": (ARM, ARM)})
    assert unanswered(TALE.variant, twice) == [
        "the arms seen are ['main', 'main'], and those asked for ['main']"
    ]


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({}, ["steps were taken on a rig that was not built"]),
        ({"steps": ()}, ["the rig was not built, and nobody said why"]),
        ({"steps": (), "problem": "no loop device"}, []),
        ({"steps": (), "lost": LOST}, []),
        ({"steps": (), "problem": "no loop device", "lost": LOST}, []),
    ],
)
def test_a_rig_that_was_not_built(arm: dict[str, Any], said: list[str]) -> None:
    assert missed(built=None, **arm) == [f"arm main: {text}" for text in said]


def test_the_first_step_that_was_not_asked_for_is_named() -> None:
    one, two, three, *more = ARM.steps
    other_name = two.model_copy(update={"name": "reading"})
    other_verb = two.model_copy(update={"verb": "trim"})
    extra = two.model_copy(update={"name": "extra"})
    for steps, name in (
        ((one, other_name, three, *more), "reading (verify)"),
        ((one, other_verb, three, *more), "control_read (trim)"),
        ((one, three, two, *more), "impose (impose)"),
        ((two, one, three, *more), "control_read (verify)"),
        ((one, three, *more), "impose (impose)"),
        ((*ARM.steps, extra), "extra (verify)"),
        ((*ARM.steps, extra, one), "extra (verify)"),
    ):
        assert missed(steps=steps) == [f"arm main: step {name} {OTHER}"]


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"steps": ARM.steps[:10]}, [f"10 steps were seen of 11, {UNSAID}"]),
        ({"steps": ()}, [f"0 steps were seen of 11, {UNSAID}"]),
        ({"steps": ARM.steps[:10], "lost": LOST}, []),
        ({"steps": ARM.steps[:10], "lost": LOST, "torn_down": None}, []),
        ({"steps": ARM.steps[:10], "problem": "the host ran out of disk"}, []),
        ({"steps": stopped(3)}, []),
        ({"steps": stopped(10)}, []),
        ({"torn_down": None}, ["no tear-down was seen"]),
        ({"torn_down": None, "lost": LOST}, []),
    ],
)
def test_an_answer_that_was_cut_short_says_why(arm: dict[str, Any], said: list[str]) -> None:
    assert missed(**arm) == [f"arm main: {text}" for text in said]


@pytest.mark.parametrize("at", [0, 1, 9])
def test_nothing_is_done_after_what_the_rig_could_not_do(at: int) -> None:
    steps = (*stopped(at), *ARM.steps[at + 1 :])
    after = "arm main: steps were taken after one that the rig could not do"
    assert missed(steps=steps) == [after]
    assert missed(steps=steps[: at + 2]) == [after]


# -- the rig, the agent and the guest -----------------------------------------------------------------


def test_a_reason_is_fatal_unless_it_says_otherwise() -> None:
    one = Reason(text="no")
    assert one.fatal
    assert len({one, Reason(text="no"), Reason(text="no", fatal=False)}) == 2
    with pytest.raises(FrozenInstanceError):
        one.text = "yes"  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        Reason("no")  # type: ignore[call-arg]


@pytest.mark.parametrize(("steps", "fatal"), [(0, True), (2, True), (3, False), (11, False)])
def test_a_rig_s_trouble_is_fatal_until_the_shortage_is_in_force(
    steps: int, *, fatal: bool
) -> None:
    """The third step is the one that imposes it."""
    seen = ARM.steps[:steps]
    assert reasons(TALE, steps=seen, problem="the host ran out of disk") == [
        ("arm main: the host ran out of disk", fatal)
    ]
    where = "at fill: panicked: Kernel panic - not syncing"
    early = f"before the shortage was imposed, {where}"
    assert reasons(TALE, steps=seen, lost=LOST, torn_down=None) == [
        (f"arm main: the guest was lost {early if fatal else where}", fatal)
    ]


@pytest.mark.parametrize(
    ("at", "name", "fatal"),
    [(0, "control", True), (2, "impose", True), (3, "fill", False), (10, "read_reattached", False)],
)
def test_a_step_that_the_rig_could_not_do(at: int, name: str, *, fatal: bool) -> None:
    problem = f"arm main: step {name}: no such file"
    assert reasons(TALE, steps=stopped(at)) == [(problem, fatal)]


def test_a_tear_down_that_failed_leaves_what_was_seen() -> None:
    down = TornDown(problem="umount: target is busy")
    assert reasons(TALE.with_(torn_down=down)) == [
        ("arm main: tear-down: umount: target is busy", False)
    ]


READER = "the reader did not come to an end"


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (Ended(timed_out=True), True),
        (Ended(signal=9), True),
        (Ended(signal=9, timed_out=True), True),
        (Ended(exit_code=0), False),
    ],
)
def test_a_reader_that_had_to_be_ended_has_not_read(ended: Ended, *, said: bool) -> None:
    """That is fatal before anything is short; the steps after it are looked at all the same."""

    def held(name: str) -> Act:
        act = TALE.act(name)
        seen = {**act.seen, "commands": (Command(argv=("reader",), ended=ended),)}
        return Act(step=act.step, seen={**seen, "extents": ()} if said else seen)

    both = TALE.but(held("control_read"), held("read_short"))
    assert reasons(both) == (
        [
            (f"arm main: step control_read: {READER}", True),
            (f"arm main: step read_short: {READER}", False),
        ]
        if said
        else []
    )


def test_what_comes_after_a_reader_that_was_ended_is_looked_at() -> None:
    command = Command(argv=("reader",), ended=Ended(timed_out=True))
    held = Act(step=TALE.act("read_short").step, seen={"commands": (command,)})
    part = Act(step=TALE.act("read_relieved").step, seen=read("read_relieved", "332").seen)
    tale = TALE.but(held, part)
    assert reasons(tale) == [
        (f"arm main: step read_short: {READER}", False),
        (
            "arm main: step read_relieved: the extents do not add up to bytes 0 to 65535",
            True,
        ),
    ]


def test_a_deviation_that_was_proven_stands_when_the_run_was_cut_short() -> None:
    acts = (
        *TALE.acts[:3],
        write(
            "fill",
            Role.PROVOKE,
            (0, 12),
            [*stored(0, 6), wrote(6, 2, ENOSPC), synced()],
            generation=2,
        ),
        read("read_short", "22.222........11"),
        relieved(),
        read("read_relieved", "22.222........11"),
    )
    verdict = Story(acts=acts, torn_down=TornDown(problem="umount: target is busy")).verdict
    assert verdict.status is Status.FAIL
    assert ("must", "acknowledged_readable", "zeros") in told(verdict)


# -- bystanders -------------------------------------------------------------------------------------


def one(name: str, **how: Any) -> BystanderState:
    return BystanderState(name=name, pid=300, cgroup="", **{"alive": True, **how})


A, B = one("a"), one("b")
DEAD = one("a", alive=False)
FAILED = one("b", io_errors=(IoError("write", 0, 5, 10),))
WRONG = one("b", io_wrong=(IoWrong("data", 0, 4096, 10),))


def watched(
    asked: Sequence[str], looks: Sequence[Sequence[BystanderState]]
) -> list[tuple[str, bool]]:
    """What is said if these were seen after the rig was built, and after each of four steps."""
    control = write("control", Role.CONTROL, (0, 2), [wrote(0, 2), synced()], generation=1)
    fill = write("fill", Role.PROVOKE, (2, 4), [wrote(2, 2, ENOSPC)], generation=2)
    at_first, *after = map(tuple, looks)
    acts = (control, imposed(), fill, relieved())
    tale = Story(
        acts=tuple(
            act.watching(bystanders=states) for act, states in zip(acts, after, strict=True)
        ),
        bystanders=tuple(Bystander(name=name) for name in asked),
    )
    built = tale.observation.arms[0].built
    assert built is not None
    watch = built.watch.model_copy(update={"bystanders": at_first})
    return reasons(tale, built=built.model_copy(update={"watch": watch}))


@pytest.mark.parametrize(
    ("asked", "looks", "where"),
    [
        ("", [[]] * 5, ""),
        ("", [[A]] * 5, ""),
        ("a", [[A]] * 5, ""),
        ("a", [[A, B], [B, A], [A, B], [B, A], [A, B]], ""),
        ("a", [[]] * 5, "build"),
        ("ab", [[A]] * 5, "build"),
        ("a", [[A, A]] * 5, "build"),
        ("a", [[A], [A], [A], [], []], "fill"),
        ("a", [[A], [A], [A], [A], []], "relieve"),
        # Of those that the planner added too, nobody may be left out later, or turn up late.
        ("a", [[A, B], [A, B], [A, B], [A], [A]], "fill"),
        ("a", [[A], [A, B], [A, B], [A, B], [A, B]], "control"),
    ],
)
def test_every_bystander_is_looked_at_each_time(
    asked: str, looks: list[list[BystanderState]], where: str
) -> None:
    said = [(f"arm main: {where}: not every bystander was looked at", True)]
    assert watched(asked, looks) == (said if where else [])


@pytest.mark.parametrize(
    ("looks", "who"),
    [
        ([[DEAD, B], [DEAD, B]], "a"),
        ([[A, FAILED], [A, FAILED]], "b"),
        ([[A, B], [A, FAILED]], "b"),
        ([[A, WRONG], [A, WRONG]], "b"),
        ([[DEAD, FAILED], [DEAD, FAILED]], "a"),
    ],
)
def test_a_bystander_in_trouble_before_anything_is_short(
    looks: list[list[BystanderState]], who: str
) -> None:
    text = f"arm main: bystander {who} was in trouble before the shortage was imposed"
    assert watched("ab", [*looks, looks[-1], looks[-1], looks[-1]]) == [(text, True)]


def test_a_bystander_s_trouble_under_the_shortage_is_no_fault_of_the_rig() -> None:
    assert watched("ab", [[A, B], [A, B], [A, B], [DEAD, FAILED], [DEAD, FAILED]]) == []


def test_lines_of_the_kernel_s_log_that_nobody_read_may_have_told_of_anything() -> None:
    fine, lost = "loop0: fine", "[kernel log overrun: lines lost]"
    tale = TALE.but(TALE.act("fill").watching(kernel_log=log(fine, lost, lost)))
    tale = tale.but(tale.act("read_short").watching(kernel_log=log(lost)))
    assert reasons(tale) == [("arm main: fill: lines of the kernel's log were lost", False)]
    full = "BUG: MAX_LOCKDEP_CHAINS too low!"
    tale = TALE.but(TALE.act("fill").watching(kernel_log=log(fine, full, full)))
    assert reasons(tale) == [("arm main: fill: lockdep is off: its tables are full", False)]
    left_out = TALE.act("fill").watching(kernel_log=log("[7 lines of the kernel log left out]"))
    assert reasons(TALE.but(left_out)) == []


IO = BystanderIo(target="device", offset=0, length=9 * BLOCK, request=2 * BLOCK)
"""Five operations, of which the last is half as long."""


@pytest.mark.parametrize(
    ("control", "impose", "said"),
    [
        (0, 0, "0 of 5 operations"),
        (4, 5, "4 of 5 operations"),
        (5, 5, ""),
        (6, 6, ""),
    ],
)
def test_who_does_io_has_gone_round_before_anything_is_short(
    control: int, impose: int, said: str
) -> None:
    idle = Bystander(name="idle")
    busy = Bystander(name="busy", io=IO)
    tale = TALE.with_(bystanders=(idle, busy))
    at = [act.step.verb for act in tale.acts].index("impose")
    done = [*[0] * (at - 1), control, impose, *[0] * (len(tale.acts) - at - 1)]
    acts = [
        act.watching(bystanders=(one("idle"), one("busy", io_done=count)))
        for act, count in zip(tale.acts, done, strict=True)
    ]
    text = f"arm main: step impose: bystander busy had done {said} before it"
    assert reasons(tale.with_(acts=tuple(acts))) == ([(text, True)] if said else [])


def test_of_those_who_have_not_gone_round_each_is_told() -> None:
    tale = TALE.with_(bystanders=tuple(Bystander(name=name, io=IO) for name in "ab"))
    text = "arm main: step impose: bystander {} had done 0 of 5 operations before it"
    assert reasons(tale) == [(text.format(name), True) for name in "ab"]


def test_where_nothing_is_imposed_nobody_has_to_have_gone_round() -> None:
    tale = Story(acts=TALE.acts[:1], bystanders=(Bystander(name="a", io=IO),))
    assert [text for text, _ in reasons(tale) if "operations" in text] == []


def test_only_when_all_is_down_are_the_bystanders_gone() -> None:
    tale = TALE.with_(bystanders=(Bystander(name="a"),))
    last = tale.observation.arms[0].steps[-1].watch
    gone = last.model_copy(update={"bystanders": ()})
    assert reasons(tale.with_(torn_down=TornDown(watch=last, after=gone))) == []
    assert reasons(tale.with_(torn_down=TornDown(watch=gone, after=gone))) == [
        ("arm main: teardown: not every bystander was looked at", True)
    ]
