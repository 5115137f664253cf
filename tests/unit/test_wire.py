"""The messages between host and guest: what is agreed gets through, nothing else does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance import wire
from conformance.wire import Answer, Conversation, Decoder, Failure, Message, Request, Warm

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**80), max_value=2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text(), json_values, max_size=4)
numbers = st.integers(min_value=0, max_value=2**40)
requests = st.builds(Request, nonce=st.text(), id=numbers, do=st.text(), args=objects)
answers = st.builds(Answer, nonce=st.text(), id=numbers, value=json_values)
failures = st.builds(
    Answer,
    nonce=st.text(),
    id=numbers,
    error=st.builds(Failure, kind=st.text(), message=st.text(), detail=st.text()),
)
warms = st.builds(
    Warm, facts=st.dictionaries(st.text().filter(lambda key: key not in ("v", "warm")), json_values)
)
messages: st.SearchStrategy[Message] = st.one_of(requests, answers, failures, warms)


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """``data`` in pieces that end at the cuts."""
    at = 0
    for cut in sorted(cut % (len(data) + 1) for cut in cuts):
        yield data[at:cut]
        at = max(at, cut)
    yield data[at:]


def fed(data: bytes, cuts: list[int], **bounds: int) -> tuple[list[Message], str]:
    """What comes out of a decoder, and the error that ends it."""
    decoder = Decoder(**bounds)
    out: list[Message] = []
    for piece in pieces(data, cuts):
        try:
            out += decoder.feed(piece)
        except wire.WireError as error:
            return out, f"{type(error).__name__}: {error}"
    return out, ""


@given(st.lists(messages, max_size=5), st.lists(st.integers(min_value=0), max_size=8))
def test_what_is_encoded_is_decoded_however_it_is_cut(said: list[Message], cuts: list[int]) -> None:
    data = b"".join(wire.encode(message) for message in said)
    assert data.isascii()
    assert fed(data, cuts) == (said, "")


@given(st.binary(max_size=400), st.lists(st.integers(min_value=0), max_size=8))
def test_garbage_raises_wire_errors_of_one_line_and_nothing_else(
    data: bytes, cuts: list[int]
) -> None:
    _, error = fed(data, cuts)
    assert "\n" not in error
    assert error.isprintable()
    assert len(error) < 300


@given(
    st.lists(st.sampled_from([*b'{}[]",:\\ntf1.-e\n', 0x80]), max_size=60).map(bytes),
    st.lists(st.integers(min_value=0), max_size=8),
)
def test_how_garbage_is_cut_does_not_change_what_it_is(data: bytes, cuts: list[int]) -> None:
    whole, error = fed(data, [])
    out, same = fed(data, cuts)
    assert same == error
    assert out[: len(whole)] == whole


@given(objects.filter(lambda value: "warm" not in value))
def test_an_object_that_is_no_message_is_refused(value: dict[str, Any]) -> None:
    line = json.dumps({**value, "v": 1}).encode() + b"\n"
    with pytest.raises(wire.WrongType):
        Decoder().feed(line)


GOOD: dict[str, Any] = {"v": 1, "nonce": "n", "id": 3, "ok": True, "value": None}
BAD: dict[str, Any] = {
    "v": 1,
    "nonce": "n",
    "id": 3,
    "ok": False,
    "error": {"kind": "K", "message": "m", "detail": "d"},
}
ASKED: dict[str, Any] = {"v": 1, "nonce": "n", "id": 3, "do": "ping", "args": {}}


def without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}


@pytest.mark.parametrize("fields", [GOOD, BAD, ASKED])
def test_the_format_is_the_one_that_is_documented(fields: dict[str, Any]) -> None:
    (message,) = Decoder().feed(json.dumps(fields).encode() + b"\n")
    assert json.loads(wire.encode(message)) == fields


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        (GOOD | {"v": 2}, wire.WrongVersion),
        (GOOD | {"v": True}, wire.WrongVersion),
        (without(GOOD, "v"), wire.WrongVersion),
        (GOOD | {"nonce": 1}, wire.WrongType),
        (GOOD | {"id": "3"}, wire.WrongType),
        (GOOD | {"id": True}, wire.WrongType),
        (GOOD | {"id": 3.0}, wire.WrongType),
        (GOOD | {"ok": 1}, wire.WrongType),
        (GOOD | {"more": 1}, wire.WrongType),
        (without(GOOD, "value"), wire.WrongType),
        (BAD | {"error": "K"}, wire.WrongType),
        (BAD | {"error": without(BAD["error"], "detail")}, wire.WrongType),
        (BAD | {"error": BAD["error"] | {"kind": None}}, wire.WrongType),
        (BAD | {"error": BAD["error"] | {"more": 1}}, wire.WrongType),
        (BAD | {"value": 1}, wire.WrongType),
        (ASKED | {"args": []}, wire.WrongType),
        (ASKED | {"do": None}, wire.WrongType),
        ({"v": 1, "warm": False}, wire.WrongType),
    ],
)
def test_a_wrong_field_is_refused(fields: dict[str, Any], error: type[wire.WireError]) -> None:
    with pytest.raises(error):
        Decoder().feed(json.dumps(fields).encode() + b"\n")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"[    3.000000] Kernel panic",
        b'{"v":1,',
        b'{"v":NaN}',
        b'{"v":1,"warm":true,"x":Infinity}',
        b'{"v":1,"warm":true,"x":1e999}',
        '{"v":1,"warm":true,"x":"\u00e9"}'.encode(),
        b'{"v":' + b"9" * 6000 + b"}",
        b"\xff\xfe\x00",
    ],
)
def test_a_line_that_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(wire.NotAMessage):
        Decoder().feed(line + b"\n")


def nested(levels: int) -> bytes:
    return b'{"v":1,"warm":true,"x":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}\n"


def test_a_message_may_be_as_deep_as_allowed_and_no_deeper() -> None:
    assert Decoder(max_depth=9).feed(nested(9))
    with pytest.raises(wire.TooDeep):
        Decoder(max_depth=9).feed(nested(10))


def test_depth_is_not_counted_in_strings_nor_side_by_side() -> None:
    facts = {"x": '[[[["[[[[\\', "y": [[], [], [], [], [], []], "[{[{[{": 1}
    assert Decoder(max_depth=4).feed(wire.encode(Warm(facts=facts))) == [Warm(facts=facts)]


def test_what_could_not_be_read_back_is_not_sent() -> None:
    value: list[Any] = []
    for _ in range(wire.MAX_DEPTH):
        value = [value]
    with pytest.raises(wire.TooDeep):
        wire.encode(Answer(nonce="n", id=1, value=value))
    with pytest.raises(ValueError, match="compliant"):
        wire.encode(Answer(nonce="n", id=1, value=float("nan")))
    with pytest.raises(wire.TooLong):
        wire.encode(Answer(nonce="n", id=1, value="x" * wire.MAX_LINE))


def test_a_line_may_be_as_long_as_allowed_and_no_longer() -> None:
    line = wire.encode(Warm(facts={"x": "y" * 100}))
    assert fed(line, [7, 70], max_line=len(line))[1] == ""
    assert fed(line, [7, 70], max_line=len(line) - 1)[1].startswith("TooLong")


def test_a_line_without_end_is_refused_before_it_ends() -> None:
    decoder = Decoder(max_line=1000)
    for _ in range(9):
        decoder.feed(b"x" * 100)
    assert decoder.partial == 900
    with pytest.raises(wire.TooLong):
        decoder.feed(b"x" * 100)
    assert decoder.partial <= 1000


def test_the_bytes_of_a_call_are_bounded_and_counted_anew() -> None:
    line = wire.encode(Warm(facts={}))
    decoder = Decoder(max_call=3 * len(line))
    for _ in range(3):
        decoder.feed(line)
    decoder.begin_call()
    decoder.feed(line * 3)
    with pytest.raises(wire.TooLong):
        decoder.feed(line)


def test_after_an_error_nothing_is_believed() -> None:
    decoder = Decoder()
    with pytest.raises(wire.NotAMessage) as first:
        decoder.feed(b"garbage\n")
    with pytest.raises(wire.NotAMessage) as second:
        decoder.feed(wire.encode(Warm(facts={})))
    assert str(first.value) == str(second.value)


def seconds(data: bytes, step: int) -> float:
    began = time.process_time()
    decoder = Decoder()
    try:
        for at in range(0, len(data), step):
            decoder.feed(data[at : at + step])
    except wire.WireError:
        pass
    return time.process_time() - began


@pytest.mark.parametrize(
    ("unit", "step"),
    [
        (b"x", 64),  # a line in very many pieces
        (b"[", 1 << 16),  # as deep as it is long
        (b'\\"', 1 << 16),  # strings that might begin anywhere
        (b'"[', 1 << 16),
        (b"\\", 1 << 16),
    ],
)
def test_time_is_linear(unit: bytes, step: int) -> None:
    # Were it quadratic, this would take minutes.
    line = b"[" * 100 + b'"' + unit * ((2 << 20) // len(unit)) + b"\n"
    assert seconds(line, step) < 10


def test_a_conversation_takes_the_answer_that_is_due_once() -> None:
    talk = Conversation("n")
    (request,) = Decoder().feed(talk.ask("ping", {"x": 1}))
    assert request == Request(nonce="n", id=1, do="ping", args={"x": 1})
    answer = Answer(nonce="n", id=1, value=5)
    with pytest.raises(wire.WrongNonce):
        talk.take(replace(answer, nonce="m"))
    with pytest.raises(wire.WrongId):
        talk.take(replace(answer, id=2))
    with pytest.raises(wire.WrongType):
        talk.take(Warm(facts={}))
    assert talk.take(answer) == answer
    with pytest.raises(wire.WrongId, match="while none is due"):
        talk.take(answer)
    (second,) = Decoder().feed(talk.ask("ping", {}))
    assert isinstance(second, Request)
    assert second.id == 2


@given(st.text(min_size=1), st.integers())
def test_whatever_a_nonce_or_a_number_is_the_error_is_one_line(nonce: str, number: int) -> None:
    talk = Conversation("n")
    talk.ask("ping", {})
    if nonce != "n":
        with pytest.raises(wire.WrongNonce) as wrong:
            talk.take(Answer(nonce=nonce, id=1))
        assert str(wrong.value).isprintable()
    if number != 1:
        with pytest.raises(wire.WrongId) as other:
            talk.take(Answer(nonce="n", id=number))
        assert len(str(other.value)) < 200
