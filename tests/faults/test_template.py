"""Templates that were damaged, deleted, made by somebody else, or cannot be written; no guest is needed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.machine import template
from conformance.machine.accel import KVM, NO_KVM, choose, note_of
from conformance.machine.cache import Cache
from conformance.machine.image import BootFiles
from conformance.machine.machines import Shape, comes_up, open_machine
from conformance.machine.protocol import LaunchFailed
from conformance.machine.qemu import Version
from conformance.machine.template import Frozen, Template, TemplateError, obtain, write
from tests.faults.conftest import Told

PAGES = 64


def memory() -> int:
    """A guest's memory: some pages, and holes between them."""
    fd = os.memfd_create("memory")
    os.ftruncate(fd, 1 << 22)
    for number in range(PAGES):
        os.pwrite(fd, bytes([1 + number]) * 4096, number * 3 * 4096)
    return fd


def build(directory: Path) -> None:
    fd = memory()
    try:
        frozen = Frozen(memory=fd, state=b"state", console=b"console", boot_seconds=1.0, facts={})
        write(directory, frozen)
    finally:
        os.close(fd)


def truncated(entry: Path) -> None:
    os.truncate(entry / "memory", 4096)


def a_byte_is_another(entry: Path) -> None:
    with (entry / "memory").open("r+b") as file:
        file.seek(3 * 4096 + 17)
        file.write(b"!")


def a_page_is_gone(entry: Path) -> None:
    with (entry / "memory").open("r+b") as file:
        file.seek(6 * 4096)
        file.write(bytes(4096))


def state_is_cut(entry: Path) -> None:
    os.truncate(entry / "state", 3)


def no_manifest(entry: Path) -> None:
    (entry / "manifest.json").unlink()


def a_manifest_of_something_else(entry: Path) -> None:
    (entry / "manifest.json").write_text("[]")


DAMAGES: dict[str, Callable[[Path], None]] = {
    one.__name__: one
    for one in (truncated, a_byte_is_another, a_page_is_gone, state_is_cut, no_manifest,
                a_manifest_of_something_else)
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_told_and_made_anew(damage: str, tmp_path: Path, told: Told) -> None:
    cache = Cache(root=tmp_path / "cache")
    obtain(cache, "key", build).close()
    entry = cache.entry(template.KIND, "key")
    DAMAGES[damage](entry)
    with pytest.raises(TemplateError) as caught:
        Template(entry)
    told(str(caught.value))
    made = obtain(cache, "key", build)
    assert os.pread(made.memory, 4096, 3 * 4096) == b"\2" * 4096
    made.close()
    assert not list((tmp_path / "cache" / "tmp").iterdir())


def test_one_that_stays_damaged_is_an_error(tmp_path: Path, told: Told) -> None:
    """The machine then boots each guest for itself, and the record says why."""

    def badly(directory: Path) -> None:
        build(directory)
        truncated(directory)

    with pytest.raises(TemplateError) as caught:
        obtain(Cache(root=tmp_path), "key", badly)
    told(str(caught.value))


def test_it_is_deleted_while_it_is_in_use(tmp_path: Path) -> None:
    cache = Cache(root=tmp_path)
    made = obtain(cache, "key", build)
    cache.discard(template.KIND, "key")
    assert os.pread(made.memory, 4096, 0) == b"\1" * 4096
    fd = made.open_state()
    assert os.pread(fd, 100, 0) == b"state"
    os.close(fd)
    made.close()


def test_another_qemu_has_a_template_of_its_own(tmp_path: Path) -> None:
    binary = tmp_path / "qemu"
    binary.write_text("one")
    nothing = tmp_path / "nothing"
    boot = BootFiles(vmlinuz=nothing, initrd=nothing, root=nothing, modules=nothing, release="6.1",
                     kernel_name="debian/bookworm", key="boot")  # fmt: skip
    version = Version(binary=str(binary), number=(7, 2), text="QEMU emulator version 7.2.22")
    shape = Shape(boot=boot, version=version, accelerator=NO_KVM, memory_mib=1024, cpus=1)
    keys = {shape.key()}
    newer = replace(version, text="QEMU emulator version 7.2.23")
    keys.add(replace(shape, version=newer).key())
    keys.add(replace(shape, boot=replace(boot, key="another agent")).key())
    binary.write_text("another build of the same version")
    keys.add(shape.key())
    assert len(keys) == 4


BUILDER = """
import sys, os
from pathlib import Path
from conformance.machine.cache import Cache
from conformance.machine.template import obtain
from tests.faults.test_template import build
def counted(directory):
    with open(sys.argv[2], "a") as file:
        file.write(f"{os.getpid()}\\n")
    sys.stdin.readline()
    build(directory)
print("ready", flush=True)
made = obtain(Cache(root=Path(sys.argv[1])), "key", counted)
print(os.pread(made.memory, 1, 0), flush=True)
"""


def start(root: Path, log: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(root), str(log)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        text=True,
    )


def finish(run: subprocess.Popen[str]) -> str:
    said, _ = run.communicate("\n", timeout=60)
    return said


def test_two_runs_make_the_same_one_at_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    runs = [start(tmp_path / "cache", log) for _ in range(2)]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    # Each is let go on by its own line; whichever builds needs one, the other none.
    told: list[str] = []
    threads = [threading.Thread(target=lambda run=run: told.append(finish(run))) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == ["b'\\x01'\n"] * 2
    assert len(log.read_text().splitlines()) == 1


def test_a_builder_is_killed_and_the_next_one_builds(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = start(tmp_path / "cache", log)
    assert first.stdout is not None
    assert first.stdout.readline() == "ready\n"
    while not (log.exists() and log.read_text()):
        assert first.poll() is None
    first.kill()
    first.communicate()
    assert finish(start(tmp_path / "cache", log)) == "ready\nb'\\x01'\n"
    assert len(log.read_text().splitlines()) == 2
    assert not list((tmp_path / "cache" / "tmp").iterdir())


def test_kvm_may_not_be_opened(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    asked: list[str] = []
    found = choose("7.2", cache=Cache(root=tmp_path), progress=asked.append, boots=lambda: True)
    told(found.why)
    assert found.name == "tcg"
    assert asked == []


def test_kvm_opens_and_runs_no_guest(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    said: list[str] = []
    found = choose("7.2", cache=Cache(root=tmp_path), progress=said.append, boots=lambda: False)
    told(said[-1])
    assert found.name == "tcg"


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BootFiles:
    """Files of no content, on a host with a QEMU, where /dev/kvm opens and no guest comes up on it."""
    file = tmp_path / "file"
    file.touch()
    version = Version(binary=str(file), number=(7, 2), text="7.2")
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    monkeypatch.setattr("conformance.machine.qemu.find_qemu", lambda: version)
    monkeypatch.setattr("conformance.machine.machines.comes_up", lambda shape, *, limit: False)
    return BootFiles(vmlinuz=file, initrd=file, root=file, modules=file, release="6.1",
                     kernel_name="mine", key="boot")  # fmt: skip


def test_a_kernel_that_boots_nowhere_says_nothing_of_kvm(
    boot: BootFiles, tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(root=tmp_path / "cache")
    boots = False

    def booted(shape: Shape, directory: Path) -> None:
        if not boots:
            raise LaunchFailed("the guest did not come up within 180 s")
        build(directory)

    monkeypatch.setattr("conformance.machine.machines.build_template", booted)
    with pytest.raises(LaunchFailed) as caught:
        open_machine(boot, cache=cache)
    told(str(caught.value))
    assert cache.note(note_of("7.2")) is None
    boots = True
    machine = open_machine(boot, cache=cache)
    machine.close()
    assert machine.describe()["accelerator"] == "tcg"
    assert cache.note(note_of("7.2")) == "tcg"


def test_what_was_found_of_kvm_cannot_be_kept(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    (tmp_path / "file").touch()
    cache = Cache(root=tmp_path / "file")
    found = choose("7.2", cache=cache, progress=lambda _: None, boots=lambda: True)
    told(found.why)


def test_what_the_host_lacks_says_nothing_of_kvm(
    boot: BootFiles, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(directory: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.undo()
    monkeypatch.setattr("conformance.machine.qemu.open_scratch", full)
    version = Version(binary=str(boot.root), number=(7, 2), text="7.2")
    shape = Shape(boot=boot, version=version, accelerator=KVM, memory_mib=64, cpus=1)
    with pytest.raises(OSError, match="No space left") as caught:
        comes_up(shape, limit=1.0)
    told(str(caught.value))
