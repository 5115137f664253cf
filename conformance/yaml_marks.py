"""YAML that knows where each value stands, and says so when a value is wrong.

A narrow YAML: the types are those of YAML 1.2's core schema, so that ``on``, ``off``, ``yes`` and
``no`` are text; keys are text and occur once; tags are refused; sizes are bounded. Values keep
their place through substitution, so that a model's error is told at file, line and column.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from yaml import events
from yaml.events import Event

from conformance.model import Where

MAX_BYTES = 256 * 1024
"""A file of this size is no case: it is a mistake, or an attempt."""
MAX_DEPTH = 16
MAX_NODES = 20_000
"""Values in a file, with each alias counted as all that it stands for."""

Atom = str | int | float | bool | None
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A scalar. ``via`` is where it is used, if it was put there in place of a ``${name}``."""

    value: Atom
    where: Where
    via: Where | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A sequence."""

    items: tuple[Node, ...]
    where: Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A mapping, with the places of its keys."""

    items: dict[str, Node]
    keys: dict[str, Where] = field(repr=False)
    where: Where

    def having(self, key: str, node: Node) -> Table:
        """The same with one more key, which stands where ``node`` does."""
        return Table(
            items={key: node, **self.items}, keys={key: node.where, **self.keys}, where=self.where
        )

    def without(self, key: str) -> Table:
        """The same less a key."""
        return Table(
            items={name: node for name, node in self.items.items() if name != key},
            keys=self.keys,
            where=self.where,
        )


Node = Leaf | Listing | Table


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """One thing that is wrong in a file."""

    file: str
    line: int
    column: int
    message: str
    note: str = field(default="", compare=False)  # where else it shows; no other problem by that

    @classmethod
    def at(cls, where: Where, message: str, note: str = "") -> Problem:
        """A problem at a place."""
        line, column = where.line, where.column
        return cls(file=where.file, line=line, column=column, message=message, note=note)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}{self.note}"


class ProblemsError(Exception):
    """What is wrong, all of it. The text has a line for each problem."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


def fail(where: Where, message: str) -> ProblemsError:
    """A single problem, to raise."""
    return ProblemsError((Problem.at(where, message),))


# -- reading ------------------------------------------------------------------------------------


def parse(text: str, file: str) -> Node:
    """The only document of ``text``.

    Raises ProblemsError if it is not YAML, or more than this YAML allows.
    """
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise fail(Where(file=file), f"the file is larger than {MAX_BYTES // 1024} KiB")
    try:
        return _Reader(text, file).document()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line = before.count("\n") + 1
        column = len(before) - before.rfind("\n")
        raise fail(
            Where(file=file, line=line, column=column),
            f"a character that YAML does not allow: U+{ord(text[error.position]):04X}",
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        told = ", ".join(part for part in (error.context, error.problem) if part)
        raise fail(_place(file, mark), f"not YAML: {told}") from None


class _Reader:
    """Makes nodes of the parser's events."""

    def __init__(self, text: str, file: str) -> None:
        self._file = file
        self._events: Iterator[Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._count = 0

    def document(self) -> Node:
        next(self._events)  # the stream's start
        first = next(self._events)
        if isinstance(first, events.StreamEndEvent):
            raise fail(Where(file=self._file), "the file is empty")
        node = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        after = next(self._events)
        if not isinstance(after, events.StreamEndEvent):
            raise fail(_place(self._file, after.start_mark), "a second document in the file")
        return node

    def _node(self, event: Event, depth: int) -> Node:
        where = _place(self._file, event.start_mark)
        if isinstance(event, events.AliasEvent):
            return self._alias(str(event.anchor), where)
        assert isinstance(event, (events.ScalarEvent, events.CollectionStartEvent))
        before = self._count
        self._counted(1, where)
        if depth > MAX_DEPTH:
            raise fail(where, f"nested deeper than {MAX_DEPTH} levels")
        if event.tag is not None:
            raise fail(where, f"a tag: {event.tag}; the types here need none")
        node: Node
        if isinstance(event, events.ScalarEvent):
            value = event.value if event.style is not None else _atom(event.value, where)
            node = Leaf(value=value, where=where)
        elif isinstance(event, events.SequenceStartEvent):
            node = self._listing(where, depth)
        else:
            node = self._table(where, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, self._count - before)
        return node

    def _alias(self, name: str, where: Where) -> Node:
        if name not in self._anchors:
            raise fail(where, f"no anchor &{name} is complete before this alias")
        node, size = self._anchors[name]
        self._counted(size, where)
        return node

    def _listing(self, where: Where, depth: int) -> Listing:
        items = []
        while not isinstance(event := next(self._events), events.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return Listing(items=tuple(items), where=where)

    def _table(self, where: Where, depth: int) -> Table:
        items: dict[str, Node] = {}
        keys: dict[str, Where] = {}
        while not isinstance(event := next(self._events), events.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, Leaf) or not isinstance(key.value, str):
                raise fail(key.where, "a key that is not text")
            if key.value in items:
                first = keys[key.value]
                raise fail(
                    key.where, f"the key {key.value!r} is there already, at line {first.line}"
                )
            keys[key.value] = key.where
            items[key.value] = self._node(next(self._events), depth + 1)
        return Table(items=items, keys=keys, where=where)

    def _counted(self, more: int, where: Where) -> None:
        self._count += more
        if self._count > MAX_NODES:
            raise fail(where, f"more than {MAX_NODES} values, aliases counted by what they hold")


_INT = re.compile(r"[-+]?[0-9]{1,18}|0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, Atom] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def _atom(text: str, where: Where) -> Atom:
    """What a plain scalar means in YAML 1.2's core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _LEADING_ZERO.fullmatch(text):
        raise fail(where, f"{text}: octal to some, decimal to others; quote it, or write 0o")
    if _INT.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number) or text.lstrip("+-").isdecimal():
            raise fail(where, f"{text}: too large a number")
        return number
    if _NOT_FINITE.fullmatch(text):
        raise fail(where, f"{text}: not a number that anything here can be")
    return text


class _Mark(Protocol):
    """The parser's own idea of a place, counted from 0."""

    line: int
    column: int


def _place(file: str, mark: _Mark | None) -> Where:
    if mark is None:
        return Where(file=file)
    return Where(file=file, line=mark.line + 1, column=mark.column + 1)


# -- using --------------------------------------------------------------------------------------


def plain(node: Node) -> object:
    """The value without its places."""
    match node:
        case Leaf():
            return node.value
        case Listing():
            return [plain(item) for item in node.items]
        case Table():
            return {key: plain(item) for key, item in node.items.items()}


def text_of(value: Atom) -> str:
    """A scalar as text: in the middle of other text, in a variant's name."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def child(node: Node, *path: str | int) -> Node:
    """The node at ``path``, or the last one on the way there."""
    for part in path:
        if isinstance(node, Table) and part in node.items:
            node = node.items[str(part)]
        elif isinstance(node, Listing) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
    return node


def at(node: Node, message: str) -> Problem:
    """A problem with a node; one that was put in place of a ``${name}`` tells where it is used."""
    via = node.via if isinstance(node, Leaf) else None
    return Problem.at(node.where, message, f" (used at {via})" if via is not None else "")


def validate(kind: TypeAdapter[T], node: Node) -> T:
    """The value that ``node`` describes, strictly: text is no number, and no key is guessed.

    Raises ProblemsError with each error at its place.
    """
    try:
        return kind.validate_json(
            json.dumps(plain(node)), strict=True, by_alias=True, by_name=False
        )
    except ValidationError as error:
        raise ProblemsError(tuple(_explain(error, node))) from None


_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
"""What pydantic misses, by its error types, in the words of a case's author."""


def _explain(error: ValidationError, root: Node) -> list[Problem]:
    """Each error at its place; what the branches of a union say of one place is one problem."""
    found: dict[tuple[Where, str, str], list[str]] = {}
    for detail in error.errors(include_url=False):
        kind, loc = detail["type"], detail["loc"]
        node, left = _follow(root, loc)
        if kind == "string_type" and left and not isinstance(node, Leaf):
            continue  # a union's other branch was meant, and tells its own errors
        if kind == "too_short" and isinstance(node, Listing) and node.items:
            continue  # pydantic counts only what is valid, and that is told already
        where, message = node.where, detail["msg"].removeprefix("Value error, ")
        key = str(loc[-1]) if loc else ""
        if left and left[-1] == "[key]":
            node, _ = _follow(root, loc[:-2])
            where = node.keys[str(loc[-2])] if isinstance(node, Table) else where
            message = f"{loc[-2]!r}: {message}"
        elif kind == "extra_forbidden" and isinstance(parent := _follow(root, loc[:-1])[0], Table):
            where, message = parent.keys[key], f"unknown key {key!r}"
        elif kind == "missing":
            message = f"{key!r} is missing"
        elif kind in _TYPES:
            message = f"must be {_TYPES[kind]}"
        elif kind != "value_error" and isinstance(node, Leaf):
            message = f"{message}, not {node.value!r}"
        place = (where, at(node, "").note, key if kind == "missing" else "")
        found.setdefault(place, []).append(message)
    return [
        Problem.at(where, " or ".join(dict.fromkeys(told)), note)
        for (where, note, _), told in found.items()
    ]


def _follow(node: Node, loc: tuple[str | int, ...]) -> tuple[Node, list[str]]:
    """The node at ``loc``, and what of ``loc`` is not there: a union's branch, a missing key."""
    left = []
    for part in loc:
        inner = child(node, part)
        if inner is node:
            left.append(str(part))
        node = inner
    return node, left
