"""What a word on the command line means: a case, one of its variants, a kernel; or the nearest names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from conformance.exits import Refused
from conformance.library import Library
from conformance.model import Variant

_SHOWN = 4


def nearest(word: str, names: Iterable[str]) -> str:
    """``: did you mean a, b`` with the names that are like ``word``; nothing if none is."""
    known = list(names)
    like = difflib.get_close_matches(word, known, n=_SHOWN, cutoff=0.5)
    like += [name for name in known if word and word in name and name not in like]
    return f"; did you mean {', '.join(like[:_SHOWN])}?" if like else ""


def variants_of(library: Library, word: str) -> tuple[Variant, ...]:
    """The variants of a case, or the one that ``case[variant]`` names.

    Raises Refused, with the nearest names, if there is no such case or variant.
    """
    case, bracket, _ = word.partition("[")
    if case not in library.cases:
        raise Refused(f"there is no case {case!r}{nearest(case, library.cases)}")
    mine = tuple(variant for variant in library.variants if variant.case == case)
    if not bracket:
        return mine
    chosen = tuple(variant for variant in mine if variant.id == word)
    if not chosen:
        ids = [variant.id for variant in mine]
        hint = nearest(word, ids) or f"; it has {', '.join(ids[:_SHOWN])}"
        raise Refused(f"there is no variant {word!r}{hint}")
    return chosen


def one_variant(library: Library, word: str) -> Variant:
    """The one variant that a word names. Raises Refused if it names none, or several."""
    found = variants_of(library, word)
    if len(found) > 1:
        ids = ", ".join(variant.id for variant in found[:_SHOWN])
        more = ", ..." if len(found) > _SHOWN else ""
        raise Refused(f"{word} has {len(found)} variants; name one: {ids}{more}")
    return found[0]
