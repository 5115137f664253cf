"""The ledger's writer, in this process and on ordinary files: what it notes is what was done."""

from __future__ import annotations

import errno
import itertools
import os
import signal
from pathlib import Path

import pytest
from agent.basics import BLOCK, Clock
from agent.workloads import frugal
from agent.workloads.frugal import RECORD, Results
from agent.workloads.ledger import Order, Writer, as_op, order_of, write
from agent.workloads.pattern import Pattern
from agent.workloads.readback import Seen, read_region, recogniser
from hypothesis import given
from hypothesis import strategies as st

from conformance.model import Op, Submit, Write, as_json

PATTERN = Pattern(b"theledge")
REQUEST = 4 * BLOCK


def order(path: Path, **changes: object) -> Order:
    values: dict[str, object] = {
        "path": str(path),
        "submit": "buffered",
        "offset": 0,
        "length": 4 * REQUEST,
        "request": REQUEST,
        "generation": 3,
        **changes,
    }
    return Order(**values)  # type: ignore[arg-type]


def run(wanted: Order, told: list[bool] | None = None) -> list[Op]:
    """Do the order in this process: the rehearsal too, but without locked memory."""
    results = Results(wanted.capacity())
    try:
        work = Writer(wanted, PATTERN, Clock.start(), results).prepare()
        results.forget()
        work(lambda: told.append(True) if told is not None else None)
        assert results.in_flight() is None
        return [Op(*as_op(record)) for record in results.records()]  # type: ignore[arg-type]
    finally:
        results.close()


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "device"
    path.write_bytes(bytes(8 * REQUEST))
    return path


def contents(path: Path) -> list[Seen]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_region(fd, 0, 8 * REQUEST, recogniser(PATTERN))
    finally:
        os.close(fd)


@pytest.mark.parametrize("submit", ["buffered", "mmap"])
def test_each_request_is_noted_and_then_the_sync_and_the_close(device: Path, submit: str) -> None:
    ops = run(order(device, submit=submit, offset=REQUEST))
    assert [op.kind for op in ops] == ["write"] * 4 + ["sync", "close"]
    assert [op.offset for op in ops[:4]] == [REQUEST * index for index in range(1, 5)]
    assert {op.result for op in ops[:4]} == {REQUEST}
    assert {op.generation for op in ops[:4]} == {3}
    assert all(op.start_us <= op.end_us for op in ops)
    assert contents(device) == [
        Seen(0, REQUEST, "zero"),
        Seen(REQUEST, 4 * REQUEST, "generation", 3),
        Seen(5 * REQUEST, 3 * REQUEST, "zero"),
    ]


def test_a_sync_follows_each_so_many_bytes_and_none_is_doubled(device: Path) -> None:
    ops = run(order(device, sync_every=2 * REQUEST))
    assert [op.kind for op in ops] == ["write", "write", "sync"] * 2 + ["close"]


@pytest.mark.parametrize("submit", ["dsync", "rwf_dsync", "direct_dsync"])
def test_under_dsync_each_write_covers_itself(device: Path, submit: str) -> None:
    ops = run(order(device, submit=submit, sync_every=REQUEST))
    if ops[0].kind == "open":
        pytest.skip("the files of this machine know no O_DIRECT")
    assert [op.kind for op in ops] == ["write"] * 4 + ["close"]
    assert {op.result for op in ops} == {REQUEST, 0}


def test_by_rwf_dsync_an_error_is_the_write_s_own() -> None:
    ops = run(order(Path("/dev/full"), submit="rwf_dsync"))
    assert [(op.kind, op.result < 0) for op in ops] == [("write", True), ("close", False)]


def test_the_writer_stops_at_an_error_and_syncs_what_it_wrote_before() -> None:
    ops = run(order(Path("/dev/full")))
    assert [(op.kind, op.result) for op in ops] == [
        ("write", -errno.ENOSPC),
        ("sync", -errno.EINVAL),
        ("close", 0),
    ]


def test_the_writer_goes_on_after_errors_if_it_is_told_to() -> None:
    told: list[bool] = []
    ops = run(order(Path("/dev/full"), go_on=True, mark_error=True), told)
    assert [op.kind for op in ops] == ["write"] * 4 + ["sync", "close"]
    assert told == [True]


def test_the_parent_is_told_once_after_so_many_bytes(device: Path) -> None:
    told: list[bool] = []
    run(order(device, mark_bytes=2 * REQUEST), told)
    assert told == [True]


def test_the_parent_is_told_once_that_a_sync_begins(device: Path) -> None:
    told: list[bool] = []
    run(order(device, mark_sync=True, sync_every=REQUEST), told)
    assert told == [True]
    run(order(device, mark_sync=True), told)
    assert told == [True, True]


def test_a_device_that_cannot_be_opened_is_an_operation_that_failed(tmp_path: Path) -> None:
    ops = run(order(tmp_path / "none"))
    assert [(op.kind, op.result) for op in ops] == [("open", -errno.ENOENT)]


def test_the_last_request_is_as_long_as_what_is_left(device: Path) -> None:
    ops = run(order(device, length=REQUEST + BLOCK))
    assert [op.length for op in ops if op.kind == "write"] == [REQUEST, BLOCK]


def test_an_order_is_the_step_of_a_case() -> None:
    step = Write.model_validate(
        {
            "verb": "write",
            "as": "fill",
            "role": "provoke",
            "submit": Submit.DIRECT,
            "length": "8M",
            "request": "64K",
            "generation": 2,
            "sync_every": "1M",
            "after_error": "continue",
            "kill": {"after": "first_error"},
        }
    )
    found = order_of(as_json(step), "/dev/loop0")
    assert found == Order(
        path="/dev/loop0",
        submit="direct",
        offset=0,
        length=8 << 20,
        request=65536,
        generation=2,
        sync_every=1 << 20,
        go_on=True,
        mark_error=True,
    )


def test_who_is_killed_after_so_many_bytes_has_written_so_many(device: Path) -> None:
    wanted = order(device, mark_bytes=2 * REQUEST, lingers=True)
    submitter, problem = write(wanted, PATTERN, Clock.start(), limit=30)
    assert (problem, submitter["killed_by_rig"]) == ("", True)
    assert [Op(*op).offset for op in submitter["ops"]] == [0, REQUEST]
    rest = contents(device)[-1]
    assert (rest.offset, rest.content) == (2 * REQUEST, "zero")


class _Waits(Exception):
    """It waits for its kill."""


@pytest.mark.parametrize("answer", [-errno.ENOSPC, BLOCK])
def test_an_answer_while_it_waits_for_its_kill_is_noted_once(
    device: Path, monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    """What has been written is refused when it is written again: the kernel's fault, and not the rig's."""
    written: list[int] = []
    pwrite = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if os.readlink(f"/proc/self/fd/{fd}") != str(device):
            return pwrite(fd, data, offset)  # a rehearsal
        if offset not in written:
            written.append(offset)
            return pwrite(fd, data, offset)
        if answer < 0:
            raise OSError(-answer, "")
        return answer

    def pause() -> None:
        raise _Waits

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(signal, "pause", pause)
    wanted = order(device, mark_bytes=2 * REQUEST, lingers=True)
    results = Results(wanted.capacity())
    try:
        work = Writer(wanted, PATTERN, Clock.start(), results).prepare()
        results.forget()
        with pytest.raises(_Waits):
            work(lambda: None)
        ops = [Op(*as_op(record)) for record in results.records()]  # type: ignore[arg-type]
    finally:
        results.close()
    assert [(op.kind, op.offset, op.generation, op.result) for op in ops] == [
        ("write", 0, 3, REQUEST),
        ("write", REQUEST, 3, REQUEST),
        ("write", REQUEST, 3, answer),
    ]


def test_only_a_kill_after_so_many_bytes_is_waited_for() -> None:
    step = {"submit": "direct", "offset": 0, "length": 8, "request": 1, "generation": 1}
    waits = {
        (how, after): order_of({**step, how: {"after": after}}, "x").lingers
        for how in ("kill", "detach")
        for after in (4, "first_error", "first_sync")
    }
    assert [case for case, lingers in waits.items() if lingers] == [("kill", 4)]
    # As a step comes: what is not asked for is there, and empty.
    assert not order_of({**step, "kill": None, "detach": {"after": 4}}, "x").lingers


calls = st.tuples(
    st.integers(0, 3),
    st.integers(0, 255),
    st.integers(0, 2**62),
    st.integers(0, 2**32 - 1),
    st.integers(-4096, 2**40),
)


@given(st.lists(calls, max_size=20))
def test_what_a_child_notes_is_what_its_parent_reads(
    noted: list[tuple[int, int, int, int, int]],
) -> None:
    results = Results(20)
    try:
        for kind, generation, offset, length, result in noted:
            results.begin(kind, generation, offset, length, 5)
            assert results.in_flight() is not None
            results.end(kind, generation, offset, length, result=result, start_us=5, end_us=6)
        read = [
            (one.kind, one.generation, one.offset, one.length, one.result)
            for one in results.records()
        ]
        assert read == noted
        assert results.in_flight() is None
        assert results.errors == sum(one[4] < 0 for one in noted)
    finally:
        results.close()


def test_notes_that_do_not_fit_are_dropped_and_break_nothing() -> None:
    results = Results(1)
    try:
        for index in range(3):
            results.end(0, 0, index, 0, result=0, start_us=0, end_us=0)
        assert [one.offset for one in results.records()] == [0]
    finally:
        results.close()


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0, -28])), max_size=30))
def test_like_calls_in_a_row_are_one_record(made: list[tuple[int, int]]) -> None:
    results = Results(30)
    try:
        for at, (kind, result) in enumerate(made):
            results.row(kind, at, result, at, at + 1)
        rows = results.records()
        spread = [(row.kind, row.result) for row in rows for _ in range(row.times)]
        assert spread == made
        for before, after in itertools.pairwise(rows):
            assert (before.kind, before.result) != (after.kind, after.result)
            assert before.end_us <= after.start_us
    finally:
        results.close()


def test_a_record_has_room_for_a_call_that_has_not_returned() -> None:
    assert RECORD.size % 8 == 0
    assert frugal.IN_FLIGHT < -4096  # no errno looks like it
