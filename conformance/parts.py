"""The kinds of layers, shortages and steps, by the word that a case file names them with.

In a file a part is a mapping with one key, ``- write: {as: fill, ...}``; in the model the same word
is a field of the part (``verb: write``). Both the loader and the schema read these tables.
"""

from __future__ import annotations

from typing import Literal, get_args, get_origin

from conformance.model import AnyLayer, AnyShortage, AnyStep, Value


def _kinds(union: object, word: str) -> dict[str, type[Value]]:
    """The members of an annotated union, each by the only value of its field ``word``."""
    found: dict[str, type[Value]] = {}
    for member in get_args(union):
        if isinstance(member, type) and issubclass(member, Value):
            literal = member.model_fields[word].annotation
            assert get_origin(literal) is Literal
            found[get_args(literal)[0]] = member
        elif get_args(member):
            found |= _kinds(member, word)
    return found


LAYERS = _kinds(AnyLayer, "layer")
SHORTAGES = _kinds(AnyShortage, "kind")
STEPS = _kinds(AnyStep, "verb")
