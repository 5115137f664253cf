"""The initramfs holds what boots, the images are readable by the oldest kernel, keys are honest."""

from __future__ import annotations

import ast
import shutil
import stat
import struct
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.machine import initramfs
from conformance.machine.apt import SUITES
from conformance.machine.cache import Cache
from conformance.machine.image import Sources, initrd_image, modules_image, root_image
from conformance.machine.initramfs import Member, boot_modules, load_order, newc
from conformance.machine.kernel import Kernel, resolve_kernel
from conformance.machine.tool import ArtifactError, ToolError, environment
from tests.support.kernels import CONFIG, module, tree

PROJECT = Path(__file__).resolve().parents[2]
PATH = environment()["PATH"]

needs_kmod = pytest.mark.skipif(shutil.which("depmod", path=PATH) is None, reason="needs kmod")
needs_erofs = pytest.mark.skipif(
    shutil.which("mkfs.erofs", path=PATH) is None, reason="needs mkfs.erofs"
)
needs_busybox = pytest.mark.skipif(shutil.which("busybox", path=PATH) is None, reason="busybox")

MODULAR = CONFIG.replace("EROFS_FS=y", "EROFS_FS=m").replace("VIRTIO_BLK=y", "VIRTIO_BLK=m")
MODULES = {
    "drivers/block/virtio_blk.ko": "virtio",
    "drivers/virtio/virtio.ko": "virtio_ring",
    "drivers/virtio/virtio_ring.ko": "",
    "drivers/char/hw_random/virtio-rng.ko": "virtio",
    "fs/erofs/erofs.ko": "libcrc32c",
    "lib/libcrc32c.ko": "",
    "drivers/block/loop.ko": "",
}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(root=tmp_path / "cache")


@pytest.fixture
def kernel(tmp_path: Path, cache: Cache) -> Kernel:
    top = tree(tmp_path / "linux", config=MODULAR, modules=MODULES)
    return resolve_kernel(str(top), cache=cache)


@pytest.fixture
def files(tmp_path: Path) -> Sources:
    agent = tmp_path / "agent"
    (agent / "layers").mkdir(parents=True)
    (agent / "__main__.py").write_text("print('up')\n")
    (agent / "layers/loop.py").write_text("LOOP = 1\n")
    (agent / "notes.txt").write_text("not a program\n")
    (tmp_path / "wire.py").write_text("WIRE = 1\n")
    return Sources(agent=agent, wire=tmp_path / "wire.py")


def unpack(archive: bytes) -> dict[str, Member]:
    """Read a newc archive back, by the format's description and not by the writer."""
    found: dict[str, Member] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        size, length = fields[6], fields[11]
        name = archive[at + 110 : at + 110 + length - 1].decode()
        body = at + (110 + length + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = Member(
            name=name,
            mode=fields[1],
            content=archive[body : body + size],
            device=(fields[9], fields[10]),
        )
        at = (body + size + 3) // 4 * 4


# -- the archive -------------------------------------------------------------------------------


def test_members_survive_the_archive() -> None:
    members = [
        Member(name="dir", mode=stat.S_IFDIR | 0o755),
        *(
            Member(name=f"dir/{n * 'x'}", mode=stat.S_IFREG | 0o644, content=bytes(n))
            for n in range(1, 9)
        ),
        Member(name="null", mode=stat.S_IFCHR | 0o600, device=(1, 3)),
    ]
    archive = newc(members)
    assert list(unpack(archive).values()) == members
    assert len(archive) % 512 == 0
    assert newc(members) == archive


@needs_busybox
def test_cpio_reads_the_archive() -> None:
    archive = newc([Member(name="a", mode=stat.S_IFREG | 0o644, content=b"12345")])
    listed = subprocess.run(
        ["busybox", "cpio", "-t"],
        input=archive,
        capture_output=True,
        check=True,
        env={"PATH": PATH},
    )
    assert listed.stdout == b"a\n"


@needs_kmod
@needs_busybox
def test_initramfs_holds_what_boots(kernel: Kernel, cache: Cache, files: Sources) -> None:
    _, path = initrd_image(kernel, cache=cache, files=files)
    found = unpack(path.read_bytes())
    assert found["init"].content == (PROJECT / "vm/init").read_bytes()
    assert found["init"].mode == stat.S_IFREG | 0o755
    assert found["bin/busybox"].mode == stat.S_IFREG | 0o755
    assert found["dev/console"].device == (5, 1)
    assert found["agent/__main__.py"].content == b"print('up')\n"
    assert found["agent/layers/loop.py"].content == b"LOOP = 1\n"
    assert found["agent/wire.py"].content == b"WIRE = 1\n"
    assert "agent/notes.txt" not in found
    for name in found:
        parent = Path(name).parent.as_posix()
        assert parent == "." or stat.S_ISDIR(found[parent].mode), f"{name} has no directory"
    order = found["modules/order"].content.decode().splitlines()
    assert {f"modules/{line.split()[0]}" for line in order} <= set(found)
    assert "erofs.ko" in order
    assert "virtio-rng.ko optional" in order


# -- modules in order --------------------------------------------------------------------------


@needs_kmod
def test_modules_are_loaded_after_what_they_need(kernel: Kernel) -> None:
    modules = boot_modules(kernel)
    names = [one.path.name for one in modules]
    assert [one.path.name for one in modules if not one.required] == ["virtio-rng.ko"]
    assert sorted(names) == [
        "erofs.ko",
        "libcrc32c.ko",
        "virtio-rng.ko",
        "virtio.ko",
        "virtio_blk.ko",
        "virtio_ring.ko",
    ]
    for before, after in [
        ("virtio_ring.ko", "virtio.ko"),
        ("virtio.ko", "virtio_blk.ko"),
        ("virtio.ko", "virtio-rng.ko"),
        ("libcrc32c.ko", "erofs.ko"),
    ]:
        assert names.index(before) < names.index(after)


def test_a_kernel_without_modules_loads_none(kernel: Kernel) -> None:
    assert boot_modules(replace(kernel, modules=None)) == ()


@needs_kmod
def test_soft_dependencies_come_before_and_may_fail(kernel: Kernel) -> None:
    assert kernel.modules is not None
    for name in ("crc_generic", "crc_fast"):
        module(kernel.modules / f"kernel/crypto/{name}.ko")
    dep = kernel.modules / "modules.dep"
    dep.write_text(dep.read_text() + "kernel/crypto/crc_generic.ko:\nkernel/crypto/crc_fast.ko:\n")
    (kernel.modules / "modules.softdep").write_text("softdep libcrc32c pre: crc-any post: loop\n")
    (kernel.modules / "modules.alias").write_text(
        "alias crc-any crc_fast\nalias crc-any crc_generic\nalias other loop\n"
    )
    modules = {one.path.name: one.required for one in boot_modules(kernel)}
    names = list(modules)
    assert names.index("crc_generic.ko") < names.index("crc_fast.ko") < names.index("libcrc32c.ko")
    assert modules["libcrc32c.ko"]
    assert not modules["crc_generic.ko"]
    assert "loop.ko" not in names


def test_load_order_reverses_depmods() -> None:
    assert load_order("a.ko: b.ko c.ko\nc.ko:\n") == {
        "a.ko": ("c.ko", "b.ko", "a.ko"),
        "c.ko": ("c.ko",),
    }


# -- keys --------------------------------------------------------------------------------------


@needs_kmod
@needs_busybox
@pytest.mark.parametrize("part", ["agent/__main__.py", "agent/layers/loop.py", "wire.py"])
def test_an_edit_makes_another_initramfs(
    tmp_path: Path, kernel: Kernel, cache: Cache, files: Sources, part: str
) -> None:
    key, path = initrd_image(kernel, cache=cache, files=files)
    assert initrd_image(kernel, cache=cache, files=files) == (key, path)
    before = (tmp_path / part).read_text()
    (tmp_path / part).write_text("CHANGED = 1\n")
    assert initrd_image(kernel, cache=cache, files=files)[0] != key
    (tmp_path / part).write_text(before)
    assert initrd_image(kernel, cache=cache, files=files) == (key, path)


@needs_kmod
@needs_busybox
def test_another_init_makes_another_initramfs(
    tmp_path: Path, kernel: Kernel, cache: Cache, files: Sources
) -> None:
    key, _ = initrd_image(kernel, cache=cache, files=files)
    other = tmp_path / "init"
    other.write_text("#!/bin/busybox sh\n")
    assert initrd_image(kernel, cache=cache, files=replace(files, init=other))[0] != key


@needs_kmod
@needs_busybox
@pytest.mark.parametrize("missing", ["agent/__main__.py", "wire.py"])
def test_an_incomplete_checkout_is_one_line(
    tmp_path: Path, kernel: Kernel, cache: Cache, files: Sources, missing: str
) -> None:
    (tmp_path / missing).unlink()
    with pytest.raises(ArtifactError, match="the checkout is incomplete"):
        initrd_image(kernel, cache=cache, files=files)


@needs_kmod
def test_a_dynamic_busybox_is_refused(
    tmp_path: Path, kernel: Kernel, cache: Cache, files: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/busybox"
    fake.write_bytes(b"\x7fELF /lib64/ld-linux-x86-64.so.2")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin")
    with pytest.raises(ToolError, match="not statically linked: apt install busybox-static"):
        initrd_image(kernel, cache=cache, files=files)


# -- images ------------------------------------------------------------------------------------

# struct erofs_super_block (fs/erofs/erofs_fs.h), at byte 1024.
MAGIC = 0xE0F5E1E2
LZ4_ZERO_PADDING = 0x1  # since 5.4; every other incompatible feature is younger than 5.10


def erofs_features(image: Path) -> int:
    with image.open("rb") as stream:
        block = stream.read(1024 + 128)[1024:]
    (magic,) = struct.unpack_from("<I", block)
    assert magic == MAGIC
    (incompatible,) = struct.unpack_from("<I", block, 80)
    return int(incompatible)


@needs_kmod
@needs_erofs
def test_images_are_readable_by_a_5_10_kernel(kernel: Kernel, cache: Cache) -> None:
    assert erofs_features(modules_image(kernel, cache=cache)) & ~LZ4_ZERO_PADDING == 0


@needs_kmod
@needs_erofs
def test_modules_image_is_built_once_and_reproducible(
    tmp_path: Path, kernel: Kernel, cache: Cache
) -> None:
    said: list[str] = []
    first = modules_image(kernel, cache=cache, progress=said.append)
    assert modules_image(kernel, cache=cache, progress=said.append) == first
    assert said == [f"building the modules image of {kernel.release}"]
    elsewhere = modules_image(kernel, cache=Cache(root=tmp_path / "other"))
    assert elsewhere.read_bytes() == first.read_bytes()


@needs_kmod
@needs_erofs
def test_a_kernel_without_modules_has_an_empty_image(kernel: Kernel, cache: Cache) -> None:
    bare = replace(kernel, modules=None, key="bare")
    assert erofs_features(modules_image(bare, cache=cache)) & ~LZ4_ZERO_PADDING == 0


def test_a_broken_recipe_is_one_line(tmp_path: Path, cache: Cache) -> None:
    recipe = tmp_path / "image.toml"
    for text, says in [("suite = ", "Invalid value"), ("suite = 'sid'", "it needs suite, pack")]:
        recipe.write_text(text)
        with pytest.raises(ArtifactError, match=says) as caught:
            root_image(cache=cache, recipe=recipe)
        assert "\n" not in str(caught.value)


# -- the files of vm/ --------------------------------------------------------------------------


def test_shipped_recipe_is_whole() -> None:
    recipe = tomllib.loads((PROJECT / "vm/image.toml").read_text())
    assert recipe["suite"] in SUITES
    assert len(set(recipe["packages"])) == len(recipe["packages"])
    assert "python3-minimal" in recipe["packages"]
    assert all(pattern.startswith("/") for pattern in recipe["exclude"])


def test_every_host_package_says_why() -> None:
    for line in (PROJECT / "vm/host-packages.txt").read_text().splitlines():
        name, _, why = line.partition("#")
        assert name.strip()
        assert " " not in name.strip()
        assert why.strip()


@needs_busybox
@pytest.mark.parametrize("script", ["init", "reaper"])
def test_guest_scripts_parse(script: str) -> None:
    subprocess.run(["busybox", "sh", "-n", PROJECT / "vm" / script], check=True, env={"PATH": PATH})


def test_every_disk_and_marker_the_host_relies_on_is_in_init() -> None:
    init = (PROJECT / "vm/init").read_text()
    assert "disk root" in init
    assert "disk modules" in init
    assert "conform-init: FAILED: " in init


def imports(tree: ast.AST) -> Iterator[str]:
    """Top-level packages imported at run time; not what only a type checker follows."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from imports(ast.Module(body=node.orelse, type_ignores=[]))
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "agent" if node.level else (node.module or "").split(".")[0]
        else:
            yield from imports(node)


def test_agent_uses_nothing_but_the_standard_library() -> None:
    """The guest has no site-packages; an import of one would be found only at boot."""
    for path in sorted((PROJECT / "vm/agent").rglob("*.py")):
        found = set(imports(ast.parse(path.read_text())))
        assert found <= {"agent", *sys.stdlib_module_names}, path


def test_agent_files_name_what_lies_below_agent(files: Sources) -> None:
    assert set(initramfs.agent_files(files.agent, files.wire)) == {
        "__main__.py",
        "layers/loop.py",
        "wire.py",
    }
