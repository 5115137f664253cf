"""What became of the blocks of a layer, after acts that were written by hand: see ``builders``.

What is said of acknowledged blocks is a line with one character for each block, from block 0:

    +  as it should      z  zeros      o  older      f  foreign      u  cannot be read
    -  nothing is said
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from conformance.model import (
    BLOCK,
    AnyLayer,
    Arm,
    ArmSeen,
    Bystander,
    DiskLayer,
    Ended,
    FileLayer,
    LoopLayer,
    NoShortage,
    Op,
    RangeKind,
    RangeOp,
    Reading,
    Role,
    StepSeen,
    Submitter,
    TmpfsLayer,
    Watch,
)
from conformance.oracle.account import Account, accounts
from conformance.oracle.scene import Phase, Scene, Taken
from tests.support.builders import (
    PID,
    Act,
    calls,
    closed,
    synced,
)

LAYERS: Final[tuple[AnyLayer, ...]] = (
    TmpfsLayer(name="back", layer="tmpfs", size=64 << 20),
    FileLayer(name="image", layer="file", on="back", size=64 * BLOCK),
    LoopLayer(name="device", layer="loop", on="image"),
    FileLayer(name="other", layer="file", on="back", size=64 * BLOCK),
)
"""A loop device over a file, and a file beside it: all hold zeros at first."""
USED_DISK: Final[tuple[AnyLayer, ...]] = (DiskLayer(name="device", layer="disk"),)
"""A device of which nobody knows what it holds at first."""
SIGNS: Final = {None: "+", "zeros": "z", "older": "o", "foreign": "f", "unreadable": "u"}


def scene_of(
    *acts: Act, layers: Sequence[AnyLayer] = LAYERS, bystanders: Sequence[Bystander] = ()
) -> Scene:
    """An arm without a shortage, in which these acts were seen."""
    arm = Arm(
        layers=tuple(layers),
        bystanders=tuple(bystanders),
        shortage=NoShortage(kind="none"),
        steps=tuple(act.step for act in acts),
    )
    watch = Watch(t_us=0, reading=Reading(kind="none", used=0), oom_kill=0)
    steps = tuple(
        StepSeen(
            name=act.step.name, verb=act.step.verb, start_us=0, end_us=9, watch=watch, **act.seen
        )
        for act in acts
    )
    taken = tuple(
        Taken(index=index, step=act.step, seen=seen, phase=Phase.AFTER)
        for index, (act, seen) in enumerate(zip(acts, steps, strict=True))
    )
    return Scene(arm=arm, seen=ArmSeen(name="main", steps=steps), taken=taken)


def account_of(*acts: Act, target: str = "device", **rig: Any) -> Account:
    """The account of one layer after these acts."""
    return next(one for one in accounts(scene_of(*acts, **rig)) if one.target == target)


def line(account: Account) -> str:
    """What is said of each acknowledged block at the last verification that says anything."""
    last = max((one.verify for one in account.found), default=0)
    signs = {one.block: SIGNS[one.kind] for one in account.found if one.verify == last}
    return "".join(signs.get(block, "-") for block in range(max(signs, default=-1) + 1))


def alien(account: Account) -> list[int]:
    """The blocks that hold what nobody submitted for them, in the order in which they are told."""
    return [one.block for one in account.alien]


def on(target: str, act: Act) -> Act:
    """The same act on another layer."""
    return Act(step=act.step.model_copy(update={"target": target}), seen=act.seen)


# -- ranges and scripts ---------------------------------------------------------------------------


def call(kind: RangeKind, first: int, count: int, result: int = 0) -> Op:
    """A call on some blocks."""
    return Op(kind.value, first * BLOCK, count * BLOCK, 0, result, 1, 2)


def ranged(
    kind: RangeKind,
    blocks: tuple[int, int],
    ops: Sequence[Op] | None = None,
    *,
    name: str = "range",
    **ended: Any,
) -> Act:
    """A step that was asked for from one block up to another: one call that worked, and an fsync,
    unless it says otherwise.
    """
    first, last = blocks
    step = RangeOp(
        name=name,
        role=Role.PROVOKE,
        verb="range_op",
        op=kind,
        offset=first * BLOCK,
        length=(last - first) * BLOCK,
    )
    made = [call(kind, first, last - first), synced(), closed()] if ops is None else ops
    how = Ended(**(ended or {"exit_code": 0}))
    return Act(
        step=step, seen={"submitter": Submitter(pid=PID, cgroup="", ops=tuple(made), ended=how)}
    )


def called(
    script: str,
    results: Sequence[int],
    *,
    name: str = "calls",
    blocks: tuple[int, int] = (0, 2),
    generation: int = 2,
    **ended: Any,
) -> Act:
    """A script on some blocks, and what its calls returned; the rest of them were not made."""
    first, last = blocks
    return calls(
        name,
        Role.PROVOKE,
        script,
        results,
        first=first,
        count=last - first,
        generation=generation,
        **ended,
    )
