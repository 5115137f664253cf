"""``-k EXPRESSION`` for variants, as pytest reads it: and, or, not, parentheses, parts of names.

pytest's own compiler is private to it; a test holds the two against each other.

    expression: term ("or" term)*          term: factor ("and" factor)*
    factor: "not" factor | "(" expression ")" | word
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from conformance.model import Variant

_TOKEN = re.compile(r"[\w:+.\[\]\\/-]+|[()]")
_MAX_NESTING = 100

Matcher = Callable[[str], bool]
"""Whether a word of the expression occurs in what it is held against."""


class SelectionError(ValueError):
    """An expression that is none. The text is one line and names the column."""


def select(variants: Iterable[Variant], expr: str) -> tuple[Variant, ...]:
    """The variants that ``expr`` matches, in their order; all of them if it is blank.

    A word matches if it is a part of the variant's id or its family, in whatever case.
    Raises SelectionError if ``expr`` is malformed. An empty result is the caller's to report.
    """
    if not expr.strip():
        return tuple(variants)
    matches = compile_expression(expr)
    return tuple(
        variant
        for variant in variants
        if matches(_part_of(f"{variant.family}\n{variant.id}".lower()))
    )


def compile_expression(expr: str) -> Callable[[Matcher], bool]:
    """What ``expr`` says, given what its words say. Raises SelectionError if it is malformed."""
    return _Parser(expr).whole()


def _part_of(names: str) -> Matcher:
    return lambda word: word.lower() in names


class _Parser:
    def __init__(self, expr: str) -> None:
        self._expr = expr
        self._end = 0
        self._depth = 0
        self._next()

    def whole(self) -> Callable[[Matcher], bool]:
        result = self._any()
        if self._token:
            raise self._unexpected("the end, 'and' or 'or'")
        return result

    def _next(self) -> None:
        """Go on to the next token; an empty one is the end."""
        rest = self._expr[self._end :]
        self._start = self._end + len(rest) - len(rest.lstrip(" \t"))
        found = _TOKEN.match(self._expr, self._start)
        self._token = found[0] if found else self._expr[self._start : self._start + 1]
        self._end = self._start + len(self._token)
        if self._token and not found:
            raise self._unexpected("a word")

    def _accept(self, *tokens: str) -> bool:
        if self._token not in tokens:
            return False
        self._next()
        return True

    def _any(self) -> Callable[[Matcher], bool]:
        parts = [self._all()]
        while self._accept("or"):
            parts.append(self._all())
        return lambda match: any(part(match) for part in parts)

    def _all(self) -> Callable[[Matcher], bool]:
        parts = [self._one()]
        while self._accept("and"):
            parts.append(self._one())
        return lambda match: all(part(match) for part in parts)

    def _one(self) -> Callable[[Matcher], bool]:
        self._depth += 1
        if self._depth > _MAX_NESTING:
            raise SelectionError(f"{self._expr[:40]!r}...: nested too deeply")
        try:
            if self._accept("not"):
                negated = self._one()
                return lambda match: not negated(match)
            if self._accept("("):
                inner = self._any()
                if not self._accept(")"):
                    raise self._unexpected("')'")
                return inner
            if self._token in ("", ")", "and", "or"):
                raise self._unexpected("a word, 'not' or '('")
            word = self._token
            self._next()
            return lambda match: match(word)
        finally:
            self._depth -= 1

    def _unexpected(self, wanted: str) -> SelectionError:
        found = repr(self._token) if self._token else "the end"
        place = f"{self._expr!r}, column {self._start + 1}"
        return SelectionError(f"{place}: {found} where {wanted} is wanted")
