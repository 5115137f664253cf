"""Guests of which nothing can be known: a planted fault for each way to be BROKEN."""

from __future__ import annotations

import errno
from typing import Any, Final

from conformance.machine.protocol import GuestGone, GuestPanicked, WireGarbage
from conformance.model import Reading, Watch
from tests.support.liars import DIRECT, Liar, NoLimit, on_step, reads, telling
from tests.support.model_guest import ModelGuest


def _one_call_less(seen: dict[str, Any]) -> None:
    del seen["file_ops"][-1]


def _failed_control(seen: dict[str, Any]) -> None:
    seen["submitter"]["ops"][0][4] = -errno.EIO


def _rig_failed(seen: dict[str, Any]) -> None:
    seen["problem"] = "mount: /run/rig/back: cannot remount"


class Forgetful(ModelGuest):
    """The gauge shows plenty of space, and no limit that was hit."""

    def _watch(self) -> Watch:
        honest = super()._watch()
        empty = Reading(kind=honest.reading.kind, used=0, limit=honest.reading.limit)
        return honest.model_copy(update={"reading": empty})


class Unlimited(ModelGuest):
    """No limit is ever put in force."""

    def _watch(self) -> Watch:
        honest = super()._watch()
        none = Reading(kind=honest.reading.kind, used=honest.reading.used)
        return honest.model_copy(update={"reading": none})


BREAKAGES: Final[tuple[Liar, ...]] = (
    Liar(
        name="the shortage does not arrive",
        variant=DIRECT,
        guest=Forgetful,
        reason="not shown to have arrived",
    ),
    Liar(
        name="no limit is in force",
        variant=DIRECT,
        guest=Unlimited,
        reason="put no limit in force",
    ),
    Liar(
        name="no write is lost where one was to be",
        variant="sync_told_once[fsync-device]",
        guest=NoLimit,
        reason="lose lost nothing",
    ),
    Liar(
        name="one call of a script is not told",
        variant="sync_told_once[fsync-device]",
        guest=telling(on_step(["lose"], _one_call_less)),
        reason="not those of the script",
    ),
    Liar(
        name="the control fails",
        variant=DIRECT,
        guest=telling(on_step(["control"], _failed_control)),
        reason="control step control",
    ),
    Liar(
        name="the control does not read back",
        variant=DIRECT,
        guest=telling(on_step(["control_read"], lambda seen: reads("zero", 10 << 20, seen))),
        reason="did not verify without a shortage",
    ),
    Liar(
        name="the rig cannot do a step",
        variant=DIRECT,
        guest=telling(on_step(["impose"], _rig_failed)),
        reason="cannot remount",
    ),
    Liar(
        name="the kernel panics before anything is short",
        variant=DIRECT,
        guest=ModelGuest,
        reason="lost before the shortage was imposed",
        loss=GuestPanicked("Kernel panic - not syncing: planted"),
        at="control",
    ),
    Liar(
        name="the guest sends garbage while the device is short",
        variant=DIRECT,
        guest=ModelGuest,
        reason="wire",
        loss=WireGarbage("a line that is no message"),
        at="fill",
    ),
    Liar(
        name="the machine ends while the device is short",
        variant=DIRECT,
        guest=ModelGuest,
        reason="gone",
        loss=GuestGone("QEMU exited with code 0"),
        at="fill",
    ),
)
"""Ways in which nothing is known of the kernel."""
