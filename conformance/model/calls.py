"""A script of system calls on descriptors of one file: what the step ``calls`` does, as text.

    open a; open b; write a; fsync a; fsync b; fsync a

Each call names the descriptor that it is made on. ``open`` makes a new open file description;
``dup`` and ``fork`` give one another descriptor, ``fork`` one in another process. What an error of
writeback owes to whom is worked out from the script, so that no case has to say it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, get_args

from pydantic import BeforeValidator, Field

from conformance.model.base import Bytes, Value

Do = Literal[
    "open",
    "dup",
    "fork",
    "close",
    "write",
    "store",
    "fsync",
    "fdatasync",
    "msync",
    "uring_fsync",
    "uring_fdatasync",
    "sync_file_range",
    "syncfs",
    "sync",
    "evict",
]
"""``store`` writes by a mapping, ``evict`` drops unused inodes with all caches."""

ON_NOTHING: Final = frozenset({"sync", "evict"})
"""Calls that are made on no descriptor."""
GIVES_ANOTHER: Final = frozenset({"dup", "fork"})
STORES: Final = frozenset({"write", "store"})
BY_RING: Final = frozenset({"uring_fsync", "uring_fdatasync"})
FILE_SYNCS: Final = frozenset({"fsync", "fdatasync", "msync"}) | BY_RING
"""Calls whose success says that all of the file's data is stored."""
TELLS_OF_FILE: Final = FILE_SYNCS | {"sync_file_range"}
"""Calls that report an error of the file's writeback."""
AT_OPEN: Final[Mapping[str, tuple[str, ...]]] = {
    "plain": (),
    "direct": ("direct",),
    "dsync": ("dsync",),
    "direct_dsync": ("direct", "dsync"),
}
"""Words after ``open``: the flags that they stand for. None is ``plain``."""
AT_WRITE: Final[Mapping[str, tuple[str, ...]]] = {"plain": (), "dsync": ("dsync",)}
"""Words after ``write``: ``dsync`` is pwritev2 with RWF_DSYNC."""


class Call(Value):
    """One call. ``length`` is None for the whole region of the step; ``offset`` counts from its start."""

    do: Do
    fd: str = Field(default="", pattern=r"^([a-z][a-z0-9_]*)?$")
    to: str = Field(default="", pattern=r"^([a-z][a-z0-9_]*)?$")
    how: tuple[Literal["direct", "dsync"], ...] = ()
    offset: Bytes = 0
    length: Bytes | None = None

    def __str__(self) -> str:
        return " ".join(word for word in (self.do, self.fd, self.to, *self.how) if word)


def parse_script(value: object) -> object:
    """The calls of a script, as values of ``Call``; what is no text is left as it is.

    Raises ValueError; pydantic turns that into an error at the script's place.
    """
    if not isinstance(value, str):
        return value
    return tuple(_parsed(part.split()) for part in value.split(";") if part.strip())


def _parsed(words: list[str]) -> Call:
    do, *rest = words
    if do not in get_args(Do):
        raise ValueError(f"no call {do!r}; there are: {', '.join(get_args(Do))}")
    call: dict[str, object] = {"do": do}
    wanted = [] if do in ON_NOTHING else ["fd", "to"] if do in GIVES_ANOTHER else ["fd"]
    if len(rest) < len(wanted):
        another = " and of another" if do in GIVES_ANOTHER else ""
        raise ValueError(f"{do} needs the name of a descriptor{another}")
    call |= dict(zip(wanted, rest, strict=False))
    rest = rest[len(wanted) :]
    words_of: Mapping[str, tuple[str, ...]] = {"open": AT_OPEN, "write": AT_WRITE}.get(do, {})
    call["how"] = tuple(flag for word in rest for flag in words_of.get(word, ()))
    rest = [word for word in rest if word not in words_of]
    if do in STORES and len(rest) == 2:
        call |= {"offset": rest[0], "length": rest[1]}
    elif rest:
        raise ValueError(f"{do} takes no {' '.join(rest)!r}")
    return Call.model_validate(call)


Script = Annotated[tuple[Call, ...], BeforeValidator(parse_script), Field(min_length=1)]


def wrong_with(script: tuple[Call, ...]) -> str:
    """What is wrong with a script that is one by its form, or nothing."""
    is_open: set[str] = set()
    for call in script:
        if call.do not in ON_NOTHING | {"open"} and call.fd not in is_open:
            return f"{call}: {call.fd!r} is not open"
        new = call.fd if call.do == "open" else call.to
        if new in is_open:
            return f"{call}: {new!r} is open already"
        is_open |= {new} - {""}
        is_open -= {call.fd} if call.do == "close" else set()
    return "" if any(call.do in STORES for call in script) else "nothing is written"
