"""Every way to name a kernel ends in the same entry, or in one line that says why not."""

from __future__ import annotations

import lzma
import os
import shutil
from pathlib import Path

import pytest

from conformance.machine import kconfig
from conformance.machine.bzimage import KernelError, embedded_config, read_release
from conformance.machine.cache import Cache
from conformance.machine.kernel import (
    KERNELS_TOML,
    LOCAL_KEPT,
    Kernel,
    builtin_names,
    kernel_names,
    module_names,
    resolve_kernel,
)
from tests.support.kernels import CONFIG, RELEASE, bzimage, module, tree

needs_kmod = pytest.mark.skipif(
    not any(Path(d, "depmod").exists() for d in ("/usr/sbin", "/sbin")), reason="needs kmod"
)
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")

MODULES = {"drivers/block/loop.ko": "", "fs/stack/top-layer.ko": "base", "fs/stack/base.ko": ""}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(root=tmp_path / "cache")


def one_line(error: pytest.ExceptionInfo[KernelError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# -- the header --------------------------------------------------------------------------------


def test_release_comes_from_the_header(tmp_path: Path) -> None:
    assert read_release(bzimage(tmp_path / "bzImage", "7.3.4+deb13-cloud")) == "7.3.4+deb13-cloud"


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"", "make bzImage"),
        (b"not a kernel", "make bzImage"),
        (b"\x7fELF" + bytes(2000), "an ELF file: give arch/x86/boot/bzImage, not vmlinux"),
        (b"!<arch>\n", "a package: its name must end in .deb"),
    ],
)
def test_something_else_is_refused(tmp_path: Path, cache: Cache, content: bytes, hint: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(KernelError) as caught:
        resolve_kernel(str(path), cache=cache)
    assert one_line(caught).startswith(f"{path} is not a bzImage")
    assert hint in str(caught.value)


def test_a_header_without_a_release_is_refused(tmp_path: Path) -> None:
    path = bzimage(tmp_path / "bzImage", release="")
    data = bytearray(path.read_bytes())
    data[0x20E:0x210] = bytes(2)
    path.write_bytes(data)
    with pytest.raises(KernelError, match="no release in its header"):
        read_release(path)


def test_embedded_config_is_found(tmp_path: Path) -> None:
    assert embedded_config(bzimage(tmp_path / "with", config=CONFIG)) == CONFIG
    assert embedded_config(bzimage(tmp_path / "without")) is None


# -- specs -------------------------------------------------------------------------------------


def test_shipped_names_are_whole() -> None:
    names = kernel_names()
    for suite in ("bullseye", "bookworm", "trixie", "trixie-backports", "sid", "experimental"):
        assert names[f"debian/{suite}"] == (suite, "linux-image-cloud-amd64")
        assert names[f"debian/{suite}/full"] == (suite, "linux-image-amd64")
    assert KERNELS_TOML.name == "kernels.toml"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("debian/warty", "no kernel debian/warty: .*known are debian/bullseye"),
        (
            "bookwrm",
            "no kernel bookwrm: neither a name nor .*; did you mean debian/bookworm",
        ),
        (
            "nonsense",
            "no kernel nonsense: neither a name nor a file or directory; names are .*host",
        ),
        ("/no/such/bzImage", "no kernel /no/such/bzImage: neither a name nor a file or directory$"),
        ("/no/such.deb", "/no/such.deb does not exist"),
        (".,kernel=x", "'kernel=x' is not an option; only modules=DIR is"),
        (".,modules=/no/such", "/no/such is not a directory"),
    ],
)
def test_a_spec_that_names_nothing(cache: Cache, spec: str, says: str) -> None:
    with pytest.raises(KernelError, match=says) as caught:
        resolve_kernel(spec, cache=cache)
    one_line(caught)


@needs_kmod
def test_a_bzimage_without_modules(tmp_path: Path, cache: Cache) -> None:
    image = bzimage(tmp_path / "bzImage", config=CONFIG)
    kernel = resolve_kernel(str(image), cache=cache)
    assert kernel.name == str(image)
    assert kernel.release == RELEASE
    assert kernel.modules is None
    assert kernel.config is not None
    assert kernel.config.read_text() == CONFIG
    assert kernel.vmlinuz.read_bytes() == image.read_bytes()
    assert kernel.local


def installed(top: Path, release: str = RELEASE) -> Path:
    """A lib/modules/RELEASE as `make modules_install` leaves it, some of it compressed."""
    place = top / "lib/modules" / release
    plain = module(place / "kernel/drivers/block/loop.ko", release)
    packed = module(place / "kernel/drivers/block/brd.ko", release)
    packed.with_name("brd.ko.xz").write_bytes(lzma.compress(packed.read_bytes()))
    packed.unlink()
    (place / "modules.order").write_text("kernel/drivers/block/loop.ko\n")
    (place / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    (place / "build").symlink_to("/nowhere")
    assert plain.exists()
    return place


@needs_kmod
@pytest.mark.parametrize("inner", ["", "lib/modules", "lib/modules/RELEASE"])
def test_a_bzimage_with_modules(tmp_path: Path, cache: Cache, inner: str) -> None:
    image = bzimage(tmp_path / "bzImage", config=CONFIG)
    installed(tmp_path / "out")
    given = tmp_path / "out" / inner.replace("RELEASE", RELEASE)
    kernel = resolve_kernel(f"{image},modules={given}", cache=cache)
    assert kernel.modules is not None
    assert kernel.modules.name == RELEASE
    names = module_names(kernel.modules)
    assert {path.suffix for path in names.values()} == {".ko"}, "unpacked on the way in"
    assert set(names) == {"loop", "brd"}
    assert "kernel/drivers/block/brd.ko:" in (kernel.modules / "modules.dep").read_text()
    assert builtin_names(kernel.modules) == {"ext4"}
    assert not (kernel.modules / "build").is_symlink()


def test_modules_of_another_release_are_refused(tmp_path: Path, cache: Cache) -> None:
    image = bzimage(tmp_path / "bzImage", config=CONFIG)
    installed(tmp_path / "out", "5.0.0-other")
    with pytest.raises(KernelError, match=r"no modules for 6.9.0-made-up \(it has 5.0.0-other\)"):
        resolve_kernel(f"{image},modules={tmp_path / 'out'}", cache=cache)


@needs_kmod
def test_modules_that_only_look_like_the_releases_are_refused(tmp_path: Path, cache: Cache) -> None:
    image = bzimage(tmp_path / "bzImage", config=CONFIG)
    other = installed(tmp_path / "out", "5.0.0-other")
    with pytest.raises(KernelError, match=r"given for 6.9.0-made-up were built for 5.0.0-other"):
        resolve_kernel(f"{image},modules={other}", cache=cache)


def test_a_modular_kernel_without_modules_is_told_how_to_name_them(
    tmp_path: Path, cache: Cache
) -> None:
    config = CONFIG.replace("CONFIG_EROFS_FS=y", "CONFIG_EROFS_FS=m")
    image = bzimage(tmp_path / "bzImage", config=config)
    with pytest.raises(KernelError, match=r"CONFIG_EROFS_FS \(=m, .*; modules=DIR names modules"):
        resolve_kernel(str(image), cache=cache)


@needs_kmod
@pytest.mark.parametrize(
    ("prefix", "suffix"), [("", ".o"), ("", ".ko"), ("kernel/", ".ko")], ids=["6.x", "5.x", "4.x"]
)
def test_a_build_tree(tmp_path: Path, cache: Cache, prefix: str, suffix: str) -> None:
    top = tree(tmp_path / "linux", modules=MODULES, order_prefix=prefix, order_suffix=suffix)
    kernel = resolve_kernel(str(top), cache=cache)
    assert kernel.release == RELEASE
    assert kernel.modules is not None
    assert set(module_names(kernel.modules)) == {"loop", "top_layer", "base"}
    dep = (kernel.modules / "modules.dep").read_text()
    assert "kernel/fs/stack/top-layer.ko:" in dep
    by_image = resolve_kernel(str(top / "arch/x86/boot/bzImage"), cache=cache)
    assert by_image.key == kernel.key, "a bzImage inside a tree is that tree"


@needs_kmod
def test_a_rebuilt_tree_is_another_kernel(tmp_path: Path, cache: Cache) -> None:
    top = tree(tmp_path / "linux", modules=MODULES)
    before = resolve_kernel(str(top), cache=cache)
    assert resolve_kernel(str(top), cache=cache) == before
    module(top / "drivers/block/loop.ko", note="rebuilt")
    after = resolve_kernel(str(top), cache=cache)
    assert after.key != before.key
    assert before.vmlinuz.exists(), "a running machine keeps what it booted from"


@needs_kmod
def test_a_build_with_clamped_mtimes_is_another_kernel(tmp_path: Path, cache: Cache) -> None:
    """As with SOURCE_DATE_EPOCH: the rebuilt module has the size and the mtime of the old one."""
    top = tree(tmp_path / "linux", modules=MODULES)
    loop = top / "drivers/block/loop.ko"
    keys = set()
    for note in ("one", "two"):
        module(loop, note=note)
        os.utime(loop, ns=(5, 5))
        kernel = resolve_kernel(str(top), cache=cache)
        keys.add(kernel.key)
        assert kernel.modules is not None
        kept = kernel.modules / "kernel/drivers/block/loop.ko"
        assert f"description={note}".encode() in kept.read_bytes()
    assert len(keys) == 2


@needs_kmod
def test_old_builds_are_dropped(tmp_path: Path, cache: Cache) -> None:
    top = tree(tmp_path / "linux", modules=MODULES)
    for number in range(LOCAL_KEPT + 3):
        module(top / "drivers/block/loop.ko", note="x" * number)
        resolve_kernel(str(top), cache=cache)
    assert len(list((cache.root / "kernel-local").iterdir())) == LOCAL_KEPT


@needs_kmod
def test_a_tree_without_modules_has_an_empty_list(tmp_path: Path, cache: Cache) -> None:
    kernel = resolve_kernel(str(tree(tmp_path / "linux")), cache=cache)
    assert module_names(kernel.modules) == {}


def test_a_tree_that_was_not_built(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "Makefile").touch()
    with pytest.raises(KernelError, match="not a built kernel tree; run make there"):
        resolve_kernel(str(tmp_path), cache=cache)


def test_a_tree_whose_image_is_stale(tmp_path: Path, cache: Cache) -> None:
    top = tree(tmp_path / "linux")
    (top / "include/config/kernel.release").write_text("6.10.0\n")
    with pytest.raises(KernelError, match=r"bzImage is 6.9.0-made-up but .* 6.10.0: run make"):
        resolve_kernel(str(top), cache=cache)


def package(path: Path, content: Path) -> Path:
    (content / "DEBIAN").mkdir(parents=True)
    (content / "DEBIAN/control").write_text(
        f"Package: {path.stem}\nVersion: 1\nArchitecture: amd64\nMaintainer: x\nDescription: x\n"
    )
    os.spawnlp(os.P_WAIT, "dpkg-deb", "dpkg-deb", "-b", str(content), str(path))
    return path


@needs_dpkg
@needs_kmod
def test_one_package(tmp_path: Path, cache: Cache) -> None:
    content = tmp_path / "content"
    bzimage(content / f"boot/vmlinuz-{RELEASE}")
    (content / f"boot/config-{RELEASE}").write_text(CONFIG)
    installed(content)
    deb = package(tmp_path / "linux-image.deb", content)
    kernel = resolve_kernel(str(deb), cache=cache)
    assert kernel.release == RELEASE
    assert set(module_names(kernel.modules)) == {"loop", "brd"}
    assert kernel.config is not None


@needs_dpkg
@needs_kmod
def test_split_packages(tmp_path: Path, cache: Cache) -> None:
    inner = f"usr/lib/modules/{RELEASE}"
    binary, base, drivers = (tmp_path / name for name in ("binary", "base", "drivers"))
    bzimage(binary / inner / "vmlinuz")
    (base / inner).mkdir(parents=True)
    (base / inner / "config").write_text(CONFIG)
    (base / inner / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    module(drivers / inner / "kernel/drivers/block/loop.ko")
    debs = [package(tmp_path / f"{path.name}.deb", path) for path in (binary, base, drivers)]
    kernel = resolve_kernel(",".join(map(str, debs)), cache=cache)
    assert kernel.release == RELEASE
    assert set(module_names(kernel.modules)) == {"loop"}
    assert builtin_names(kernel.modules) == {"ext4"}
    assert kernel.config is not None
    assert kernel.config.read_text() == CONFIG
    with pytest.raises(KernelError, match=r"0 kernels in drivers.deb: give the packages"):
        resolve_kernel(str(debs[2]), cache=cache)


@needs_kmod
def test_the_hosts_kernel(tmp_path: Path, cache: Cache) -> None:
    release = os.uname().release
    bzimage(tmp_path / f"boot/vmlinuz-{release}", release)
    (tmp_path / f"boot/config-{release}").write_text(CONFIG)
    installed(tmp_path, release)
    kernel = resolve_kernel("host", cache=cache, host_root=tmp_path)
    assert kernel.release == release
    assert set(module_names(kernel.modules)) == {"loop", "brd"}


def test_a_host_without_its_kernel(tmp_path: Path, cache: Cache) -> None:
    with pytest.raises(KernelError, match=r"kernel host: there is no .*vmlinuz-"):
        resolve_kernel("host", cache=cache, host_root=tmp_path)


# -- what the guest needs ----------------------------------------------------------------------


@needs_kmod
def test_a_kernel_that_cannot_boot_the_guest_is_refused(tmp_path: Path, cache: Cache) -> None:
    config = CONFIG.replace("CONFIG_EROFS_FS=y", "# CONFIG_EROFS_FS is not set").replace(
        "CONFIG_VIRTIO_BLK=y", "CONFIG_VIRTIO_BLK=m"
    )
    top = tree(tmp_path / "linux", config=config)
    with pytest.raises(KernelError) as caught:
        resolve_kernel(str(top), cache=cache)
    assert one_line(caught) == (
        f"kernel {top} ({RELEASE}) cannot boot the guest: it lacks"
        " CONFIG_VIRTIO_BLK (=m, but virtio_blk.ko is not at hand) and CONFIG_EROFS_FS"
    )


@needs_kmod
def test_a_module_at_hand_is_as_good_as_built_in(tmp_path: Path, cache: Cache) -> None:
    config = CONFIG.replace("CONFIG_VIRTIO_BLK=y", "CONFIG_VIRTIO_BLK=m")
    top = tree(tmp_path / "linux", config=config, modules={"drivers/block/virtio_blk.ko": ""})
    assert resolve_kernel(str(top), cache=cache).modules is not None


@pytest.mark.parametrize("need", kconfig.NEEDS, ids=lambda need: need.option)
def test_every_need_is_checked(need: kconfig.Need) -> None:
    config = kconfig.parse(CONFIG)
    assert kconfig.missing(config=config, builtin=None, modules=()) == []
    del config[need.option]
    assert kconfig.missing(config=config, builtin=None, modules=()) == [need.option]


def test_without_a_config_the_module_lists_decide() -> None:
    names = {need.module for need in kconfig.NEEDS if need.module}
    assert kconfig.missing(config=None, builtin=names, modules=()) == []
    assert kconfig.missing(config=None, builtin=(), modules=names) == []
    assert kconfig.missing(config=None, builtin=names - {"erofs"}, modules=()) == [
        "CONFIG_EROFS_FS"
    ]
    assert kconfig.missing(config=None, builtin=None, modules=()) == [], "nothing is known"


# -- one rebuilt module ------------------------------------------------------------------------


@pytest.fixture
def linux(tmp_path: Path) -> Path:
    return tree(tmp_path / "linux", modules=MODULES)


@needs_kmod
def test_a_module_takes_the_place_of_the_kernels_own(
    tmp_path: Path, cache: Cache, linux: Path
) -> None:
    own = module(tmp_path / "loop.ko", note="mine", depends="base")
    base = resolve_kernel(str(linux), cache=cache)
    varied = resolve_kernel(str(linux), cache=cache, modules_override=(own,))
    assert varied.key != base.key
    assert varied.release == base.release
    assert content(varied, "loop") == own.read_bytes()
    assert content(base, "loop") != own.read_bytes(), "the kernel itself is untouched"
    assert content(varied, "base") == content(base, "base")
    assert "loop.ko: kernel/fs/stack/base.ko" in dep(varied)
    assert "loop.ko: kernel/fs/stack/base.ko" not in dep(base)
    again = resolve_kernel(str(linux), cache=cache, modules_override=(own,))
    assert again == varied


@needs_kmod
def test_a_module_the_kernel_does_not_have_is_added(
    tmp_path: Path, cache: Cache, linux: Path
) -> None:
    own = module(tmp_path / "dm-dust.ko")
    kernel = resolve_kernel(str(linux), cache=cache, modules_override=(own,))
    assert kernel.modules is not None
    assert module_names(kernel.modules)["dm_dust"] == kernel.modules / "updates/dm-dust.ko"


@needs_kmod
@pytest.mark.parametrize(
    ("name", "release", "says"),
    [
        ("loop.ko", "6.8.0", "was built for 6.8.0, not for 6.9.0-made-up: rebuild it"),
        ("ext4.ko", RELEASE, "ext4 is built into 6.9.0-made-up"),
    ],
)
def test_a_module_that_does_not_fit(
    tmp_path: Path, cache: Cache, linux: Path, *, name: str, release: str, says: str
) -> None:
    own = module(tmp_path / name, release)
    with pytest.raises(KernelError, match=says) as caught:
        resolve_kernel(str(linux), cache=cache, modules_override=(own,))
    one_line(caught)


@needs_kmod
def test_something_that_is_no_module(tmp_path: Path, cache: Cache, linux: Path) -> None:
    (tmp_path / "loop.ko").write_text("int main")
    with pytest.raises(KernelError, match=r"loop.ko (is not a kernel module|was built for no)"):
        resolve_kernel(str(linux), cache=cache, modules_override=(tmp_path / "loop.ko",))
    with pytest.raises(KernelError, match=r"is not a module file: give a .ko"):
        resolve_kernel(str(linux), cache=cache, modules_override=(tmp_path / "loop.c",))


def content(kernel: Kernel, name: str) -> bytes:
    return module_names(kernel.modules)[name].read_bytes()


def dep(kernel: Kernel) -> str:
    assert kernel.modules is not None
    return (kernel.modules / "modules.dep").read_text()
