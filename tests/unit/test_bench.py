"""What is refused before a run, and that a kernel that was prepared stays what it was."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from conformance.bench import engine
from conformance.engine import Setup
from conformance.exits import HostLacks, Refused
from conformance.machine.fake import FakeMachine
from conformance.machine.image import BootFiles
from conformance.machine.kernel import KernelError
from conformance.machine.protocol import LaunchFailed
from conformance.machine.tool import NoSpaceError, ToolError


class Host:
    """What kernels boot from here, and what machines were opened on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key = "one"
        self.opened: list[BootFiles] = []

    def boot(self) -> BootFiles:
        """Whatever the source is now, in the cache."""
        folder = self.root / self.key
        folder.mkdir(exist_ok=True)
        for name in ("vmlinuz", "initrd", "root", "modules"):
            (folder / name).write_text(self.key)
        return BootFiles(
            vmlinuz=folder / "vmlinuz",
            initrd=folder / "initrd",
            root=folder / "root",
            modules=folder / "modules",
            release="6.12",
            kernel_name="../linux",
            key=self.key,
        )

    def machine(self, boot: BootFiles) -> FakeMachine:
        self.opened.append(boot)
        machine = FakeMachine(dict)
        machine.shape = SimpleNamespace(key=lambda: "shape")  # type: ignore[attr-defined]
        return machine


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    one = Host(tmp_path)
    monkeypatch.setenv("CONFORM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("conformance.bench.prepare_boot", lambda spec, **_: one.boot())
    monkeypatch.setattr("conformance.bench.open_machine", lambda boot, **_: one.machine(boot))
    return one


def quiet(_: str) -> None:
    """Progress that nobody looks at."""


def test_a_tree_that_is_rebuilt_during_a_run_is_what_was_prepared(host: Host) -> None:
    makes = engine(Setup())
    makes.prepare("../linux", quiet)
    host.key = "two"
    setup = Setup.model_validate_json(makes.prepared().model_dump_json())
    engine(setup).open("../linux", quiet).close()
    parcel, _ = makes.pack("../linux", quiet)
    assert [boot.key for boot in host.opened] == ["one", "one"]
    assert host.opened[0] == host.opened[1]
    assert parcel.about["key"] == "one"
    engine(Setup()).open("../linux", quiet).close()
    assert host.opened[-1].key == "two"


def test_what_was_prepared_and_is_gone_is_made_again_if_it_is_the_same(host: Host) -> None:
    makes = engine(Setup())
    makes.prepare("../linux", quiet)
    host.boot().root.unlink()
    engine(makes.prepared()).open("../linux", quiet).close()
    assert host.opened[-1].root.is_file()
    host.boot().root.unlink()
    host.key = "two"
    with pytest.raises(Refused, match=r"^\.\./linux: what was prepared is no longer in the cache"):
        engine(makes.prepared()).open("../linux", quiet)


def test_what_was_prepared_counts_as_used_when_it_is_opened(host: Host) -> None:
    makes = engine(Setup())
    makes.prepare("../linux", quiet)
    entry = host.opened[0].root.parent
    os.utime(entry, ns=(5, 5))
    engine(makes.prepared()).open("../linux", quiet).close()
    assert entry.stat().st_mtime_ns > 5


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KernelError("no kernel x"), Refused),
        (LaunchFailed("it did not boot"), Refused),
        (ToolError("mkfs.erofs is not installed"), HostLacks),
        (NoSpaceError("the disk is full"), HostLacks),
        (OSError("no such file"), HostLacks),
    ],
)
def test_a_kernel_s_fault_is_told_from_the_host_s(
    error: Exception, kind: type[Refused], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setenv("CONFORM_CACHE", str(tmp_path))
    monkeypatch.setattr("conformance.bench.prepare_boot", fails)
    with pytest.raises(Refused) as refused:
        engine(Setup()).prepare("debian/trixie", lambda _: None)
    assert type(refused.value) is kind
    assert str(refused.value) == str(error)
