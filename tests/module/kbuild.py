"""Builds a module of ours against a Debian kernel's headers, which come from its own packages.

Nothing of the packages is kept. Needs make and a compiler (tests/host-packages.txt).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from conformance.machine.apt import Apt
from conformance.machine.cache import Cache, digest_of
from conformance.machine.tool import ArtifactError

HEADERS = "linux-headers-cloud-amd64"
_PARTS = re.compile(r"^linux-(headers|kbuild)-.*|^linux-compiler-.*")


def build(
    cache: Cache,
    *,
    suite: str,
    module: str,
    key: str,
    sources: tuple[str, ...],
    text: Callable[[Path], str],
) -> Path:
    """MODULE.ko for the suite's cloud kernel; built once for each version of it and ``key``.

    ``sources`` are source packages' names that are unpacked too, and ``text`` makes the module's C
    file from the folder where all of it is. Raises ArtifactError.
    """
    apt = Apt(suite=suite, cache=cache)
    headers = apt.resolve(HEADERS, follow=_PARTS)
    version = next(p.version for p in headers if p.name == HEADERS)

    def builder(product: Path) -> None:
        with cache.scratch() as work:
            wanted = list(headers)
            for name in sources:
                wanted += apt.resolve(name, follow=re.compile("$^"))
            root = work / "root"
            for deb in apt.download(tuple(wanted), work):
                run(["dpkg-deb", "-x", deb, root])
            _compile(work, root, product, {f"{module}.c": text(root)})

    return cache.build_once(f"test-module-{module}", digest_of(version, key), builder) / (
        f"{module}.ko"
    )


def _compile(work: Path, root: Path, product: Path, files: Mapping[str, str]) -> None:
    tree = next(root.glob("usr/src/linux-headers-*-cloud-amd64"))
    _relocate(tree, root)
    folder = work / "module"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)
        (folder / "Makefile").write_text(f"obj-m := {Path(name).stem}.o\n")
    run(["make", "-C", tree, f"M={folder}", "modules"])
    for built in folder.glob("*.ko"):
        run(["strip", "--strip-debug", built])
        (product / built.name).write_bytes(built.read_bytes())


def _relocate(tree: Path, root: Path) -> None:
    """Debian's headers name their other parts by absolute path; here they lie below ``root``."""
    for path in (tree, *root.glob("usr/src/linux-headers-*-common")):
        makefile = path / "Makefile"
        if makefile.is_file():
            text = makefile.read_text()
            makefile.write_text(re.sub(r"(?<![\w.])/usr/src/", f"{root}/usr/src/", text))


def run(command: list[str | Path]) -> None:
    """A build's command. Raises ArtifactError with the end of what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise ArtifactError(f"{command[0]} failed: {' | '.join(tail)}")
