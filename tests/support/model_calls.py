"""What a conforming kernel answers to a script of calls: an errseq_t for the file, and one for all files.

See lib/errseq.c: an error is counted once until somebody has seen it, and who samples while it is unseen
will see it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

from conformance.model import Call, Calls, FileOp
from conformance.model.calls import GIVES_ANOTHER, STORES, TELLS_OF_FILE


class Errseq:
    """Errors that were recorded, and whether the last was seen."""

    def __init__(self) -> None:
        self._count = 0
        self._seen = True

    def record(self) -> None:
        """There is an error."""
        self._count += self._seen
        self._seen = False

    def sample(self) -> int:
        """For who opens now."""
        return self._count if self._seen else self._count - 1

    def ask(self, since: int) -> tuple[int, int]:
        """The answer to who sampled, and his next sample."""
        if since == self._count:
            return 0, since
        self._seen = True
        return -errno.EIO, self._count


@dataclass(kw_only=True)
class _Description:
    file: int
    whole: int
    how: tuple[str, ...]


class ModelFile:
    """One file under a script. ``store`` gives a range its space: its length, or minus an errno."""

    def __init__(self, step: Calls, store: Callable[[int, int], int]) -> None:
        self._step = step
        self._store = store
        self._file, self._whole = Errseq(), Errseq()
        self._names: dict[str, _Description] = {}
        self._dirty: list[tuple[int, int]] = []

    def play(self, tick: Callable[[], int], *, of_file: bool) -> list[FileOp]:
        """The script's calls with their results."""
        ops = []
        for call in self._step.script:
            length = self._region(call)[1] if call.do in STORES else 0
            ops.append(FileOp(call.do, call.fd, 1, length, self._make(call), tick(), tick()))
        if of_file:
            ops.append(FileOp("create", "", 1, 0, 0, tick(), tick()))
        return ops

    def _region(self, call: Call) -> tuple[int, int]:
        length = self._step.length if call.length is None else call.length
        return self._step.offset + call.offset, length

    def _write_back(self) -> None:
        for offset, length in self._dirty:
            if self._store(offset, length) < 0:
                self._file.record()
                self._whole.record()
        self._dirty.clear()

    def _make(self, call: Call) -> int:
        if call.do == "open":
            self._names[call.fd] = _Description(
                file=self._file.sample(), whole=self._whole.sample(), how=call.how
            )
        elif call.do in GIVES_ANOTHER:
            self._names[call.to] = self._names[call.fd]
        elif call.do == "close":
            del self._names[call.fd]
        elif call.do == "evict":
            self._file = self._file if self._names else Errseq()
        elif call.do == "sync":
            self._write_back()
        elif call.do in STORES:
            return self._put(call, self._names[call.fd])
        else:
            return self._sync(call.do, self._names[call.fd])
        return 0

    def _put(self, call: Call, mine: _Description) -> int:
        offset, length = self._region(call)
        if call.do == "write" and "direct" in mine.how:
            return self._store(offset, length)
        self._dirty.append((offset, length))
        if call.do == "write" and "dsync" in (*mine.how, *call.how):
            return self._sync("fsync", mine) or length
        return length

    def _sync(self, do: str, mine: _Description) -> int:
        self._write_back()
        if do in TELLS_OF_FILE:
            result, mine.file = self._file.ask(mine.file)
        else:
            result, mine.whole = self._whole.ask(mine.whole)
        return result
