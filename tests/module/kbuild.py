"""Builds a module of ours for a Debian kernel, by the compiler and the headers of that kernel's own suite.

In a root of the suite's that is thrown away: another suite's compiler has not all options that a kernel's
configuration asks for, and the build's own programs need their suite's C library.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from conformance.machine.apt import KEYRING, Apt, host_mirrors, sources
from conformance.machine.cache import Cache, digest_of
from conformance.machine.image import bootstrap
from conformance.machine.tool import run

HEADERS = "linux-headers-cloud-amd64"
_ALONE = re.compile("$^")
_MAKE = "make -C /usr/src/linux-headers-*-cloud-amd64 M=/module modules && strip --strip-debug /module/*.ko"


def build(
    cache: Cache,
    *,
    suite: str,
    module: str,
    key: str,
    packages: tuple[str, ...],
    text: Callable[[Path], str],
) -> Path:
    """MODULE.ko for the suite's cloud kernel; built once for each version of it and ``key``.

    ``packages`` are unpacked, and ``text`` makes the module's C file from the folder where they are. Raises
    ArtifactError.
    """
    apt = Apt(suite=suite, cache=cache)
    version = next(p.version for p in apt.resolve(HEADERS, follow=_ALONE) if p.name == HEADERS)

    def builder(product: Path) -> None:
        with cache.scratch() as work:
            unpacked = work / "unpacked"
            unpacked.mkdir()
            for name in packages:
                for deb in apt.download(apt.resolve(name, follow=_ALONE), work):
                    run(["dpkg-deb", "-x", deb, unpacked])
            (work / f"{module}.c").write_text(text(unpacked))
            (work / "Makefile").write_text(f"obj-m := {module}.o\n")
            (work / "sources.list").write_text(sources(suite, host_mirrors()))
            bootstrap(
                [
                    *("mmdebstrap", "--quiet", "--variant=apt", "--format=null"),
                    *("--architectures=amd64", f"--keyring={KEYRING}"),
                    f"--include=make,binutils,{HEADERS}={version}",
                    '--customize-hook=mkdir "$1/module"',
                    f"--customize-hook=copy-in {work}/{module}.c {work}/Makefile /module",
                    f"--customize-hook=chroot \"$1\" sh -c '{_MAKE}'",
                    f"--customize-hook=copy-out /module/{module}.ko {product}",
                    *(suite, "/dev/null", work / "sources.list"),
                ],
                work,
            )

    return cache.build_once(f"test-module-{module}", digest_of(version, key), builder) / (
        f"{module}.ko"
    )
