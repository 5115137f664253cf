"""A guest that sends anything, and a QEMU that does not do as it should; neither needs a kernel."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conformance.machine.guest import Files, QemuGuest
from conformance.machine.protocol import GuestGone, GuestHung, GuestLost, LaunchFailed, WireGarbage
from conformance.machine.qemu import Fds, Spec, Version, open_scratch
from tests.faults.conftest import Told
from tests.faults.fake_qemu import wrapper

LIMIT = 30.0
"""Seconds that nothing here comes near, unless it is meant to run into a limit."""
SHORT = 1.0
MEMORY = 80 << 20
"""Bytes that the host holds at most because of what a guest sends: five lines of the longest kind."""


@contextmanager
def guest(fault: str, folder: Path, *, boots: bool = True) -> Iterator[QemuGuest]:
    """A guest of a QEMU that has a fault."""
    version = Version(binary=wrapper(folder, fault), number=(7, 2), text="fake")
    (folder / "empty").touch()
    opened = os.open(folder / "empty", os.O_RDONLY)
    work = folder / "work"
    work.mkdir()

    def spec(fds: Fds) -> Spec:
        return Spec(
            version=version, accel="tcg", memory_mib=64, cpus=1, role="boot", fds=fds
        )  # fmt: skip

    try:
        with open_scratch(work) as scratch:
            files = Files(
                root=opened, modules=opened, kernel=opened, initrd=opened, scratch=scratch
            )
            with QemuGuest(spec, files, work / "console.log") as made:
                if boots:
                    made.boot(limit=LIMIT)
                    made.hello(limit=LIMIT)
                yield made
    finally:
        os.close(opened)
        assert [path.name for path in work.iterdir()] == ["console.log"]


def lost(made: QemuGuest, *, limit: float = LIMIT) -> GuestLost:
    """How the guest is lost over ``go``: for good, and its QEMU with it."""
    with pytest.raises(GuestLost) as first:
        made.call("go", {}, limit=limit)
    assert made._process.exit_code() is not None
    with pytest.raises(type(first.value)) as again:
        made.call("ping", {}, limit=limit)
    assert str(again.value) == str(first.value)
    assert "\n" not in str(first.value)
    assert len(str(first.value)) < 400
    return first.value


def test_a_sound_one_answers(tmp_path: Path) -> None:
    with guest("none", tmp_path) as made:
        assert made.call("go", {}, limit=LIMIT) == "gone"


@pytest.mark.parametrize(
    "fault",
    ["flood", "flood_of_answers", "noise", "deep", "large", "large_number", "infinite", "wrong_type",
     "no_object", "unknown_field", "to_nothing", "of_another_run", "a_request", "warm_again",
     "other_version"],
)  # fmt: skip
def test_what_is_no_answer(fault: str, tmp_path: Path, told: Told) -> None:
    with guest(fault, tmp_path) as made:
        tracemalloc.start()
        try:
            loss = lost(made)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert isinstance(loss, WireGarbage)
    told(str(loss))
    assert peak < MEMORY


def test_an_answer_that_comes_twice(tmp_path: Path, told: Told) -> None:
    with guest("twice", tmp_path) as made:
        assert made.call("go", {}, limit=LIMIT) == 1
        with pytest.raises(WireGarbage) as caught:
            made.call("ping", {}, limit=LIMIT)
        told(str(caught.value))


def test_cut_in_mid_message(tmp_path: Path, told: Told) -> None:
    with guest("cut", tmp_path) as made:
        loss = lost(made)
    assert type(loss) is GuestGone
    told(str(loss))


def test_qemu_is_killed(tmp_path: Path, told: Told) -> None:
    with guest("killed", tmp_path) as made:
        loss = lost(made)
    assert type(loss) is GuestGone
    told(str(loss))


def test_no_answer_comes(tmp_path: Path, told: Told) -> None:
    with guest("silent", tmp_path) as made:
        loss = lost(made, limit=SHORT)
    assert isinstance(loss, GuestHung)
    assert loss.evidence["status"] == "running"
    told(str(loss))


def test_the_host_s_disk_is_full(tmp_path: Path, told: Told) -> None:
    """A guest that QEMU has stopped hangs, which is not to be held against its kernel."""
    with guest("host_disk_full", tmp_path) as made:
        loss = lost(made)
    assert type(loss) is GuestGone
    assert loss.evidence["status"] == "io-error"
    told(str(loss))


def test_the_host_cannot_help_a_stopped_machine(tmp_path: Path, told: Told) -> None:
    """It stays stopped, which is not to be held against its kernel either."""

    def fails() -> bool:
        raise OSError("the helper of the disk's file is gone")

    with guest("stopped", tmp_path) as made:
        made.when_stopped(fails)
        loss = lost(made)
    assert type(loss) is GuestGone
    assert loss.evidence["status"] == "io-error"
    told(str(loss))


@pytest.mark.parametrize("fault", ["cannot_start", "mute", "greets_with_noise"])
def test_qemu_does_not_come_up(fault: str, tmp_path: Path, told: Told) -> None:
    with (
        guest(fault, tmp_path, boots=False) as made,
        pytest.raises(LaunchFailed) as caught,
    ):
        made.boot(limit=SHORT if fault == "mute" else LIMIT)
    told(str(caught.value))
    assert "\n" not in str(caught.value)


def test_qemu_that_is_not_there(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    from conformance.machine.qemu import find_qemu

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchFailed) as caught:
        find_qemu()
    told(str(caught.value))
