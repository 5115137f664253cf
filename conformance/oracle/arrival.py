"""The two guards against passing for nothing: the shortage arrived, and its relief was relief.

NORMS: "The shortage must be shown to have arrived by a reading that does not depend on the error
under test. If not, the outcome is BROKEN, never PASS." And of relief: "A case that relieves too
little would accuse it falsely: prove the relief, as well as the shortage."
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from conformance.model import (
    BLOCK,
    AnyStep,
    Calls,
    Files,
    NoShortage,
    RangeOp,
    Reading,
    Role,
    Run,
    Shortage,
    Write,
    parse_size,
)
from conformance.oracle.answer import Reason
from conformance.oracle.scene import Phase, Scene, Taken, Window, windows

METADATA_REQUEST: Final = 65536
"""The largest single request that a journal, log or tree node is written with, about: the reading
may stay that far from the limit although a request was refused.
"""


def room(reading: Reading) -> int | None:
    """Bytes left by a reading; None when no limit is in force. Negative when the limit was passed."""
    return None if reading.limit is None else reading.limit - reading.used


def request_of(step: AnyStep) -> int:
    """The most bytes that one request of a step asks space for: a reading that is closer to the
    limit than this shows that the next request could not be served.
    """
    match step:
        case Write():
            return max(BLOCK, step.request)
        case RangeOp():
            return max(BLOCK, step.request or step.length)
        case Files():
            return max(BLOCK, step.size)
        case Calls():
            return step.length
        case Run():
            return _dd_request(step.argv)
        case _:
            return METADATA_REQUEST


def _dd_request(argv: tuple[str, ...]) -> int:
    for word in argv:
        found = re.fullmatch(r"o?bs=(\d+[KMGT]?)", word)
        if found:
            return max(BLOCK, parse_size(found[1]))
    return BLOCK  # which is more than the 512 bytes that dd takes by itself


def arrival_reasons(scene: Scene) -> Iterator[Reason]:
    """Why the shortage, or its relief, is not proven. Nothing if both are."""
    if isinstance(scene.arm.shortage, NoShortage) or not scene.imposed:
        return
    cut = len(scene.taken) < len(scene.arm.steps)
    for window in windows(scene):
        for text in _window(scene, window):
            yield Reason(text=f"arm {scene.name}: {text}", fatal=not (cut and not window.relieve))


def _window(scene: Scene, window: Window) -> Iterator[str]:
    at_first = window.impose.seen.watch.reading
    shortage = scene.arm.shortage
    asked = shortage.asked
    if at_first.limit is None:
        yield f"{window.impose.name} put no limit in force: the gauge shows none"
        return
    unit, rounding = ("bytes", BLOCK) if shortage.OF_SPACE else ("inodes", 0)
    # Limits of space are kept in pages, or in KiB by quotas.
    if asked is not None and abs(at_first.limit - asked) > rounding:
        yield f"the limit in force is {at_first.limit} {unit}, and {asked} was asked for"
        return
    if not has_arrived(window, shortage):
        closest = min(
            (left for r in window.readings if (left := room(r)) is not None), default=None
        )
        told = "nothing was read" if closest is None else f"{closest} {unit} were left at least"
        yield f"the shortage was not shown to have arrived: {told}, and no limit was hit"
    if window.relieve is not None:
        yield from _relief(scene, window, window.relieve)


def has_arrived(window: Window, shortage: Shortage) -> bool:
    """Whether the gauge shows that the shortage was met, at any step from the first that provokes.

    Later steps count too: what a filesystem keeps back is written at unmount. Where space runs short less
    may be left than one request asks for, or than is kept back; of inodes, none.
    """
    begin = window.impose.seen.watch.reading
    provoking = [t.index for t in window.during if t.step.role is Role.PROVOKE]
    first = min(provoking, default=window.impose.index)
    provoked = (request_of(t.step) for t in window.during if t.step.role is Role.PROVOKE)
    near = max(provoked, default=BLOCK) + shortage.RESERVED if shortage.OF_SPACE else 0
    return any(
        _met(begin, taken.seen.watch.reading, near)
        for taken in window.during
        if taken.index >= first
    )


def _met(begin: Reading, now: Reading, near: int) -> bool:
    hit = now.hits is not None and now.hits > (begin.hits or 0)
    left = room(now)
    return hit or (left is not None and left <= near)


def _relief(scene: Scene, window: Window, relieve: Taken) -> Iterator[str]:
    last = window.readings[-1] if window.readings else window.impose.seen.watch.reading
    before, after = room(last), room(relieve.seen.watch.reading)
    if after is None:
        return
    if before is not None and after <= before:
        yield f"{relieve.name} relieved nothing: {before} bytes were left, and then {after}"
        return
    for taken in scene.taken[relieve.index + 1 :]:
        if taken.phase is not Phase.AFTER:
            return
        left = room(taken.seen.watch.reading)
        if taken.step.role is Role.RECOVER and left is not None and left <= request_of(taken.step):
            yield f"{relieve.name} relieved too little: {left} bytes were left after {taken.name}"
            return
