"""QEMU: what it is called with, and the life of its process.

``argv`` is a pure function of a ``Spec``. Every file is handed to QEMU as a descriptor that it
inherits, never as a path of ours: nothing needs quoting, a name may be removed while machines run,
and the scratch disk has no name at all, so nothing is left of it however QEMU ends.

The machine type is q35: a clone of it answers within 5 ms of a microvm's (74 and 69 ms, QEMU 7.2,
software emulation), and it has a PCI bus for whatever devices a later case needs.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from conformance.machine.protocol import LaunchFailed
from conformance.wire import PORT

Role = Literal["boot", "template", "clone"]

MACHINE = "q35"
PORT_FOR_DISK = "spare-port"
"""A PCI Express port with nothing in it, of which a disk can be plugged in later: q35's own bus takes
none (QEMU's docs/pcie.txt, section 2.3).
"""
SCRATCH_BYTES = 1 << 30
"""Size of the scratch disk; sparse."""

PAGE = 4096
CODE_MIB = 64
"""For the code that a clone is translated into under emulation. QEMU's own default is 1 GiB on a large
host, and it never throws away what is not executed any more: a variant with fio over dm-crypt filled 290 MiB.
When it is full all of it goes, and what is executed next is translated again.
"""

_OUTPUT = 4000  # characters of QEMU's own complaints that are kept
_STOP_LIMIT = 10.0  # seconds for a killed QEMU to be gone

COMMAND_LINE = (
    "console=ttyS0",
    # All of it, however it is marked: the console is evidence.
    "ignore_loglevel",
    # Reboot at once after a panic; with -no-reboot that ends QEMU.
    "panic=-1",
    # What a kernel does after an oops is worth seeing, however it is configured. (sysctl.* on the
    # command line: commit 3db978d480e2, "kernel/sysctl: support setting sysctl parameters from
    # kernel command line", first in 5.8.)
    "sysctl.kernel.panic_on_oops=0",
    "sysctl.kernel.hung_task_panic=0",
    "sysctl.kernel.softlockup_panic=0",
    # The guest waits for a timer interrupt in the host's time. On a busy host it is missed under
    # emulation, and the boot ends in "IO-APIC + timer doesn't work!".
    "no_timer_check",
    # No watchdog that compares clocks across a restore, or while QEMU is not scheduled.
    "tsc=reliable",
    # SysRq dumps are asked for over the console when a guest hangs.
    "sysrq_always_enabled",
    # For writers whose requests must not be split: see agent.kernel.contiguous_memory.
    "hugepages=4",
)


@dataclass(frozen=True, kw_only=True)
class Version:
    """A QEMU binary. ``text`` is what it says of itself."""

    binary: str
    number: tuple[int, int]
    text: str


@dataclass(frozen=True, kw_only=True)
class Fds:
    """Descriptors that QEMU inherits, by the numbers they have there."""

    qmp: int
    agent: int
    console: int
    root: int
    modules: int
    scratch: int
    kernel: int
    initrd: int
    memory: int | None = None

    def all(self) -> tuple[int, ...]:
        """Every one of them."""
        given = (self.qmp, self.agent, self.console, self.root, self.modules, self.scratch)
        rest = (self.kernel, self.initrd)
        return (*given, *rest) if self.memory is None else (*given, *rest, self.memory)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A machine. ``role`` says what becomes of its memory.

    ``boot``: private, and gone with it. ``template``: written to the memory file. ``clone``: the
    memory file, copied on write; it waits for the rest of its state (``-incoming defer``).
    """

    version: Version
    accel: Literal["kvm", "tcg"]
    memory_mib: int
    cpus: int
    role: Role
    fds: Fds
    sandbox: bool = True
    command_line: tuple[str, ...] = COMMAND_LINE


def argv(spec: Spec) -> list[str]:
    """QEMU's command line, the program first."""
    fds = spec.fds
    return [
        *(spec.version.binary, "-name", "conform", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-no-reboot"),
        *(_sandbox() if spec.sandbox else ()),
        *("-accel", _accel(spec), "-cpu", _cpu(spec.accel), "-smp", str(spec.cpus)),
        *_memory(spec),
        # vm: a clone's clock goes on from the template's, until the agent sets it.
        *("-rtc", "base=utc,clock=vm"),
        *_kernel(spec),
        *("-chardev", f"socket,id=qmp,fd={fds.qmp}", "-mon", "chardev=qmp,mode=control"),
        *("-add-fd", f"fd={fds.console},set=1"),
        *("-chardev", "file,id=console,path=/dev/fdset/1,append=on", "-serial", "chardev:console"),
        *("-device", "virtio-serial-pci,max_ports=2"),
        *("-chardev", f"socket,id=agent,fd={fds.agent}"),
        *("-device", f"virtserialport,chardev=agent,name={PORT}"),
        *_disk("root", fds.root, 2, read_only=True),
        *_disk("modules", fds.modules, 3, read_only=True),
        *_disk("scratch", fds.scratch, 4, read_only=False),
        *("-device", f"pcie-root-port,id={PORT_FOR_DISK},chassis=1"),
        *(("-incoming", "defer") if spec.role == "clone" else ()),
    ]


def _sandbox() -> tuple[str, ...]:
    return ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")


def _accel(spec: Spec) -> str:
    # A clone's own, and not in its template's key: where the code is kept is no part of its state.
    bound = f",tb-size={CODE_MIB}" if spec.accel == "tcg" and spec.role == "clone" else ""
    return f"{spec.accel}{bound}"


def _cpu(accel: str) -> str:
    # Emulation carries out `rep movsb` a byte at a time, and a kernel that sees ERMS or FSRM copies
    # and clears all memory by it; without them it takes eight bytes a time.
    return "max,migratable=on" if accel == "kvm" else "max,-erms,-fsrm"


def _memory(spec: Spec) -> tuple[str, ...]:
    size = f"{spec.memory_mib}M"
    if spec.role == "boot":
        backend = f"memory-backend-ram,id=memory,size={size}"
    else:
        share = "on" if spec.role == "template" else "off"
        # The name of an inherited descriptor also opens a file whose own name has been removed.
        path = f"/proc/self/fd/{spec.fds.memory}"
        backend = f"memory-backend-file,id=memory,size={size},mem-path={path},share={share}"
        if spec.role == "clone" and spec.version.number >= (8, 2):
            # Before 8.2 (which added rom=) readonly=on makes the guest's memory itself read-only.
            backend += ",readonly=on,rom=off"
    return (
        *("-m", size, "-object", backend),
        *("-machine", f"{MACHINE},memory-backend=memory,vmport=off,dump-guest-core=off"),
    )


def _kernel(spec: Spec) -> tuple[str, ...]:
    # A clone has booted: it would read both into memory of its own, 19 MB, for nobody.
    if spec.role == "clone":
        return ()
    kernel, initrd = (f"/proc/self/fd/{fd}" for fd in (spec.fds.kernel, spec.fds.initrd))
    return ("-kernel", kernel, "-initrd", initrd, "-append", " ".join(spec.command_line))


def _disk(name: str, fd: int, fdset: int, *, read_only: bool) -> tuple[str, ...]:
    # Nothing of a guest outlives QEMU, so a flush need not reach the host's disk (no-flush).
    mode = "read-only=on" if read_only else "discard=unmap,cache.no-flush=on"
    return (
        *("-add-fd", f"fd={fd},set={fdset}"),
        *("-blockdev", f"driver=file,node-name={name},filename=/dev/fdset/{fdset},{mode}"),
        *("-device", f"virtio-blk-pci,drive={name},serial={name}"),
    )


def state_uri(version: Version, fd: int) -> str:
    """Where the state beside the memory is migrated to or from: the file behind ``fd``.

    ``file:`` names the descriptor that QEMU inherited. QEMU has it since 8.2; before that it is
    ``fd:NAME``, of a descriptor sent with ``getfd`` (deprecated for files since 9.1).
    """
    return f"file:/proc/self/fd/{fd}" if version.number >= (8, 2) else "fd:state"


def parse_version(binary: str, text: str) -> Version:
    """The version that ``--version`` printed. Raises LaunchFailed if it is none.

    >>> parse_version("qemu", "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)").number
    (7, 2)
    """
    line = text.partition("\n")[0].strip()
    found = re.search(r"version (\d+)\.(\d+)", line)
    if found is None:
        raise LaunchFailed(f"{binary} does not tell its version: {line[:200]!r}", output=text)
    return Version(binary=binary, number=(int(found[1]), int(found[2])), text=line)


def find_qemu(name: str = "qemu-system-x86_64") -> Version:
    """The QEMU on the PATH. Raises LaunchFailed if there is none."""
    binary = shutil.which(name)
    if binary is None:
        raise LaunchFailed(f"{name} is not installed: apt install qemu-system-x86")
    done = subprocess.run(
        [binary, "--version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return parse_version(binary, done.stdout)


@dataclass(frozen=True, kw_only=True)
class Held:
    """Memory in bytes: ``private`` goes when the process does, ``copied`` of it are a file's pages that
    the process has changed for itself.
    """

    private: int
    copied: int


_RANGE_OR_PRIVATE = re.compile(
    # Range, mode, offset, device, inode; what is clean is in the page cache, for the next one too.
    r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ (?P<inode>\d+)|^Private_Dirty: +(?P<kib>\d+) kB",
    re.MULTILINE,
)


def parse_smaps(text: str, inode: int | None) -> Held | None:
    """What the text of /proc/PID/smaps tells, ``copied`` of the file ``inode``; None of a process that
    has ended, whose file is empty.
    """
    private = copied = 0
    mine = False
    # The text has thousands of lines: only what matters is looked at one by one.
    for found in _RANGE_OR_PRIVATE.finditer(text):
        if found["inode"]:
            mine = inode is not None and found["inode"] == str(inode)
        else:
            size = int(found["kib"]) << 10
            private += size
            copied += size if mine else 0
    return Held(private=private, copied=copied) if text else None


class Process:
    """A QEMU that runs. It dies with the thread that started it, and when it is closed."""

    def __init__(self, words: Sequence[str], *, fds: Sequence[int]) -> None:
        """Start it; ``fds`` are inherited under their own numbers and stay open here.

        Raises LaunchFailed.
        """
        self.argv = tuple(words)
        self._said: IO[bytes] = os.fdopen(os.memfd_create("qemu-output"), "w+b", buffering=0)
        # setpriv, and not preexec_fn: running Python between fork and exec is unsafe with threads.
        # A parent that is killed within the millisecond before the prctl leaves QEMU behind.
        command = ["setpriv", "--pdeathsig", "KILL", "--", *words]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                pass_fds=tuple(fds),
                start_new_session=True,
                cwd="/",
            )
        except FileNotFoundError as error:
            self._said.close()
            raise LaunchFailed("setpriv is not installed: apt install util-linux") from error
        except OSError as error:
            self._said.close()
            raise LaunchFailed(f"QEMU cannot be started: {error.strerror}") from error
        # Popen.wait with a limit looks again and again, up to 50 ms apart.
        self._pidfd = os.pidfd_open(self._process.pid)
        self._end = select.poll()
        self._end.register(self._pidfd, select.POLLIN)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def exit_code(self, *, limit: float = 0.0) -> int | None:
        """Its exit code once it has exited (negative: the signal), waiting ``limit`` seconds."""
        code = self._process.poll()
        if code is None and limit and self._end.poll(limit * 1000):
            code = self._process.wait()
        return code

    def cpu_seconds(self) -> float:
        """The processor time that it has used, however long it had to wait for a processor."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def private_memory(self, inode: int | None) -> Held | None:
        """What it holds for itself, see ``parse_smaps``; takes the host 6 ms. None once it has ended."""
        try:
            return parse_smaps(Path(f"/proc/{self.pid}/smaps").read_text(), inode)
        except OSError:
            return None

    def output(self) -> str:
        """The end of what QEMU printed."""
        if self._said.closed:
            return ""
        size = os.fstat(self._said.fileno()).st_size
        kept = os.pread(self._said.fileno(), _OUTPUT, max(0, size - _OUTPUT))
        return kept.decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Kill it and wait for its end. May be called again."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            if self.exit_code(limit=_STOP_LIMIT) is None:
                raise subprocess.TimeoutExpired(self.argv, _STOP_LIMIT)
        if not self._said.closed:
            self._said.close()
            os.close(self._pidfd)


def open_scratch(directory: Path) -> IO[bytes]:
    """A scratch disk: a sparse file without a name in ``directory``. Raises OSError.

    On disk and not in memory, since a case may fill it.
    """
    scratch = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - the caller's
    scratch.truncate(SCRATCH_BYTES)
    return scratch
