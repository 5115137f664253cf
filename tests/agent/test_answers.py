"""What the guest answers has the form of the host's values, and knows all that a case may name."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent import facts, probes
from agent.basics import BLOCK, Clock, RigError, poll_until
from agent.cgroups import Tree
from agent.layers import KINDS as LAYERS
from agent.layers import Layer, Site
from agent.processes import Child, ended, evidence, run, state_in, threads_in
from agent.shortages import KINDS as SHORTAGES
from agent.shortages.hog import Hog
from agent.shortages.memcg import Memcg
from agent.shortages.none import NoShortage
from agent.steps import VERBS
from agent.watchers import blocked, kmsg, oom
from agent.workloads import files, fio, ledger, metadata
from agent.workloads.crew import Crew
from agent.workloads.files import Filer, Synced, look_at, synced
from agent.workloads.frugal import Frugal, Results
from agent.workloads.metadata import Storm
from agent.workloads.pattern import Pattern
from agent.workloads.run import filled

from conformance.model import (
    AnyLayer,
    AnyShortage,
    AnyStep,
    Blocked,
    BystanderState,
    Command,
    Ended,
    FileOp,
    FileState,
    KernelLine,
    MemoryEvents,
    Reading,
    Submit,
    Submitter,
    Watch,
)

PATTERN = Pattern(b"answers!")


def names(union: object, field: str) -> set[str]:
    """The values of ``field`` that the members of an annotated union have."""
    found: set[str] = set()
    for part in typing.get_args(union):
        if hasattr(part, "model_fields"):
            found |= set(typing.get_args(part.model_fields[field].annotation))
        else:
            found |= names(part, field)
    return found


def test_the_guest_knows_every_layer_shortage_and_verb_of_the_language() -> None:
    assert set(LAYERS) == names(AnyLayer, "layer")
    # The host imposes that one, and the agent does not know of the host.
    assert set(SHORTAGES) == names(AnyShortage, "kind") - {"host_space"}
    assert set(VERBS) == names(AnyStep, "verb")


def test_the_guest_knows_every_way_to_submit() -> None:
    known = set(ledger.WAYS) | set(fio.ENGINES)
    assert {way.value for way in Submit} <= known


def test_a_command_and_how_it_ended() -> None:
    command = Command.model_validate(run(["sh", "-c", "echo out; exit 3"], limit=10))
    assert (command.ended.exit_code, command.output) == (3, "out")
    assert not command.ended.timed_out


def test_a_command_past_its_limit_is_ended_with_evidence() -> None:
    def asleep(child: Child) -> None:
        assert poll_until(lambda: state(Path(f"/proc/{child.pid}")) == "S", 60)

    command = Command.model_validate(run(["sleep", "60"], limit=0.1, started=asleep))
    assert command.ended.timed_out
    assert command.ended.killable
    assert command.ended.signal == 9
    assert command.ended.state == "S"


def test_a_command_in_a_cgroup_that_is_not_there_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="procs"):
        run(["true"], limit=1, procs=str(tmp_path / "procs"))


@pytest.mark.parametrize(
    ("program", "procs", "why"),
    [
        ("true", "/dev/full", "cannot start true: it cannot enter /dev/full: No space left"),
        ("no-such-program", "/dev/null", "cannot start no-such-program: No such file"),
        ("no-such-program", "", "cannot start no-such-program: No such file"),
    ],
)
def test_a_command_that_could_not_be_run_is_no_command_that_failed(
    program: str, procs: str, why: str
) -> None:
    with pytest.raises(RigError, match=why):
        run([program], limit=60, procs=procs)


def test_what_a_command_leaves_behind_is_not_waited_for_to_know_that_it_ran() -> None:
    # Who is left behind holds all that the command had open.
    begun = time.monotonic()
    command = run(["sh", "-c", "sleep 40 & echo $!; exit 127"], limit=60, procs="/dev/null")
    os.kill(int(command["output"]), signal.SIGKILL)
    assert command["ended"] == ended(127)
    assert time.monotonic() - begun < 30


THREAD = """
import os, sys, threading
# Whoever starts a program waits in D until it is executed, and this one waits for the FIFO first.
wait = (os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)
start = lambda: os.posix_spawn("/bin/true", ["true"], {}, file_actions=[wait])
threading.Thread(target=start, name="waits").start()
"""


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[int]:
    """A process whose second thread is in uninterruptible sleep."""
    os.mkfifo(tmp_path / "fifo")
    words = [sys.executable, "-c", THREAD, str(tmp_path / "fifo")]
    with subprocess.Popen(words) as process:
        try:
            yield process.pid
        finally:
            fd = os.open(tmp_path / "fifo", os.O_RDWR)
            process.wait(60)
            os.close(fd)


def in_d(pid: int) -> list[int]:
    """Its tasks in uninterruptible sleep."""
    return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if state(task) == "D"]


def state(task: Path) -> str:
    return state_in((task / "stat").read_text())


def test_a_thread_in_uninterruptible_sleep_is_told_and_is_the_evidence(stuck: int) -> None:
    # Its first thread may wait for a page of the disk's.
    assert poll_until(lambda: in_d(stuck) not in ([], [stuck]), 60)
    [thread] = [task for task in in_d(stuck) if task != stuck]
    told = [Blocked.model_validate(task) for task in blocked.blocked(settle=0.05)]
    comm = Path(f"/proc/{thread}/comm").read_text().strip()
    assert [(one.pid, one.comm) for one in told if one.pid in (stuck, thread)] == [(thread, comm)]
    assert evidence(stuck)[0] == "D"


def test_nothing_is_listed_of_a_process_with_one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (f"7 (a) b) S {' '.join(map(str, range(16)))} {n} 0" for n in (1, 2))
    listed: list[str] = []

    def listing(path: str) -> list[str]:
        listed.append(path)
        return ["7", "9", "8"]

    monkeypatch.setattr(os, "listdir", listing)
    assert threads_in(7, one) == threads_in(7, "") == []
    assert listed == []
    assert threads_in(7, two) == [8, 9]


def test_only_the_tail_of_what_a_command_prints_is_kept() -> None:
    command = Command.model_validate(run(["seq", "100000"], limit=30))
    assert len(command.output) <= 4000
    assert command.output.endswith("100000")


def test_the_state_of_a_task_whatever_its_name() -> None:
    assert state_in("12 (a) D (b)) S 1 2") == "S"
    assert state_in("") == ""


def test_how_a_process_ended_has_every_field() -> None:
    assert Ended.model_validate(ended(0)) == Ended(exit_code=0)
    assert Ended.model_validate(ended(signal=9)) == Ended(signal=9)


def test_a_submitter_that_was_cut_short_tells_of_its_unfinished_call() -> None:
    results = Results(4)
    try:
        results.begin(0, 2, 4096, 8192, 77)
        child = Child.adopt(os.posix_spawn("/bin/sleep", ["sleep", "60"], {}))
        frugal = Frugal(
            child=child,
            results=results,
            cgroup="limited",
            anon=lambda: 0,
            ready=-1,
            go=-1,
            mark=-1,
            done=-1,
            leave=-1,
        )
        frugal.ended = child.finish(0)
        seen = Submitter.model_validate(frugal.submitter("ledger", ledger.KINDS))
        assert seen.in_flight == ("write", 4096, 8192, 77)
        assert seen.ended.timed_out
    finally:
        results.close()


def test_a_line_of_the_kernel_log() -> None:
    clock = Clock(epoch_ns=5_000_000_000)
    raw = b"4,1234,6000000,-;kworker/u2:1 invoked oom-killer: x\n SUBSYSTEM=block\n"
    line = kmsg.parse(raw, clock)
    assert line is not None
    assert KernelLine(*line) == KernelLine(  # type: ignore[arg-type]
        1234, 4, 1_000_000, "kworker/u2:1 invoked oom-killer: x"
    )
    assert kmsg.parse(b"rubbish", clock) is None


def test_what_is_watched_has_the_form_of_the_watch() -> None:
    watch = Watch.model_validate(
        {
            "t_us": 1,
            "reading": NoShortage({"kind": "none"}, {}, Tree()).reading(),
            "oom_kill": oom.kills(),
            "cgroups": {"none": Tree("no-such-tree").events("none")},
            "bystanders": [],
            "blocked": blocked.blocked(settle=0.0),
            "taint": oom.taint(),
            "kernel_log": [[1, 2, 3, "text"]],
        }
    )
    assert watch.reading == Reading(kind="none", used=0)
    assert watch.cgroups["none"] == MemoryEvents()


def test_blocked_tasks_have_their_form() -> None:
    for task in blocked.blocked(settle=0.0):
        Blocked.model_validate(task)


def test_a_gauge_without_a_cgroup_reads_nothing() -> None:
    shortage = Memcg({"kind": "memcg", "cgroup": "none"}, {}, Tree("no-such-tree"))
    assert Reading.model_validate(shortage.reading()) == Reading(kind="memcg", used=0, hits=0)


def test_facts_are_text() -> None:
    assert all(isinstance(value, str) for value in facts.facts().values())


def test_a_requirement_is_met_or_has_a_reason() -> None:
    site = Site()
    assert probes.answer("tool:sh", site) == ""
    assert "no program" in probes.answer("tool:no-such-program", site)
    assert "knows no probe" in probes.answer("probe:nothing", site)
    assert "knows no requirements" in probes.answer("colour:blue", site)


def test_the_words_of_a_command_get_the_paths_of_layers() -> None:
    assert filled(["dd", "of={device}"], {"device": "/dev/loop0"}) == ["dd", "of=/dev/loop0"]
    with pytest.raises(Exception, match="no layer for 'none'"):
        filled(["{none}"], {})


def written(root: Path, **changes: object) -> tuple[list[FileOp], list[Synced], files.Order]:
    """Files written in this process, without locked memory."""
    values: dict[str, object] = {
        "root": str(root),
        "directory": "fill",
        "size": 4 * BLOCK,
        "count": 3,
        "generation": 2,
        "first": 1,
        **changes,
    }
    order = files.Order(**values)  # type: ignore[arg-type]
    results = Results(64)
    try:
        work = Filer(order, PATTERN, Clock.start(), results).prepare()
        results.forget()
        work(lambda: None)
        records = results.records()
    finally:
        results.close()
    ops = [
        FileOp(*files.as_file_op(one, files.KINDS, order.path(one.offset - 1)))  # type: ignore[arg-type]
        for one in records
    ]
    return ops, synced(records, order), order


def test_files_are_written_synced_and_found_whole(tmp_path: Path) -> None:
    ops, durable, _ = written(tmp_path)
    assert [op.kind for op in ops[:4]] == ["mkdir", "open", "dirsync", "dirsync"]
    assert [op.kind for op in ops[4:9]] == ["create", "write", "fsync", "close", "dirsync"]
    assert [one.path for one in durable] == ["fill/f00000", "fill/f00001", "fill/f00002"]
    for one in durable:
        state = FileState.model_validate(look_at(str(tmp_path), one, PATTERN, drop=True))
        assert (state.state, state.size, state.wrong) == ("whole", 4 * BLOCK, ())


@pytest.mark.parametrize(
    ("changes", "between"),
    [
        ({"submit": "mmap"}, ["create", "truncate", "write", "msync", "close", "dirsync"]),
        ({"sync": "syncfs"}, ["create", "write", "close"]),
    ],
)
def test_files_by_other_ways_are_synced_and_found_whole(
    changes: dict[str, object], between: list[str], tmp_path: Path
) -> None:
    ops, durable, _ = written(tmp_path, **changes)
    kinds = [op.kind for op in ops if op.kind not in ("mkdir", "open")]
    first = kinds.index("create")
    assert kinds[first : first + len(between)] == between
    assert all(op.result >= 0 for op in ops)
    assert len(durable) == 3
    for one in durable:
        assert look_at(str(tmp_path), one, PATTERN, drop=True)["state"] == "whole"


def test_a_freeze_that_fails_speaks_for_no_file(tmp_path: Path) -> None:
    # A directory of the tests lies on no filesystem that may be frozen: the call itself is refused.
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "refused")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "ioctl", refuse)
        ops, durable, _ = written(tmp_path, sync="freeze")
    assert (ops[-1].kind, ops[-1].result) == ("freeze", -errno.EIO)
    assert durable == []


def test_a_file_with_other_content_is_wrong_and_says_where(tmp_path: Path) -> None:
    _, durable, _ = written(tmp_path)
    with (tmp_path / "fill/f00001").open("r+b") as file:
        file.seek(2 * BLOCK)
        file.write(bytes(BLOCK))
        file.write((tmp_path / "fill/f00002").read_bytes()[3 * BLOCK :])
    state = FileState.model_validate(look_at(str(tmp_path), durable[1], PATTERN, drop=False))
    assert state.state == "wrong"
    assert [(part.offset, part.content) for part in state.wrong] == [
        (2 * BLOCK, "zero"),
        (3 * BLOCK, "foreign"),
    ]


def test_a_file_that_is_short_or_gone_is_told(tmp_path: Path) -> None:
    _, durable, _ = written(tmp_path)
    os.truncate(tmp_path / "fill/f00000", BLOCK)
    (tmp_path / "fill/f00001").unlink()
    short = FileState.model_validate(look_at(str(tmp_path), durable[0], PATTERN, drop=False))
    gone = FileState.model_validate(look_at(str(tmp_path), durable[1], PATTERN, drop=False))
    assert (short.state, short.size) == ("wrong", BLOCK)
    assert (gone.state, gone.errno) == ("missing", errno.ENOENT)


def test_a_step_of_files_stops_at_the_first_error(tmp_path: Path) -> None:
    (tmp_path / "fill").mkdir()
    ops, durable, _ = written(tmp_path)
    assert [(op.kind, op.result) for op in ops] == [("mkdir", -errno.EEXIST)]
    assert durable == []


def test_the_metadata_load_tells_rows_and_what_was_synced(tmp_path: Path) -> None:
    order = metadata.Order(root=str(tmp_path), directory="tree", count=40, sync_every=20)
    results = Results(200)
    try:
        work = Storm(order, Clock.start(), results).prepare()
        results.forget()
        work(lambda: None)
        records = results.records()
    finally:
        results.close()
    ops = [
        FileOp(
            *files.as_file_op(  # type: ignore[arg-type]
                one, metadata.KINDS, metadata.name_of(order, one.kind, one.offset - 1)
            )
        )
        for one in records
    ]
    failed = [op for op in ops if op.result < 0]
    if failed:
        # Where the test's own filesystem has no user xattrs, the load stops there, as it should.
        assert [op.kind for op in failed] == ["setxattr"]
        return
    assert [(op.kind, op.times) for op in ops[3:7]] == [
        ("create", 5),
        ("mkdir", 5),
        ("rename", 5),
        ("setxattr", 5),
    ]
    durable = metadata.synced(records, order)
    assert [one.path for one in durable if one.told] == ["tree/f000004", "tree/f000009"]
    assert len(durable) == 20
    for one in durable:
        state = FileState.model_validate(look_at(str(tmp_path), one, PATTERN, drop=False))
        assert state.state == "whole"


@pytest.mark.parametrize(
    ("mix", "kinds"),
    [("files", ["create", "rename"]), ("directories", ["mkdir"])],
)
def test_a_metadata_load_of_one_kind(mix: str, kinds: list[str], tmp_path: Path) -> None:
    order = metadata.Order(root=str(tmp_path), directory="tree", count=8, sync_every=4, mix=mix)
    results = Results(64)
    try:
        work = Storm(order, Clock.start(), results).prepare()
        results.forget()
        work(lambda: None)
        records = results.records()
    finally:
        results.close()
    told = [metadata.KINDS[one.kind] for one in records]
    assert [kind for kind in told[3:] if kind in kinds] == kinds * 2
    durable = metadata.synced(records, order)
    assert len(durable) == 8 // len(kinds)
    for one in durable:
        assert look_at(str(tmp_path), one, PATTERN, drop=False)["state"] == "whole"


def test_the_xattr_of_a_synced_file_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"")
    one = Synced(path="f", xattr=(b"user.ledger", b"value"))
    assert look_at(str(tmp_path), one, PATTERN, drop=False)["state"] == "unreadable"
    try:
        os.setxattr(path, b"user.ledger", b"other")
    except OSError:
        return  # the test's own filesystem has no user xattrs
    assert look_at(str(tmp_path), one, PATTERN, drop=False)["state"] == "wrong"


class Unmounted(Layer):
    """A layer whose filesystem may be gone from its mount point."""

    def up(self) -> None:
        """See ``Layer``."""

    def down(self) -> list[Any]:
        """See ``Layer``."""
        return []

    def facts(self) -> dict[str, Any]:
        """See ``Layer``."""
        return {}

    def left(self) -> list[str]:
        """See ``Layer``."""
        return []


def test_the_gauge_of_a_filesystem_that_is_not_mounted_is_the_last_one(tmp_path: Path) -> None:
    layer = Unmounted({"name": "fs"}, {}, Site())
    layer.path, layer.mounted = str(tmp_path), True
    hog = Hog({"kind": "hog", "layer": "fs", "leave": BLOCK}, {"fs": layer}, Tree())
    last = hog.reading()
    layer.path, layer.mounted = "/proc", False
    assert hog.reading() == last


class Full(Hog):
    """One over a filesystem that never has space for anybody else."""

    def _available(self) -> int:
        return 0


def test_somebody_cuts_the_file_that_takes_the_space_down_to_half(tmp_path: Path) -> None:
    layer = Unmounted({"name": "fs"}, {}, Site())
    layer.path, layer.mounted = str(tmp_path), True
    hog = Full({"kind": "hog", "layer": "fs", "leave": 0}, {"fs": layer}, Tree())
    path = tmp_path / ".hog"
    path.write_bytes(bytes(9 * BLOCK))
    hog._give(str(path), BLOCK)
    try:
        assert poll_until(lambda: path.stat().st_size == 5 * BLOCK, 30)
        hog.check()
    finally:
        hog.end()
    assert path.stat().st_size == 5 * BLOCK


def test_a_bystander_goes_round_in_its_region_and_ends_when_told(tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.write_bytes(bytes(16 * BLOCK))
    crew = Crew()
    io = {
        "target": "device",
        "offset": 4 * BLOCK,
        "length": 8 * BLOCK,
        "request": 4 * BLOCK,
        "submit": "dsync",
        "pause": 0.01,
    }
    specs: list[dict[str, Any]] = [{"name": "idle"}, {"name": "busy", "memory": 1 << 20, "io": io}]
    try:
        crew.start(specs, lambda _: str(device), Tree(), PATTERN, Clock.start())
        # However busy the host is: until it has gone round once.
        assert poll_until(lambda: all(o["io_done"] >= 2 for o in crew.seen()[1:]), 30)
        assert crew.pause() == []
        idle, busy = (BystanderState.model_validate(one) for one in crew.seen())
        assert idle.alive
        assert busy.alive
        assert busy.io_done >= 2
        assert busy.io_errors == ()
        os.truncate(device, 0)
        device.unlink()
        crew.resume()
        assert crew.pause() == []
        busy = BystanderState.model_validate(crew.seen()[1])
        assert [(one.kind, one.errno) for one in busy.io_errors][:1] == [("open", errno.ENOENT)]
    finally:
        assert crew.end() == []
