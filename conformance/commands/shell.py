"""``shell``: a prompt in a guest, stopped where a case was."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from conformance.bench import CPUS, MEMORY_MIB
from conformance.commands.common import CASES, console, examples, options, say, tell
from conformance.commands.lookup import nearest, one_variant
from conformance.engine import DEFAULT_KERNEL
from conformance.exits import Refused
from conformance.machine.cache import Cache
from conformance.machine.image import prepare_boot
from conformance.machine.machines import open_machine
from conformance.machine.protocol import Machine, MachineError
from conformance.machine.tool import ArtifactError
from conformance.model import Arm
from conformance.progress import preparing
from conformance.session import open_library
from conformance.shell import HELP, Shell, default_step

CONSOLE = 4000
"""Characters of a lost guest's console that are shown."""


@click.command(
    epilog=examples(
        "conform shell 'loop_enospc_short_write[1M-off]'",
        "conform shell 'loop_enospc_memcg_limit[direct-off]' --at overwrite --kernel ../linux",
        "echo 'cat /proc/meminfo' | conform shell loop_memcg_seed_script --at impose",
    )
)
@click.argument("case", metavar="CASE[variant]")
@click.option(
    "--at", metavar="STEP", help="Stop after this step; if absent, after the shortage met."
)
@click.option("--arm", "arm_name", metavar="ARM", help="Of a case that compares several: which.")
@click.option("--kernel", default=DEFAULT_KERNEL, show_default=True, metavar="SPEC")
@options(CASES)
def shell(
    *, case: str, at: str | None, arm_name: str | None, kernel: str, cases: tuple[Path, ...]
) -> int:
    """Take a case's steps in a guest as far as STEP, and give a prompt there.

    Each line is run by sh in the guest, as root; what the kernel says meanwhile stands beside it, after
    a bar. There is no terminal in the guest: no editor and no pager runs there. :help tells more.
    """
    variant = one_variant(open_library(cases), case)
    arm = _arm(variant.arms, arm_name)
    names = [step.name for step in arm.steps]
    stop = at or default_step(arm)
    if stop not in names:
        raise Refused(f"{variant.id} has no step {stop!r}{nearest(stop, names) or _all(names)}")
    cache = Cache.from_environ()
    try:
        with preparing(console(sys.stderr)) as progress:
            boot = prepare_boot(kernel, cache=cache, progress=progress)
            machine = open_machine(
                boot, memory_mib=MEMORY_MIB, cpus=CPUS, cache=cache, progress=progress
            )
    except (ArtifactError, MachineError, OSError) as error:
        raise Refused(" ".join(str(error).split())) from error
    try:
        return converse(machine, arm, stop, read=_reader(), tell=tell)
    finally:
        machine.close()


def converse(
    machine: Machine,
    arm: Arm,
    stop: str,
    *,
    read: Callable[[], str | None],
    tell: Callable[[str], None],
) -> int:
    """Bring a guest to a step, and do what lines say until there are no more; the exit status."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        guest = None
        try:
            guest = stack.enter_context(machine.guest(workdir=Path(folder)))
            prompt = Shell(guest, arm, speed=machine.speed, tell=tell)
            prompt.reach(stop)
            tell(HELP)
            while (line := read()) is not None and prompt.line(line):
                pass
        except MachineError as error:
            if guest is not None:
                tell(guest.console[-CONSOLE:])
            raise Refused(f"the guest was lost: {' '.join(str(error).split())}") from error
    return 0


def _reader() -> Callable[[], str | None]:
    if not sys.stdin.isatty():
        # An empty line is a line; the end of the input is none.
        return lambda: line.rstrip("\n") if (line := sys.stdin.readline()) else None
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401, PLC0415 - gives input() its editing and history

    def ask() -> str | None:
        try:
            return input("guest# ")
        except EOFError:
            say("the guest is thrown away")
            return None

    return ask


def _arm(arms: tuple[Arm, ...], name: str | None) -> Arm:
    names = [arm.name for arm in arms]
    if name is None:
        return arms[0]
    if name not in names:
        raise Refused(f"there is no arm {name!r}{_all(names)}")
    return arms[names.index(name)]


def _all(names: list[str]) -> str:
    return f"; there are {', '.join(names)}"
