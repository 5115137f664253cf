"""Calls on ranges, and the user that files are written as: on memory files, in children."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from agent import kernel
from agent.basics import BLOCK, Clock
from agent.workloads import files, ranges
from agent.workloads.frugal import Results
from agent.workloads.ranges import Asker, Order, as_op, order_of

from conformance.model import Op, RangeKind


def asked(path: Path, op: str, length: int, request: int) -> list[Op]:
    """What came of an order on a file, in this process."""
    order = Order(path=str(path), op=op, offset=0, length=length, request=request)
    results = Results(64)
    asker = Asker(order, Clock.start(), results)
    work = asker.prepare()
    results.forget()
    work(lambda: None)
    found = [Op(*as_op(record, order.kinds)) for record in results.records()]  # type: ignore[arg-type]
    results.close()
    return found


def test_the_guest_knows_every_word_for_a_call() -> None:
    assert {*kernel.RANGE_MODES, "discard", "zeroout", "zone_reset"} == set(RangeKind)


def test_a_step_without_a_request_is_one_call() -> None:
    step = {"op": "discard", "offset": BLOCK, "length": 3 * BLOCK, "request": None}
    assert order_of(step, "/dev/x").request == 3 * BLOCK
    assert order_of({**step, "request": BLOCK}, "/dev/x").request == BLOCK


def test_calls_are_noted_one_by_one_and_synced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 4 * BLOCK)
    ops = asked(path, "allocate", 2 * BLOCK, BLOCK)
    if ops[0].result == -errno.EOPNOTSUPP:
        pytest.skip("the filesystem below has no fallocate(2)")
    assert [(op.kind, op.offset, op.result) for op in ops] == [
        ("allocate", 0, 0),
        ("allocate", BLOCK, 0),
        ("sync", 0, 0),
        ("close", 0, 0),
    ]


def test_the_first_error_ends_it_and_what_was_done_is_synced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(4 * BLOCK))
    # A regular file knows no discard.
    ops = asked(path, "discard", 4 * BLOCK, BLOCK)
    assert [(op.kind, op.result) for op in ops] == [
        ("discard", -errno.ENOTTY),
        ("sync", 0),
        ("close", 0),
    ]


def test_a_device_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    [op] = asked(tmp_path / "missing", "discard", BLOCK, BLOCK)
    assert (op.kind, op.result) == ("open", -errno.ENOENT)


def test_a_hole_reads_as_zeros() -> None:
    fd = os.memfd_create("hole")
    os.pwrite(fd, b"x" * 2 * BLOCK, 0)
    kernel.range_op(fd, "punch_hole", 0, BLOCK)
    assert os.pread(fd, 2 * BLOCK, 0) == bytes(BLOCK) + b"x" * BLOCK
    os.close(fd)


def test_ranges_asks_from_a_child(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(BLOCK))
    order = Order(path=str(path), op="discard", offset=0, length=BLOCK, request=BLOCK)
    if os.geteuid() != 0:
        pytest.skip("locking memory takes root")
    submitter, problem = ranges.ask(order, Clock.start(), limit=30.0)
    assert not problem
    assert submitter["ended"]["exit_code"] == 0
    assert [op[0] for op in submitter["ops"]] == ["discard", "sync", "close"]


def test_a_user_has_no_privileges_left() -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming somebody else takes root")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            files.become(1000)
            text = Path("/proc/self/status").read_text()
            ids = {os.getuid(), os.geteuid(), os.getgid(), os.getegid()}
            code = 0 if ids == {1000} and "CapEff:\t0000000000000000" in text else 2
        except (OSError, ValueError):  # a container's root may not raise a limit
            code = 77
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 77:
        pytest.skip("root may not raise RLIMIT_MEMLOCK here")
    assert code == 0
