"""What the scheduler and the pytest plugin run variants on: a kernel, ready in this process.

Each process opens its own ``Bench``; what is expensive (guest image, kernel, template) is shared by
the machine layer's cache. Tests put their own engine in place with ``CONFORM_ENGINE=module:name``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from conformance.exits import Refused
from conformance.model import Value, Variant
from conformance.runner import STANDARD, Limits, Outcome

ENGINE_VARIABLE = "CONFORM_ENGINE"
DEFAULT_ENGINE = "conformance.bench:engine"
HERE_ENGINE = "conformance.here:engine"
DEFAULT_KERNEL = "debian/trixie"
"""Debian stable's cloud kernel; vm/kernels.toml has the names."""

Progress = Callable[[str], None]
"""Takes one line on what is being done."""


class Setup(Value):
    """What an engine is made from. Small and picklable: it is handed to every worker process."""

    modules: tuple[str, ...] = ()  # module files that replace the chosen kernel's own
    here: bool = False  # on this machine, not in guests
    boots: dict[
        str, dict[str, str]
    ] = {}  # prepared kernels: what each boots from, the engine's own


class Piece(Value):
    """A file that a kernel's guests boot from, known by its content."""

    name: str
    sha256: str
    size: int


class Parcel(Value):
    """A kernel as it travels to another machine: ``about`` is the engine's own."""

    kernel: str
    about: dict[str, str] = {}
    pieces: tuple[Piece, ...] = ()


class Bench(Protocol):
    """One kernel, ready to run variants."""

    def run(self, variant: Variant, *, folder: Path, limits: Limits = STANDARD) -> Outcome:
        """Run and judge one variant; consoles go to files below ``folder``, the run's own.

        What befalls a guest is part of the outcome. Raises OSError if ``folder`` cannot be written.
        """

    def probe(self, needs: Sequence[str], *, folder: Path) -> Mapping[str, str]:
        """For each requirement nothing if the kernel meets it, else the reason why not.

        Raises Refused if the guest that was to find out is lost.
        """

    def close(self) -> None:
        """Give back what the bench holds. No machine is left running."""


class Opener(Protocol):
    """Opens benches: all that a slot needs."""

    def open(self, kernel: str, progress: Progress) -> Bench:
        """Open a bench on ``kernel``. Raises Refused if it is no good, or there is no space."""


class Engine(Opener, Protocol):
    """Makes benches."""

    def prepare(self, kernel: str, progress: Progress) -> Mapping[str, object]:
        """Do what is slow and shared: image, kernel, template. What the record says of it, as JSON.

        Raises Refused if ``kernel`` or a module is no good; HostLacks where none could be prepared.
        """

    def prepared(self) -> Setup:
        """What makes engines, in other processes, to which the kernels that were prepared here are what
        they were then: a source that is rebuilt during a run is not what the run is of.
        """

    def pack(self, kernel: str, progress: Progress) -> tuple[Parcel, Mapping[str, Path]]:
        """``kernel`` for other machines, and where each piece is, by its sha256. Raises Refused."""

    def unpack(self, parcel: Parcel, find: Callable[[str], Path], progress: Progress) -> Bench:
        """Open a bench on a kernel that was packed elsewhere; ``find`` knows the pieces here.

        Raises Refused.
        """


def load_engine(setup: Setup) -> Engine:
    """The engine that ``CONFORM_ENGINE`` names, or the real one.

    Raises Refused if there is no such engine.
    """
    default = HERE_ENGINE if setup.here else DEFAULT_ENGINE
    name = os.environ.get(ENGINE_VARIABLE) or default
    module, _, attribute = name.partition(":")
    try:
        make: Callable[[Setup], Engine] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise Refused(f"{ENGINE_VARIABLE}={name}: {error}") from error
    return make(setup)
