"""What a submitter was told: whether it was told at all, with the right errno, and at the limit.

The expectations are NORMS', "errno_precise" and "limit_enforced". Whose an error is: test_attributed.py.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from conformance.model import (
    BLOCK,
    AnyShortage,
    Ended,
    Finding,
    Inodes,
    Level,
    Memcg,
    Mount,
    Op,
    RangeKind,
    RangeOp,
    Reading,
    Role,
    Submit,
    Submitter,
    TmpfsSize,
)
from conformance.oracle.clauses.answers import (
    answer_of,
    errno_precise,
    limit_enforced,
)
from conformance.oracle.scene import scenes
from conformance.oracle.trial import Trial
from tests.support.builders import (
    EIO,
    ENOSPC,
    PID,
    Act,
    Story,
    imposed,
    ran,
    read,
    relieved,
    stored,
    synced,
    write,
    wrote,
)
from tests.support.submitters import files, refused, script, unseen, wrote_all
from tests.support.trials import joined

MIB = 1 << 20
EPERM = -errno.EPERM
FULL = TmpfsSize(kind="tmpfs_size", layer="back", size=MIB)

Clause = Callable[[Trial], Iterator[Finding]]


def found(clause: Clause, *acts: Act) -> list[Finding]:
    return list(clause(joined(Story(acts=acts, shortage=FULL))))


# -- errno_precise ----------------------------------------------------------------------------------


def test_a_wrong_errno_is_told_once_with_all_that_got_it() -> None:
    (finding,) = found(
        errno_precise,
        imposed(),
        refused("fill", ENOSPC, EIO),
        refused("more", EIO, role=Role.REUSE),
        relieved(),
    )
    assert (finding.level, finding.signature, finding.step) == (Level.SHOULD, "EIO", "fill")
    assert finding.expected == "ENOSPC or EDQUOT"
    assert finding.observed == ("EIO, for 2 writes, the first of them bytes 8192 to 16383 (8 KiB)")
    assert finding.evidence == (
        "fill: write(8192, 8192) = -1 EIO",
        "more: write(0, 8192) = -1 EIO",
    )


def test_each_wrong_errno_is_told_for_itself() -> None:
    findings = found(errno_precise, imposed(), refused("fill", EPERM, EIO))
    assert [(f.signature, f.observed) for f in findings] == [
        ("EIO", "EIO, for 1 write, the first of them bytes 8192 to 16383 (8 KiB)"),
        ("EPERM", "EPERM, for 1 write, the first of them bytes 0 to 8191 (8 KiB)"),
    ]


def test_the_page_cache_may_say_eio_and_leaves_those_after_it_to_be_judged() -> None:
    behind = refused("behind", EIO, submit=Submit.BUFFERED)
    findings = found(errno_precise, imposed(), behind, refused("fill", EIO))
    assert [finding.step for finding in findings] == ["fill"]


@pytest.mark.parametrize(
    "acts",
    [
        pytest.param((imposed(), refused("look", EIO, role=Role.OBSERVE)), id="not in shortage"),
        pytest.param((refused("early", EIO), imposed()), id="before the shortage"),
        pytest.param((imposed(), relieved(), refused("late", EIO)), id="after relief"),
        pytest.param(
            (imposed(), write("fill", Role.PROVOKE, (0, 2), [synced(EIO)], generation=2)),
            id="a sync, which is about no range",
        ),
    ],
)
def test_no_other_step_s_errno_is_judged(acts: tuple[Act, ...]) -> None:
    assert found(errno_precise, *acts) == []


def test_a_filesystem_that_runs_short_itself_says_so() -> None:
    (finding,) = found(errno_precise, imposed(), files("save", 0, EPERM, EIO, target="back"))
    assert (finding.level, finding.signature, finding.step) == (Level.SHOULD, "EPERM", "save")
    assert finding.expected == "ENOSPC or EDQUOT"
    assert finding.observed == "write d/1 = -1 EPERM"


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(files("save", 0, ENOSPC, EIO, target="back"), id="ENOSPC first"),
        pytest.param(files("save", 0, 0, 0, target="back"), id="no error"),
        pytest.param(files("save", 0, EIO, target="fs"), id="on a filesystem above"),
    ],
)
def test_nothing_is_said_of_files(act: Act) -> None:
    assert found(errno_precise, imposed(), act) == []


# -- limit_enforced ---------------------------------------------------------------------------------


MEMORY = Memcg(kind="memcg", cgroup="limited", limit=MIB)
INODES = Inodes(kind="inodes", layer="back")
COUNTERS = 65536


def used(count: int, *, limit: int | None = MIB, name: str = "fill", hits: int = 2) -> Act:
    """A writer in requests of 8 KiB, and what the gauge shows after it."""
    act = write(name, Role.PROVOKE, (0, 2), [*stored(0, 2), synced()], generation=2)
    return act.watching(reading=Reading(kind="memcg", used=count, limit=limit, hits=hits))


def beyond(shortage: AnyShortage, *acts: Act) -> list[Finding]:
    return list(limit_enforced(joined(Story(acts=acts, shortage=shortage))))


@pytest.mark.parametrize(
    ("shortage", "limit", "most", "told"),
    [
        pytest.param(FULL, MIB, MIB + COUNTERS, "1 MiB", id="space"),
        pytest.param(FULL, 64 * MIB, 64 * MIB + COUNTERS, "64 MiB", id="much space"),
        pytest.param(INODES, 64, 64, "64 inodes", id="inodes, which are counted one by one"),
        pytest.param(MEMORY, MIB, MIB + 8192 + MIB, "1 MiB", id="memory"),
        pytest.param(MEMORY, 64 * MIB, 64 * MIB + 8192 + 8 * MIB, "64 MiB", id="much memory"),
    ],
)
def test_a_gauge_just_over_the_slack_is_beyond_the_limit(
    shortage: AnyShortage, limit: int, most: int, told: str
) -> None:
    assert beyond(shortage, imposed(), used(most, limit=limit)) == []
    (finding,) = beyond(shortage, imposed(), used(most + 1, limit=limit))
    assert (finding.level, finding.signature) == (Level.MUST, "limit-not-enforced")
    assert (finding.arm, finding.step) == ("main", "fill")
    assert finding.expected == "the space taken stays within the limit; past it, an error"
    unit = "bytes" if shortage.OF_SPACE else "inodes"
    assert finding.observed == (
        f"{most + 1} {unit} were in use after fill, against the limit of {told}"
    )
    assert finding.evidence == (f"memcg: used {most + 1}, limit {limit}, hits 2",)


def test_a_limit_below_what_is_in_use_gives_nothing_more_and_takes_nothing_away() -> None:
    lowered = imposed().watching(reading=used(3 * MIB).watch["reading"])
    assert found(limit_enforced, lowered, used(3 * MIB + COUNTERS)) == []
    assert len(found(limit_enforced, lowered, used(3 * MIB + COUNTERS + 1))) == 1


def test_where_no_limit_is_in_force_none_is_passed() -> None:
    assert found(limit_enforced, imposed(), used(64 * MIB, limit=None)) == []


def going_on(act: Act) -> Act:
    return replace(act, step=act.step.model_copy(update={"role": Role.REUSE}))


@pytest.mark.parametrize(
    "act",
    [
        write("next", Role.REUSE, (0, 2), [*stored(0, 2), synced()], generation=3),
        write("next", Role.OVERWRITE, (0, 2), [*stored(0, 2), synced()], generation=3),
        going_on(files("next", 0)),
    ],
    ids=["who goes on", "who overwrites", "who writes files"],
)
def test_whoever_writes_at_the_limit_may_pass_it(act: Act) -> None:
    (finding,) = found(
        limit_enforced, imposed(), act.watching(reading=used(64 * MIB).watch["reading"])
    )
    assert (finding.signature, finding.step) == ("limit-not-enforced", "next")


def test_a_command_that_goes_on_may_be_one_that_reads() -> None:
    act = ran("next", Role.REUSE, ["dd", "if={device}"])
    reading = used(64 * MIB).watch["reading"]
    assert found(limit_enforced, imposed(), act.watching(reading=reading)) == []


def test_who_only_looks_on_does_not_pass_a_limit() -> None:
    look = read("look", "..").watching(reading=used(64 * MIB).watch["reading"])
    assert found(limit_enforced, imposed(), look) == []


def test_of_each_shortage_the_first_step_beyond_it_is_told() -> None:
    findings = found(
        limit_enforced,
        imposed(),
        used(1, name="within"),
        used(64 * MIB, name="first"),
        used(65 * MIB, name="second"),
        relieved(),
        replace(imposed(), step=imposed().step.model_copy(update={"name": "once_more"})),
        used(64 * MIB, name="third"),
    )
    assert [finding.step for finding in findings] == ["first", "third"]


SMALL = TmpfsSize(kind="tmpfs_size", layer="back", size=BLOCK)
MOST_STORED = 17
"""Blocks: a limit of 4 KiB, and a slack of 64 KiB."""


def storing(
    blocks: int, *calls: Op, role: Role = Role.PROVOKE, shortage: AnyShortage = SMALL
) -> Story:
    """A writer whose gauge shows little, and of which the next verification finds so much."""
    ops = [wrote(0, blocks), *calls]
    fill = write("fill", role, (0, blocks), ops, generation=2)
    small = Reading(kind="memcg", used=BLOCK, limit=BLOCK, hits=0)
    acts = (imposed(), fill.watching(reading=small), read("look", "2" * blocks))
    return Story(acts=acts, shortage=shortage, device=512)


def test_what_was_stored_without_an_error_is_taken_too() -> None:
    assert list(limit_enforced(joined(storing(MOST_STORED, synced())))) == []
    (finding,) = limit_enforced(joined(storing(MOST_STORED + 1, synced())))
    assert finding.observed == (
        "72 KiB were stored by fill without an error, against the limit of 4 KiB"
    )
    assert finding.evidence == ("memcg: used 4096, limit 4096, hits 0",)


def test_who_goes_on_may_store_what_the_limit_does_not_bind() -> None:
    story = storing(MOST_STORED + 1, synced(), role=Role.REUSE)
    assert list(limit_enforced(joined(story))) == []


def test_what_was_stored_before_an_error_is_the_gauge_s_to_judge() -> None:
    assert list(limit_enforced(joined(storing(MOST_STORED + 1, synced(EIO))))) == []


def test_what_was_stored_takes_no_inodes() -> None:
    story = storing(MOST_STORED + 1, synced(), shortage=INODES)
    assert list(limit_enforced(joined(story))) == []


def test_each_layer_s_account_is_asked_for_its_own_steps() -> None:
    """The files below are read too, and nothing was written there."""
    story = storing(MOST_STORED + 1, synced())
    below = read("below", "..")
    step = below.step.model_copy(update={"target": "image"})
    both = story.with_(acts=(*story.acts, replace(below, step=step)))
    assert [finding.step for finding in limit_enforced(joined(both))] == ["fill"]


# -- what a submitter was told ----------------------------------------------------------------------


def zeroed(*ops: Op, exit_code: int = 0) -> Act:
    step = RangeOp(
        name="zero", role=Role.PROVOKE, verb="range_op", op=RangeKind.ZEROOUT, length=8192
    )
    submitter = Submitter(pid=PID, cgroup="", ops=ops, ended=Ended(exit_code=exit_code))
    return Act(step=step, seen={"submitter": submitter})


def by_rig() -> Act:
    return write("fill", Role.PROVOKE, (0, 2), stored(0, 2), generation=2, killed_by_rig=True)


MOUNT = Act(step=Mount(name="mount", role=Role.PROVOKE, verb="mount"))
DD = ("dd", "if=/dev/zero", "of={device}")
CUT = Op("zeroout", 0, 8192, 0, 0, 10, 15)

TOLD: dict[str, tuple[Act, str]] = {
    "all was written": (wrote_all(), "none"),
    "a signal that nobody declared": (wrote_all(signal=9), "kill"),
    "it had to be ended": (wrote_all(timed_out=True), "blocked"),
    "it had to be ended, and could not be": (
        wrote_all(timed_out=True, killable=False),
        "blocked",
    ),
    "it could not be killed": (wrote_all(exit_code=None, killable=False), "blocked"),
    "the rig killed it, as the case asks": (by_rig(), "none"),
    "a refused write": (wrote_all(wrote(0, 2, ENOSPC)), "error"),
    "a write that came back short": (wrote_all(wrote(0, 2, BLOCK), synced()), "error"),
    "a write of which nothing was taken": (wrote_all(wrote(0, 2, 0), synced()), "error"),
    "a sync that failed": (wrote_all(*stored(0, 2), synced(EPERM)), "error"),
    "a call on a range, whose success is 0": (zeroed(CUT, synced()), "none"),
    "a call on a range that failed": (zeroed(CUT._replace(result=EPERM)), "error"),
    "a helper of a call on a range that failed": (zeroed(CUT, synced(), exit_code=1), "error"),
    "a file's operation that failed": (files("save", 0, EPERM), "error"),
    "files that were written": (files("save", 0, 0, 0), "none"),
    "a command that failed": (ran("dd", Role.PROVOKE, DD, exit_code=1), "error"),
    "a command that succeeded": (ran("dd", Role.PROVOKE, DD), "none"),
    "a writer's own exit status": (wrote_all(exit_code=1), "error"),
    "a SIGBUS for a store into a mapping": (wrote_all(submit=Submit.MMAP, signal=7), "error"),
    "the exit status of who makes calls, which tells of the rig": (script("c", 0, 1), "none"),
    "a script's call that failed": (script("c", EIO), "error"),
    "a writer of whom nothing was seen": (unseen(wrote_all()), "none"),
    "a step without a submitter": (MOUNT, "none"),
}


@pytest.mark.parametrize("name", TOLD)
def test_an_answer_is(name: str) -> None:
    act, answer = TOLD[name]
    story = Story(acts=(act,))
    (scene,) = scenes(story.variant, story.observation)
    assert answer_of(scene.taken[0]) == answer
