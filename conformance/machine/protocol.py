"""What a throwaway machine offers, whichever way it is made, and how it can be lost.

In order, with what each step may raise:

1. ``open_machine`` makes the template, once: LaunchFailed (the kernel does not get as far as the
   agent), ArtifactError (the cache cannot be written). When only the template cannot be had, it
   falls back to booting each guest and says why in ``describe()["start_why"]``.
2. ``machine.guest(workdir=...)``, on entry: LaunchFailed (QEMU or the kernel did not come up, or the
   agent said that it cannot work), or a GuestLost (it came up and was lost before it answered).
3. ``guest.call(...)``, any number of times: AgentError (the guest is well, and answers that it could
   not do what was asked), or a GuestLost: GuestPanicked, GuestHung, GuestGone, WireGarbage. After a
   GuestLost the guest is dead and every further call raises the same again. ``guest.plug(...)``:
   DiskFailed (the guest is well, and has no such disk).
4. the end of the ``with``: nothing. QEMU is killed, not asked; no process, socket, memory or disk of
   it is left. The console's file stays in ``workdir``: it is evidence.

OSError is raised only for what the host lacks: ``workdir`` cannot be written, no more descriptors.
All limits are seconds that have been scaled with ``Machine.speed`` by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol


class MachineError(Exception):
    """Something befell a machine. The text is one line."""


class LaunchFailed(MachineError):
    """A guest did not come up.

    ``exit_code`` is QEMU's (negative: the signal that ended it; None: it had to be killed), ``output``
    the end of what QEMU and the guest's console said.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None = None,
        argv: Sequence[str] = (),
        output: str = "",
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.argv = tuple(argv)
        self.output = output


class GuestLost(MachineError):
    """A guest that had come up is of no more use. ``evidence`` is a few bounded texts by name."""

    def __init__(self, message: str, *, evidence: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.evidence: Mapping[str, str] = dict(evidence or {})


class GuestPanicked(GuestLost):
    """Its kernel panicked; the text is the panic's title from the console."""


class GuestHung(GuestLost):
    """It did not answer within the limit. ``evidence`` was taken before it was killed."""


class GuestGone(GuestLost):
    """QEMU exited, and not because of a panic."""


class WireGarbage(GuestLost):
    """It sent something that is no answer to what was asked."""


class AgentError(MachineError):
    """The agent answers that it could not do what was asked; the guest is still of use.

    ``kind`` is the class of the exception in the guest, ``detail`` the end of its traceback.
    """

    def __init__(self, kind: str, message: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {message}" if message else kind)
        self.kind = kind
        self.message = message
        self.detail = detail


class DiskFailed(MachineError):
    """A guest could not be given a disk; it is still of use."""


@dataclass(frozen=True, kw_only=True)
class DiskOrder:
    """A disk for a guest, in a file of the host. ``name`` is its serial number too.

    ``on_error`` is what QEMU does when the host cannot store a write, as its werror= has it:
    ``report`` tells the guest, ``ignore`` tells it that all went well, ``stop`` stops the machine, and so
    does ``enospc`` if it is space that is missing. An nvme device only reports.
    """

    name: str
    bus: Literal["virtio_blk", "virtio_scsi", "nvme"]
    size: int
    on_error: Literal["report", "stop", "enospc", "ignore"] = "report"


@dataclass(frozen=True, kw_only=True)
class DiskReading:
    """How a disk's file stands on the host: bytes that it takes, and bytes that are left for it (None:
    all that it may need). ``refused``: writes that QEMU told of as having found no space.
    """

    used: int
    room: int | None
    refused: int = 0


class Disk(Protocol):
    """A guest's disk, seen from the host. It goes with the guest."""

    def reading(self) -> DiskReading:
        """How its file stands. Raises OSError."""

    def squeeze(self, leave: int) -> None:
        """Take all of the file's space away but ``leave`` bytes. Raises OSError."""

    def give(self, amount: int | None = None) -> bool:
        """Give so many bytes back, or all; whether any were missing. Raises OSError."""


class Guest(Protocol):
    """One virtual machine that has come up and is thrown away after use. Not for several threads."""

    @property
    def events(self) -> tuple[dict[str, object], ...]:
        """What QEMU told unasked, as QMP events, oldest first: resets, block errors, shutdown."""

    @property
    def console(self) -> str:
        """The console so far (its last mebibyte), from the first line of the boot."""

    @property
    def console_path(self) -> Path:
        """The file in ``workdir`` that the console is written to."""

    @property
    def timing(self) -> Mapping[str, float]:
        """Seconds: ``spawn`` (QEMU answers), ``restore`` or ``boot``, ``answer`` (the agent's first
        answer). They follow one another."""

    @property
    def work(self) -> Mapping[str, int]:
        """What it took so far, in counts that no other load on the host changes: ``clones`` or
        ``boots`` (1), ``messages`` over the wire, ``sent`` to the guest and ``received`` bytes, ``pages``
        of the guest's memory that it has of its own, ``private`` bytes of the whole process. The last
        two only where they can be seen, and as they were when the guest was closed or lost."""

    def call(self, do: str, args: Mapping[str, object], *, limit: float) -> object:
        """What the agent answers to ``do`` within ``limit`` seconds; a JSON value.

        While the machine is stopped over a disk's error the limit stands still too.
        Raises AgentError or GuestLost, see above.
        """

    def plug(self, order: DiskOrder) -> Disk:
        """Give it a disk; its kernel sees that a moment later. One at most. Raises DiskFailed."""

    def when_stopped(self, help_it: Callable[[], bool]) -> None:
        """Have ``help_it`` called whenever the machine has stopped over a disk's error, and then let
        the machine go on, unless it returned that there was no help. Without, it stays stopped. An
        OSError of ``help_it`` is the host's fault, and loses the guest: GuestGone.
        """

    def evidence(self) -> Mapping[str, str]:
        """A few bounded texts on what the guest is doing now; {} when it is gone. Takes seconds."""

    def close(self) -> None:
        """Kill it. May be called again."""


class Machine(Protocol):
    """Makes guests that are all alike: one kernel, one image, one size."""

    @property
    def speed(self) -> float:
        """How many times slower than the reference machine this is, at least 1.0. Multiply limits.

        Measured anew with each guest: ask when the guest is there.
        """

    def guest(self, *, workdir: Path) -> AbstractContextManager[Guest]:
        """A fresh guest; its console goes to a file in ``workdir``, which is made if need be."""

    def describe(self) -> Mapping[str, object]:
        """For the record. JSON: kernel, boot (a key that changes with anything that the guest is made
        of), release, accelerator, accelerator_why, qemu, machine, start ("template" or "cold boot"),
        start_why, memory_mib, cpus, speed."""

    def lacks(self, need: str) -> str:
        """Nothing if the host has what ``need`` names, else why not, in one line.

        ``short_file``: a file of limited space, for ``Guest.plug``.
        """

    def close(self) -> None:
        """Give back what the machine holds. Guests that are still open are not affected."""
