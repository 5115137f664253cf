"""The kernel a machine boots: from a name or a path to a vmlinuz and its modules in the cache.

Specs:

- a name of vm/kernels.toml, as `debian/bookworm`
- a kernel build tree, as `../linux`: arch/x86/boot/bzImage and the modules built in it
- a bzImage, as `out/bzImage`; with `,modules=DIR` its modules (an INSTALL_MOD_PATH, or a
  /lib/modules/RELEASE)
- one or more .deb files, separated by commas
- `host`: the kernel that runs here

Whatever the source, the outcome is one cache entry (vmlinuz, config, lib/modules/RELEASE with
depmod's output). A run resolves a spec once, so a tree that is rebuilt meanwhile does not change the
kernel under it (``engine.Engine.prepared``).
"""

from __future__ import annotations

import difflib
import gzip
import json
import lzma
import os
import platform
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from conformance.machine import kconfig
from conformance.machine.apt import Apt, AptError
from conformance.machine.bzimage import KernelError, embedded_config, read_release
from conformance.machine.cache import Cache, digest_of, file_stamp
from conformance.machine.tool import ToolError, run

__all__ = ["Kernel", "KernelError", "kernel_names", "resolve_kernel"]

KERNELS_TOML = Path(__file__).resolve().parents[2] / "vm" / "kernels.toml"

# Part of every key: bump when an entry's layout or content changes.
_LAYOUT = "kernel 1"

# Kernels built here (and variants with a rebuilt module) come anew with every edit.
LOCAL_KEPT = 8

# linux-image-* is the kernel; from 7.x it leads to linux-binary-* (vmlinuz), linux-modules-* and
# linux-base-* (config, modules.builtin), and holds nothing itself.
_KERNEL_PACKAGES = re.compile(r"linux-(image|binary|modules|base)-.+")

_LISTS = ("modules.builtin", "modules.builtin.modinfo", "modules.order")
_MODULE = re.compile(r".+\.ko(\.(xz|gz|zst))?")
_SIGNED = b"~Module signature appended~\n"

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A kernel ready to boot, in the cache.

    name is the spec as it was asked for; release what `uname -r` says; modules the tree
    lib/modules/RELEASE with modules.dep, or None for a kernel without modules; config a file, or
    None when it is not known; key changes when any byte that boots changes. local: it was built or
    changed here, so it is one of many to come, and the cache keeps only the latest of them.
    """

    name: str
    release: str
    vmlinuz: Path
    modules: Path | None
    config: Path | None
    key: str
    local: bool


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A kernel that may have to be built into the cache: its identity and how to assemble it."""

    identity: tuple[str, ...]
    assemble: Callable[[Path], None]  # leaves vmlinuz, config?, lib/modules/RELEASE? in a directory
    local: bool = True


def resolve_kernel(
    spec: str,
    *,
    cache: Cache,
    modules_override: tuple[Path, ...] = (),
    refresh: bool = False,
    progress: Progress = lambda _line: None,
    names: Path = KERNELS_TOML,
    host_root: Path = Path("/"),
) -> Kernel:
    """The kernel a spec names, with `modules_override` put in place of its own modules.

    Raises KernelError when there is no such kernel, the file is no kernel, it cannot boot the
    guest, or an override was built for another release; ArtifactError when a tool, the mirror or
    the disk fails.
    """
    source = _source(
        spec, cache=cache, refresh=refresh, progress=progress, names=names, host_root=host_root
    )
    key = digest_of(_LAYOUT, *source.identity)

    def build(product: Path) -> None:
        source.assemble(product)
        _finish(spec, product)

    if modules_override:
        # The base must be there, whole, before a variant of it can be made.
        base = cache.build_once(_kind(local=source.local), key, build)
        key = digest_of(key, *(_override_identity(cache, path) for path in modules_override))
        build = partial(_vary, base=base, overrides=modules_override)
    local = source.local or bool(modules_override)
    fresh = not cache.entry(_kind(local=local), key).is_dir()
    entry = cache.build_once(_kind(local=local), key, build)
    if local and fresh:
        cache.keep_newest(_kind(local=True), LOCAL_KEPT)
    return _opened(spec, entry, key, local=local)


def _kind(*, local: bool) -> str:
    return "kernel-local" if local else "kernel"


def kernel_names(names: Path = KERNELS_TOML) -> dict[str, tuple[str, str]]:
    """The names of vm/kernels.toml, each with its (suite, package)."""
    table = tomllib.loads(names.read_text())["kernels"]
    return {name: (str(row["suite"]), str(row["package"])) for name, row in table.items()}


def cached_kernel(name: str, *, cache: Cache, names: Path = KERNELS_TOML) -> Kernel | None:
    """What the cache has of a kernel of vm/kernels.toml; None if nothing. Needs no network."""
    suite, package = kernel_names(names)[name]
    if not Apt(suite=suite, cache=cache).knows(package):
        return None
    source = _debian(cache, suite, package, False, lambda _line: None)
    key = digest_of(_LAYOUT, *source.identity)
    entry = cache.entry(_kind(local=False), key)
    return _opened(name, entry, key, local=False) if entry.is_dir() else None


def module_names(modules: Path | None) -> dict[str, Path]:
    """Module name (underscores) to file, of a lib/modules/RELEASE tree."""
    if modules is None:
        return {}
    return {_module_name(path): path for path in _module_files(modules)}


def _module_files(tree: Path) -> list[Path]:
    return sorted(path for path in tree.rglob("*.ko*") if _MODULE.fullmatch(path.name))


def _module_name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def builtin_names(modules: Path | None) -> set[str] | None:
    """Names (underscores) of what modules.builtin lists; None when there is no such list."""
    if modules is None or not (modules / "modules.builtin").exists():
        return None
    lines = (modules / "modules.builtin").read_text().split()
    return {Path(line).name.removesuffix(".ko").replace("-", "_") for line in lines}


# -- sources -----------------------------------------------------------------------------------


def _source(
    spec: str,
    *,
    cache: Cache,
    refresh: bool,
    progress: Progress,
    names: Path,
    host_root: Path,
) -> _Source:
    if spec == "host":
        return _host(cache, host_root)
    known = kernel_names(names)
    if spec in known:
        suite, package = known[spec]
        return _debian(cache, suite, package, refresh, progress)
    parts = spec.split(",")
    if all(part.endswith(".deb") for part in parts):
        return _debs(cache, [Path(part).expanduser() for part in parts])
    path = Path(parts[0]).expanduser()
    modules = None
    for option in parts[1:]:
        key, _, value = option.partition("=")
        if key != "modules" or not value:
            raise KernelError(f"kernel {spec}: {option!r} is not an option; only modules=DIR is")
        modules = Path(value).expanduser()
        if not modules.is_dir():
            raise KernelError(f"kernel {spec}: {modules} is not a directory")
    if not path.exists():
        hint = f"; names are {', '.join(known)}, host" if "/" not in str(path) else ""
        if spec.startswith("debian/"):
            hint = f"; known are {', '.join(name for name in known if name.startswith('debian/'))}"
        tails = {name.rpartition("/")[2]: name for name in known}
        if like := difflib.get_close_matches(spec.rpartition("/")[2], tails, n=3, cutoff=0.7):
            hint = f"; did you mean {', '.join(tails[tail] for tail in like)}?"
        raise KernelError(f"no kernel {spec}: neither a name nor a file or directory{hint}")
    if path.is_dir():
        return _tree(cache, path, modules)
    tree = _tree_of(path)
    return _tree(cache, tree, modules) if tree else _image(cache, path, modules)


def _debian(cache: Cache, suite: str, package: str, refresh: bool, progress: Progress) -> _Source:
    apt = Apt(suite=suite, cache=cache)
    resolved = apt.resolve(package, follow=_KERNEL_PACKAGES, refresh=refresh)
    # Metapackages (no version in the name) only lead here; a mirror need not even have them.
    found = [item for item in resolved if re.search(r"-\d", item.name)]
    if not found:
        raise KernelError(f"{suite} has {package}, but it leads to no kernel")

    def assemble(product: Path) -> None:
        progress(f"downloading {found[-1].name} {found[-1].version} ({suite})")
        with cache.scratch() as work:
            try:
                files = apt.download(found, work)
            except AptError:
                apt.forget(package)
                raise
            _unpack(files, product)

    return _Source(
        identity=("debian", *(f"{item.name}={item.version}={item.sha256}" for item in found)),
        assemble=assemble,
        local=False,
    )


def _debs(cache: Cache, files: Sequence[Path]) -> _Source:
    for path in files:
        if not path.is_file():
            raise KernelError(f"{path} does not exist: give .deb files, separated by commas")
    return _Source(
        identity=("deb", *(cache.content_digest(path) for path in files)),
        assemble=lambda product: _unpack(files, product),
    )


def _unpack(files: Sequence[Path], product: Path) -> None:
    """Unpack a kernel's packages and keep what boots, wherever its packaging put it."""
    unpacked = product / "unpacked"
    for path in files:
        run(["dpkg-deb", "-x", path, unpacked])
    homes = [unpacked / "lib/modules", unpacked / "usr/lib/modules"]
    images = [*unpacked.glob("boot/vmlinuz-*")]
    images += [path for home in homes for path in home.glob("*/vmlinuz")]
    if len(images) != 1:
        names = ", ".join(path.name for path in files)
        raise KernelError(f"{len(images)} kernels in {names}: give the packages of exactly one")
    release = read_release(images[0])
    shutil.move(images[0], product / "vmlinuz")
    trees = [home / release for home in homes if (home / release).is_dir()]
    for config in (unpacked / "boot" / f"config-{release}", *(tree / "config" for tree in trees)):
        if config.exists():
            shutil.move(config, product / "config")
    for tree in trees:
        _copy_modules(tree, product / "lib/modules" / release, os.rename)
    shutil.rmtree(unpacked)


def _host(cache: Cache, root: Path) -> _Source:
    release = platform.release()
    vmlinuz = root / "boot" / f"vmlinuz-{release}"
    tree = root / "lib/modules" / release
    if not vmlinuz.exists():
        vmlinuz = tree / "vmlinuz"
    if not vmlinuz.exists():
        raise KernelError(
            f"kernel host: there is no {root / 'boot' / f'vmlinuz-{release}'}:"
            " the kernel that runs here is not installed here (a container, or a custom boot)"
        )
    config = next(
        (path for path in (root / "boot" / f"config-{release}", tree / "config") if path.exists()),
        None,
    )
    return _installed(cache, vmlinuz, config, tree if tree.is_dir() else None)


def _tree_of(bzimage: Path) -> Path | None:
    """The build tree a bzImage lies in, if it lies in one."""
    parents = bzimage.resolve().parents
    if bzimage.resolve().match("arch/x86*/boot/bzImage") and (parents[3] / ".config").exists():
        return parents[3]
    return None


def _tree(cache: Cache, tree: Path, modules: Path | None) -> _Source:
    image = tree / "arch/x86/boot/bzImage"
    if not image.exists():
        raise KernelError(
            f"{tree} holds no arch/x86/boot/bzImage: it is not a built kernel tree; run make there"
        )
    config = tree / ".config" if (tree / ".config").exists() else None
    if modules is not None:
        return _installed(cache, image, config, _release_dir(modules, read_release(image)))
    release = read_release(image)
    stated = _first_line(tree / "include/config/kernel.release")
    if stated and stated != release:
        raise KernelError(
            f"{tree}: the bzImage is {release} but the tree is configured as {stated}: run make"
        )
    built = list(_built_modules(tree))

    def assemble(product: Path) -> None:
        shutil.copyfile(image, product / "vmlinuz")
        if config is not None:
            shutil.copyfile(config, product / "config")
        target = product / "lib/modules" / release
        for path in built:
            copy = target / "kernel" / path.relative_to(tree)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        target.mkdir(parents=True, exist_ok=True)
        for name in _LISTS:
            if (tree / name).exists():
                shutil.copyfile(tree / name, target / name)
        _strip(list(target.rglob("*.ko")))

    return _Source(
        identity=(
            "tree",
            cache.content_digest(image),
            cache.content_digest(config) if config else "",
            *_stamps(built),
        ),
        assemble=assemble,
    )


def _built_modules(tree: Path) -> Iterator[Path]:
    """The .ko files of a build tree, by its modules.order.

    Its lines name `kernel/drivers/block/loop.ko` before "kbuild: do not create built-in.o..."
    times, later `drivers/block/loop.ko`, and `.o` since 6.3; all three are read.
    """
    order = tree / "modules.order"
    if not order.exists():
        return
    for line in order.read_text().split():
        stem = tree / line.removeprefix("kernel/")
        if not stem.parent.is_dir():
            stem = tree / line
        path = stem.with_suffix(".ko")
        if path.exists():
            yield path


def _image(cache: Cache, image: Path, modules: Path | None) -> _Source:
    release = read_release(image)
    beside = (image.parent / f"config-{release}", image.parent / "config")
    config = next((path for path in beside if path.is_file()), None)
    tree = _release_dir(modules, release) if modules is not None else None
    return _installed(cache, image, config, tree)


def _installed(cache: Cache, vmlinuz: Path, config: Path | None, tree: Path | None) -> _Source:
    release = read_release(vmlinuz)
    files = [] if tree is None else [*_module_files(tree), *sorted(tree.glob("modules.builtin*"))]

    def assemble(product: Path) -> None:
        shutil.copyfile(vmlinuz, product / "vmlinuz")
        if config is not None:
            shutil.copyfile(config, product / "config")
        if tree is not None:
            _copy_modules(tree, product / "lib/modules" / release, shutil.copyfile)

    return _Source(
        identity=(
            "installed",
            cache.content_digest(vmlinuz),
            cache.content_digest(config) if config else "",
            *_stamps(files),
        ),
        assemble=assemble,
    )


def _release_dir(directory: Path, release: str) -> Path:
    """The lib/modules/RELEASE tree that `modules=DIR` means. Raises KernelError."""
    for inner in (f"lib/modules/{release}", f"usr/lib/modules/{release}", release):
        if (directory / inner).is_dir():
            return directory / inner
    if directory.resolve().name == release or (directory / "kernel").is_dir():
        return directory
    others = sorted(path.parent.name for path in directory.glob("**/modules.order"))
    found = f" (it has {', '.join(others)})" if others else ""
    raise KernelError(f"{directory} has no modules for {release}{found}: run make modules_install")


# -- assembling --------------------------------------------------------------------------------


def _copy_modules(source: Path, target: Path, copy: Callable[[Path, Path], object]) -> None:
    """Copy (or move) the modules and lists of a release; not its links to sources and headers."""
    target.mkdir(parents=True, exist_ok=True)
    for path in _module_files(source):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        copy(path, place)
    for name in _LISTS:
        if (source / name).exists():
            copy(source / name, target / name)


def _strip(modules: Sequence[Path]) -> None:
    """Drop debug information: it makes modules ten times as large, and the guest loads them whole.

    A signed module would lose its signature, so those stay as they are. Without binutils too.
    """
    if shutil.which("strip") is None:
        return
    for path in modules:
        with path.open("rb") as stream:
            stream.seek(-min(len(_SIGNED), path.stat().st_size), os.SEEK_END)
            if stream.read() == _SIGNED:
                continue
        run(["strip", "--strip-debug", path])


def _decompress(module: Path) -> None:
    """Leave a plain .ko in place of a compressed one.

    The initramfs's insmod reads no other, and unpacking xz under software emulation is slow.
    """
    if module.suffix == ".ko":
        return
    packed = module.read_bytes()
    if module.suffix == ".xz":
        plain = lzma.decompress(packed)
    elif module.suffix == ".gz":
        plain = gzip.decompress(packed)
    else:
        plain = run(["zstd", "-dcq"], stdin=packed)
    module.with_suffix("").write_bytes(plain)
    module.unlink()


def _finish(spec: str, product: Path) -> None:
    """Run depmod, write down the release, and refuse a kernel that cannot boot the guest."""
    release = read_release(product / "vmlinuz")
    modules = product / "lib/modules" / release
    if modules.is_dir():
        for path in _module_files(modules):
            _decompress(path)
        _check_release(modules, release)
        run(["depmod", "-b", product, release])
    config_file = product / "config"
    if not config_file.exists():
        embedded = embedded_config(product / "vmlinuz")
        if embedded is not None:
            config_file.write_text(embedded)
    tree = modules if modules.is_dir() else None
    lacks = kconfig.missing(
        config=kconfig.parse(config_file.read_text()) if config_file.exists() else None,
        builtin=builtin_names(tree),
        modules=module_names(tree),
    )
    if lacks:
        hint = "" if tree is not None or not config_file.exists() else "; modules=DIR names modules"
        raise KernelError(
            f"kernel {spec} ({release}) cannot boot the guest: it lacks {_list(lacks)}{hint}"
        )
    (product / "kernel.json").write_text(json.dumps({"release": release}))


def _check_release(modules: Path, release: str) -> None:
    """Refuse modules built for another release: the kernel would refuse each of them, at boot."""
    for path in _module_files(modules)[:1]:
        built_for = _vermagic(path)
        if built_for != release:
            raise KernelError(
                f"the modules given for {release} were built for {built_for or 'no kernel'}"
            )


def _vermagic(module: Path) -> str:
    """The release a module was built for; empty when it does not say. Raises ToolError."""
    words = run(["modinfo", "-F", "vermagic", module.resolve()]).decode().split()
    return words[0] if words else ""


def _opened(spec: str, entry: Path, key: str, *, local: bool) -> Kernel:
    release = str(json.loads((entry / "kernel.json").read_text())["release"])
    modules = entry / "lib/modules" / release
    config = entry / "config"
    return Kernel(
        name=spec,
        release=release,
        vmlinuz=entry / "vmlinuz",
        modules=modules if modules.is_dir() else None,
        config=config if config.exists() else None,
        key=key,
        local=local,
    )


# -- one rebuilt module ------------------------------------------------------------------------


def _override_identity(cache: Cache, module: Path) -> str:
    if not module.is_file() or not _MODULE.fullmatch(module.name):
        raise KernelError(f"{module} is not a module file: give a .ko")
    return f"{module.name}={cache.content_digest(module)}"


def _vary(product: Path, base: Path, overrides: Sequence[Path]) -> None:
    """Make a variant of a kernel entry, sharing its files by hard links, with modules replaced."""

    def link(source: str, target: str) -> None:
        # depmod's output is about to be made anew; an entry's own files must never be written to.
        if _MODULE.fullmatch(Path(source).name) or Path(source).name == "vmlinuz":
            os.link(source, target)
        else:
            shutil.copyfile(source, target)

    shutil.copytree(base, product, copy_function=link, dirs_exist_ok=True)
    release = str(json.loads((base / "kernel.json").read_text())["release"])
    modules = product / "lib/modules" / release
    for path in overrides:
        _replace(modules, path, release)
    run(["depmod", "-b", product, release])


def _replace(modules: Path, module: Path, release: str) -> None:
    name = _module_name(module)
    try:
        built_for = _vermagic(module)
    except ToolError as error:
        raise KernelError(f"{module} is not a kernel module: {error}") from error
    if built_for != release:
        raise KernelError(
            f"{module} was built for {built_for or 'no kernel'}, not for {release}:"
            " rebuild it against that kernel"
        )
    if name in (builtin_names(modules) or ()):
        raise KernelError(f"{name} is built into {release}: no module can take its place")
    present = module_names(modules).get(name)
    if present is not None:
        present.unlink()
        place = present.parent / module.name
    else:
        place = modules / "updates" / module.name
        place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(module, place)
    _decompress(place)


# -- small things ------------------------------------------------------------------------------


def _stamps(files: Sequence[Path]) -> Iterator[str]:
    # Not their content: a distribution's kernel has thousands of modules.
    return map(file_stamp, files)


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
