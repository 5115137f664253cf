"""Which OOM kills count, and who invoked the killer: by its name, its process, or its work queue."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from types import ModuleType

import pytest

from conformance.model import Bystander, Files, MemoryEvents, Role
from conformance.oracle import kernel_log, oom
from conformance.oracle.oom import Invoker, Kills, killed_early, submitter_names
from conformance.oracle.scene import Scene
from conformance.oracle.trial import trial
from tests.support.builders import PID, Act, Story, imposed, log, ran, story, write

WORKER = "kworker/u2:1"


def scene_of(tale: Story) -> Scene:
    return trial(tale.variant, tale.observation).acts[0].scene


def kills(tale: Story) -> Kills:
    return oom.kills(scene_of(tale))


def in_cgroup(kills: int) -> dict[str, MemoryEvents]:
    return {"limited": MemoryEvents(oom_kill=kills)}


# -- the counters -----------------------------------------------------------------------------------


def test_kills_are_counted_where_the_counter_grew_while_the_shortage_was_in_force() -> None:
    tale = story().since("control", oom_kill=1).since("impose", oom_kill=3)
    none = kills(tale)
    assert (none.counted, none.grew_at, none.any) == (0, (), False)
    found = kills(tale.since("fill", oom_kill=4).since("relieve", oom_kill=6))
    assert (found.counted, [look.where for look in found.grew_at]) == (3, ["fill", "relieve"])
    assert found.any


@pytest.mark.parametrize(
    ("before", "whole", "group", "counted"),
    [
        ({}, 1, 1, 1),
        ({}, 0, 2, 2),
        ({}, 3, 2, 3),
        (in_cgroup(5), 0, 5, 0),
        (in_cgroup(5), 0, 6, 1),
        (in_cgroup(5), 1, 0, 1),
    ],
)
def test_a_kill_that_two_counters_tell_of_is_one(
    before: dict[str, MemoryEvents], whole: int, group: int, counted: int
) -> None:
    """The guest's own counter has it, and that of the cgroup; either may have been missed."""
    tale = story().since("control", cgroups=before)
    found = kills(tale.since("fill", oom_kill=whole, cgroups=in_cgroup(group)))
    assert found.counted == counted


def test_a_counter_that_fell_counts_for_nothing() -> None:
    tale = story().since("control", oom_kill=2, cgroups=in_cgroup(2))
    found = kills(tale.since("fill", oom_kill=0, cgroups=in_cgroup(0)))
    assert (found.counted, found.grew_at) == (0, ())


@pytest.mark.parametrize(
    ("at", "early"), [("control", True), ("control_read", True), ("impose", True), ("fill", False)]
)
def test_a_kill_is_early_until_the_shortage_was_imposed(at: str, early: bool) -> None:
    assert killed_early(scene_of(story().since(at, oom_kill=1))) is early


def test_without_a_kill_none_was_early() -> None:
    assert not killed_early(scene_of(story()))


# -- who invoked it ---------------------------------------------------------------------------------


def invoked(comm: str, pid: int = 999, *, queue: str = "") -> list[str]:
    """A report of the OOM killer, up to its kill."""
    return [
        f"{comm} invoked oom-killer: gfp_mask=0xc00(GFP_NOIO), order=0, oom_score_adj=0",
        f"CPU: 0 PID: {pid} Comm: {comm} Not tainted 6.1.0 #1",
        *([f"Workqueue: {queue}"] if queue else []),
    ]


def killed(pid: int, comm: str = "sleep") -> str:
    return f"Memory cgroup out of memory: Killed process {pid} ({comm}) total-vm:1kB"


def said(*lines: str, at: str = "read_short", of: Story | None = None) -> Kills:
    """The kills of a story with these lines in its log, after others of an earlier step."""
    tale = of or story()
    if at != "fill":
        tale = tale.but(tale.act("fill").watching(kernel_log=log("loop0: one", "loop0: two")))
    return kills(tale.but(tale.act(at).watching(kernel_log=log(*lines))))


def invoker(report: Sequence[str], of: Story | None = None) -> Invoker:
    (one,) = said(*report, killed(141), of=of).logged
    return one.invoker


@pytest.mark.parametrize(
    ("report", "by"),
    [
        (invoked("thing", PID + 7), Invoker.SUBMITTER),
        (invoked(f"iou-wrk-{PID + 7}"), Invoker.SUBMITTER),
        (invoked(f"iou-wrk-{PID + 9}"), Invoker.OTHER),
    ],
)
def test_a_submitter_may_have_threads_and_the_kernel_names_its_workers_after_them(
    report: list[str], by: Invoker
) -> None:
    fill = story().act("fill")
    several = fill.seen["submitter"].model_copy(update={"threads": (PID, PID + 7)})
    of = story().but(Act(step=fill.step, seen={**fill.seen, "submitter": several}))
    assert invoker(report, of=of) is by


NOBODY_S = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),global_oom,task_memcg=/,pid=141"
CGROUP_S = "oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/case/limited,pid=141"
KTHREAD = ["Call Trace:", " out_of_memory+0x1/0x2", " kthread+0x1/0x2"]
WRITES = ["Call Trace:", " submit_bio+0x1/0x2", " kthread+0x1/0x2"]


@pytest.mark.parametrize(
    ("report", "by"),
    [
        ([*invoked(WORKER, queue="events neigh_managed_work"), NOBODY_S], Invoker.OTHER),
        ([*invoked(WORKER, queue="events neigh_managed_work"), CGROUP_S], Invoker.WORKER),
        (invoked(WORKER, queue="events neigh_managed_work"), Invoker.WORKER),
        ([*invoked(WORKER, queue="events btrfs_async_reclaim"), NOBODY_S], Invoker.WORKER),
        ([*invoked("kauditd"), *KTHREAD, NOBODY_S], Invoker.OTHER),
        ([*invoked("a_thread"), *WRITES, NOBODY_S], Invoker.WORKER),
        ([*invoked("jbd2/loop0-8"), *KTHREAD, NOBODY_S], Invoker.WORKER),
        ([*invoked(WORKER, queue="erofs_worker submit_bio"), CGROUP_S], Invoker.OTHER),
    ],
    ids=[
        "a-worker-of-the-network",
        "one-that-is-charged-to-the-cgroup",
        "one-whose-limit-is-not-told",
        "a-worker-of-a-filesystem",
        "a-thread-of-the-kernel",
        "a-thread-that-submits",
        "a-journal",
        "a-worker-of-the-root-filesystem",
    ],
)
def test_where_the_whole_guest_is_short_a_kernel_thread_has_to_be_seen_to_write(
    report: list[str], by: Invoker
) -> None:
    assert invoker(report) is by


BESIDE = story().with_(bystanders=(Bystander(name="neighbour"),))
"""With a bystander, whose process is number 300."""


@pytest.mark.parametrize(
    ("report", "by"),
    [
        (invoked(WORKER, queue="loop0 loop_workfn"), Invoker.WORKER),
        (invoked(WORKER, queue="erofs_worker z_erofs_work"), Invoker.OTHER),
        ([], Invoker.UNKNOWN),
        (invoked("thing", PID), Invoker.SUBMITTER),
        (invoked("thing", PID + 1), Invoker.OTHER),
        (invoked(f"iou-wrk-{PID}"), Invoker.SUBMITTER),
        (invoked(f"iou-sqp-{PID}"), Invoker.SUBMITTER),
        (invoked(f"iou-wrk-{PID + 1}"), Invoker.OTHER),
        (invoked(f"iou-wrk-{PID}x"), Invoker.OTHER),
        (invoked("python3"), Invoker.SUBMITTER),
        (invoked("systemd"), Invoker.OTHER),
    ],
    ids=[
        "a-worker",
        "a-worker-of-the-root-filesystem",
        "nobody-says",
        "a-submitter-by-its-process",
        "another-process",
        "a-submitter-s-engine",
        "a-submitter-s-poller",
        "another-s-engine",
        "something-like-an-engine",
        "a-submitter-by-its-name",
        "a-service",
    ],
)
def test_an_invoker_is_known_by_what_the_report_says(report: list[str], by: Invoker) -> None:
    assert invoker(report) is by


@pytest.mark.parametrize(("pid", "by"), [(300, Invoker.OTHER), (301, Invoker.SUBMITTER)])
def test_a_bystander_is_no_submitter_though_it_is_called_like_one(pid: int, by: Invoker) -> None:
    assert invoker(invoked("python3", pid), of=BESIDE) is by


@pytest.mark.parametrize(
    ("comm", "by"),
    [
        ("a_program_of_20", Invoker.SUBMITTER),
        ("a_program_of_20_", Invoker.OTHER),
        ("a_program_of_2", Invoker.OTHER),
        ("child", Invoker.SUBMITTER),
    ],
)
def test_a_command_and_its_words_are_names_of_fifteen_characters(comm: str, by: Invoker) -> None:
    command = ran("command", Role.PROVOKE, ["/usr/bin/a_program_of_20_chars", "-c", "bin/child"])
    tale = Story(acts=(imposed(), command, *story().acts[3:5]))
    assert invoker(invoked(comm), of=tale) is by


def test_a_submitter_goes_by_the_first_word_of_its_tool() -> None:
    control = write("control", Role.CONTROL, (0, 2), [], generation=1)
    tool = control.seen["submitter"].model_copy(update={"tool": "stress 1.2"})
    files = Files(
        name="files",
        role=Role.PROVOKE,
        verb="files",
        directory="d",
        size=4096,
        count=1,
        generation=1,
    )
    unseen = Act(step=files)
    tale = Story(acts=(Act(step=control.step, seen={"submitter": tool}), imposed(), unseen))
    names = submitter_names(scene_of(tale))
    assert names == {"dd", "fio", "python3", "python", "ledger", "stress"}


# -- what they come to ------------------------------------------------------------------------------

BY_WORKER = [*invoked(WORKER), killed(141)]
BY_SUBMITTER = [*invoked("thing", PID), killed(142)]
BY_NOBODY = [killed(143)]


def test_a_kill_is_kept_with_the_look_that_brought_it() -> None:
    found = said(*BY_WORKER)
    (one,) = found.logged
    assert (one.look.where, one.report.invoker) == ("read_short", WORKER)
    assert found.victims == {141}
    assert (found.vain, found.any) == ((), True)


def test_a_kill_before_the_shortage_is_none() -> None:
    found = said(*BY_WORKER, at="control")
    assert (found.logged, found.vain, found.any) == ((), (), False)


def test_a_worker_that_found_nobody_to_kill_invoked_it_in_vain() -> None:
    found = said(*invoked(WORKER), *invoked("thing", PID))
    assert [one.report.invoker for one in found.vain] == [WORKER]
    assert (found.logged, found.any, found.by_worker) == ((), False, True)


def test_a_kill_is_found_by_its_victim() -> None:
    found = said(*BY_WORKER, killed(150), *BY_SUBMITTER)
    by_worker, by_nobody, by_submitter = found.logged
    assert found.victims == {141, 142, 150}
    assert (found.of(141), found.of(150)) == (by_worker, by_nobody)
    assert by_nobody.invoker is Invoker.UNKNOWN
    assert found.of(142) is by_submitter
    assert found.of(143) is None


@pytest.mark.parametrize(
    ("lines", "counted", "by_worker"),
    [
        ([], 0, False),
        ([], 1, True),
        (BY_NOBODY, 0, True),
        (BY_SUBMITTER, 1, False),
        (BY_WORKER, 1, True),
        ([*BY_NOBODY, *BY_SUBMITTER], 2, True),
        ([*BY_NOBODY, *BY_SUBMITTER, *invoked("thing", PID) * 9], 2, False),
        (BY_SUBMITTER, 2, True),
        ([*BY_SUBMITTER, *BY_WORKER], 2, True),
    ],
    ids=[
        "no-kill",
        "one-that-is-only-counted",
        "one-by-nobody-knows-whom",
        "one-by-a-submitter",
        "one-by-a-worker",
        "one-by-a-submitter-and-one-unknown",
        "as-many-reports-as-the-kernel-prints-and-one-unknown",
        "one-by-a-submitter-and-one-that-is-only-counted",
        "one-by-each",
    ],
)
def test_a_kill_is_a_worker_s_unless_all_that_is_known_are_others(
    lines: list[str], counted: int, by_worker: bool
) -> None:
    found = said(*lines, of=story().since("fill", oom_kill=counted))
    assert found.by_worker is by_worker
    assert found.any is bool(lines or counted)


@pytest.mark.parametrize(
    ("lines", "counted", "untold"),
    [
        (BY_SUBMITTER, 1, 0),
        (BY_SUBMITTER, 4, 3),
        ([*BY_SUBMITTER, *BY_NOBODY], 0, 1),
        ([*BY_SUBMITTER, *BY_NOBODY], 3, 2),
        ([*BY_WORKER, *BY_NOBODY], 3, 0),
        ([], 2, 2),
    ],
)
def test_kills_are_untold_of_that_no_report_is_about(
    lines: list[str], counted: int, untold: int
) -> None:
    assert said(*lines, of=story().since("fill", oom_kill=counted)).untold == untold


# -- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (oom, "Kill"),
        (oom, "Kills"),
        (kernel_log, "Killed"),
        (kernel_log, "Invocation"),
        (kernel_log, "Fault"),
    ],
)
def test_what_was_read_is_built_by_keyword_and_stays_as_it_is(
    module: ModuleType, name: str
) -> None:
    kind = getattr(module, name)
    fields = inspect.signature(kind).parameters
    assert {field.kind for field in fields.values()} == {inspect.Parameter.KEYWORD_ONLY}
    bare = object.__new__(kind)
    assert not hasattr(bare, "__dict__")
    with pytest.raises(FrozenInstanceError):
        setattr(bare, next(iter(fields)), None)
