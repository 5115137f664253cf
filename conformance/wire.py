"""The messages between the host and the program in the guest: one JSON object a line, in ASCII.

This file is used on both sides: the guest gets a copy as ``agent/wire.py``. So it needs nothing but
Python 3.11's standard library, and imports nothing of the project.

    request  {"v":1, "nonce":str, "id":int, "do":str, "args":{...}}
    answer   {"v":1, "nonce":str, "id":int, "ok":true, "value":...}
             {"v":1, "nonce":str, "id":int, "ok":false, "error":{"kind":str, "message":str,
             "detail":str}}
    warm     {"v":1, "warm":true, ...}     unasked, once, before anything else: ready to be asked

The peer is a kernel under test that may do anything, so everything that arrives is bounded: the
bytes of a line, the depth of its value, the bytes that come while one call is under way. What is out
of bounds, or is none of the messages above, is a ``WireError``, whose text is one line; after one the
stream is not trusted again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

VERSION = 1
PORT = "conform.agent.0"
"""The name of the virtio-serial port that carries the messages."""

MAX_LINE = 16 << 20
"""Bytes in one line at most, its newline included."""
MAX_CALL = 64 << 20
"""Bytes that may arrive during one call."""
MAX_DEPTH = 64
"""Arrays and objects inside one another at most, the message itself included."""

_SHOWN = 60  # characters of an offending line that an error shows


class WireError(Exception):
    """What arrived is not what was agreed. One line."""


class NotAMessage(WireError):
    """A line is not an ASCII JSON object."""


class TooLong(WireError):
    """A line, or all that arrived during a call, is longer than allowed."""


class TooDeep(WireError):
    """A value has too many levels."""


class WrongVersion(WireError):
    """The peer speaks another version."""


class WrongType(WireError):
    """A field is missing, unknown or of the wrong type."""


class WrongNonce(WireError):
    """The message belongs to another conversation."""


class WrongId(WireError):
    """An answer to nothing that is being asked."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The host asks for something to be done."""

    nonce: str
    id: int
    do: str
    args: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why something was not done: an exception's class, its text, the end of its traceback."""

    kind: str
    message: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a request: its value, or the error if there is one."""

    nonce: str
    id: int
    value: Any = None
    error: Failure | None = None


@dataclass(frozen=True, kw_only=True)
class Warm:
    """The guest is ready. ``facts`` are what it told about itself; ``problem`` if it is not well."""

    facts: dict[str, Any]


Message = Request | Answer | Warm


def encode(message: Message) -> bytes:
    """The line of a message.

    Raises WireError if it could not be read back, TypeError or ValueError if it is not JSON.
    """
    fields = {"v": VERSION, **_fields(message)}
    text = json.dumps(fields, separators=(",", ":"), allow_nan=False)
    line = text.encode("ascii") + b"\n"
    if len(line) > MAX_LINE:
        raise TooLong(f"a message of {len(line)} bytes was to be sent, {MAX_LINE} are allowed")
    _check_depth(line, MAX_DEPTH)
    return line


def _fields(message: Message) -> dict[str, Any]:
    if isinstance(message, Warm):
        return {"warm": True, **message.facts}
    address = {"nonce": message.nonce, "id": message.id}
    if isinstance(message, Request):
        return {**address, "do": message.do, "args": message.args}
    if message.error is None:
        return {**address, "ok": True, "value": message.value}
    error = message.error
    told = {"kind": error.kind, "message": error.message, "detail": error.detail}
    return {**address, "ok": False, "error": told}


class Decoder:
    """Turns the bytes of a stream into messages, in time linear in the bytes.

    At most a line and one read's bytes are held. After the first error every ``feed`` raises it
    again: nothing after it can be trusted.
    """

    def __init__(
        self, *, max_line: int = MAX_LINE, max_depth: int = MAX_DEPTH, max_call: int = MAX_CALL
    ) -> None:
        self._max_line = max_line
        self._max_depth = max_depth
        self._max_call = max_call
        self._parts: list[bytes] = []
        self._held = 0
        self._seen = 0
        self._fed = 0
        self._error: WireError | None = None

    def begin_call(self) -> None:
        """Start counting the bytes of a call anew."""
        self._seen = self._held

    @property
    def partial(self) -> int:
        """Bytes of an unfinished line."""
        return self._held

    @property
    def fed(self) -> int:
        """Bytes so far, of all calls."""
        return self._fed

    def feed(self, data: bytes) -> list[Message]:
        """The messages that ``data`` completes, in order. Raises WireError."""
        self._fed += len(data)
        if self._error is not None:
            raise self._error
        try:
            return self._feed(data)
        except WireError as error:
            self._error = error
            self._parts.clear()
            raise

    def _feed(self, data: bytes) -> list[Message]:
        self._seen += len(data)
        if self._seen > self._max_call:
            raise TooLong(f"more than {self._max_call} bytes arrived during one call")
        messages = []
        lines = data.split(b"\n")
        for piece in lines[:-1]:
            self._hold(piece)
            line = b"".join(self._parts)
            self._parts.clear()
            self._held = 0
            messages.append(decode(line, max_depth=self._max_depth))
        self._hold(lines[-1])
        return messages

    def _hold(self, piece: bytes) -> None:
        self._held += len(piece)
        if self._held >= self._max_line:  # with its newline it would be longer
            raise TooLong(f"a line is longer than {self._max_line} bytes")
        if piece:
            self._parts.append(piece)


def decode(line: bytes, *, max_depth: int = MAX_DEPTH) -> Message:
    """The message in one line, without its newline. Raises WireError."""
    _check_depth(line, max_depth)
    try:
        fields = json.loads(line.decode("ascii"), parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError, JSONDecodeError too
        raise NotAMessage(f"not a message: {_show(line)}") from error
    if not isinstance(fields, dict):
        raise NotAMessage(f"not a message: {_show(line)}")
    version = fields.pop("v", None)
    if type(version) is not int or version != VERSION:
        raise WrongVersion(f"a message of version {_short(version)}, not {VERSION}")
    if "warm" in fields:
        if fields.pop("warm") is not True:
            raise WrongType("the field warm is not true")
        return Warm(facts=fields)
    if "do" in fields:
        args = _take(fields, "args", dict)
        request = Request(do=_take(fields, "do", str), args=args, **_address(fields))
        _nothing_else(fields)
        return request
    if _take(fields, "ok", bool):
        if "value" not in fields:
            raise WrongType("an answer has no field value")
        answer = Answer(value=fields.pop("value"), **_address(fields))
    else:
        told = _take(fields, "error", dict)
        failure = Failure(
            kind=_take(told, "kind", str),
            message=_take(told, "message", str),
            detail=_take(told, "detail", str),
        )
        _nothing_else(told)
        answer = Answer(error=failure, **_address(fields))
    _nothing_else(fields)
    return answer


class Conversation:
    """The host's side of asking: numbers the requests and knows which answer is due."""

    def __init__(self, nonce: str) -> None:
        self.nonce = nonce
        self._last = 0
        self._sent = 0
        self._due: int | None = None

    def work(self, decoder: Decoder) -> dict[str, int]:
        """What went over the wire so far, with ``decoder`` for the way back; named as in ``Guest.work``."""
        return {"messages": self._last, "sent": self._sent, "received": decoder.fed}

    def ask(self, do: str, args: Mapping[str, Any]) -> bytes:
        """The line to send. One request at a time. Raises as ``encode`` does."""
        number = self._last + 1
        line = encode(Request(nonce=self.nonce, id=number, do=do, args=dict(args)))
        self._last = self._due = number
        self._sent += len(line)
        return line

    def take(self, message: Message) -> Answer:
        """The answer that is due. Raises WireError if ``message`` is anything else."""
        if not isinstance(message, Answer):
            raise WrongType(f"a {type(message).__name__.lower()} message where an answer was due")
        if message.nonce != self.nonce:
            raise WrongNonce(f"an answer with another nonce: {_short(message.nonce)}")
        if self._due is None or message.id != self._due:
            due = "none is" if self._due is None else f"{self._due} is"
            raise WrongId(f"an answer to request {_short(message.id)}, while {due} due")
        self._due = None
        return message


def _address(fields: dict[str, Any]) -> dict[str, Any]:
    return {"nonce": _take(fields, "nonce", str), "id": _take(fields, "id", int)}


def _take(fields: dict[str, Any], name: str, kind: type) -> Any:
    # type(), not isinstance(): true is not a number.
    if type(value := fields.pop(name, None)) is not kind:
        raise WrongType(f"the field {name} is {_short(value)}, not of type {kind.__name__}")
    return value


def _nothing_else(fields: dict[str, Any]) -> None:
    if fields:
        raise WrongType(f"an unknown field: {_short(min(fields))}")


# Strings are skipped whole; the closing quote is optional so that a missing one costs one pass.
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def _check_depth(line: bytes, most: int) -> None:
    if line.count(b"[") + line.count(b"{") <= most:
        return
    depth = 0
    for match in _BRACKETS.finditer(line):
        first = line[match.start()]
        if first in b"[{":
            depth += 1
            if depth > most:
                raise TooDeep(f"a message has more than {most} levels")
        elif first in b"]}":
            depth -= 1


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is out of range")
    return number


def _show(line: bytes) -> str:
    more = "..." if len(line) > _SHOWN else ""
    return f"{line[:_SHOWN].decode('ascii', 'backslashreplace')!r}{more}"


def _short(value: object) -> str:
    if isinstance(value, str):
        value = value[:_SHOWN]
    elif isinstance(value, dict | list):
        return f"of type {type(value).__name__}"
    elif isinstance(value, int) and value.bit_length() > 4 * _SHOWN:
        return "a very large number"
    return repr(value)[: _SHOWN + 2]
