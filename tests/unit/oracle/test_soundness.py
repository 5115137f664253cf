"""What findings on filesystems, the kernel and tear-down say, and where their bounds are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from pydantic import TypeAdapter

from conformance.model import AnyStep, Clause, Command, Ended, Finding, Level, Lost, Role, TornDown
from conformance.oracle.clauses.integrity import (
    early_fault,
    filesystem_consistent,
    kernel_sound,
    nothing_leaked,
)
from conformance.oracle.trial import Trial, trial
from tests.support.builders import Act, Story, imposed, log, relieved, story

STEP: TypeAdapter[AnyStep] = TypeAdapter(AnyStep)


Facts = dict[str, str]


def joined(tale: Story, *, facts: Facts | None = None, taint: int = 0) -> Trial:
    """The story's trial, on a guest of which this was seen before its first step."""
    seen = tale.observation
    (arm,) = seen.arms
    assert arm.built is not None
    watch = arm.built.watch.model_copy(update={"taint": taint})
    built = arm.built.model_copy(update={"watch": watch, "facts": facts or {}})
    changed = arm.model_copy(update={"built": built})
    return trial(tale.variant, seen.model_copy(update={"arms": (changed,)}))


def found(clause: Callable[[Trial], Iterator[Finding]], tale: Story) -> list[Finding]:
    return list(clause(joined(tale)))


# -- filesystem_consistent --------------------------------------------------------------------------

FAILED = Ended(exit_code=32)
WORKED = Ended(exit_code=0)


def did(
    verb: str, ended: Ended = FAILED, *, role: Role = Role.RECOVER, output: str = "", name: str = ""
) -> Act:
    """A step on the filesystem that is one command, by its own name."""
    step = STEP.validate_python({"as": name or verb, "role": role, "verb": verb})
    command = Command(argv=(f"/sbin/{verb}", "/dev/loop0"), ended=ended, output=output)
    return Act(step=step, seen={"commands": (command,)})


@pytest.mark.parametrize(
    ("acts", "told"),
    [
        ([imposed(), did("mount"), relieved()], []),
        ([imposed(), relieved(), did("mount")], ["mount-failed"]),
        ([imposed(), relieved(), did("mount", WORKED)], []),
        ([imposed(), relieved(), did("mount", role=Role.SETUP)], []),
        ([imposed(), relieved(), did("check", role=Role.OBSERVE)], ["check-failed"]),
        ([imposed(), relieved(), did("unmount")], ["unmount-failed"]),
        ([imposed(), relieved(), did("unmount", role=Role.OBSERVE)], []),
        ([imposed(), relieved(), did("reattach")], []),
        ([imposed(), relieved(), did("mkfs"), did("mount")], []),
        ([imposed(), did("mkfs"), relieved(), did("mount")], []),
        (
            [imposed(), did("mkfs"), relieved(), did("mkfs", WORKED, name="anew"), did("mount")],
            ["mount-failed"],
        ),
    ],
    ids=[
        "a-mount-while-it-is-short",
        "a-mount-after-relief",
        "a-mount-that-works",
        "a-mount-of-the-rig-s",
        "a-check-of-any-role",
        "an-unmount-for-recovery",
        "an-unmount-by-the-way",
        "another-command",
        "a-mount-of-what-mkfs-could-not-make",
        "a-mount-of-what-mkfs-could-not-make-while-it-was-short",
        "a-mount-of-what-was-made-anew",
    ],
)
def test_a_filesystem_has_to_work_after_relief_unless_it_was_not_made(
    acts: list[Act], told: list[str]
) -> None:
    failures = found(filesystem_consistent, Story(acts=tuple(acts)))
    assert [one.signature for one in failures] == told


LINES = [f"line {number}" for number in range(1, 12)]


@pytest.mark.parametrize(
    ("ended", "output", "observed", "evidence"),
    [
        (FAILED, "", "mount ended with 32", []),
        (Ended(timed_out=True), " \n", "mount ran over its limit", []),
        (FAILED, "\n".join(LINES), "mount ended with 32: line 11", LINES[1:]),
        (
            FAILED,
            f"first\n{'x' * 201}\n",
            f"mount ended with 32: {'x' * 200}",
            ["first", "x" * 201],
        ),
    ],
    ids=["silent", "over-its-limit", "the-last-ten-lines", "200-characters"],
)
def test_a_failure_is_told_by_the_last_line_of_its_output(
    ended: Ended, output: str, observed: str, evidence: list[str]
) -> None:
    tale = Story(acts=(imposed(), relieved(), did("mount", ended, output=output, name="again")))
    (failure,) = found(filesystem_consistent, tale)
    assert (failure.level, failure.step, failure.observed) == (Level.MUST, "again", observed)
    assert failure.expected == "after relief the filesystem mounts, and its checker finds nothing"
    assert failure.evidence == ("/sbin/mount /dev/loop0", *evidence)


# -- kernel_sound: reports --------------------------------------------------------------------------

WARNING = "WARNING: CPU: 0 PID: 24 at fs/buffer.c:1125 mark_buffer_dirty+0xd8/0xe0"
STALL = "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"
BUG = "BUG: kernel NULL pointer dereference, address: 0000000000000008"
OOPS = "Oops: 0000 [#1] PREEMPT SMP NOPTI"
KASAN = "BUG: KASAN: null-ptr-deref in lo_rw_aio+0x4a/0x90 [loop]"


def said(*lines: str, at: str = "fill", **more: Any) -> Story:
    """A conforming run with these lines in the kernel log of one step."""
    return story().but(story().act(at).watching(kernel_log=log(*lines), **more))


def signatures(tale: Story, *, taint: int = 0) -> list[str]:
    return [one.signature for one in kernel_sound(joined(tale, taint=taint))]


def test_a_report_is_told_with_the_eight_lines_that_begin_with_it() -> None:
    after = [f"line {number}" for number in range(9)]
    (report,) = found(kernel_sound, said("loop0: before", f"[  1.0] {WARNING}", *after))
    assert (report.level, report.signature) == (Level.MUST, "warning:mark_buffer_dirty")
    assert (report.step, report.observed) == ("fill", WARNING)
    assert report.expected == "no report of a fault of the kernel's own"
    assert report.evidence == (WARNING, *after[:7])


@pytest.mark.parametrize(("count", "times"), [(1, ""), (2, " (2 times)"), (3, " (3 times)")])
def test_a_report_that_comes_again_is_counted(count: int, times: str) -> None:
    (report,) = found(kernel_sound, said(*[WARNING] * count))
    assert report.observed == f"{WARNING}{times}"


def down(*lines: str, after: tuple[str, ...] = (), taint: int = 0) -> TornDown:
    """What the kernel said before anything was taken down, and when all was."""
    last = story().observation.arms[0].steps[-1].watch
    return TornDown(
        watch=last.model_copy(update={"kernel_log": log(*lines)}),
        after=last.model_copy(update={"kernel_log": log(*after), "taint": taint}),
    )


def test_a_report_as_the_rig_is_taken_down_is_told() -> None:
    tale = story().with_(torn_down=down("loop0: before", after=("loop0: gone", WARNING, OOPS)))
    warning, oops = found(kernel_sound, tale)
    assert (warning.signature, warning.step) == ("warning:mark_buffer_dirty", "torn-down")
    assert warning.evidence == (WARNING, OOPS)
    assert (oops.signature, oops.step) == ("oops", "torn-down")
    (first,) = found(kernel_sound, story().with_(torn_down=down(WARNING, after=(WARNING,))))
    assert (first.step, first.observed) == ("teardown", f"{WARNING} (2 times)")


def test_a_taint_as_the_rig_is_taken_down_is_told() -> None:
    (taint,) = found(kernel_sound, story().with_(torn_down=down(taint=DIED)))
    assert (taint.signature, taint.step) == ("taint:D", "torn-down")
    assert (
        found(kernel_sound, story().with_(torn_down=down("loop0: before", after=("gone",)))) == []
    )


def test_a_report_as_a_rig_is_taken_down_that_was_never_short_is_the_rig_s() -> None:
    tale = Story(acts=(story().act("control"),), torn_down=down(after=(WARNING,), taint=DIED))
    assert signatures(tale) == []


def test_a_report_before_the_shortage_is_the_rig_s() -> None:
    tale = said("loop0: fine", WARNING, at="control")
    assert signatures(tale) == []
    assert early_fault(joined(tale).acts[0].scene) == WARNING
    assert early_fault(joined(said(WARNING)).acts[0].scene) == ""


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([OOPS], ["oops"]),
        ([BUG, OOPS], ["bug:kernel-NULL-pointer-dereference"]),
        ([KASAN, OOPS], ["kasan:lo_rw_aio:null-ptr-deref"]),
        ([WARNING, OOPS], ["warning:mark_buffer_dirty", "oops"]),
        ([BUG, WARNING], ["bug:kernel-NULL-pointer-dereference", "warning:mark_buffer_dirty"]),
    ],
    ids=["an-oops", "a-bug-and-its-oops", "kasan-and-its-oops", "a-warning-and-an-oops", "no-oops"],
)
def test_an_oops_that_a_bug_announces_is_the_same_event(lines: list[str], told: list[str]) -> None:
    assert signatures(said(*lines)) == told


def test_of_a_stall_it_is_told_what_guest_it_was_on() -> None:
    (report,) = kernel_sound(joined(said(STALL), facts={"thp": "never", "swap": "none"}))
    assert report.evidence == (
        STALL,
        "a machine that is slow below the guest can cause this too; the guest has "
        "swap: none, thp: never",
    )


def test_a_slow_machine_brings_about_no_warning() -> None:
    (report,) = kernel_sound(joined(said(WARNING), facts={"swap": "none"}))
    assert report.evidence == (WARNING,)


# -- kernel_sound: panic ----------------------------------------------------------------------------


def lost(how: str, *, before: bool = False) -> Story:
    """A guest that was lost at ``fill``, or before the shortage was imposed."""
    whole = story()
    names = ("control", "control_read") if before else ("control", "impose", "fill")
    gone = Lost.model_validate(
        {"how": how, "step": "fill", "title": "Fatal", "evidence": {"console": "x" * 2001}}
    )
    return Story(acts=tuple(whole.act(name) for name in names), lost=gone)


def test_a_panic_shows_the_last_two_thousand_characters_of_what_was_kept() -> None:
    (panic,) = found(kernel_sound, lost("panicked"))
    assert (panic.level, panic.signature, panic.step) == (Level.MUST, "panic", "fill")
    assert panic.expected == "no report of a fault of the kernel's own"
    assert panic.observed == "the kernel panicked at fill: Fatal"
    assert panic.evidence == (f"console: {'x' * 2000}",)


def test_who_hung_or_panicked_before_the_shortage_is_not_told_of_as_a_panic() -> None:
    assert signatures(lost("hung")) == []
    assert signatures(lost("panicked", before=True)) == []


# -- kernel_sound: taint ----------------------------------------------------------------------------

DIED, BAD_PAGE, WARNED, OUT_OF_TREE, UNSIGNED = 1 << 7, 1 << 5, 1 << 9, 1 << 12, 1 << 13


def test_a_new_taint_is_told_once_where_it_was_seen_first() -> None:
    (taint,) = found(kernel_sound, story().since("fill", taint=DIED | WARNED))
    assert (taint.clause, taint.level) == (Clause.KERNEL_SOUND, Level.MUST)
    assert (taint.signature, taint.step) == ("taint:DW", "fill")
    assert taint.expected == "no new taint"
    assert taint.observed == "the kernel is tainted DW after fill"


@pytest.mark.parametrize(
    ("built", "since", "told"),
    [
        (WARNED, {"control": WARNED}, []),
        (DIED, {"control": DIED, "fill": DIED | WARNED}, ["taint:W"]),
        (0, {"control": WARNED}, ["taint:W"]),
        (0, {"impose": OUT_OF_TREE | UNSIGNED}, []),
        (0, {"impose": OUT_OF_TREE, "fill": OUT_OF_TREE | UNSIGNED}, ["taint:E"]),
        (0, {"impose": UNSIGNED, "fill": UNSIGNED | WARNED}, ["taint:W"]),
        (0, {"fill": OUT_OF_TREE | UNSIGNED}, ["taint:OE"]),
    ],
    ids=[
        "before-the-rig-was-built",
        "another-one-before",
        "since-the-rig-was-built",
        "modules-before-the-shortage",
        "a-module-during-the-shortage",
        "a-module-before-and-a-warning-during",
        "modules-during-the-shortage",
    ],
)
def test_a_taint_is_new_if_it_is_no_module_s_of_before(
    built: int, since: dict[str, int], told: list[str]
) -> None:
    tale = story()
    for name, bits in since.items():
        tale = tale.since(name, taint=bits)
    assert signatures(tale, taint=built) == told


@pytest.mark.parametrize(
    ("line", "taint", "told"),
    [
        (WARNING, WARNED, ["warning:mark_buffer_dirty"]),
        (BUG, DIED, ["bug:kernel-NULL-pointer-dereference"]),
        (KASAN, DIED | BAD_PAGE, ["kasan:lo_rw_aio:null-ptr-deref"]),
        (WARNING, WARNED | DIED, ["warning:mark_buffer_dirty", "taint:D"]),
        (OOPS, WARNED, ["oops", "taint:W"]),
    ],
)
def test_a_taint_that_a_report_explains_is_no_news(line: str, taint: int, told: list[str]) -> None:
    lines = [line, OOPS] if line == KASAN else [line]
    tale = story().since("fill", taint=taint)
    told_of = tale.but(tale.act("fill").watching(kernel_log=log(*lines)))
    assert signatures(told_of) == told


# -- nothing_leaked ---------------------------------------------------------------------------------


def torn_down(*left: str, before: int = 0, after: int = 0) -> Sequence[Finding]:
    down = TornDown(left=left, shmem_before=before, shmem_after=after)
    return found(nothing_leaked, story().with_(torn_down=down))


def test_what_is_left_is_told_by_kind() -> None:
    loops, mount = torn_down("loop0", "/run/case", "loop1")[::-1]
    assert (loops.level, loops.step) == (Level.MUST, "teardown")
    assert loops.expected == "tear-down leaves nothing behind"
    assert (loops.signature, loops.observed) == (
        "left:loopN",
        "tear-down left 2 things: loop0, loop1",
    )
    assert (mount.signature, mount.observed) == (
        "left:/run/case",
        "tear-down left 1 thing: /run/case",
    )


def test_a_mebibyte_of_shared_memory_may_be_the_guest_s_own() -> None:
    assert torn_down(before=500, after=500 + 1048576) == []


def test_more_than_a_mebibyte_of_shared_memory_is_a_leak() -> None:
    (leak,) = torn_down(before=500, after=500 + 1048577)
    assert (leak.level, leak.signature, leak.step) == (Level.MUST, "shmem", "teardown")
    assert leak.expected == "the memory that the backing files took is given back"
    assert leak.observed == "1048577 bytes of shared memory more after tear-down than before"


def test_an_arm_whose_guest_was_lost_hides_no_leak_of_another() -> None:
    tales = {"gone": lost("hung"), "left": story().with_(torn_down=TornDown(left=("loop0",)))}
    asked = [tale.variant.arms[0].model_copy(update={"name": n}) for n, tale in tales.items()]
    seen = [tale.observation.arms[0].model_copy(update={"name": n}) for n, tale in tales.items()]
    both = trial(
        story().variant.model_copy(update={"arms": tuple(asked)}),
        story().observation.model_copy(update={"arms": tuple(seen)}),
    )
    (leak,) = nothing_leaked(both)
    assert (leak.arm, leak.signature) == ("left", "left:loopN")
