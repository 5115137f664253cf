"""Where the rig lost the guest, or could not do its part, nobody is accused of what was not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conformance.machine.fake import FakeMachine
from conformance.machine.protocol import (
    Guest,
    GuestGone,
    GuestLost,
    GuestPanicked,
    WireGarbage,
)
from conformance.model import (
    BLOCK,
    Blocked,
    Extent,
    Lost,
    Op,
    Role,
    Status,
    TornDown,
    Verdict,
)
from conformance.oracle import judge
from conformance.oracle.scene import Scene
from conformance.runner import Facts, run_variant
from conformance.session import open_library
from tests.support.builders import Act, Story, calls, story
from tests.support.liars import Liar, LiarsMachine, LosingGuest, on_step, telling
from tests.support.model_guest import ModelGuest

VARIANTS = {variant.id: variant for variant in open_library(()).variants}
GARBAGE = WireGarbage("not JSON")
GONE = GuestGone("QEMU exited with 1")
EQUAL = "loop_equivalence[ext4]"
SCRIPT = "sync_told_once[fsync-ext4]"


def findings(verdict: Verdict) -> list[tuple[str, str]]:
    return [(one.clause.value, one.signature) for one in verdict.findings]


# -- a comparison of which an arm is missing ------------------------------------------------------


class ThirdGuest(FakeMachine):
    """Its third guest, of the second arm, is lost, or tells something else of ``fill``."""

    def __init__(
        self, loss: GuestLost | None, at: str, lie: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        super().__init__(self._handlers, kernel="model")
        self._loss, self._at = loss, at
        self._lie = None if lie is None else on_step(["fill"], lie)
        self._begun = self._made = 0

    def _handlers(self) -> Any:
        self._made += 1
        return ModelGuest(lie=self._lie if self._made == 3 else None).handlers()

    @contextmanager
    def guest(self, *, workdir: Path) -> Iterator[Guest]:
        with super().guest(workdir=workdir) as guest:
            self._begun += 1
            loss = self._loss if self._begun == 3 else None
            yield guest if loss is None else LosingGuest(guest, self._at, loss)


def unable(seen: dict[str, Any]) -> None:
    seen.update(problem="no memory", submitter=None)


def without_error(seen: dict[str, Any]) -> None:
    seen["submitter"]["ops"] = [op for op in seen["submitter"]["ops"] if op[4] >= 0]


@pytest.mark.parametrize(
    ("loss", "lie"),
    [(GARBAGE, None), (GONE, None), (None, unable)],
    ids=["wire", "gone", "a step"],
)
def test_an_arm_that_the_rig_cut_short_is_not_compared(
    loss: GuestLost | None, lie: Any, tmp_path: Path
) -> None:
    machine = ThirdGuest(loss, "fill", lie)
    verdict = run_variant(VARIANTS[EQUAL], machine, facts=Facts(), workdir=tmp_path).verdict
    assert (verdict.status, findings(verdict)) == (Status.BROKEN, [])


def test_an_arm_that_had_done_all_that_provokes_is(tmp_path: Path) -> None:
    machine = ThirdGuest(GARBAGE, "read_short", without_error)
    verdict = run_variant(VARIANTS[EQUAL], machine, facts=Facts(), workdir=tmp_path).verdict
    assert "equivalent" in dict(findings(verdict))


def test_an_arm_that_the_kernel_cut_short_is_too(tmp_path: Path) -> None:
    machine = ThirdGuest(GuestPanicked("Kernel panic"), "fill")
    verdict = run_variant(VARIANTS[EQUAL], machine, facts=Facts(), workdir=tmp_path).verdict
    assert "equivalent" in dict(findings(verdict))


# -- a script whose writes were not read back ---------------------------------------------------


@pytest.mark.parametrize("loss", [GARBAGE, GONE], ids=["wire", "gone"])
def test_who_was_owed_a_report_is_not_known_without_a_reading(
    loss: GuestLost, tmp_path: Path
) -> None:
    liar = Liar(name="lost", variant=SCRIPT, guest=ModelGuest, loss=loss, at="read_short")
    machine = LiarsMachine(liar)
    verdict = run_variant(VARIANTS[SCRIPT], machine, facts=Facts(), workdir=tmp_path).verdict
    assert (verdict.status, findings(verdict)) == (Status.BROKEN, [])


def test_nor_with_one_that_the_rig_could_not_do(tmp_path: Path) -> None:
    def unread(verb: str, _asked: Any, honest: Any) -> Any:
        if verb == "step" and honest["name"] == "lose":
            for op in honest["file_ops"]:
                op[4] = 0 if op[0] == "fsync" else op[4]
        if verb == "step" and honest["name"] == "read_short":
            honest.update(problem="no memory for the reader", extents=[])
        return honest

    machine = LiarsMachine(Liar(name="unread", variant=SCRIPT, guest=telling(unread)))
    verdict = run_variant(VARIANTS[SCRIPT], machine, facts=Facts(), workdir=tmp_path).verdict
    assert (verdict.status, findings(verdict)) == (Status.BROKEN, [])


# -- what nobody asked for ------------------------------------------------------------------------


NOT_ASKED = "arm main: step {} tells of bytes that it was not asked for"
HUGE = 1 << 60
"""More bytes than could be looked at one by one."""


def lying(tale: Story, name: str, **told: Any) -> Verdict:
    """The verdict where a step tells of this in place of what it did."""
    act = tale.act(name)
    if "ops" in told:
        told = {"submitter": act.seen["submitter"].model_copy(update=told)}
    return tale.but(Act(step=act.step, seen={**act.seen, **told}, watch=act.watch)).verdict


def outside(blocks: int) -> list[tuple[int, int]]:
    """Offsets and lengths that are not within so many blocks."""
    whole = blocks * BLOCK
    return [(0, whole + 1), (1, whole), (-1, 1), (0, -1), (0, HUGE), (HUGE, BLOCK)]


@pytest.mark.parametrize(("offset", "length"), outside(12))
def test_a_write_outside_of_what_was_asked_for_is_no_answer(offset: int, length: int) -> None:
    verdict = lying(story(), "fill", ops=(Op("write", offset, length, 2, length, 0, 1),))
    assert (verdict.status, verdict.reasons) == (Status.BROKEN, (NOT_ASKED.format("fill"),))


def test_a_write_of_nothing_is_within_what_was_asked_for() -> None:
    verdict = lying(story(), "fill", ops=(Op("write", 0, 0, 2, 0, 0, 1),))
    assert NOT_ASKED.format("fill") not in verdict.reasons


@pytest.mark.parametrize(("offset", "length"), outside(16))
def test_a_reading_outside_of_what_was_asked_for_is_no_answer(offset: int, length: int) -> None:
    verdict = lying(story(), "read_short", extents=(Extent(offset, length, "zero", None, None),))
    assert (verdict.status, verdict.reasons) == (Status.BROKEN, (NOT_ASKED.format("read_short"),))


def test_a_call_of_a_script_that_took_more_than_its_region_stored_no_more() -> None:
    """It returns, however much it says."""
    act = calls(
        "fill", Role.PROVOKE, "open a; write a; fsync a", [0, HUGE, 0], first=0, generation=2
    )
    tale = story().but(act)
    assert tale.verdict.status in (Status.FAIL, Status.BROKEN)


# -- who was seen once, and what was left ---------------------------------------------------------

BUSY = (Blocked(pid=50, comm="kworker/u2:1", stack="io_schedule"),)


def cut(tale: Story, steps: int, *, last: dict[str, Any], **seen: Any) -> Verdict:
    """The verdict on the story's first steps, with a change to the last, and another end."""
    (arm,) = tale.observation.arms
    kept = (*arm.steps[: steps - 1], arm.steps[steps - 1].model_copy(update=last))
    ended = arm.model_copy(update={"steps": kept, "torn_down": None, **seen})
    return judge(tale.variant, tale.observation.model_copy(update={"arms": (ended,)}))


@pytest.mark.parametrize("steps", [4, 7])
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("wire", []),
        ("gone", []),
        ("agent", []),
        ("hung", [("bounded", "blocked:kworker"), ("bounded", "guest-hung")]),
    ],
)
def test_asleep_at_the_last_look_is_stuck_only_if_the_kernel_lost_the_guest(
    how: Any, expected: list[tuple[str, str]], steps: int
) -> None:
    tale = story()
    (arm,) = tale.observation.arms
    watch = arm.steps[steps - 1].watch.model_copy(update={"blocked": BUSY})
    lost = Lost(how=how, step="x", title="no answer")
    verdict = cut(tale, steps, last={"watch": watch}, lost=lost)
    assert findings(verdict) == expected
    assert verdict.status is (Status.FAIL if expected else Status.BROKEN)


LEFT: dict[str, Any] = {"left": ("loop0",), "shmem_after": 8 << 20}


@pytest.mark.parametrize(
    ("down", "last", "problem"),
    [
        (TornDown(problem="the hog could not be ended", **LEFT), {}, ""),
        (TornDown(**LEFT), {"problem": "mount: cannot remount"}, ""),
        (TornDown(**LEFT), {}, "the guest's clock went back"),
    ],
    ids=["tear-down", "a step", "the arm"],
)
def test_what_a_rig_that_failed_leaves_is_not_the_kernel_s(
    down: TornDown, last: dict[str, str], problem: str
) -> None:
    verdict = cut(story(), 7, last=last, torn_down=down, problem=problem)
    assert (verdict.status, findings(verdict)) == (Status.BROKEN, [])


@pytest.mark.parametrize(
    ("of_the_arm", "of_a_step", "of_the_end", "failed"),
    [
        ("", "", None, False),
        ("", "", "", False),
        ("", "", "dmsetup remove failed", True),
        ("", "no such device", None, True),
        ("no such device", "", None, True),
    ],
)
def test_a_rig_has_failed_wherever_it_has(
    of_the_arm: str, of_a_step: str, of_the_end: str | None, *, failed: bool
) -> None:
    down = None if of_the_end is None else SimpleNamespace(problem=of_the_end)
    scene = SimpleNamespace(
        seen=SimpleNamespace(problem=of_the_arm, torn_down=down),
        taken=(SimpleNamespace(seen=SimpleNamespace(problem=of_a_step)),),
    )
    assert Scene.rig_failed.fget(scene) is failed  # type: ignore[attr-defined] # a property
