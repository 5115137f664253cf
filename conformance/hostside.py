"""What the host does for a case: its guest's disk is in a file of the host, which runs short there.

It stands between whoever drives a guest and the guest. The guest's program is told of a disk that will
be there, and of no shortage; the file, the shortage, its relief and its gauge are the host's, and the
gauge's reading takes its place in what the guest answers. So an observation reads as any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.machine.protocol import Disk, DiskFailed, DiskOrder, Guest
from conformance.model import (
    AnyStep,
    Arm,
    HostSpace,
    Impose,
    MachineDiskLayer,
    Relieve,
    VirtioLayer,
)

LACKS = "host:"
"""How requirements begin that a host is asked for, and no guest."""

_HIDDEN = ("on_error",)
"""Fields of a layer that are no business of the guest's."""


class HostSide:
    """One arm's. It lives as long as the arm's guest."""

    def __init__(self, arm: Arm) -> None:
        disks = [layer for layer in arm.layers if isinstance(layer, MachineDiskLayer)]
        self._layer = disks[0] if disks else None
        self._shortage = arm.shortage if isinstance(arm.shortage, HostSpace) else None
        self._steps: Mapping[str, AnyStep] = {step.name: step for step in arm.steps}
        self._disk: Disk | None = None
        self._imposed = False

    def call(self, guest: Guest, do: str, args: Mapping[str, Any], *, limit: float) -> object:
        """What ``guest.call`` answers, with the host's part done and told.

        Raises what ``guest.call`` and ``guest.plug`` raise.
        """
        if self._layer is None:
            return guest.call(do, args, limit=limit)
        if do == "build":
            self._disk = guest.plug(_order(self._layer))
            args = {**args, "layers": [_visible(layer) for layer in args["layers"]]}
            if self._shortage is not None:
                args = {**args, "shortage": {"kind": "none"}}
        problem = self._act(guest, args["step"]["as"]) if do == "step" else ""
        answer = guest.call(do, args, limit=limit)
        if self._shortage is None or not isinstance(answer, dict):
            return answer
        return self._told(answer, problem)

    def _act(self, guest: Guest, name: str) -> str:
        """The host's part of a step; why it could not be done, or nothing."""
        disk, shortage, step = self._disk, self._shortage, self._steps.get(name)
        if disk is None or shortage is None:
            return ""
        try:
            if isinstance(step, Impose):
                disk.squeeze(shortage.leave)
                self._imposed = True
                if shortage.grows:
                    guest.when_stopped(lambda: disk.give(shortage.grows))
            elif isinstance(step, Relieve):
                disk.give()
                self._imposed = False
        except OSError as error:
            return f"the host: {error.strerror or error}"
        return ""

    def _told(self, answer: dict[str, Any], problem: str) -> dict[str, Any]:
        watch = answer.get("watch")
        if isinstance(watch, dict) and self._disk is not None:
            try:
                answer = {**answer, "watch": {**watch, "reading": self._reading(self._disk)}}
            except OSError as error:
                problem = problem or f"the host: the disk's file cannot be read: {error.strerror}"
        if problem and "problem" not in answer:
            raise DiskFailed(problem)
        return {**answer, "problem": answer["problem"] or problem} if problem else answer

    def _reading(self, disk: Disk) -> dict[str, object]:
        found = disk.reading()
        limit = None if not self._imposed or found.room is None else found.used + found.room
        return {"kind": "host_space", "used": found.used, "limit": limit, "hits": found.refused}


def _order(layer: MachineDiskLayer) -> DiskOrder:
    return DiskOrder(
        name=layer.name,
        bus=layer.layer,
        size=layer.size,
        on_error=layer.on_error if isinstance(layer, VirtioLayer) else "report",
    )


def _visible(layer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in layer.items() if key not in _HIDDEN}
