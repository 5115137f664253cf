"""``${name}`` and ``when:``: how one text stands for the many cells of a matrix.

A string that is nothing but ``${name}`` becomes the value itself, with its type; within other text
it becomes text. A part with ``when: {name: value}`` is there only for that value, or any of a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from conformance.model import Where
from conformance.yaml_marks import (
    Leaf,
    Listing,
    Node,
    Problem,
    ProblemsError,
    Table,
    at,
    fail,
    text_of,
)

_NAME = re.compile(r"\$\{([a-z][a-z0-9_]*)\}")


class Collector:
    """Problems of a whole library. One that several variants share is told once."""

    def __init__(self) -> None:
        self._found: dict[Problem, str] = {}

    def add(self, problem: Problem, variant: str = "") -> None:
        """Take a problem, met in ``variant`` if that is not empty."""
        self._found.setdefault(problem, variant)

    def take(self, error: ProblemsError, variant: str = "") -> None:
        """Take all problems of an error."""
        for problem in error.problems:
            self.add(problem, variant)

    def __len__(self) -> int:
        return len(self._found)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All of them, in the order of files and lines."""
        return tuple(
            sorted(
                replace(problem, note=f"{problem.note} [in {variant}]") if variant else problem
                for problem, variant in self._found.items()
            )
        )


@dataclass(kw_only=True)
class Scope:
    """Values by name, and which of the names were asked for."""

    values: Mapping[str, Leaf]
    used: set[str] = field(default_factory=set)

    def __getitem__(self, name: str) -> Leaf:
        self.used.add(name)
        return self.values[name]

    def __contains__(self, name: str) -> bool:
        return name in self.values


def substitute(node: Node, scope: Scope) -> Node:
    """``node`` with every ``${name}`` filled in.

    Raises ProblemsError for a name that ``scope`` does not have, and for what looks like a name.
    """
    match node:
        case Leaf():
            return _fill(node, scope)
        case Listing():
            return Listing(items=tuple(substitute(i, scope) for i in node.items), where=node.where)
        case Table():
            items = {key: substitute(item, scope) for key, item in node.items.items()}
            return Table(items=items, keys=node.keys, where=node.where)


def _fill(leaf: Leaf, scope: Scope) -> Leaf:
    if not isinstance(leaf.value, str) or "${" not in leaf.value:
        return leaf
    if "${" in _NAME.sub("", leaf.value):
        raise ProblemsError((at(leaf, f"{leaf.value!r}: a name is written ${{name}}"),))
    for name in _NAME.findall(leaf.value):
        if name not in scope:
            raise ProblemsError((at(leaf, f"${{{name}}}: no axis or parameter of that name"),))
    whole = _NAME.fullmatch(leaf.value)
    if whole is not None:
        found = scope[whole[1]]
        return Leaf(value=found.value, where=found.where, via=leaf.where)
    text = _NAME.sub(lambda match: text_of(scope[match[1]].value), leaf.value)
    return Leaf(value=text, where=leaf.where)


def names_in(node: Node) -> Iterator[str]:
    """The names that ``node`` has as ``${name}``, however deep."""
    match node:
        case Leaf():
            if isinstance(node.value, str):
                yield from _NAME.findall(node.value)
        case Listing():
            for item in node.items:
                yield from names_in(item)
        case Table():
            for item in node.items.values():
                yield from names_in(item)


# -- parts: a word with its values ---------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Part:
    """``- word: {...}``, with its condition taken off."""

    word: str
    body: Table
    where: Where
    when: Mapping[str, tuple[Leaf, ...]]

    def applies(self, scope: Scope) -> bool:
        """Whether the condition holds. Raises ProblemsError for a name that is unknown."""
        held = True
        for name, wanted in self.when.items():
            if name not in scope:
                raise fail(wanted[0].where, f"when: no axis or parameter is called {name!r}")
            actual = text_of(scope[name].value)
            held = held and actual in {text_of(leaf.value) for leaf in wanted}
        return held


def read_part(node: Node, words: Mapping[str, object], what: str, field_name: str) -> Part:
    """The part that ``node`` describes. Raises ProblemsError if its form is wrong.

    ``words`` are those that may begin it; ``field_name`` is where the model keeps the word.
    """
    if not isinstance(node, Table) or len(node.items) != 1:
        raise ProblemsError((at(node, f"a {what} is one word and its values: `word: {{...}}`"),))
    [(word, body)] = node.items.items()
    where = node.keys[word]
    if word not in words:
        raise fail(where, f"unknown {what} {word!r}; there are: {', '.join(words)}")
    if not isinstance(body, Table):
        raise ProblemsError((at(body, f"the values of {word!r} must be a mapping"),))
    if field_name in body.items:
        raise fail(body.keys[field_name], f"unknown key {field_name!r}")
    when = {}
    if "when" in body.items:
        when = _read_when(body.items["when"])
        body = body.without("when")
    filled = body.having(field_name, Leaf(value=word, where=where))
    return Part(word=word, body=filled, where=where, when=when)


def _read_when(node: Node) -> dict[str, tuple[Leaf, ...]]:
    if not isinstance(node, Table) or not node.items:
        raise ProblemsError((at(node, "when: must be a mapping of names to values"),))
    found: dict[str, tuple[Leaf, ...]] = {}
    for name, wanted in node.items.items():
        leaves = wanted.items if isinstance(wanted, Listing) else (wanted,)
        scalars = tuple(leaf for leaf in leaves if isinstance(leaf, Leaf))
        if not scalars or len(scalars) != len(leaves):
            raise ProblemsError((at(wanted, f"when: {name} needs a value, or a list of values"),))
        found[name] = scalars
    return found


def read_parts(
    node: Node, words: Mapping[str, object], what: str, field_name: str, problems: Collector
) -> list[Part]:
    """The parts of a list, as far as their form is right; the rest becomes problems."""
    parts = []
    for item in node.items if isinstance(node, Listing) else ():
        try:
            parts.append(read_part(item, words, what, field_name))
        except ProblemsError as error:
            problems.take(error)
    return parts
