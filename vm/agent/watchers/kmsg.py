"""The kernel log since the last look."""

from __future__ import annotations

import os
import re

from agent.basics import Clock

FIRST_KEPT = 1000
LAST_KEPT = 500
TELLING_KEPT = 500
TELLING = re.compile(
    r"oom-kill|[Kk]ill(?:ed)? process |going to be killed|^CPU: |^Workqueue: |BUG|WARNING|INFO: |Oops|"
    r"[Pp]anic|lockup|LOCKUP|UBSAN|refcount_t|corruption|protection fault|DEBUG_LOCKS|Unable to handle"
)
"""Lines of an OOM report or a fault of the kernel's: of those in the middle of many, they are kept."""
_RECORD = 8192


class KernelLog:
    """Reads /dev/kmsg without blocking. Lines that were lost or left out are told as a line."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        self._clock = Clock(epoch_ns=0)
        self._lines: list[list[object]] = []
        self._telling: list[list[object]] = []
        self._tail: list[list[object]] = []
        self._left_out = 0
        self._next = 0

    def begin(self, clock: Clock) -> None:
        """From now on; what is in the log already is not of this rig."""
        self._clock = clock
        os.lseek(self._fd, 0, os.SEEK_END)
        self._lines, self._telling, self._tail, self._left_out = [], [], [], 0

    def drain(self) -> None:
        """Take what is there. Called often enough, the ring buffer does not run over."""
        while True:
            try:
                raw = os.read(self._fd, _RECORD)
            except BlockingIOError:
                return
            except BrokenPipeError:
                # The ring ran over; the next read is of the oldest record that is left.
                self._keep([self._next, 4, self._clock.us(), "[kernel log overrun: lines lost]"])
                continue
            line = parse(raw, self._clock)
            if line is not None:
                self._next = int(str(line[0])) + 1
                self._keep(line)

    def _keep(self, line: list[object]) -> None:
        if len(self._lines) < FIRST_KEPT:
            self._lines.append(line)
            return
        self._tail.append(line)
        if len(self._tail) > 2 * LAST_KEPT:
            between = self._tail[:-LAST_KEPT]
            kept = [one for one in between if TELLING.search(str(one[3]))]
            kept = kept[: TELLING_KEPT - len(self._telling)]
            self._telling += kept
            self._left_out += len(between) - len(kept)
            del self._tail[:-LAST_KEPT]

    def take(self) -> list[list[object]]:
        """Every line since the last ``take``, as the host's ``KernelLine``."""
        self.drain()
        lines, rest, out = self._lines, self._telling + self._tail, self._left_out
        self._lines, self._telling, self._tail, self._left_out = [], [], [], 0
        if out:
            text = f"[{out} lines of the kernel log left out]"
            lines.append([rest[0][0], 4, rest[0][2], text])
        return lines + rest


def parse(raw: bytes, clock: Clock) -> list[object] | None:
    """One record of /dev/kmsg ("prefix;text", then lines of properties) as a ``KernelLine``."""
    head, _, rest = raw.decode("utf-8", "replace").partition(";")
    words = head.split(",")
    if len(words) < 3 or not all(word.isdigit() for word in words[:3]):
        return None
    text = rest.split("\n", 1)[0]
    return [int(words[1]), int(words[0]) & 7, clock.of_boot_us(int(words[2])), text]
