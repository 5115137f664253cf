"""Builds a loop.ko for debian/bookworm that fails an allocation instead of invoking the OOM killer.

Three words of drivers/block/loop.c change: the backing file's pages are allocated with __GFP_NORETRY,
so that try_charge_memcg() in mm/memcontrol.c (6.1) gives up with ENOMEM where it would call
mem_cgroup_oom(); a shortage keeps its errno, ENOSPC, on its way to the request; and so does a short
write, which is a shortage that began within the request's pages. With it the norm is met on the same
kernel on which the unmodified driver kills: the verdict follows the kernel.

The source and headers come from Debian's packages of exactly the kernel's version; nothing of
them is kept.
"""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

from conformance.machine.cache import Cache, digest_of
from conformance.machine.tool import ArtifactError
from tests.module import kbuild

SUITE = "bookworm"
SOURCE = "linux-source-6.1"

CHANGES = (
    (
        "mapping_set_gfp_mask(mapping, lo->old_gfp_mask & ~(__GFP_IO|__GFP_FS));",
        "mapping_set_gfp_mask(mapping, (lo->old_gfp_mask & ~(__GFP_IO|__GFP_FS)) | __GFP_NORETRY);",
    ),
    (
        "cmd->ret = ret ? -EIO : 0;",
        "cmd->ret = (ret == -ENOMEM || ret == -ENOSPC) ? -ENOSPC : (ret ? -EIO : 0);",
    ),
    ("bw = -EIO;", "bw = -ENOSPC;"),
)


def build(cache: Cache) -> Path:
    """The module's path; built once for each version of the kernel. Raises ArtifactError."""
    return kbuild.build(
        cache,
        suite=SUITE,
        module="loop",
        key=digest_of(*(new for _, new in CHANGES)),
        packages=(SOURCE,),
        text=_changed,
    )


def _changed(root: Path) -> str:
    archive = next(root.glob("usr/src/linux-source-*.tar.xz"))
    with tarfile.open(archive) as packed:
        member = packed.extractfile(f"{archive.name.removesuffix('.tar.xz')}/drivers/block/loop.c")
        if member is None:
            raise ArtifactError(f"{archive.name} has no drivers/block/loop.c")
        text = member.read().decode()
    for old, new in CHANGES:
        if text.count(old) != 1:
            raise ArtifactError(f"loop.c of {archive.name} is not the one that is changed here")
        text = text.replace(old, new)
    return text


def main(write: Callable[[str], object] = sys.stdout.write) -> int:
    """Print the module's path, for ``./conform run --module``."""
    try:
        write(f"{build(Cache.from_environ())}\n")
    except ArtifactError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
