"""As much of JSON Schema as the suite's own schemas use. An unknown keyword is an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_SAYS_NOTHING = {"description", "default", "$schema", "$defs"}


def _is_of(value: Any, wanted: str | list[str]) -> bool:
    names = [wanted] if isinstance(wanted, str) else wanted
    right = tuple(kind for name in names for kind in _TYPES[name])
    return isinstance(value, right) and (not isinstance(value, bool) or bool in right)


def _sized(value: Any) -> bool:
    return isinstance(value, (str, list, dict))


def _numeric(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_SIMPLE: dict[str, Callable[[Any, Any], bool]] = {
    "type": _is_of,
    "enum": lambda value, wanted: value in wanted,
    "const": lambda value, wanted: value == wanted,
    "pattern": lambda value, wanted: not isinstance(value, str) or bool(re.search(wanted, value)),
    "minLength": lambda value, wanted: not _sized(value) or len(value) >= wanted,
    "minItems": lambda value, wanted: not _sized(value) or len(value) >= wanted,
    "minProperties": lambda value, wanted: not _sized(value) or len(value) >= wanted,
    "maxLength": lambda value, wanted: not _sized(value) or len(value) <= wanted,
    "maxProperties": lambda value, wanted: not _sized(value) or len(value) <= wanted,
    "minimum": lambda value, wanted: not _numeric(value) or value >= wanted,
    "maximum": lambda value, wanted: not _numeric(value) or value <= wanted,
    "exclusiveMinimum": lambda value, wanted: not _numeric(value) or value > wanted,
    "uniqueItems": lambda value, _: (
        not isinstance(value, list) or all(value.count(item) == 1 for item in value)
    ),
    "required": lambda value, wanted: not isinstance(value, dict) or set(wanted) <= set(value),
}
"""Keywords that look at the value alone."""


class Schema:
    """A schema with its definitions."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def faults(self, value: Any) -> list[str]:
        """Where ``value`` is not what the schema says, and by which keyword."""
        return list(self._faults(value, self._root, ""))

    def _faults(self, value: Any, schema: Any, at: str) -> Iterator[str]:
        for keyword, wanted in _rules(schema).items():
            if keyword in _SIMPLE:
                if not _SIMPLE[keyword](value, wanted):
                    yield f"{at}: {keyword}"
            elif keyword == "anyOf":
                if all(any(self._faults(value, branch, at)) for branch in wanted):
                    yield f"{at}: anyOf"
            elif keyword == "$ref":
                definition = self._root["$defs"][wanted.removeprefix("#/$defs/")]
                yield from self._faults(value, definition, at)
            elif keyword not in _SAYS_NOTHING:
                for name, item, inner in _INNER[keyword](value, schema):
                    yield from self._faults(item, inner, f"{at}/{name}")


def _rules(schema: Any) -> dict[str, Any]:
    """True takes everything, and False nothing."""
    rules: dict[str, Any] = schema if isinstance(schema, dict) else {}
    return {"enum": []} if schema is False else rules


Inner = Iterator[tuple[str | int, Any, Any]]


def _items(value: Any, schema: dict[str, Any]) -> Inner:
    for number, item in enumerate(value if isinstance(value, list) else ()):
        yield number, item, schema["items"]


def _names(value: Any, schema: dict[str, Any]) -> Inner:
    for name in value if isinstance(value, dict) else ():
        yield name, name, schema["propertyNames"]


def _own(value: Any, schema: dict[str, Any]) -> Inner:
    for name, item in value.items() if isinstance(value, dict) else ():
        if name in schema["properties"]:
            yield name, item, schema["properties"][name]


def _matching(value: Any, schema: dict[str, Any]) -> Inner:
    for name, item in value.items() if isinstance(value, dict) else ():
        for pattern, inner in schema["patternProperties"].items():
            if re.search(pattern, name):
                yield name, item, inner


def _others(value: Any, schema: dict[str, Any]) -> Inner:
    patterns = "|".join(schema.get("patternProperties", {"(?!)": None}))
    for name, item in value.items() if isinstance(value, dict) else ():
        if name not in schema.get("properties", {}) and not re.search(patterns, name):
            yield name, item, schema["additionalProperties"]


_INNER: dict[str, Callable[[Any, dict[str, Any]], Inner]] = {
    "items": _items,
    "propertyNames": _names,
    "properties": _own,
    "patternProperties": _matching,
    "additionalProperties": _others,
}
"""Keywords that look into the value: each part, and the schema for it."""
