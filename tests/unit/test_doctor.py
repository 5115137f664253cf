"""Every check of the doctor is shown to fail, by a planted fault, and to name what mends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.doctor import CHECKS, Finding, Here, State, examine, here
from conformance.machine import accel
from conformance.machine.cache import Cache, digest_of
from conformance.machine.image import root_key
from conformance.machine.protocol import LaunchFailed
from conformance.machine.qemu import Version
from conformance.machine.tool import ArtifactError

ROOT = Path(__file__).parents[2]
QEMU = Version(binary="/usr/bin/qemu", number=(9, 0), text="QEMU emulator version 9.0.0")


@pytest.fixture
def sound(tmp_path: Path) -> Here:
    """A machine that has everything, with an image and a kernel in its cache."""
    cache = Cache(root=tmp_path / "cache")
    (tmp_path / "shm").mkdir()
    (tmp_path / "kvm").touch()
    (tmp_path / "keyring").touch()
    (tmp_path / "busybox").write_bytes(b"static")
    checkout = tmp_path / "checkout"
    (checkout / "vm").mkdir(parents=True)
    for name in ("vm/image.toml", "vm/kernels.toml", "requirements.lock"):
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    machine = Here(
        python=(3, 11),
        system="Linux",
        processor="x86_64",
        which=lambda name: str(tmp_path / "busybox"),
        installed=here(ROOT).installed,
        qemu=lambda: QEMU,
        kvm=tmp_path / "kvm",
        free=lambda place: 100 << 30,
        memory=16 << 30,
        shm=tmp_path / "shm",
        keyring=tmp_path / "keyring",
        mirrors=lambda: None,
        cache=cache,
        root=checkout,
    )
    root = cache.entry("root", root_key(cache, checkout / "vm/image.toml"))
    root.mkdir(parents=True)
    (root / "root.erofs").write_bytes(bytes(1024) + b"\xe2\xe1\xf5\xe0")
    cache.write_note("resolved.trixie.linux-image-cloud-amd64", '[{"name": "linux-image-6", '
                     '"version": "6", "sha256": "ab"}]')  # fmt: skip
    identity = ("debian", "linux-image-6=6=ab")
    entry = cache.entry("kernel", digest_of("kernel 1", *identity))
    (entry / "lib/modules/6.0").mkdir(parents=True)
    (entry / "lib/modules/6.0/modules.dep").touch()
    (entry / "vmlinuz").touch()
    (entry / "kernel.json").write_text('{"release": "6.0"}')
    cache.write_note(accel.note_of(QEMU.text), "kvm")
    return machine


def bad(machine: Here) -> list[Finding]:
    return [finding for finding in examine(machine) if finding.state is not State.GOOD]


def test_a_sound_machine(sound: Here) -> None:
    assert bad(sound) == []
    subjects = {finding.subject for finding in examine(sound)}
    assert len(subjects) == len(CHECKS)


def _missing_qemu() -> Version:
    raise LaunchFailed("qemu-system-x86_64 is not installed: apt install qemu-system-x86")


def _no_mirror() -> object:
    raise ArtifactError("no Debian mirror is known here")


def _no_room(place: Path) -> int:
    return 0 if place.name == "shm" else 100 << 30


def _unwritable(machine: Here) -> Here:
    file = machine.root / "a file"
    file.touch()
    return replace(machine, cache=Cache(root=file / "cache"))


def _empty(machine: Here, **changes: object) -> Here:
    cache = Cache(root=machine.root / "empty")
    return replace(machine, cache=cache, kvm=machine.kvm.with_name("none"), **changes)  # type: ignore[arg-type]


def _dynamic(machine: Here) -> Here:
    Path(str(machine.which("busybox"))).write_bytes(b"... /lib64/ld-linux-x86-64.so.2 ...")
    return machine


def _no_keyring(machine: Here) -> Here:
    machine.keyring.unlink()
    return machine


def _cut_image(machine: Here) -> Here:
    for path in (machine.cache.root / "root").glob("*/root.erofs"):
        path.write_bytes(b"")
    return machine


def _no_image(machine: Here) -> Here:
    for path in (machine.cache.root / "root").glob("*/root.erofs"):
        path.unlink()
    return machine


def _cut_kernel(machine: Here) -> Here:
    next((machine.cache.root / "kernel").glob("*/vmlinuz")).unlink()
    return machine


def _no_kernel_json(machine: Here) -> Here:
    next((machine.cache.root / "kernel").glob("*/kernel.json")).write_text("{")
    return machine


def _results_file(machine: Here) -> Here:
    (machine.root / "results").touch()
    return machine


def _no_kvm(machine: Here) -> Here:
    machine.kvm.unlink()
    return machine


def _kvm_note(text: str) -> Callable[[Here], Here]:
    def plant(machine: Here) -> Here:
        machine.cache.write_note(accel.note_of(QEMU.text), text)
        return machine

    return plant


FAULTS: list[tuple[str, Callable[[Here], Here], State, str, str]] = [
    ("host", lambda m: replace(m, processor="aarch64"), State.WRONG, "aarch64", "ssh"),
    ("host", lambda m: replace(m, system="Darwin"), State.WRONG, "Darwin", "ssh"),
    ("python", lambda m: replace(m, python=(3, 9)), State.WRONG, "3.9", "apt install python3.11"),
    ("packages", lambda m: replace(m, installed=lambda n: None), State.WRONG, "missing", "stamp"),
    ("packages", lambda m: replace(m, installed=lambda n: "0"), State.WRONG, "is 0", "stamp"),
    ("tools", lambda m: replace(m, which=lambda n: None), State.WRONG, "mkfs.erofs", "erofs-utils"),
    ("tools", _no_keyring, State.WRONG, "keyring", "debian-archive-keyring"),
    ("tools", _dynamic, State.WRONG, "statically", "busybox-static"),
    ("qemu", lambda m: replace(m, qemu=_missing_qemu), State.WRONG, "not installed", "apt install"),
    (
        "qemu",
        lambda m: replace(m, qemu=lambda: replace(QEMU, number=(5, 2))),
        State.NOTICE,
        "older",
        "backports",
    ),
    ("kvm", _no_kvm, State.NOTICE, "there is no", "modprobe"),
    ("kvm", _kvm_note("tcg"), State.NOTICE, "no guest came up", "rm "),
    ("kvm", _kvm_note(""), State.NOTICE, "tries whether", "conform run"),
    ("memory", lambda m: replace(m, memory=1 << 30), State.WRONG, "1.0 GiB", "-n 1"),
    ("shm", lambda m: replace(m, free=_no_room), State.WRONG, "0 MiB", "remount"),
    ("cache", lambda m: replace(m, free=lambda p: 1 << 28), State.WRONG, "0.2 GiB", "gc"),
    ("cache", lambda m: replace(m, free=lambda p: 2 << 30), State.NOTICE, "one or two", "gc"),
    ("cache", _unwritable, State.WRONG, "cannot be written", "CONFORM_CACHE"),
    ("image", _empty, State.NOTICE, "not built yet", "conform run"),
    ("image", _cut_image, State.WRONG, "damaged", "rm -r"),
    ("image", _no_image, State.WRONG, "damaged", "rm -r"),
    ("kernels", _empty, State.NOTICE, "not here yet", "conform run"),
    ("kernels", _cut_kernel, State.WRONG, "damaged", "rm -r"),
    ("kernels", _no_kernel_json, State.WRONG, "damaged", "rm -r"),
    ("mirror", lambda m: _empty(m, mirrors=_no_mirror), State.WRONG, "no Debian", "MIRROR="),
    ("results", _results_file, State.WRONG, "no directory", "--out"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault[0]}: {fault[3]}")
def test_a_planted_fault_is_found(
    fault: tuple[str, Callable[[Here], Here], State, str, str], sound: Here
) -> None:
    subject, plant, state, told, mend = fault
    found = [finding for finding in bad(plant(sound)) if finding.subject == subject]
    assert any(f.state is state and told in f.text and mend in f.mend for f in found), found


def test_every_check_has_its_fault() -> None:
    planted = {subject for subject, *_ in FAULTS}
    names = {"emulator": "qemu", "shared_memory": "shm"}
    assert {names.get(check.__name__, check.__name__) for check in CHECKS} <= planted


def test_kvm_that_may_not_be_opened(sound: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may open everything, so that this is planted one step further down."""
    monkeypatch.setattr("os.access", lambda path, mode: path != sound.kvm)
    found = [finding for finding in bad(sound) if finding.subject == "kvm"]
    assert "usermod" in found[0].mend


def test_the_command(
    monkeypatch: pytest.MonkeyPatch, sound: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("conformance.commands.doctor.here", lambda root: sound)
    assert main(["doctor"]) == 0
    assert "✗" not in capsys.readouterr().out
    faulty = replace(sound, memory=0)
    monkeypatch.setattr("conformance.commands.doctor.here", lambda root: faulty)
    assert main(["doctor"]) == 1
    assert "✗ memory" in capsys.readouterr().out
