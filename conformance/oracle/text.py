"""How findings put figures and names into words. Nothing here decides anything."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence

from conformance.model import FileOp, InFlight, Op, Submitter

SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    13: "SIGPIPE",
    15: "SIGTERM",
    25: "SIGXFSZ",
}
"""Signal numbers of x86 and arm64: signal(7)."""

SHOWN = 3
"""How many of a list are told one by one before the rest is counted."""

MESSAGES = {
    "No space left on device": "ENOSPC",
    "Disk quota exceeded": "EDQUOT",
    "Input/output error": "EIO",
    "Cannot allocate memory": "ENOMEM",
    "Read-only file system": "EROFS",
    "File too large": "EFBIG",
}
"""What tools print for an errno under LC_ALL=C: strerror(3)."""

Range = tuple[int, int]
"""Start and end in bytes, the end excluded."""


def errno_name(code: int) -> str:
    """``EIO`` for 5 and for -5."""
    return errno.errorcode.get(abs(code), f"errno {abs(code)}")


def printed_errno(output: str) -> str:
    """The errno that a tool's own words name, or nothing."""
    found = {output.rfind(text): name for text, name in MESSAGES.items() if text in output}
    return found[max(found)] if found else ""


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9."""
    return SIGNALS.get(number, f"signal {number}")


def amount(count: int) -> str:
    """Bytes as a person reads them, exact: ``300 KiB``, ``8 MiB``, ``512 bytes``."""
    for size, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count and count % size == 0:
            return f"{count // size} {unit}"
    return f"{count} bytes"


def quantity(count: int, *, of_space: bool) -> str:
    """What a shortage is counted in: bytes, or inodes."""
    return amount(count) if of_space else plural(count, "inode")


def span(item: Range) -> str:
    """``bytes 8081408 to 8388607 (300 KiB)``."""
    start, end = item
    return f"bytes {start} to {end - 1} ({amount(end - start)})"


def merge(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Ranges in order, those that touch made one."""
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def spans(ranges: Sequence[Range]) -> str:
    """Some ranges, the first few one by one."""
    text = ", ".join(span(item) for item in ranges[:SHOWN])
    left = ranges[SHOWN:]
    if left:
        whole = sum(end - start for start, end in ranges)
        text += f" and {len(left)} more ranges, {amount(whole)} in all"
    return text


def listed(names: Sequence[str]) -> str:
    """Some names, the first few one by one."""
    left = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {left} more" if left > 0 else "")


def plural(count: int, word: str) -> str:
    """``1 write``, ``2 writes``."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def result_of(code: int) -> str:
    """What a system call returned: a count, or ``-1 ENOSPC``."""
    return str(code) if code >= 0 else f"-1 {errno_name(code)}"


def op_line(op: Op) -> str:
    """One operation as evidence."""
    return f"{_call(op)} = {result_of(op.result)}"


def unreturned(submitter: Submitter) -> str:
    """Which call of a submitter had not returned when it ended, to follow a sentence; nothing where that was
    not seen.
    """
    call = submitter.in_flight
    return "" if call is None else f": {_call(call)} had not returned"


def _call(call: Op | InFlight) -> str:
    return f"{call.kind}({call.offset}, {call.length})" if call.placed else f"{call.kind}()"


def file_op_line(op: FileOp) -> str:
    """One operation on a file as evidence."""
    often = f" x{op.times}" if op.times > 1 else ""
    return f"{op.kind} {op.path}{often} = {result_of(op.result)}"


def stable(text: str) -> str:
    """``text`` fit for a signature: no addresses, no numbers that differ between runs."""
    text = re.sub(r"0x[0-9a-fA-F]+", "N", text)
    text = re.sub(r"\d+", "N", text)
    return re.sub(r"[^A-Za-z0-9_./*:-]+", "-", text).strip("-")
