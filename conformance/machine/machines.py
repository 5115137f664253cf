"""The factory: a machine that makes guests from a template, or by booting each where it must."""

from __future__ import annotations

import contextlib
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from conformance.machine import accel, disks, qemu, template
from conformance.machine.accel import Accelerator
from conformance.machine.cache import ArtifactError, Cache, digest_of
from conformance.machine.guest import Files, QemuGuest
from conformance.machine.image import BootFiles
from conformance.machine.protocol import Guest, LaunchFailed, MachineError
from conformance.machine.template import Frozen, Template, TemplateError

Progress = Callable[[str], None]

REFERENCE_BOOT = 3.0
"""Seconds from QEMU's start to the agent's greeting on the reference machine: two idle cores, no
hardware virtualisation, the default kernel. Limits in the suite are meant for it."""
REFERENCE_ANSWER = 0.06
"""Seconds that a clone's agent takes for its first answer there, once the template's state is loaded."""
_SLOWEST = 20.0

BOOT_LIMIT = 180.0
"""Seconds for a boot. Not scaled: a boot is what the speed is measured by."""
RESTORE_LIMIT = 30.0
"""Seconds, scaled, for a clone to answer."""
_SAVE_LIMIT = 60.0
KVM_LIMIT = 15.0
"""Seconds for a boot under KVM: it takes one or two where KVM works."""

# The numbers do not matter, as long as a key is made with the same ones each time.
_ANY_FDS = qemu.Fds(
    qmp=10, agent=11, console=12, root=13, modules=14, scratch=15, kernel=16, initrd=17, memory=18
)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What all guests of a machine have in common."""

    boot: BootFiles
    version: qemu.Version
    accelerator: Accelerator
    memory_mib: int
    cpus: int

    def spec(self, role: qemu.Role, fds: qemu.Fds) -> qemu.Spec:
        """How QEMU is called for a guest in that role."""
        return qemu.Spec(
            version=self.version,
            accel=self.accelerator.name,
            memory_mib=self.memory_mib,
            cpus=self.cpus,
            role=role,
            fds=fds,
        )

    def key(self) -> str:
        """Changes when a template of this shape would no longer fit."""
        status = Path(self.version.binary).resolve().stat()
        return digest_of(
            f"template {template.FORMAT}",
            self.boot.key,
            self.version.text,
            f"{self.version.binary} {status.st_size} {status.st_mtime_ns}",
            # With hardware virtualisation the guest has this processor's features, and in any case
            # its time stamp counter.
            _processor(),
            *qemu.argv(self.spec("template", _ANY_FDS)),
        )


class QemuMachine:
    """Makes guests of one shape. See the protocol ``Machine``."""

    def __init__(
        self,
        shape: Shape,
        *,
        template: Template | None,
        start_why: str,
        boot_seconds: float | None,
        release: str,
    ) -> None:
        self.shape = shape
        self._template = template
        self._start_why = start_why
        self._boot_seconds = boot_seconds
        self._release = release
        self._answer_seconds: float | None = None
        self._files = _open_boot_files(shape.boot)
        self._close = weakref.finalize(self, _close_all, tuple(self._files.values()))

    @property
    def speed(self) -> float:
        """See ``Machine``. From the boot of the template, or the last boot of a guest; and from the
        first answer of the last clone, since the host may have become slower since that boot.
        """
        return speed_of(self._boot_seconds, self._answer_seconds)

    def describe(self) -> Mapping[str, object]:
        """See ``Machine``."""
        shape = self.shape
        return {
            "kernel": shape.boot.kernel_name,
            "boot": shape.boot.key,
            "release": self._release,
            "accelerator": shape.accelerator.name,
            "accelerator_why": shape.accelerator.why,
            "qemu": shape.version.text,
            "machine": qemu.MACHINE,
            "start": "cold boot" if self._template is None else "template",
            "start_why": self._start_why,
            "memory_mib": shape.memory_mib,
            "cpus": shape.cpus,
            "speed": round(self.speed, 2),
        }

    @contextmanager
    def guest(self, *, workdir: Path) -> Iterator[Guest]:
        """See ``Machine``."""
        workdir.mkdir(parents=True, exist_ok=True)
        console = workdir / "console.log"
        with self._booted(console) if self._template is None else self._cloned(console) as guest:
            yield guest

    @contextmanager
    def _cloned(self, console: Path) -> Iterator[QemuGuest]:
        made_from = self._template
        assert made_from is not None
        with qemu.open_scratch(console.parent) as scratch, contextlib.ExitStack() as stack:
            state = made_from.open_state()
            stack.callback(os.close, state)
            files = Files(**self._files, scratch=scratch, memory=made_from.memory, state=state)
            with QemuGuest(
                lambda fds: self.shape.spec("clone", fds), files, console, prefix=made_from.console
            ) as guest:
                guest.restore(state, limit=RESTORE_LIMIT * self.speed)
                self._answer_seconds = guest.timing.get("answer")
                yield guest

    @contextmanager
    def _booted(self, console: Path) -> Iterator[QemuGuest]:
        with (
            qemu.open_scratch(console.parent) as scratch,
            QemuGuest(
                lambda fds: self.shape.spec("boot", fds),
                Files(**self._files, scratch=scratch),
                console,
            ) as guest,
        ):
            facts = guest.boot(limit=BOOT_LIMIT)
            self._boot_seconds = _booted_in(guest, facts)
            self._release = str(facts.get("release", self._release))
            guest.hello(limit=RESTORE_LIMIT * self.speed)
            yield guest

    def lacks(self, need: str) -> str:
        """See ``Machine``."""
        return disks.lacks() if need == "short_file" else f"no host is known to have {need}"

    def close(self) -> None:
        """See ``Machine``."""
        self._close()
        if self._template is not None:
            self._template.close()


def open_machine(
    boot: BootFiles,
    *,
    memory_mib: int = 1024,
    cpus: int = 1,
    cache: Cache,
    progress: Progress = lambda line: None,
) -> QemuMachine:
    """A machine for ``boot``; makes its template unless the cache has it (seconds, once).

    Raises LaunchFailed if the kernel does not come up, or there is no QEMU.
    """
    version = qemu.find_qemu()
    shape = Shape(
        boot=boot,
        version=version,
        accelerator=accel.NO_KVM,
        memory_mib=memory_mib,
        cpus=cpus,
    )
    accelerator = accel.choose(
        version.text,
        cache=cache,
        progress=progress,
        boots=lambda: comes_up(replace(shape, accelerator=accel.KVM), limit=KVM_LIMIT),
    )
    shape = replace(shape, accelerator=accelerator)

    def build(directory: Path) -> None:
        progress(f"booting {boot.kernel_name} once, for a template")
        build_template(shape, directory)

    found: Template | None = None
    try:
        found = template.obtain(cache, shape.key(), build)
        why = ""
    except (TemplateError, ArtifactError, OSError) as error:
        why = " ".join(f"no template: {error}".split())
        progress(f"each guest boots for itself: {why}")
    if found and accelerator is accel.BROKEN_KVM:
        accel.keep(accelerator, version.text, cache=cache)
    manifest = found.manifest if found else None
    return QemuMachine(
        shape,
        template=found,
        start_why=why,
        boot_seconds=manifest.boot_seconds if manifest else None,
        release=str(manifest.facts.get("release", boot.release)) if manifest else boot.release,
    )


def comes_up(shape: Shape, *, limit: float) -> bool:
    """Whether a guest of that shape boots to its agent within ``limit`` seconds.

    Raises OSError for what the host lacks: that says nothing of the guest.
    """
    with contextlib.ExitStack() as stack, contextlib.suppress(MachineError):
        # Not in the cache, which may be read-only.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conform-kvm-")))
        opened = _open_boot_files(shape.boot)
        stack.callback(_close_all, tuple(opened.values()))
        scratch = stack.enter_context(qemu.open_scratch(folder))
        guest = stack.enter_context(
            QemuGuest(
                lambda fds: shape.spec("boot", fds),
                Files(**opened, scratch=scratch),
                folder / "console",
            )
        )
        guest.boot(limit=limit)
        return True
    return False


def build_template(shape: Shape, directory: Path) -> None:
    """Boot a guest of that shape, freeze it when its agent is ready, and write the template.

    Raises LaunchFailed if it does not come up, TemplateError if it cannot be frozen, OSError.
    """
    with contextlib.ExitStack() as stack:
        opened = _open_boot_files(shape.boot)
        stack.callback(_close_all, tuple(opened.values()))
        # In memory while it boots: a full disk would end QEMU by SIGBUS, and give no error.
        memory = os.memfd_create("template-memory")
        stack.callback(os.close, memory)
        os.ftruncate(memory, shape.memory_mib << 20)
        state = os.memfd_create("template-state")
        stack.callback(os.close, state)
        scratch = stack.enter_context(qemu.open_scratch(directory))
        # Of another name than the template's file: the guest's own goes.
        console = directory / "booting"
        stack.callback(console.unlink, missing_ok=True)
        guest = stack.enter_context(
            QemuGuest(
                lambda fds: shape.spec("template", fds),
                Files(**opened, scratch=scratch, memory=memory, state=state),
                console,
            )
        )
        facts = guest.boot(limit=BOOT_LIMIT)
        seconds = _booted_in(guest, facts)
        try:
            guest.save(state, limit=_SAVE_LIMIT)
        except LaunchFailed as error:
            raise TemplateError(str(error)) from error
        guest.close()
        frozen = Frozen(
            memory=memory,
            state=os.pread(state, os.fstat(state).st_size, 0),
            console=console.read_bytes(),
            boot_seconds=seconds,
            facts=facts,
        )
        template.write(directory, frozen)


def _booted_in(guest: QemuGuest, facts: Mapping[str, object]) -> float:
    """Seconds from QEMU's start to an agent that could answer; its warming is no part of the boot."""
    warming = facts.get("warming", 0.0)
    return sum(guest.timing.values()) - (warming if isinstance(warming, float) else 0.0)


def speed_of(boot_seconds: float | None, answer_seconds: float | None = None) -> float:
    """How many times slower than the reference machine; between 1 and 20. Without a boot it is 2, or
    what the answer says if that is more.
    """
    booted = 2.0 if boot_seconds is None else boot_seconds / REFERENCE_BOOT
    answered = (answer_seconds or 0.0) / REFERENCE_ANSWER
    return min(max(1.0, booted, answered), _SLOWEST)


def _open_boot_files(boot: BootFiles) -> dict[str, int]:
    opened: dict[str, int] = {}
    try:
        for name, path in (
            ("root", boot.root),
            ("modules", boot.modules),
            ("kernel", boot.vmlinuz),
            ("initrd", boot.initrd),
        ):
            opened[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            Cache.hold(opened[name])
    except OSError:
        _close_all(tuple(opened.values()))
        raise
    return opened


def _close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    told = ("model name", "flags", "microcode")
    return "\n".join(line for line in lines if line.startswith(told))
