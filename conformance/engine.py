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
DEFAULT_KERNEL = "debian/trixie"
"""Debian stable's cloud kernel; vm/kernels.toml has the names."""

Progress = Callable[[str], None]
"""Takes one line on what is being done."""


class Setup(Value):
    """What an engine is made from. Small and picklable: it is handed to every worker process."""

    modules: tuple[str, ...] = ()  # module files that replace the chosen kernel's own


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


class Engine(Protocol):
    """Makes benches."""

    def prepare(self, kernel: str, progress: Progress) -> Mapping[str, object]:
        """Do what is slow and shared: image, kernel, template. What the record says of it, as JSON.

        Raises Refused if ``kernel`` or a module is no good, or there is no space.
        """

    def open(self, kernel: str, progress: Progress) -> Bench:
        """Open a bench on ``kernel``. Raises Refused as ``prepare`` does."""


def load_engine(setup: Setup) -> Engine:
    """The engine that ``CONFORM_ENGINE`` names, or the real one.

    Raises Refused if there is no such engine.
    """
    name = os.environ.get(ENGINE_VARIABLE) or DEFAULT_ENGINE
    module, _, attribute = name.partition(":")
    try:
        make: Callable[[Setup], Engine] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise Refused(f"{ENGINE_VARIABLE}={name}: {error}") from error
    return make(setup)
