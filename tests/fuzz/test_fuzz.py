"""Whatever is read from others: no error but the declared ones, bounded memory, linear time.

What a guest sends, a record, a case file, a file of known deviations. ``CONFORM_FUZZ`` is how many examples
each is tried with; docs/security.md says what for. Examples are whole inputs with a few edits, which get
further than noise does, and noise.
"""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conformance import wire
from conformance.known import KnownError, parse_known
from conformance.library import LibraryErrors, load_library
from conformance.model import Status, Verdict
from conformance.record import (
    Cases,
    Header,
    RecordError,
    RecordWriter,
    read_interrupted,
    read_record,
)
from tests.meta.conftest import KNOWN
from tests.support.case_tree import NAMES, TREE, plant

pytestmark = pytest.mark.fuzz

EXAMPLES = int(os.environ.get("CONFORM_FUZZ", "400"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MIB = 1 << 20
MEMORY = 8 * MIB
"""Bytes that reading an input of a few KiB may take at most."""
PER_BYTE = 600
"""Bytes that reading takes for each byte of an input: an object, a number or a node."""

# What parsers stumble over, beside noise.
SPICE = st.sampled_from(
    [b"{", b"}", b"[", b"]", b'"', b"\\", b"\\ud800", b"\n", b"\r", b"\t", b"\0", b"\x1b", b"\xff",
     b"null", b"true", b"-1", b"1e999", b"NaN", b"9" * 5000, b": ", b"- ", b"&a ", b"*a", b"<<: ",
     b"!!python/object:os.system ", b"? ", b"|\n", b"%YAML 9.9\n", b"---\n", b"2026-13-45", b"1:1:1",
     b"${x}", b"${device_size}", b"[" * 200, b"{a: " * 200, b"''", b"\xc2\x85", b"\xe2\x80\xa8",
     b"\xef\xbb\xbf", b"0x" + b"f" * 5000, b"../../etc/passwd", b"0o7", b".inf", b"~"]
)  # fmt: skip
edits = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.integers(0, 40), SPICE | st.binary(max_size=8)),
    max_size=6,
)


def edited(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """``data`` with a few stretches of it replaced."""
    for at, length, new in changes:
        begin = at % (len(data) + 1)
        data = data[:begin] + new + data[begin + length :]
    return data


def inputs(*whole: bytes) -> st.SearchStrategy[bytes]:
    """Edited inputs that were whole, and noise."""
    return st.builds(edited, st.sampled_from(whole), edits) | st.binary(max_size=200)


def bounded(read: Callable[[], object], size: int) -> None:
    """Fails if reading an input of ``size`` bytes takes more memory than it may."""
    tracemalloc.start()
    try:
        read()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY + PER_BYTE * size


def refusal(read: Callable[[], object], kind: type[Exception], *, lines: bool = False) -> str:
    """How ``read`` refuses its input: nothing if it takes it. Any other error goes on."""
    try:
        read()
    except kind as error:
        text = str(error)
    else:
        return ""
    assert text
    assert lines or "\n" not in text
    return text


# -- the wire -----------------------------------------------------------------------------------

ANSWER = {"v": 1, "nonce": "ab", "id": 3, "ok": True, "value": {"a": [1, 2.5, None, "x"]}}
FAILED = {"v": 1, "nonce": "ab", "id": 3, "ok": False,
          "error": {"kind": "X", "message": "y", "detail": "z"}}  # fmt: skip
WARM = {"v": 1, "warm": True, "verbs": ["build"]}
LINES = [json.dumps(one).encode() + b"\n" for one in (ANSWER, FAILED, WARM)]


def hear(data: bytes) -> None:
    """As the host hears it: decoded, and compared with what is due."""
    decoder, conversation = wire.Decoder(), wire.Conversation("ab")
    conversation.ask("step", {})

    def take() -> None:
        for message in decoder.feed(data):
            conversation.take(message)

    assert len(refusal(take, wire.WireError)) < 1000


@FUZZ
@given(data=inputs(*LINES, b"".join(LINES)))
def test_the_wire(data: bytes) -> None:
    bounded(lambda: hear(data), len(data))


# -- a record -----------------------------------------------------------------------------------


def a_record(folder: Path) -> bytes:
    path = folder / "whole.jsonl"
    if not path.exists():
        header = Header(started="2026", command=("conform", "run"), cases=Cases(sha256="0" * 64))
        with RecordWriter(path, header, planned=2) as writer:
            for name in ("one", "two"):
                verdict = Verdict(case=name, kernel="k", release="6.1", status=Status.PASS)
                writer.add(plan=None, observation=None, verdict=verdict)
    return path.read_bytes()


def read(path: Path) -> None:
    for one in (
        lambda: read_record(path),
        lambda: read_record(path, salvage=True),
        lambda: read_interrupted(path),
    ):
        refusal(one, RecordError)


@FUZZ
@given(changes=edits, noise=st.binary(max_size=200), how=st.integers(0, 3))
def test_a_record(
    tmp_path: Path, changes: list[tuple[int, int, bytes]], noise: bytes, how: int
) -> None:
    data = noise if how == 0 else edited(a_record(tmp_path), changes)
    path = tmp_path / "record.jsonl"
    path.write_bytes(data)
    bounded(lambda: read(path), len(data))


# -- a library ----------------------------------------------------------------------------------


def load(root: Path) -> None:
    refusal(lambda: load_library([root / "cases"], root / "fixtures"), LibraryErrors, lines=True)


@settings(FUZZ, max_examples=max(EXAMPLES // 4, 1))
@given(which=st.sampled_from(sorted(NAMES)), changes=edits, noise=st.binary(max_size=60))
def test_a_case(
    tmp_path: Path, which: str, changes: list[tuple[int, int, bytes]], noise: bytes
) -> None:
    plant(tmp_path)
    text = TREE[NAMES[which]].encode()
    data = edited(text, changes) if changes else noise
    (tmp_path / NAMES[which]).write_bytes(data)
    load(tmp_path)


# -- known deviations ---------------------------------------------------------------------------

ROWS = KNOWN.format(case="loop_full").encode()


def parse(text: str) -> None:
    told = refusal(lambda: parse_known(text, "rows.yaml"), KnownError)
    assert not told or told.startswith("rows.yaml:")


@FUZZ
@given(data=inputs(ROWS, ROWS * 2))
def test_known_deviations(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    bounded(lambda: parse(text), len(data))


# -- time ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Growing:
    """An input of any size, and what reads it."""

    make: Callable[[int], bytes]
    read: Callable[[bytes, Path], object]
    small: int


def _read_record(data: bytes, folder: Path) -> None:
    (folder / "record.jsonl").write_bytes(data)
    read(folder / "record.jsonl")


def _load(data: bytes, folder: Path) -> None:
    plant(folder)
    (folder / NAMES["case"]).write_bytes(data)
    load(folder)


def _known(data: bytes, _folder: Path) -> None:
    parse(data.decode())


def _verdicts(count: int) -> bytes:
    header = {"kind": "header", "format": 1, "started": "", "command": [],
              "cases": {"sha256": ""}}  # fmt: skip
    told = [{"kind": "verdict", "case": "one", "variant": {"n": str(number)}, "kernel": "k",
             "release": "6.1", "status": "PASS"} for number in range(count)]  # fmt: skip
    return b"".join(json.dumps(one).encode() + b"\n" for one in (header, *told))


GROWING = {
    "many answers": Growing(
        make=lambda n: LINES[0] * n, read=lambda data, _: wire.Decoder().feed(data), small=1000
    ),
    "a line in pieces": Growing(
        make=lambda n: b"x" * n,
        read=lambda data, _: [d.feed(data[at : at + 16]) for d in [wire.Decoder()]
                              for at in range(0, len(data), 16)],
        small=100_000,
    ),
    "strings that may begin anywhere": Growing(
        make=lambda n: b"[" * 65 + b'\\"' * n + b"\n", read=lambda data, _: hear(data), small=50_000
    ),
    "a record": Growing(make=_verdicts, read=_read_record, small=200),
    "a case of many keys": Growing(
        make=lambda n: b"".join(b"k%d: 1\n" % i for i in range(n)), read=_load, small=500
    ),
    "a case of many wrong steps": Growing(
        make=lambda n: TREE[NAMES["case"]].encode().replace(
            b"  - impose: {as: impose}\n", b"".join(b"  - imp: {as: i%d}\n" % i for i in range(n))
        ),
        read=_load,
        small=100,
    ),
    "known deviations": Growing(make=lambda n: ROWS * n, read=_known, small=20),
    "rows that are none": Growing(make=lambda n: b"- " * n, read=_known, small=50),
}  # fmt: skip
MORE = 6
"""So many times larger is the second input. Linear is 6, quadratic 36."""
MOST = 18


def spent(one: Growing, size: int, folder: Path) -> float:
    """Processor time, the least of three."""
    data = one.make(size)
    times = []
    for _ in range(3):
        began = time.process_time()
        one.read(data, folder)
        times.append(time.process_time() - began)
    return min(times)


@pytest.mark.parametrize("name", GROWING)
def test_time_grows_as_the_input_does(name: str, tmp_path: Path) -> None:
    one = GROWING[name]
    floor = 0.002  # seconds: what is not spent on the input
    small, large = (spent(one, one.small * times, tmp_path) for times in (1, MORE))
    assert large < MOST * max(small, floor), (small, large)


def test_a_quadratic_reader_would_be_seen(tmp_path: Path) -> None:
    def quadratic(data: bytes, _: Path) -> None:
        held = b""
        for at in range(0, len(data), 16):
            held = bytes(bytearray(held)) + data[at : at + 16]

    one = Growing(make=lambda n: b"x" * n, read=quadratic, small=60_000)
    assert spent(one, one.small * MORE, tmp_path) > MOST * spent(one, one.small, tmp_path)
