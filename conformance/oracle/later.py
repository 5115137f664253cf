"""Errors of the page cache that are told to whoever comes next, and are no fault of the kernel's.

A write through the page cache may fail after its submitter is gone. errseq_t keeps such an error
until it was reported once: "if the error has not been reported, the next opener's fsync reports it"
(Documentation/core-api/errseq.rst, Documentation/filesystems/vfs.rst). Any sync of the device by
anybody who came later writes back all that was left over, and has it reported.

So the first sync after such a leftover may fail, once, although its own writes are stored.
"""

from __future__ import annotations

from conformance.model import SYNCS_ITSELF, Calls, Op, RangeOp, Run, Write
from conformance.model.calls import TELLS_OF_FILE
from conformance.oracle.account import cached, written_by
from conformance.oracle.calls import untold
from conformance.oracle.scene import Scene, Taken

SYNCING = frozenset({"conv=fsync", "conv=fdatasync", "oflag=sync", "oflag=dsync"})
"""Words with which dd syncs what it writes."""


def leftover(taken: Taken) -> bool:
    """Whether a step left writes in the page cache whose fate no sync of its own was asked for."""
    step, submitter = taken.step, taken.seen.submitter
    if submitter is None:
        return False
    cut = submitter.ended.signal is not None or submitter.ended.timed_out
    if isinstance(step, Run):
        return cut or not _syncs(step)
    if isinstance(step, Calls):
        return cut or untold(step, taken.seen.file_ops)
    if not isinstance(step, Write) or not cached(step):
        return False
    kinds = [op.kind for op in submitter.ops if op.kind in ("write", "sync")]
    if cut:
        return True
    return step.submit not in SYNCS_ITSELF and bool(kinds) and kinds[-1] == "write"


def _syncs(step: Run) -> bool:
    words = {word for argument in step.argv for word in argument.split()}
    return bool(words & SYNCING) or bool(words & {"sync", "fsync"})


def _asked(taken: Taken) -> bool:
    """Whether a step that left nothing over synced at all, so that what was left over before it has
    been told.
    """
    submitter = taken.seen.submitter
    if submitter is None:
        return False
    if isinstance(taken.step, Run):
        return submitter.ended.exit_code is not None
    if isinstance(taken.step, Write) and taken.step.submit in SYNCS_ITSELF and submitter.ops:
        return True
    if isinstance(taken.step, Calls):
        return any(op.kind in TELLS_OF_FILE for op in taken.seen.file_ops)
    return any(op.kind == "sync" for op in submitter.ops)


def untold_before(scene: Scene, taken: Taken) -> Taken | None:
    """The step before a step whose error the first sync of that one may rightly report, or None."""
    target = getattr(taken.step, "target", None)
    for earlier in reversed(scene.taken[: taken.index]):
        step = earlier.step
        if isinstance(step, Write | Calls | RangeOp) and target not in (None, step.target):
            continue
        if isinstance(step, Run) and target is not None and not written_by(step, target):
            continue
        if leftover(earlier):
            return earlier
        if _asked(earlier):
            return None
    return None


def may_be_told_late(scene: Scene, taken: Taken) -> bool:
    """Whether the first sync of a step may rightly report an error of a step before it."""
    return untold_before(scene, taken) is not None


def excused(scene: Scene, taken: Taken) -> Op | None:
    """The failed operation of a step that is legitimately another's error, or None: its first sync,
    or under O_DSYNC its first write, which syncs too.
    """
    if not isinstance(taken.step, Write) or not may_be_told_late(scene, taken):
        return None
    kind = "write" if taken.step.submit in SYNCS_ITSELF else "sync"
    first = next((op for op in taken.ops if op.kind == kind), None)
    return first if first is not None and first.result < 0 else None
