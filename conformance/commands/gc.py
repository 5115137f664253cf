"""``gc``: the cache without what this checkout no longer needs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import click
from rich.table import Table

from conformance.bench import CPUS, MEMORY_MIB
from conformance.commands.common import console, examples, say
from conformance.exits import Refused
from conformance.machine import gc as collector
from conformance.machine import qemu
from conformance.machine.accel import KVM, NO_KVM
from conformance.machine.cache import Cache
from conformance.machine.gc import DAY, Item
from conformance.machine.image import BootFiles, Sources, boot_keys, root_key
from conformance.machine.kernel import cached_kernel, kernel_names
from conformance.machine.machines import Shape
from conformance.machine.protocol import MachineError
from conformance.machine.tool import ArtifactError


@click.command(
    name="gc",
    epilog=examples("conform gc --dry-run", "conform gc", "conform gc --keep 0"),
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@click.option(
    "--keep",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    metavar="DAYS",
    help="What was made or used in the last DAYS days stays.",
)
def gc(*, dry_run: bool, keep: float) -> int:
    """Remove from the cache what is no longer needed: everything that goes can be made again.

    Needed are the kernels of vm/kernels.toml in the version that a run would boot, with what they boot
    with. What goes: other kernels and their modules, images of an older recipe, initramfs of an older
    agent, templates of other shapes. Nothing that a machine has open is touched.
    """
    cache = Cache.from_environ()
    if not cache.root.is_dir():
        say(f"{cache.root}: there is no cache yet")
        return 0
    try:
        needed = needed_keys(cache)
    except (ArtifactError, MachineError, OSError) as error:
        raise Refused(f"cannot tell what is needed: {error}") from error
    items = collector.survey(cache, needed, now=time.time(), keep=keep * DAY)
    going = [item for item in items if item.fate == "goes"]
    console(sys.stdout).print(_table(items))
    if dry_run:
        say(f"{mib(sum(item.size for item in going))} would be freed in {cache.root}")
        return 0
    before = collector.abandoned(cache)
    freed = 0
    try:
        for item in going:
            if collector.remove(cache, item):
                freed += item.size
            else:
                say(f"{item.told} has come into use, and stays")
        cache.remove_stale()
    except ArtifactError as error:
        raise Refused(str(error)) from error
    freed += max(0, before - collector.abandoned(cache))
    say(f"{mib(freed)} freed in {cache.root}")
    return 0


def needed_keys(cache: Cache) -> dict[str, frozenset[str]]:
    """For each kind of entry the keys that a run on a named kernel would use as they are.

    Raises ArtifactError or LaunchFailed where that cannot be told: a tool is missing.
    """
    version = qemu.find_qemu()
    needed: dict[str, set[str]] = {"root": {root_key(cache, Sources().image)}}
    for name in kernel_names():
        kernel = cached_kernel(name, cache=cache)
        if kernel is None:
            continue
        keys = boot_keys(kernel, cache=cache)
        boot = BootFiles(
            vmlinuz=kernel.vmlinuz,
            initrd=cache.entry("initrd", keys.initrd),
            root=cache.entry("root", keys.root),
            modules=cache.entry("modules", keys.modules),
            release=kernel.release,
            kernel_name=name,
            key=keys.boot,
        )
        needed.setdefault("kernel", set()).add(kernel.key)
        needed.setdefault("modules", set()).add(keys.modules)
        needed.setdefault("initrd", set()).add(keys.initrd)
        for accelerator in (KVM, NO_KVM):
            shape = Shape(
                boot=boot,
                version=version,
                accelerator=accelerator,
                memory_mib=MEMORY_MIB,
                cpus=CPUS,
            )
            needed.setdefault("template", set()).add(shape.key())
    return {kind: frozenset(keys) for kind, keys in needed.items()}


def mib(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / (1 << 20):.0f} MiB"


def _table(items: Sequence[Item]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("entry", "size", "last used", ""):
        table.add_column(name, justify="right" if name in ("size", "last used") else "left")
    for item in items:
        days = f"{item.age / DAY:.1f} days ago"
        style = "red" if item.fate == "goes" else "dim"
        table.add_row(item.told, mib(item.size), days, item.fate, style=style)
    return table
