"""What became of each block: submitted, acknowledged, and read back.

The ledger's operations and the extents of each verification are joined here, block by block, for
one layer of one arm. The rules are NORMS', "Acknowledged means" and "What the norm allows":

- a result r > 0 covers [offset, offset + r) and no more, and of that only whole blocks are judged;
- a write is acknowledged by the next successful sync of its own submitter, or by its own success
  under O_DSYNC. A completion of O_DIRECT or of an engine acknowledges nothing until such a sync;
- a sync speaks for the writes since the sync before it: "a success of fsync after a failed one
  proves nothing" about what the failed one was asked for;
- a block that was written again after its acknowledgement may hold any of the later generations;
- of the range of a failed O_DIRECT write nothing may be said, until it is written and acknowledged
  anew;
- on several descriptors (the step ``calls``) the syncs of all count, in the order in which they were
  made: what one of them was told of, none that succeeds afterwards speaks for.
- blocks that were zeroed, with a successful sync after it, hold zeros; of the range of a zeroing that
  failed, of a discard, and of what was cut off a file below, nothing may be said.
"""

from __future__ import annotations

import errno
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from conformance.model import (
    BLOCK,
    PROMISES_SPACE,
    SYNCS_ITSELF,
    TAKES_SPACE_AWAY,
    THROUGH_CACHE,
    ZEROES,
    Calls,
    Extent,
    FileLayer,
    FsLayer,
    Op,
    RangeKind,
    RangeOp,
    Run,
    Snapshot,
    Submit,
    Submitter,
    Truncate,
    Verify,
    Write,
    parse_size,
)
from conformance.model.calls import STORES
from conformance.oracle.calls import Made, made
from conformance.oracle.scene import FIO, MMAP, Scene, Taken, program
from conformance.oracle.text import Range

Kind = Literal["zeros", "older", "foreign", "unreadable"]

UNSPECIFIED: Final = (FIO | {Submit.DIRECT, Submit.DIRECT_DSYNC}) - THROUGH_CACHE
"""Ways on which a failed write leaves its range unspecified: open(2), O_DIRECT, and write(2)."""

ACKNOWLEDGED_BY: Final = {
    Submit.BUFFERED: "write() and fsync()",
    Submit.DIRECT: "write() and fsync()",
    Submit.DSYNC: "write() under O_DSYNC",
    Submit.RWF_DSYNC: "pwritev2() with RWF_DSYNC",
    Submit.DIRECT_DSYNC: "write() under O_DIRECT and O_DSYNC",
    Submit.MMAP: "msync()",
    **dict.fromkeys(FIO, "their completion and fsync()"),
    Submit.FIO_IO_URING_DSYNC: "their completion under O_DSYNC",
}

ZEROS: Final = -1
"""The generation of a block that was zeroed."""

CALLS: Final = {
    RangeKind.DISCARD: "BLKDISCARD",
    RangeKind.ZEROOUT: "BLKZEROOUT",
    RangeKind.ZERO_RANGE: "fallocate(ZERO_RANGE)",
    RangeKind.PUNCH_HOLE: "fallocate(PUNCH_HOLE)",
    RangeKind.WRITE_ZEROES: "fallocate(WRITE_ZEROES)",
    RangeKind.ALLOCATE: "fallocate(0)",
    RangeKind.ZONE_RESET: "BLKRESETZONE",
}
_END: Final = 1 << 62
_EVERYWHERE: Final = (0, _END)
_DATA: Final = frozenset({"generation", "foreign"})
"""Contents of an extent that somebody must have written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """A block's acknowledgement: of which generation, at which step, by what."""

    order: int  # the write's place among all that changed the layer, from 1
    generation: int
    step: int
    by: str
    told: bool  # its submitter was told of an error at a later sync, or did not live to be told


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One acknowledged block at one verification. ``kind`` is None where it holds what it should."""

    verify: int
    block: int
    ack: Ack
    kind: Kind | None
    errno: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alien:
    """A block that holds what nobody submitted for it."""

    verify: int
    block: int
    content: str
    generation: int | None


@dataclass(slots=True)
class _Block:
    unspecified: int  # order of the last write that leaves the content open; 0 if none did
    ack: Ack | None = None
    submitted: dict[int, int] = field(default_factory=dict)  # generation -> order of its last write

    @property
    def open(self) -> bool:
        return self.unspecified > (self.ack.order if self.ack else 0)

    def may_hold(self, generation: int | None, ack: Ack) -> bool:
        return generation in self.submitted and self.submitted[generation] >= ack.order

    def ever_held(self, generation: int | None) -> bool:
        return generation in self.submitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """All that is known of the blocks of one layer of one arm."""

    target: str
    found: tuple[Found, ...]
    alien: tuple[Alien, ...]
    stored: dict[int, int]  # step index -> bytes of it that the next verification found
    before: dict[int, frozenset[int]]  # step index -> blocks that had space for certain before it


class _Ledger:
    """Plays the steps of an arm on one layer, in order."""

    def __init__(self, scene: Scene, target: str) -> None:
        self._scene = scene
        self._target = target
        self._blocks: dict[int, _Block] = {}
        self._order = 0
        self._zeros = scene.starts_as_zeros(target)
        # What others write there by design is nobody's to judge.
        self._excluded = [
            _touched(one.io.offset, one.io.offset + one.io.length)
            for one in scene.arm.bystanders
            if one.io is not None and one.io.target == target
        ]
        if any(isinstance(layer, FsLayer) and layer.on == target for layer in scene.arm.layers):
            self._excluded.append(_touched(*_EVERYWHERE))
        # What commands wrote, of which the ledger knows nothing, with its place in the order.
        self._holes: list[tuple[int, range]] = []
        self._found: list[Found] = []
        self._alien: list[Alien] = []
        self._stored: dict[int, int] = {}
        # Writes that no verification has followed yet, with the indices of their steps.
        self._waiting: list[tuple[int, Write | Calls]] = []
        self._spaced: set[int] = set()  # blocks that the last verification found written
        self._promised: set[int] = set()  # blocks that have space by fallocate's word
        self._before: dict[int, frozenset[int]] = {}

    def play(self, before: int | None = None) -> Account:
        """What the steps, or those before one, have made of the layer."""
        for taken in self._scene.taken[:before]:
            step = taken.step
            if isinstance(step, Snapshot) and step.target == self._target:
                self._take(taken.index)
            elif isinstance(step, Write) and step.target == self._target:
                self._before[taken.index] = frozenset(self._spaced | self._promised)
                if taken.seen.submitter is not None:
                    self._write(step, taken.index, taken.seen.submitter)
                    self._waiting.append((taken.index, step))
            elif isinstance(step, Calls) and step.target == self._target:
                self._before[taken.index] = frozenset(self._spaced)
                self._calls(step, taken)
                self._waiting.append((taken.index, step))
            elif isinstance(step, Verify) and step.target == self._target:
                self._verify(taken)
            elif isinstance(step, RangeOp) and step.target == self._target:
                self._before[taken.index] = frozenset(self._spaced | self._promised)
                if taken.seen.submitter is not None:
                    self._range(step, taken.index, taken.seen.submitter)
            elif isinstance(step, Truncate) and self._scene.stands_on(self._target, step.target):
                self._erase(step.size, _END)
            elif isinstance(step, Run):
                self._run(step)
        return Account(
            target=self._target,
            found=tuple(self._found),
            alien=tuple(self._alien),
            stored=self._stored,
            before=self._before,
        )

    def _take(self, index: int) -> None:
        """A snapshot holds from here on what its origin holds now, and was acknowledged there."""
        layers = {layer.name: layer for layer in self._scene.arm.layers}
        origin = _Ledger(self._scene, dict(layers[self._target].supports())["on"])
        origin.play(index)
        self._order = max(self._order, origin._order)
        self._blocks, self._holes = origin._blocks, origin._holes
        self._excluded += origin._excluded
        self._spaced.clear()
        self._promised.clear()

    # -- what is submitted ----------------------------------------------------------------------

    def _write(self, step: Write, index: int, submitter: Submitter) -> None:
        pending: list[tuple[Op, int]] = []
        acks: list[tuple[Op, int]] = []
        told: set[int] = set()  # orders of what was acknowledged before a sync that failed
        for op in submitter.ops:
            if op.kind == "write":
                order = self._submit(op, vague=step.submit in UNSPECIFIED)
                (acks if step.submit in SYNCS_ITSELF else pending).append((op, order))
            elif op.kind == "sync":
                if op.result == 0:
                    acks += [one for one in pending if one[0].end_us <= op.start_us]
                else:
                    told.update(order for _, order in acks)
                pending = [one for one in pending if one[0].end_us > op.start_us]
        died = _died(submitter)
        for op, order in acks:
            ack = Ack(
                order=order,
                generation=op.generation,
                step=index,
                by=ACKNOWLEDGED_BY[step.submit],
                told=died or order in told,
            )
            self._store(_whole(op.offset, op.offset + min(op.result, op.length)), ack)
        self._unrecorded(step, submitter)

    def _calls(self, step: Calls, taken: Taken) -> None:
        """The calls of a script: every sync of the file speaks for what was written before it."""
        pending: list[tuple[Made, int]] = []
        acks: list[tuple[Made, int, str]] = []
        told: set[int] = set()  # as in ``_write``
        # Of a block device syncfs syncs the filesystem that its node is on.
        whole = {"syncfs"} if self._is_file() else set()
        for one in made(step, taken.seen.file_ops):
            do, result = one.call.do, one.op.result
            syncs = one.syncs or do in whole
            if do in STORES:
                offset, length = one.region(step)
                times = one.op.start_us, one.op.end_us
                op = Op("write", offset, length, step.generation, result, *times)
                order = self._submit(op, vague=one.direct)
                if one.durable:
                    acks.append((one, order, f"{do}() that syncs itself"))
                else:
                    pending.append((one, order))
            elif syncs and result == 0:
                acks += [(w, order, f"write() and {do}()") for w, order in pending]
                pending = []
            elif (syncs or do == "sync_file_range") and result < 0:
                told.update(order for _, order, _ in acks)
                pending = []
            elif one.forgets:
                # The report may have gone with the inode, as the norm does not rule out.
                pending = []
        died = _died(taken.seen.submitter)
        for one, order, by in acks:
            offset, length = one.region(step)
            ack = Ack(
                order=order,
                generation=step.generation,
                step=taken.index,
                by=by,
                told=died or order in told,
            )
            self._store(_whole(offset, offset + min(one.op.result, length)), ack)
        if died:
            self._order += 1
            for block in _touched(step.offset, step.offset + step.length):
                self._kept(block).submitted[step.generation] = self._order

    def _is_file(self) -> bool:
        layers = {layer.name: layer for layer in self._scene.arm.layers}
        return isinstance(layers.get(self._target), FileLayer)

    def _submit(self, op: Op, *, vague: bool) -> int:
        self._order += 1
        start, done, end = op.offset, op.offset + op.result, op.offset + op.length
        asked, begun, stored = _whole(start, end), _touched(start, done), _whole(start, done)
        for block in _touched(start, end):
            kept = self._kept(block)
            kept.submitted[op.generation] = self._order
            # A buffered write that came back short may have left a part of its last block.
            if block not in asked or (block not in stored and (vague or block in begun)):
                kept.unspecified = self._order
        return self._order

    def _store(self, blocks: range, ack: Ack) -> None:
        for block in blocks:
            self._acknowledge(block, ack)
            self._spaced.add(block)

    def _acknowledge(self, block: int, ack: Ack) -> None:
        kept = self._blocks[block]
        kept.ack = max(kept.ack or ack, ack, key=lambda one: one.order)

    def _unrecorded(self, step: Write, submitter: Submitter) -> None:
        """A submitter that did not end by itself may have had requests in flight, and fio may stop
        with some that it did not log: their blocks may hold the generation, or, under O_DIRECT and
        in a mapping, anything.
        """
        ended = submitter.ended
        cut = _died(submitter) or ended.exit_code is None
        fio = step.submit in FIO
        failed = ended.exit_code != 0 or any(op.result < 0 for op in submitter.ops)
        if not cut and not (fio and failed):
            return
        begin, end = step.offset, step.offset + step.length
        writes = [op for op in submitter.ops if op.kind == "write"]
        known = {block for op in writes for block in _touched(op.offset, op.offset + op.length)}
        if not fio and writes:
            begin = writes[-1].offset + writes[-1].length
        if not fio:
            end = min(end, begin + step.request * step.depth)
        elif writes and step.order == "sequential":
            # Those that it did not log may lie before the last that it did; beyond it are those in flight.
            end = min(end, max(op.offset + op.length for op in writes) + step.request * step.depth)
        self._order += 1
        for block in _touched(begin, end):
            if block in known:
                continue
            kept = self._kept(block)
            kept.submitted[step.generation] = self._order
            if step.submit in UNSPECIFIED or step.submit in MMAP:
                # A store into a mapping that was cut short leaves a part of its page.
                kept.unspecified = self._order

    def _range(self, step: RangeOp, index: int, submitter: Submitter) -> None:
        """What a call on a range left, and what its sync makes of it."""
        died = _died(submitter)
        zeroed: list[tuple[Op, int]] = []
        at = step.offset
        for op in submitter.ops:
            if op.kind == step.op:
                at = op.offset + op.length
                if op.result == 0:
                    self._altered(step.op, op)
                    zeroed += [(op, self._order)] if step.op in ZEROES else []
                elif op.result != -errno.EOPNOTSUPP:  # which leaves all as it was
                    self._erase(op.offset, at)
            elif op.kind == "sync":
                for done, order in zeroed if op.result == 0 else ():
                    ack = Ack(
                        order=order,
                        generation=ZEROS,
                        step=index,
                        by=f"{CALLS[step.op]} and fsync()",
                        told=died,
                    )
                    for block in _touched(done.offset, done.offset + done.length):
                        self._acknowledge(block, ack)
                zeroed = []
        if died:
            # A call may have been in flight.
            self._erase(at, step.offset + step.length)

    def _altered(self, kind: RangeKind, op: Op) -> None:
        start, end = op.offset, op.offset + op.length
        if kind in (RangeKind.DISCARD, RangeKind.ZONE_RESET):
            self._erase(start, end)
            return
        self._order += 1
        for block in _touched(start, end):
            if kind in ZEROES:
                self._kept(block).submitted[ZEROS] = self._order
            if kind in TAKES_SPACE_AWAY:
                self._spaced.discard(block)
                self._promised.discard(block)
            if kind in PROMISES_SPACE:
                self._promised.add(block)

    def _run(self, step: Run) -> None:
        for start, end in written_by(step, self._target):
            self._overwritten(start, end)

    def _overwritten(self, start: int, end: int) -> None:
        """From here on a range may hold anything."""
        self._order += 1
        touched = _touched(start, end)
        self._holes.append((self._order, touched))
        for block, kept in self._blocks.items():
            if block in touched:
                kept.unspecified = self._order

    def _erase(self, start: int, end: int) -> None:
        """From here on a range may hold anything, and need not have space."""
        self._overwritten(start, end)
        for blocks in (self._spaced, self._promised):
            blocks.difference_update([b for b in blocks if start <= b * BLOCK < end])

    # -- what is read back ----------------------------------------------------------------------

    def _verify(self, taken: Taken) -> None:
        written: dict[int, int | None] = {}
        known = sorted(self._blocks)
        for extent in taken.seen.extents:
            blocks = _whole(extent.offset, extent.offset + extent.length)
            if extent.content == "generation":
                self._spaced.update(blocks)
                written.update(dict.fromkeys(blocks, extent.generation))
            elif extent.content == "zero":
                self._spaced.difference_update([b for b in self._spaced if b in blocks])
            # Of what nobody wrote only data is worth a look: devices are mostly empty.
            among = slice(bisect_left(known, blocks.start), bisect_left(known, blocks.stop))
            for block in blocks if extent.content in _DATA else known[among]:
                self._look(taken.index, block, extent)
        for index, step in self._waiting:
            mine = _touched(step.offset, step.offset + step.length)
            count = sum(written.get(block) == step.generation for block in mine)
            self._stored[index] = count * BLOCK
        self._waiting.clear()

    def _look(self, verify: int, block: int, extent: Extent) -> None:
        # An arm has millions of these looks: what it has none of is not asked for each block.
        if self._excluded and any(block in blocks for blocks in self._excluded):
            return
        kept = self._blocks.get(block)
        if kept is None:
            if self._zeros and not self._hole_order(block):
                self._add_alien(verify, block, extent)
            return
        if kept.open:
            return
        if extent.content == "foreign":
            if self._zeros or kept.ack is not None:
                self._add_alien(verify, block, extent)
        elif extent.content == "generation" and not kept.ever_held(extent.generation):
            self._add_alien(verify, block, extent)
        if kept.ack is not None:
            self._found.append(
                Found(
                    verify=verify,
                    block=block,
                    ack=kept.ack,
                    kind=_kind(kept, kept.ack, extent),
                    errno=extent.errno,
                )
            )

    def _hole_order(self, block: int) -> int:
        """The place of the last command that wrote a block; 0 if none did."""
        if not self._holes:
            return 0
        return max((order for order, blocks in self._holes if block in blocks), default=0)

    def _kept(self, block: int) -> _Block:
        """A block's account. What a command left there before may be anything."""
        kept = self._blocks.get(block)
        if kept is None:
            kept = self._blocks[block] = _Block(unspecified=self._hole_order(block))
        return kept

    def _add_alien(self, verify: int, block: int, extent: Extent) -> None:
        self._alien.append(
            Alien(verify=verify, block=block, content=extent.content, generation=extent.generation)
        )


def _kind(kept: _Block, ack: Ack, extent: Extent) -> Kind | None:
    match extent.content:
        case "generation":
            if kept.may_hold(extent.generation, ack):
                return None
            return "older" if kept.ever_held(extent.generation) else "foreign"
        case "zero":
            return None if kept.may_hold(ZEROS, ack) else "zeros"
        case "foreign":
            return "foreign"
        case _:
            return "unreadable"


def _died(submitter: Submitter | None) -> bool:
    """Whether a submitter did not end by itself, and so was not told what a sync would have."""
    if submitter is None:
        return False
    ended = submitter.ended
    return ended.signal is not None or ended.timed_out or not ended.killable


def _whole(start: int, end: int) -> range:
    """The blocks that lie wholly within: none if the end is before the start, as after an error."""
    return range(-(-start // BLOCK), end // BLOCK)


def _touched(start: int, end: int) -> range:
    """The blocks that have a byte within; none likewise."""
    return range(start // BLOCK, -(-end // BLOCK) if end > start else start // BLOCK)


# -- what a command writes ----------------------------------------------------------------------


def written_by(step: Run, target: str) -> tuple[Range, ...]:
    """Where on a layer a command may write: dd's own range, else all of it if it names the layer."""
    placeholder = f"{{{target}}}"
    named = [word for word in step.argv if placeholder in word]
    if not named:
        return ()
    if program(step.argv) == "dd":
        if f"of={placeholder}" not in step.argv:
            return ()
        return _dd_range(dict(_operands(step.argv)))
    return (_EVERYWHERE,)


def _operands(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            yield name, value


def _dd_range(operands: dict[str, str]) -> tuple[Range, ...]:
    try:
        block = parse_size(operands.get("bs") or operands.get("obs") or "512")
        start = parse_size(operands.get("seek", "0")) * block
        count = operands.get("count")
        # count= counts input blocks, which bs= alone makes as large as output blocks.
        known = count is not None and "bs" in operands
        end = start + parse_size(count or "0") * block if known else _END
    except ValueError:
        return (_EVERYWHERE,)
    return ((start, end),) if end > start else ()


# -- all layers of an arm -----------------------------------------------------------------------


def accounts(scene: Scene) -> tuple[Account, ...]:
    """One account for each layer that the ledger wrote or read."""
    targets = dict.fromkeys(
        t.step.target for t in scene.taken if isinstance(t.step, Write | Calls | RangeOp | Verify)
    )
    return tuple(_Ledger(scene, target).play() for target in targets)


def cached(step: Write) -> bool:
    """Whether a step writes through the page cache, so that an error may be told to who comes next."""
    return step.submit in THROUGH_CACHE
