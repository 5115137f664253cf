"""fio: the words it gets, what its log and error lines mean, and the blocks that it writes."""

from __future__ import annotations

import errno

import pytest
from agent.basics import BLOCK, RigError
from agent.workloads import fio
from agent.workloads.fio import Failure, Logged, Order
from hypothesis import given
from hypothesis import strategies as st

from conformance.model import Op

RUN = b"fio--run"
ORDER = Order(
    path="/dev/loop0",
    submit="fio_libaio",
    offset=1 << 20,
    length=1 << 20,
    request=65536,
    depth=1,
    generation=2,
    sync_every=131072,
)
ERROR = (
    "fio: io_u error on file /dev/loop0: No space left on device: "
    "write offset=7077888, buflen=65536"
)


def as_fio_writes_it(order: Order, number: int) -> bytes:
    """A block by fio's own rule: the pattern, with the request's offset, over the whole request."""
    start = number * BLOCK - (number * BLOCK - order.offset) % order.request
    one = start.to_bytes(8, "little") + fio.constant(RUN, order.generation)
    whole = (one * (order.request // len(one) + 1))[: order.request]
    at = number * BLOCK - start
    return whole[at : at + BLOCK]


@given(st.integers(256, 511))
def test_every_block_that_fio_wrote_is_recognised(number: int) -> None:
    knows = fio.recogniser([ORDER], RUN)
    data = as_fio_writes_it(ORDER, number)
    assert knows(data, number) == 2
    assert knows(data, number + 1) is None
    assert knows(data[:512], number) == 2


@given(st.integers(256, 511), st.integers(0, BLOCK - 1))
def test_one_wrong_byte_in_a_block_of_fio_makes_it_foreign(number: int, at: int) -> None:
    data = bytearray(as_fio_writes_it(ORDER, number))
    data[at] ^= 1
    assert fio.recogniser([ORDER], RUN)(bytes(data), number) is None


def test_blocks_outside_of_what_was_ordered_are_not_recognised() -> None:
    assert fio.recogniser([ORDER], RUN)(as_fio_writes_it(ORDER, 512), 512) is None


def test_the_pattern_that_fio_gets_has_a_prime_length_that_it_takes() -> None:
    words = fio.command(ORDER, RUN, "/run/fio")
    pattern = next(word for word in words if word.startswith("--verify_pattern="))
    given_bytes = len(pattern.removeprefix("--verify_pattern=%o0x")) // 2 + 8
    assert given_bytes == 509  # fio takes 512 at most
    assert all(given_bytes % divisor for divisor in range(2, 23))


def test_the_latency_log_is_one_line_a_request() -> None:
    text = "0, 88501, 1, 65536, 262144, 0\n3, 23805, 1, 65536, 0x50000, 0\n4, 1, 0, 512, 0, 0\n"
    assert fio.parse_log(text) == [
        Logged(end_ms=0, took_ns=88501, length=65536, offset=262144),
        Logged(end_ms=3, took_ns=23805, length=65536, offset=327680),
    ]


def test_the_call_that_failed_is_in_an_error_line() -> None:
    assert fio.parse_failures(ERROR, 28) == [
        Failure(call="write", errno=errno.ENOSPC, offset=7077888, length=65536)
    ]
    sync = ERROR.replace("write", "sync").replace("No space left on device", "Input/output error")
    (failure,) = fio.parse_failures(sync, 5)
    assert (failure.call, failure.errno) == ("sync", errno.EIO)
    assert fio.parse_failures("fio: something else", 1) == []


def logged(count: int) -> list[Logged]:
    return [
        Logged(end_ms=index, took_ns=1000, length=65536, offset=(1 << 20) + index * 65536)
        for index in range(count)
    ]


def test_syncs_are_where_fio_makes_them_when_one_request_is_in_flight() -> None:
    ops = [Op(*op) for op in fio.operations(ORDER, logged(5), [], 100, 9000)]  # type: ignore[arg-type]
    assert [op.kind for op in ops] == ["write", "write", "sync"] * 2 + ["write"]
    assert all(op.start_us <= op.end_us for op in ops)


def test_no_sync_is_told_of_that_may_not_have_been_made() -> None:
    # fio looks whether a sync is due only before its next request, and there was none.
    kinds = [op[0] for op in fio.operations(ORDER, logged(4), [], 0, 9000)]
    assert kinds == ["write", "write", "sync", "write", "write"]


def test_a_failed_request_is_the_last_one() -> None:
    failure = Failure(call="write", errno=28, offset=1234, length=65536)
    last = fio.operations(ORDER, logged(2), [failure], 0, 9000)[-1]
    assert last[:5] == ["write", 1234, 65536, 2, -28]


def test_of_several_failures_each_is_an_operation_whose_time_is_not_known() -> None:
    deep = Order(**{**ORDER.__dict__, "depth": 32, "go_on": True})
    failures = [Failure(call="write", errno=28, offset=n * 65536, length=65536) for n in (7, 9)]
    ops = [Op(*op) for op in fio.operations(deep, logged(2), failures, 100, 9000)]  # type: ignore[arg-type]
    assert [(op.kind, op.offset, op.result) for op in ops[2:]] == [
        ("write", 7 * 65536, -28),
        ("write", 9 * 65536, -28),
    ]
    assert {(op.start_us, op.end_us) for op in ops[2:]} == {(100, 9000)}


def test_fio_that_goes_on_accounts_for_every_byte() -> None:
    order = Order(**{**ORDER.__dict__, "length": 4 * 65536, "go_on": True})
    failures = [Failure(call="write", errno=28, offset=0, length=65536)]
    job = {"write": {"io_bytes": 3 * 65536}}
    assert fio.contradiction(order, logged(3), failures, job) == ""
    assert "196608 bytes done and 0 failed" in fio.contradiction(order, logged(3), [], job)
    stops = Order(**{**order.__dict__, "go_on": False})
    assert fio.contradiction(stops, logged(3), [], job) == ""


def test_fio_goes_on_only_after_errors_of_a_shortage() -> None:
    words = fio.command(Order(**{**ORDER.__dict__, "go_on": True}), RUN, "/run/fio")
    assert "--ignore_error=,28:122:5:12" in words
    assert not any(word.startswith("--fsync") for word in words)
    assert not any(word.startswith("--ignore") for word in fio.command(ORDER, RUN, "/run/fio"))


@pytest.mark.parametrize("submit", sorted(set(fio.ENGINES) - {"fio_libaio"}))
def test_fio_is_not_asked_to_sync_by_an_engine_that_does_not_tell_of_errors(submit: str) -> None:
    order = Order(**{**ORDER.__dict__, "submit": submit})
    assert order.syncs_after == 0
    words = fio.command(order, RUN, "/run/fio")
    assert not any(word.startswith("--fsync") for word in words)
    through_cache = submit in ("fio_io_uring_buffered", "fio_io_uring_dsync")
    assert f"--direct={int(not through_cache)}" in words


def test_random_requests_are_those_of_a_sequential_run() -> None:
    shuffled = Order(**{**ORDER.__dict__, "at_random": True})
    differing = set(fio.command(shuffled, RUN, "/run/fio")) ^ set(
        fio.command(ORDER, RUN, "/run/fio")
    )
    assert differing == {"--rw=randwrite", "--rw=write"}


def test_with_more_requests_in_flight_fio_makes_no_sync() -> None:
    deep = Order(**{**ORDER.__dict__, "depth": 4})
    assert deep.syncs_after == 0
    assert not any(word.startswith("--fsync") for word in fio.command(deep, RUN, "/run/fio"))


def test_fio_is_not_asked_for_what_it_cannot_do() -> None:
    step = {
        "submit": "fio_libaio",
        "offset": 0,
        "length": 1,
        "request": 1,
        "generation": 1,
        "kill": {"after": "first_error"},
    }
    with pytest.raises(RigError):
        fio.order_of(step, "/dev/loop0")
