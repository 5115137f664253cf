"""The real engine: the machine layer prepares kernels and opens machines; runner runs cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from conformance.engine import Parcel, Piece, Progress, Setup
from conformance.exits import HostLacks, Refused
from conformance.hostside import LACKS
from conformance.machine.cache import Cache
from conformance.machine.facts import keep_met, met
from conformance.machine.image import BootFiles, prepare_boot
from conformance.machine.kernel import KernelError
from conformance.machine.machines import open_machine
from conformance.machine.protocol import Machine, MachineError
from conformance.machine.tool import ArtifactError
from conformance.model import Variant
from conformance.report.result import slug
from conformance.runner import STANDARD, Facts, Limits, Outcome, probe, rebased, run_variant

MEMORY_MIB = 1024
"""The seed's own script keeps 256 MiB of data in a tmpfs, with the page cache beside it."""
CPUS = 1
"""What is judged is a kernel's answer and not its speed; the host's processors go to the slots."""

_PIECES = ("vmlinuz", "initrd", "root", "modules")
_ABOUT = ("release", "kernel_name", "key")
"""Of ``BootFiles``."""
_BOOT = TypeAdapter(BootFiles)


class MachineBench:
    """A machine, and what its kernel was found to be able to do."""

    def __init__(self, kernel: str, machine: Machine, facts: Facts | None = None) -> None:
        self._kernel = kernel
        self._machine = machine
        self._facts = facts or Facts()

    @property
    def machine(self) -> Machine:
        """What makes its guests."""
        return self._machine

    def run(self, variant: Variant, *, folder: Path, limits: Limits = STANDARD) -> Outcome:
        """See ``engine.Bench``. Consoles go below ``folder``/consoles/<kernel>/."""
        base = Path("consoles") / slug(self._kernel)
        outcome = run_variant(
            variant, self._machine, facts=self._facts, workdir=folder / base, limits=limits
        )
        return rebased(outcome, base)

    def probe(self, needs: Sequence[str], *, folder: Path) -> Mapping[str, str]:
        """See ``engine.Bench``."""
        lost = probe(self._machine, self._facts.missing(tuple(needs)), self._facts, folder)
        if lost is not None:
            raise Refused(f"{self._kernel}: the guest was lost: {lost.how}: {lost.title}")
        return {need: self._facts[need] for need in needs}

    def describe(self) -> Mapping[str, object]:
        """The machine as the record tells of it."""
        return self._machine.describe()

    def close(self) -> None:
        """Close the machine: no clone is left."""
        self._machine.close()


class MachineEngine:
    """Opens machines from the shared cache."""

    def __init__(self, setup: Setup) -> None:
        """Raises Refused if there is no place for a cache."""
        self._setup = setup
        self._modules = tuple(Path(name) for name in setup.modules)
        self._boots = {name: _BOOT.validate_python(told) for name, told in setup.boots.items()}
        with _refusing():
            self._cache = Cache.from_environ()

    def prepare(self, kernel: str, progress: Progress) -> Mapping[str, object]:
        """Image, kernel and template, so that workers find them. Raises Refused."""
        with closing(self.open(kernel, progress)) as bench:
            return bench.describe()

    def prepared(self) -> Setup:
        """See ``engine.Engine``."""
        boots = {name: _BOOT.dump_python(boot, mode="json") for name, boot in self._boots.items()}
        return self._setup.model_copy(update={"boots": boots})

    def open(self, kernel: str, progress: Progress) -> MachineBench:
        """Open a machine on ``kernel``. Raises Refused."""
        with _refusing():
            return self._opened(kernel, self._boot(kernel, progress), progress)

    def pack(self, kernel: str, progress: Progress) -> tuple[Parcel, Mapping[str, Path]]:
        """See ``engine.Engine``: all that a guest boots from, so that it is the same everywhere."""
        with _refusing():
            boot = self._boot(kernel, progress)
            paths = {name: getattr(boot, name) for name in _PIECES}
            pieces = tuple(
                Piece(name=name, sha256=self._cache.content_digest(path), size=path.stat().st_size)
                for name, path in paths.items()
            )
        about = {name: getattr(boot, name) for name in _ABOUT}
        where = {piece.sha256: paths[piece.name] for piece in pieces}
        return Parcel(kernel=kernel, about=about, pieces=pieces), where

    def unpack(
        self, parcel: Parcel, find: Callable[[str], Path], progress: Progress
    ) -> MachineBench:
        """See ``engine.Engine``."""
        files: dict[str, Any] = {piece.name: find(piece.sha256) for piece in parcel.pieces}
        with _refusing():
            return self._opened(parcel.kernel, BootFiles(**{**files, **parcel.about}), progress)

    def _boot(self, kernel: str, progress: Progress) -> BootFiles:
        """What a kernel's guests boot from: the same since it was first asked for.

        What the cache has lost since is made again, if it comes out as it was. Raises Refused if not, and
        what ``prepare_boot`` raises.
        """
        first = self._boots.get(kernel)
        if first is not None:
            paths: list[Path] = [getattr(first, name) for name in _PIECES]
            if all(path.is_file() for path in paths):
                for path in paths:
                    Cache.touch(path.parent)
                return first
        boot = prepare_boot(
            kernel, cache=self._cache, modules_override=self._modules, progress=progress
        )
        if first is not None and boot.key != first.key:
            raise Refused(
                f"{kernel}: what was prepared is no longer in the cache in {self._cache.root}, and what"
                " is there to make it from has changed"
            )
        self._boots[kernel] = boot
        return boot

    def _opened(self, kernel: str, boot: BootFiles, progress: Progress) -> MachineBench:
        machine = open_machine(
            boot, memory_mib=MEMORY_MIB, cpus=CPUS, cache=self._cache, progress=progress
        )
        return MachineBench(kernel, machine, KeptFacts(machine.shape.key(), self._cache))


class KeptFacts(Facts):
    """Facts of which those that hold are found in the cache by the next run, too."""

    def __init__(self, template: str, cache: Cache) -> None:
        super().__init__()
        self._template, self._cache = template, cache
        super().learn(dict.fromkeys(met(template, cache=cache), ""))

    def learn(self, found: Mapping[str, str]) -> None:
        """See ``Facts``. What the host has is asked each time."""
        super().learn(found)
        holds = [need for need, why in found.items() if not why and not need.startswith(LACKS)]
        keep_met(self._template, holds, cache=self._cache)


def engine(setup: Setup) -> MachineEngine:
    """The engine that is used unless a test names another."""
    return MachineEngine(setup)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except (KernelError, MachineError) as error:
        raise Refused(" ".join(str(error).split())) from error
    except (ArtifactError, OSError) as error:
        raise HostLacks(" ".join(str(error).split())) from error
