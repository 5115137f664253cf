"""What of an account was lost: acknowledged and not there, or never stored and never told of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from conformance.model import BLOCK, Calls, RangeOp, Write
from conformance.oracle.account import Account, Found, Kind
from conformance.oracle.scene import Phase, Scene
from conformance.oracle.text import Range, merge

UNSTORED: Final = frozenset({"zeros", "older"})
"""What stands where a write was never stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Acknowledged blocks that do not read back, alike in how, and in how much that weighs."""

    kind: Kind
    lasting: bool  # not only while the shortage lasted
    kept: bool  # the first verification had found it as it was acknowledged
    target: str
    verify: int
    found: tuple[Found, ...]

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The bytes that are lost, in order."""
        return block_ranges(one.block for one in self.found)


def block_ranges(blocks: Iterable[int]) -> tuple[Range, ...]:
    """Blocks as ranges of bytes, in order."""
    return merge((block * BLOCK, (block + 1) * BLOCK) for block in blocks)


def losses(scene: Scene, account: Account) -> tuple[Loss, ...]:
    """What was acknowledged and is lost: for good, or while the shortage lasted.

    Lasting is what reads wrong after relief. What reads wrong during the shortage and was not read
    again under the same acknowledgement is lasting too if its content was wrong (nothing brings it
    back once it is overwritten), or if the case does not read after relief at all; what merely
    could not be read is not.
    """
    wrong = {(one.block, one.ack.order) for one in account.found if one.kind is not None}
    if not wrong:
        return ()
    by_ack: dict[tuple[int, int], list[Found]] = {}
    for one in account.found:
        if (one.block, one.ack.order) in wrong:
            by_ack.setdefault((one.block, one.ack.order), []).append(one)
    groups: dict[tuple[Kind, bool, bool], list[Found]] = {}
    for history in by_ack.values():
        worst = _worst(scene, history)
        if worst is not None:
            one, lasting = worst
            assert one.kind is not None
            kept = history[0].kind is None
            groups.setdefault((one.kind, lasting, kept), []).append(one)
    return tuple(
        Loss(
            kind=kind,
            lasting=lasting,
            kept=kept,
            target=account.target,
            verify=min(one.verify for one in members),
            found=tuple(members),
        )
        for (kind, lasting, kept), members in sorted(groups.items())
    )


def _worst(scene: Scene, history: list[Found]) -> tuple[Found, bool] | None:
    wrong = [one for one in history if one.kind is not None]
    if not wrong:
        return None
    after = [one for one in history if scene.taken[one.verify].phase is Phase.AFTER]
    wrong_after = [one for one in after if one.kind is not None]
    if wrong_after:
        return replace(wrong_after[0], verify=wrong[0].verify), True
    if after:
        return wrong[0], False
    content = [one for one in wrong if one.kind != "unreadable"]
    if not scene.plans_after_look:
        return (content or wrong)[0], True
    cut_short = len(scene.taken) < len(scene.arm.steps)
    return (content or wrong)[0], bool(content) and not cut_short


def unsurfaced(scene: Scene, account: Account) -> tuple[Found, ...]:
    """Blocks that were never stored, and whose submitter was told that they were, and nothing else.

    Never stored is what the first verification after the write does not find: zeros or older data
    stand there. Data that nobody wrote there is another matter (``no_foreign_data``). What a
    snapshot lost of its origin's was stored once.
    """
    first: dict[tuple[int, int], Found] = {}
    for one in account.found:
        first.setdefault((one.block, one.ack.order), one)
    lasting = {
        (one.block, one.ack.order)
        for loss in losses(scene, account)
        if loss.lasting
        for one in loss.found
    }
    return tuple(
        one
        for key, one in first.items()
        if key in lasting
        and one.kind in UNSTORED
        and not one.ack.told
        and _submitted_to(scene, one, account.target)
    )


def _submitted_to(scene: Scene, one: Found, target: str) -> bool:
    """Whether a block was written to this layer, and is not a snapshot's of what its origin held."""
    step = scene.taken[one.ack.step].step
    return isinstance(step, Write | Calls | RangeOp) and step.target == target
