"""A script of calls, made for real on a file of the machine that the tests run on."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from agent import kernel
from agent.basics import BLOCK, Clock
from agent.workloads import calls
from agent.workloads.pattern import Pattern

from conformance.model import Calls, FileOp, Submitter

PATTERN = Pattern(b"scripted")
LENGTH = 4 * BLOCK
OFFSET = 2 * BLOCK


def made(path: Path, script: str, *, beside: str = "") -> list[tuple[str, str, int]]:
    """The calls as they were answered: kind, descriptor, result."""
    seen = _seen(path, script, beside)
    assert seen["problem"] == ""
    submitter = Submitter.model_validate(seen["submitter"])
    assert submitter.ended.exit_code == 0
    ops = [FileOp(*op) for op in seen["file_ops"]]
    assert all(op.end_us >= op.start_us for op in ops)
    return [(op.kind, op.path, op.result) for op in ops]


def _seen(path: Path, script: str, beside: str) -> dict[str, Any]:
    step = Calls.model_validate(
        {
            "as": "some",
            "role": "control",
            "verb": "calls",
            "length": LENGTH,
            "offset": OFFSET,
            "generation": 7,
            "script": script,
        }
    )
    told = step.model_dump(mode="json", by_alias=True)
    order = calls.Order(
        path=str(path),
        offset=told["offset"],
        length=told["length"],
        generation=told["generation"],
        script=tuple(told["script"]),
        beside=beside,
    )
    return calls.make(order, PATTERN, Clock.start(), limit=20)


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(OFFSET + LENGTH))
    return path


def blocks(path: Path) -> list[int | None]:
    """The generation of each block that is in its place, None for zeros."""
    data = path.read_bytes()
    found: list[int | None] = []
    for number in range(len(data) // BLOCK):
        known = PATTERN.recognise(data[number * BLOCK : (number + 1) * BLOCK])
        assert known is None or known[0] == number
        found.append(None if known is None else known[1])
    return found


def test_every_call_of_the_language_is_known_to_the_guest() -> None:
    do = Calls.model_fields["script"].annotation
    assert do is not None
    from conformance.model.calls import Do

    assert set(Do.__args__) <= set(calls.KINDS)  # type: ignore[attr-defined]


def test_a_script_is_made_call_by_call(file: Path) -> None:
    script = "open a; write a; fsync a; fdatasync a; msync a; sync_file_range a; close a; fsync a"
    assert made(file, script) == [
        ("open", "a", 0),
        ("write", "a", LENGTH),
        ("fsync", "a", 0),
        ("fdatasync", "a", 0),
        ("msync", "a", 0),
        ("sync_file_range", "a", 0),
        ("close", "a", 0),
        ("fsync", "a", -errno.EBADF),
    ]
    assert blocks(file) == [None, None, 7, 7, 7, 7]


@pytest.mark.parametrize("do", ["write a", "store a", "write a dsync"])
def test_a_part_of_the_region_is_written_where_it_belongs(file: Path, do: str) -> None:
    word, name, *how = do.split()
    made(file, f"open a; {word} {name} 4K 8K {' '.join(how)}; close a")
    assert blocks(file) == [None, None, None, 7, 7, None]


def test_a_duplicate_lives_on_when_the_first_is_closed(file: Path) -> None:
    found = made(file, "open a; dup a b; close a; write b; fsync b")
    assert [result for _, _, result in found] == [0, 0, 0, LENGTH, 0]
    assert blocks(file)[2:] == [7, 7, 7, 7]


def test_a_forked_descriptor_is_another_process_s(file: Path) -> None:
    found = made(file, "open a; fork a b; close a; write b; fsync b; close b; fsync b")
    assert [result for _, _, result in found] == [0, 0, 0, LENGTH, 0, 0, -errno.EBADF]
    # What the other process closes stays open here.
    found = made(file, "open a; fork a b; close b; fsync a; dup a c; fsync c")
    assert [result for _, _, result in found] == [0] * 6
    assert blocks(file)[2:] == [7, 7, 7, 7]


def test_no_other_process_is_left(file: Path) -> None:
    made(file, "open a; fork a b; fork a c; fsync b; fsync c")
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_ring_syncs(file: Path) -> None:
    missing = kernel.io_uring_works()
    if missing:
        pytest.skip(missing)
    found = made(file, "open a; write a; uring_fsync a; uring_fdatasync a; fork a b; uring_fsync b")
    assert [result for _, _, result in found] == [0, LENGTH, 0, 0, 0, 0]


def test_an_error_is_told_as_it_is(tmp_path: Path) -> None:
    found = made(tmp_path / "missing", "open a; write a; fsync a")
    assert [result for _, _, result in found] == [-errno.ENOENT, -errno.EBADF, -errno.EBADF]
    found = made(Path("/dev/full"), "open a; write a; write a; close a")
    assert [result for _, _, result in found] == [0, -errno.ENOSPC, -errno.ENOSPC, 0]


def test_what_is_made_beside_tells_whether_the_filesystem_serves(
    file: Path, tmp_path: Path
) -> None:
    assert made(file, "open a; write a", beside=str(tmp_path / "beside"))[-1] == ("create", "", 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
    nowhere = str(tmp_path / "missing" / "beside")
    assert made(file, "open a; write a", beside=nowhere)[-1] == ("create", "", -errno.ENOENT)
