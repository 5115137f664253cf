"""Whom the kernel owes the report of a lost write: worked out from a script and what it was answered.

The rules are errseq's (Documentation/core-api/errseq.rst, lib/errseq.c) and those of "Handling errors
during writeback" (Documentation/filesystems/vfs.rst):

- an error is reported on every open file description that was open when it was recorded, once. What
  dup(2) and fork(2) give is the same description;
- it is recorded after the write, and not after the next call that writes the file back;
- who opens the file while nobody was told yet will be told as well ("the caller of this function will
  see it the next time it checks"); who opens it later will not;
- of an inode that nobody has open, the error may go with the inode (``evict``);
- syncfs(2) reports from an account of its own, the filesystem's: see its manual page.

Whether a write was lost is asked of the medium: the next verification does not find it there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from conformance.model import BLOCK, Call, Calls, FileOp, Verify
from conformance.model.calls import FILE_SYNCS, GIVES_ANOTHER, STORES, TELLS_OF_FILE
from conformance.oracle.scene import Scene, Taken
from conformance.oracle.text import result_of

Wrong = Literal["not-told", "late-opener-not-told", "told-again", "told-stranger"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One call of a script, and what it was answered."""

    place: int
    call: Call
    op: FileOp
    direct: bool  # a write on a descriptor under O_DIRECT
    durable: bool  # a write that syncs itself
    forgets: bool  # an eviction while nobody has the file open: its inode may go

    @property
    def syncs(self) -> bool:
        """Whether its success says that the file's data is stored. syncfs: of a file's filesystem."""
        return self.call.do in FILE_SYNCS

    def region(self, step: Calls) -> tuple[int, int]:
        """Offset and length in bytes of what a write was asked for."""
        call = self.call
        return step.offset + call.offset, step.length if call.length is None else call.length


def made(step: Calls, ops: tuple[FileOp, ...]) -> tuple[Made, ...]:
    """The calls that were made, in order. A script that was cut short has fewer."""
    flags: dict[str, tuple[str, ...]] = {}  # of the descriptors that are open
    found = []
    # One more than the script has is the file beside.
    for place, (call, op) in enumerate(zip(step.script, ops, strict=False)):
        if call.do == "open" and op.result >= 0:
            flags[call.fd] = call.how
        elif call.do in GIVES_ANOTHER and op.result >= 0:
            flags[call.to] = flags.get(call.fd, ())
        mine = flags.get(call.fd, ())
        if call.do == "close":
            flags.pop(call.fd, None)
        found.append(
            Made(
                place=place,
                call=call,
                op=op,
                direct="direct" in mine and call.do == "write",
                durable=call.do == "write" and "dsync" in (*mine, *call.how),
                forgets=call.do == "evict" and not flags,
            )
        )
    return tuple(found)


def shut_down(step: Calls, ops: tuple[FileOp, ...]) -> bool:
    """Whether the filesystem took nothing any more at the end: no file could be made beside."""
    return any(op.kind == "create" and op.result < 0 for op in ops[len(step.script) :])


def untold(step: Calls, ops: tuple[FileOp, ...]) -> bool:
    """Whether a script leaves writes in the page cache whose fate nobody was told."""
    waiting = False
    for one in made(step, ops):
        if one.call.do in STORES:
            waiting = waiting or not (one.direct or one.durable)
        elif one.call.do in TELLS_OF_FILE:
            waiting = False
    return waiting


def lost_writes(scene: Scene, taken: Taken) -> frozenset[int]:
    """The places of writes that the next verification does not find whole.

    Of a write that failed, all that it was asked for counts, of another what it said it took. Nothing
    if no verification followed.
    """
    step = taken.step
    if not isinstance(step, Calls):
        return frozenset()
    found = _found(scene, taken, step)
    if found is None:
        return frozenset()
    lost = set()
    for one in made(step, taken.seen.file_ops):
        if one.call.do not in STORES:
            continue
        offset, length = one.region(step)
        length = one.op.result if one.op.result >= 0 else length
        if any(all(block not in kept for kept in found) for block in _blocks(offset, length)):
            lost.add(one.place)
    return frozenset(lost)


def _blocks(offset: int, length: int) -> range:
    return range(offset // BLOCK, (offset + length) // BLOCK)


def _found(scene: Scene, taken: Taken, step: Calls) -> list[range] | None:
    """The blocks that hold the step's generation at the next verification of its target; None if none
    came to its end.
    """
    for later in scene.taken[taken.index :]:
        if isinstance(later.step, Verify) and later.step.target == step.target:
            if not later.seen.extents:
                return None
            return [
                _blocks(extent.offset, extent.length)
                for extent in later.seen.extents
                if extent.content == "generation" and extent.generation == step.generation
            ]
    return None


# -- who must be told --------------------------------------------------------------------------


@dataclass(slots=True)
class _Cursor:
    """What one open file description has not been told yet, of one account of errors."""

    due: bool = False  # it was open when an error was recorded
    late: bool = False  # it was opened later, when nobody had been told
    allowed: bool = False  # it may be told, or not
    told: bool = False


@dataclass(slots=True)
class _Account:
    """One account of errors: the file's, or the filesystem's."""

    cursors: dict[int, _Cursor] = field(default_factory=dict)
    unseen: bool = False  # there is an error that nobody was told of
    perhaps: bool = False  # there may be one: if it was recorded, and has not gone with the inode

    def opened(self, description: int) -> None:
        self.cursors[description] = _Cursor(late=self.unseen, allowed=self.perhaps)

    def forgotten(self) -> None:
        self.unseen, self.perhaps = False, self.unseen or self.perhaps

    def reported(self) -> None:
        self.unseen = self.perhaps = False

    def recorded(self, *, certain: bool) -> None:
        for cursor in self.cursors.values():
            cursor.due = cursor.due or certain
            cursor.allowed = cursor.allowed or not certain
        self.unseen = self.unseen or certain
        self.perhaps = self.perhaps or not certain

    def asked(self, description: int, *, error: bool, weak: bool = False) -> Wrong | None:
        """A call that reports from this account: what is wrong with its answer. After a ``weak``
        one the report is owed as before.
        """
        cursor = self.cursors[description]
        if error:
            expected = cursor.due or cursor.late or cursor.allowed
            told_before = cursor.told
            self.cursors[description] = _Cursor(told=True)
            self.reported()
            return None if expected else "told-again" if told_before else "told-stranger"
        if cursor.due or cursor.late:
            owed: Wrong = "not-told" if cursor.due else "late-opener-not-told"
            if not weak:
                self.cursors[description] = _Cursor(told=cursor.told, allowed=True)
            return owed
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Misreport:
    """A call whose answer is not what the norm has for its description."""

    wrong: Wrong
    made: Made


class _Owed:
    """Plays a script and keeps account of who is owed a report."""

    def __init__(self, step: Calls, ops: tuple[FileOp, ...], lost: frozenset[int]) -> None:
        self._made = made(step, ops)
        self._lost = lost
        # A filesystem that has shut itself down answers every call with an error, and a write to it
        # may have failed before anything was recorded.
        self._down = shut_down(step, ops)
        self._names: dict[str, int] = {}  # of descriptors: where their description was opened
        self._file = _Account()
        self._whole = _Account()

    def play(self) -> Iterator[Misreport]:
        for one in self._made:
            wrong = self._wrong(one)
            if wrong is not None and not (self._down and wrong.startswith("told")):
                yield Misreport(wrong=wrong, made=one)

    def _wrong(self, one: Made) -> Wrong | None:
        call, worked = one.call, one.op.result >= 0
        if call.do == "open":
            if worked:
                self._names[call.fd] = one.place
                self._file.opened(one.place)
                self._whole.opened(one.place)
        elif one.forgets:
            self._file.forgotten()
        elif call.fd in self._names:
            description = self._names[call.fd]
            if call.do in GIVES_ANOTHER and worked:
                self._names[call.to] = description
            elif call.do == "close":
                del self._names[call.fd]
            elif call.do in STORES:
                self._stored(one, description)
            elif call.do in TELLS_OF_FILE:
                weak = call.do == "sync_file_range"
                return self._file.asked(description, error=not worked, weak=weak)
            elif call.do == "syncfs":
                return self._whole.asked(description, error=not worked)
        return None

    def _stored(self, one: Made, description: int) -> None:
        failed = one.op.result < 0
        if one.place in self._lost and (not failed or one.durable or one.direct):
            certain = not one.direct and not (failed and self._down)
            self._file.recorded(certain=certain)
            self._whole.recorded(certain=certain)
        if failed and one.durable:
            # It syncs the file by its own descriptor, and this was its report.
            mine = self._file.cursors[description]
            self._file.cursors[description] = _Cursor(told=True, allowed=mine.allowed)
            self._file.reported()


def misreports(scene: Scene, taken: Taken) -> tuple[Misreport, ...]:
    """Each call of a step that was not answered as it must be, in order. None where it was not read back,
    so that nobody knows what was lost.
    """
    step = taken.step
    if not isinstance(step, Calls) or _found(scene, taken, step) is None:
        return ()
    lost = lost_writes(scene, taken)
    return tuple(_Owed(step, taken.seen.file_ops, lost).play())


def call_line(one: Made) -> str:
    """A call with its result, for people: ``fsync a = -1 EIO``."""
    return f"{one.call} = {result_of(one.op.result)}"
