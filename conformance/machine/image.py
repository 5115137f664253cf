"""What a throwaway machine boots from: kernel, initramfs, root image, modules image.

The root image is one read-only erofs for every kernel, built from vm/image.toml. The modules image
is one erofs per kernel. The initramfs holds the agent, so an edit of the agent rebuilds a few
megabytes and no image.

erofs is compressed with plain lz4 in 4 KiB clusters and nothing newer: that is what a 5.10 kernel
reads (big clusters are 5.13's, chunked files 5.15's, fragments and deduplication 6.1's).
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.machine import initramfs
from conformance.machine.apt import KEYRING, Mirrors, host_mirrors, sources
from conformance.machine.cache import Cache, digest_of
from conformance.machine.kernel import LOCAL_KEPT, Kernel, resolve_kernel
from conformance.machine.tool import ArtifactError, ToolError, require, run

_PROJECT = Path(__file__).resolve().parents[2]

# Part of the keys: bump when what the builders below do to their input changes.
_ROOT_LAYOUT = "root 1"
_MODULES_LAYOUT = "modules 1"
_INITRD_LAYOUT = "initrd 2"

# Every edit of the agent leaves an initramfs behind, every rebuild of a kernel its modules.
_KEPT = {"initrd": 24, "modules-local": LOCAL_KEPT}

_UUID = "6a9f4a5e-3c1d-4f0b-9d3e-636f6e666f72"  # constant, so that equal input gives equal images

# Images carry no file times, so bytecode must not be judged by them.
_COMPILE = "python3 -m compileall -qf --invalidation-mode unchecked-hash /usr/lib/python3*"

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The files of the project that end up in the guest."""

    image: Path = _PROJECT / "vm" / "image.toml"
    init: Path = _PROJECT / "vm" / "init"
    reaper: Path = _PROJECT / "vm" / "reaper"
    agent: Path = _PROJECT / "vm" / "agent"
    wire: Path = _PROJECT / "conformance" / "wire.py"


@dataclass(frozen=True, kw_only=True)
class BootFiles:
    """Everything a machine boots from; all paths are in the cache and never change content.

    root and modules are raw disk images for virtio disks with the serials `root` and `modules`,
    attached read-only. release is what `uname -r` will say. key changes when anything the guest
    boots from changes.
    """

    vmlinuz: Path
    initrd: Path
    root: Path
    modules: Path
    release: str
    kernel_name: str
    key: str


def prepare_boot(
    kernel_spec: str,
    *,
    cache: Cache,
    modules_override: tuple[Path, ...] = (),
    refresh: bool = False,
    progress: Progress = lambda _line: None,
    files: Sources = Sources(),
    mirrors: Callable[[], Mirrors] = host_mirrors,
) -> BootFiles:
    """Everything to boot the kernel a spec names (see kernel.py), built where not cached yet.

    A warm call reads the agent and a few small files. `refresh` asks the mirror for the newest
    kernel; the root stays as it is (see root_image). Raises ArtifactError (KernelError, ToolError,
    NoSpaceError, ...), each one line.
    """
    kernel = resolve_kernel(
        kernel_spec,
        cache=cache,
        modules_override=modules_override,
        refresh=refresh,
        progress=progress,
    )
    _, root = root_image(cache=cache, recipe=files.image, progress=progress, mirrors=mirrors)
    modules = modules_image(kernel, cache=cache, progress=progress)
    _, initrd = initrd_image(kernel, cache=cache, files=files)
    return BootFiles(
        vmlinuz=kernel.vmlinuz,
        initrd=initrd,
        root=root,
        modules=modules,
        release=kernel.release,
        kernel_name=kernel.name,
        key=boot_keys(kernel, cache=cache, files=files).boot,
    )


@dataclass(frozen=True, kw_only=True)
class BootKeys:
    """The keys of what a kernel boots with, and of the whole."""

    root: str
    modules: str
    initrd: str
    boot: str


def boot_keys(kernel: Kernel, *, cache: Cache, files: Sources = Sources()) -> BootKeys:
    """What ``prepare_boot`` needs of the cache for a kernel; builds nothing. Raises ArtifactError."""
    root = root_key(cache, files.image)
    initrd = _initrd(kernel, cache, files)[0]
    return BootKeys(
        root=root,
        modules=digest_of(_MODULES_LAYOUT, kernel.key),
        initrd=initrd,
        boot=digest_of("boot", kernel.key, root, _MODULES_LAYOUT, initrd),
    )


# -- root --------------------------------------------------------------------------------------


def root_image(
    *,
    cache: Cache,
    recipe: Path,
    refresh: bool = False,
    progress: Progress = lambda _line: None,
    mirrors: Callable[[], Mirrors] = host_mirrors,
) -> tuple[str, Path]:
    """The guest's root, a read-only erofs, and its key. Built once per text of the recipe.

    With `refresh` it is built anew under a new key, from today's packages. Raises ArtifactError.
    """
    text = recipe.read_text()
    note, generation, base = _generation(cache, text)
    generation += 1 if refresh else 0
    key = digest_of(base, str(generation))

    def build(product: Path) -> None:
        progress("building the guest's root image (a minute or two, once)")
        _build_root(text, recipe, product, mirrors)

    entry = cache.build_once("root", key, build)
    if refresh:
        cache.write_note(note, str(generation))
    return key, entry / "root.erofs"


def root_key(cache: Cache, recipe: Path) -> str:
    """The key of the root that a machine boots from now."""
    _, generation, base = _generation(cache, recipe.read_text())
    return digest_of(base, str(generation))


def _generation(cache: Cache, text: str) -> tuple[str, int, str]:
    """The note that counts how often a recipe's root was refreshed, the count, the recipe's key.

    A running machine keeps the image it booted from, so each refreshed one has a key of its own.
    """
    base = digest_of(_ROOT_LAYOUT, text)
    note = f"root-generation.{base[:32]}"
    return note, int(cache.note(note) or "0"), base


def _build_root(text: str, recipe: Path, product: Path, mirrors: Callable[[], Mirrors]) -> None:
    try:
        table = tomllib.loads(text)
        suite, packages, exclude = table["suite"], table["packages"], table["exclude"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise ArtifactError(f"{recipe}: {error} (it needs suite, packages and exclude)") from error
    sources_list = product / "sources.list"
    sources_list.write_text(sources(str(suite), mirrors()))
    tarball = product / "root.tar"
    tree = product / "tree"
    tree.mkdir()
    command: list[str | Path] = [
        *("mmdebstrap", "--quiet", "--variant=essential", "--format=tar", "--architectures=amd64"),
        *(f"--keyring={KEYRING}", f"--include={','.join(packages)}"),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in exclude),
        # What the guest holds, for the record of a run.
        '--customize-hook=chroot "$1" dpkg-query -W >"$1/etc/conform-packages"',
        f'--customize-hook=chroot "$1" {_COMPILE}',
        '--customize-hook=rm -rf "$1"/var/cache/* "$1"/var/lib/apt "$1"/var/lib/dpkg/info',
        *(str(suite), tarball, sources_list),
    ]
    bootstrap(command, product)
    run(["tar", "-C", tree, "-xf", tarball, "--exclude=./dev/*", "--no-same-owner", "-p"])
    tarball.unlink()
    sources_list.unlink()
    _make_erofs(tree, product / "root.erofs")
    shutil.copyfile(tree / "etc/conform-packages", product / "packages.txt")
    shutil.rmtree(tree)


def bootstrap(command: Sequence[str | Path], scratch: Path) -> None:
    """Run mmdebstrap, whose own files go to ``scratch``. Raises ToolError."""
    require("mmdebstrap")
    cage = _cage()
    try:
        # In the cage it is root and can reach the cache; what it leaves there is cleared away.
        run([*cage, *command], env={"TMPDIR": str(scratch)} if cage else None)
    except ToolError as error:
        if "unable to pick chroot mode" in str(error):
            raise ToolError(
                "a root of Debian's can be built by root, or by a user with a range in /etc/subuid"
                " and the package uidmap: run this once as one of them"
            ) from error
        raise


def _cage() -> list[str | Path]:
    """Words to put before mmdebstrap so that its mounts end with it.

    As root it mounts /proc, /sys and /dev/pts in its chroot, for all the host to see, and leaves them if
    it is killed. Without root it makes namespaces of its own, and these words fail.
    """
    cage: list[str | Path] = ["unshare", "--mount", "--pid", "--fork"]
    cage += ["--kill-child", "--mount-proc"]
    try:
        run([*cage, "true"])
    except ToolError:
        return []
    return cage


def _make_erofs(tree: Path, image: Path) -> None:
    run(["mkfs.erofs", "-zlz4", "-T0", "--all-root", f"-U{_UUID}", "--quiet", image, tree])


# -- modules -----------------------------------------------------------------------------------


def modules_image(kernel: Kernel, *, cache: Cache, progress: Progress = lambda _line: None) -> Path:
    """A read-only erofs to be mounted on /usr/lib/modules; empty for a kernel without modules."""

    def build(product: Path) -> None:
        progress(f"building the modules image of {kernel.release}")
        if kernel.modules is not None:
            _make_erofs(kernel.modules.parent, product / "modules.erofs")
            return
        empty = product / "empty"
        (empty / kernel.release).mkdir(parents=True)
        _make_erofs(empty, product / "modules.erofs")
        shutil.rmtree(empty)

    kind = "modules-local" if kernel.local else "modules"
    return _kept(cache, kind, digest_of(_MODULES_LAYOUT, kernel.key), build) / "modules.erofs"


def _kept(cache: Cache, kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """An entry, built if not there; of the kinds that grow with every edit the latest are kept."""
    fresh = not cache.entry(kind, key).is_dir()
    entry = cache.build_once(kind, key, build)
    if fresh and kind in _KEPT:
        cache.keep_newest(kind, _KEPT[kind])
    return entry


# -- initramfs ---------------------------------------------------------------------------------


def initrd_image(kernel: Kernel, *, cache: Cache, files: Sources) -> tuple[str, Path]:
    """The initramfs for a kernel with the agent as it is now, and its key. Raises ArtifactError."""
    key, agent, busybox = _initrd(kernel, cache, files)

    def build(product: Path) -> None:
        _refuse_dynamic(busybox)
        (product / "initrd.img").write_bytes(
            initramfs.build(
                busybox=busybox,
                init=files.init,
                reaper=files.reaper,
                agent=agent,
                modules=initramfs.boot_modules(kernel),
            )
        )

    return key, _kept(cache, "initrd", key, build) / "initrd.img"


def _initrd(kernel: Kernel, cache: Cache, files: Sources) -> tuple[str, dict[str, bytes], Path]:
    """An initramfs's key, and what it is made of: the agent's files, and busybox."""
    busybox = require("busybox")
    try:
        agent = initramfs.agent_files(files.agent, files.wire)
        fixed = (files.init.read_bytes(), files.reaper.read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(f"{error.filename} is missing: the checkout is incomplete") from error
    if "__main__.py" not in agent:
        raise ArtifactError(f"{files.agent} holds no __main__.py: the checkout is incomplete")
    key = digest_of(
        _INITRD_LAYOUT,
        kernel.key,
        cache.content_digest(busybox),
        *fixed,
        *(part for name, content in agent.items() for part in (name, content)),
    )
    return key, agent, busybox


def _refuse_dynamic(busybox: Path) -> None:
    """A dynamically linked busybox (the package `busybox`) finds no libraries in an initramfs."""
    if b"/lib64/ld-linux" in busybox.read_bytes():
        raise ToolError(f"{busybox} is not statically linked: apt install busybox-static")
