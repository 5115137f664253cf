"""Where a norm can be read: its source as the cases name it, and a link for it."""

from __future__ import annotations

import re

from conformance.model import Norm

_PAGE = re.compile(r"^(?P<name>[A-Za-z0-9_.-]+)\((?P<section>[1-9])\)$")
_TREE = "https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/"


def link(norm: Norm) -> str:
    """An https address for the source, or nothing if it has none that is known.

    Only addresses that are made here or are https by themselves: a case's text never becomes a link
    of another kind.
    """
    source = norm.source.split(", ", maxsplit=1)[0].strip()
    if page := _PAGE.match(source):
        name, section = page["name"], page["section"]
        return f"https://man7.org/linux/man-pages/man{section}/{name}.{section}.html"
    scheme, _, rest = source.partition(":")
    if not re.fullmatch(r"[A-Za-z0-9._~@%+/#?=&-]+", rest):
        return ""
    if scheme == "linux":
        return f"{_TREE}{rest}"
    if scheme == "lkml":
        return f"https://lore.kernel.org/r/{rest}"
    if scheme == "posix":
        return f"https://pubs.opengroup.org/onlinepubs/9799919799/functions/{rest}.html"
    return source if scheme == "https" and rest.startswith("//") else ""


def linked(text: str) -> list[tuple[str, str]]:
    """``text`` in parts, each with its link or nothing: sources are named in the middle of prose."""
    parts = re.split(r"((?:linux|lkml|posix):[^\s,;]+)", text)
    return [
        (part, link(Norm(source=part)) if number % 2 else "")
        for number, part in enumerate(parts)
        if part
    ]


def told(norm: Norm) -> str:
    """The source and its section, as one reads them."""
    return f"{norm.source}, {norm.section}" if norm.section else norm.source
