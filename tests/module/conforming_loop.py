"""Builds a loop.ko for debian/bookworm that fails an allocation instead of invoking the OOM killer.

Two words of drivers/block/loop.c change: the backing file's pages are allocated with __GFP_NORETRY, so
that try_charge_memcg() in mm/memcontrol.c (6.1) gives up with ENOMEM where it would call
mem_cgroup_oom(); and a shortage keeps its errno, ENOSPC, on its way to the request. With it the
norm is met on the same kernel on which the unmodified driver kills: the verdict follows the kernel.

The source and headers come from Debian's packages of exactly the kernel's version; nothing of
them is kept. Needs make and a compiler.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

from conformance.machine.apt import Apt
from conformance.machine.cache import Cache, digest_of
from conformance.machine.tool import ArtifactError

SUITE = "bookworm"
SOURCE = "linux-source-6.1"
HEADERS = re.compile(r"^linux-(headers|kbuild)-.*|^linux-compiler-.*")

CHANGES = (
    (
        "mapping_set_gfp_mask(mapping, lo->old_gfp_mask & ~(__GFP_IO|__GFP_FS));",
        "mapping_set_gfp_mask(mapping, (lo->old_gfp_mask & ~(__GFP_IO|__GFP_FS)) | __GFP_NORETRY);",
    ),
    (
        "cmd->ret = ret ? -EIO : 0;",
        "cmd->ret = (ret == -ENOMEM || ret == -ENOSPC) ? -ENOSPC : (ret ? -EIO : 0);",
    ),
)


def build(cache: Cache) -> Path:
    """The module's path; built once for each version of the kernel. Raises ArtifactError."""
    apt = Apt(suite=SUITE, cache=cache)
    headers = apt.resolve("linux-headers-cloud-amd64", follow=HEADERS)
    version = next(p.version for p in headers if p.name == "linux-headers-cloud-amd64")
    key = digest_of(version, *(new for _, new in CHANGES))

    def builder(product: Path) -> None:
        with cache.scratch() as work:
            source = apt.resolve(SOURCE, follow=re.compile("$^"))
            debs = apt.download((*headers, *source), work)
            _compile(work, debs, product)

    return cache.build_once("conforming-loop", key, builder) / "loop.ko"


def _compile(work: Path, debs: tuple[Path, ...], product: Path) -> None:
    root = work / "root"
    for deb in debs:
        _run(["dpkg-deb", "-x", deb, root])
    tree = next(root.glob("usr/src/linux-headers-*-cloud-amd64"))
    _relocate(tree, root)
    archive = next(root.glob("usr/src/linux-source-*.tar.xz"))
    module = work / "module"
    module.mkdir()
    with tarfile.open(archive) as packed:
        member = packed.extractfile(f"{archive.name.removesuffix('.tar.xz')}/drivers/block/loop.c")
        if member is None:
            raise ArtifactError(f"{archive.name} has no drivers/block/loop.c")
        text = member.read().decode()
    for old, new in CHANGES:
        if text.count(old) != 1:
            raise ArtifactError(f"loop.c of {archive.name} is not the one that is changed here")
        text = text.replace(old, new)
    (module / "loop.c").write_text(text)
    (module / "Makefile").write_text("obj-m := loop.o\n")
    _run(["make", "-C", tree, f"M={module}", "modules"])
    (product / "loop.ko").write_bytes((module / "loop.ko").read_bytes())


def _relocate(tree: Path, root: Path) -> None:
    """Debian's headers name their other parts by absolute path; here they lie below ``root``."""
    for path in (tree, *root.glob("usr/src/linux-headers-*-common")):
        makefile = path / "Makefile"
        if makefile.is_file():
            text = makefile.read_text()
            makefile.write_text(re.sub(r"(?<![\w.])/usr/src/", f"{root}/usr/src/", text))


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise ArtifactError(f"{command[0]} failed: {' | '.join(tail)}")


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
