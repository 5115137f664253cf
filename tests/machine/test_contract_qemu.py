"""QEMU keeps the contract; and what can be asked of a real machine only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conformance.machine.guest import QemuGuest
from conformance.machine.machines import QemuMachine
from conformance.machine.protocol import DiskOrder, Guest, GuestHung, LaunchFailed, Machine
from tests.machine import contract

pytestmark = pytest.mark.vm


@pytest.fixture
def machine(qemu_machine: QemuMachine) -> Machine:
    return qemu_machine


@pytest.fixture
def limit(qemu_machine: QemuMachine) -> float:
    return 20.0 * qemu_machine.speed


class TestQemuMachine(contract.MachineContract):
    pass


def test_the_disks_are_there(machine: Machine, limit: float, tmp_path: Path) -> None:
    with machine.guest(workdir=tmp_path) as guest:
        disks = guest.call("blocks", {}, limit=limit)
        assert isinstance(disks, dict)
        assert set(disks) == {"root", "modules", "scratch"}
        assert disks["root"]["ro"]
        assert disks["modules"]["ro"]
        assert not disks["scratch"]["ro"]
        assert disks["scratch"]["bytes"] == 1 << 30


def test_the_scratch_disk_is_each_guest_s_own(
    machine: Machine, limit: float, tmp_path: Path
) -> None:
    for _ in range(2):
        with machine.guest(workdir=tmp_path) as guest:
            disks = guest.call("blocks", {}, limit=limit)
            assert isinstance(disks, dict)
            for offset in (0, (1 << 30) - 4096):
                where = {"name": disks["scratch"]["name"], "offset": offset}
                seen = guest.call("write_scratch", {**where, "text": "mine"}, limit=limit)
                assert isinstance(seen, dict)
                assert seen["before"] == 4096
                assert seen["after"].strip() == "mine"


def plugged(guest: Guest, serial: str, limit: float) -> str:
    """The name of the guest's disk with that serial number, once it has come up."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        disks = guest.call("blocks", {}, limit=limit)
        assert isinstance(disks, dict)
        if serial in disks:
            return str(disks[serial]["name"])
    pytest.fail(f"no disk {serial} came up")


def test_a_machine_that_stops_over_a_disk_goes_on_with_help(
    machine: Machine, limit: float, tmp_path: Path
) -> None:
    with machine.guest(workdir=tmp_path) as guest:
        disk = guest.plug(
            DiskOrder(name="short", bus="virtio_blk", size=8 << 20, on_error="enospc")
        )
        where = {"name": plugged(guest, "short", limit), "text": "stored"}
        disk.squeeze(4096)
        helped = []

        def help_it() -> bool:
            helped.append(disk.reading().refused)
            return disk.give(8192)

        guest.when_stopped(help_it)
        for offset in (0, 1 << 20, 2 << 20, 3 << 20):
            seen = guest.call("write_scratch", {**where, "offset": offset}, limit=limit)
            assert isinstance(seen, dict)
            assert seen["after"].strip() == "stored"
        assert len(helped) == 2
        assert disk.reading().refused == 2
        assert disk.reading().used == 4 * 4096


def test_a_machine_that_nobody_helps_stays_stopped(
    machine: Machine, limit: float, tmp_path: Path
) -> None:
    with machine.guest(workdir=tmp_path) as guest:
        disk = guest.plug(DiskOrder(name="short", bus="virtio_blk", size=8 << 20, on_error="stop"))
        where = {"name": plugged(guest, "short", limit), "text": "stored"}
        with pytest.raises(OSError, match="without any space"):
            disk.squeeze(0)
        guest.call("write_scratch", {**where, "offset": 0}, limit=limit)
        disk.squeeze(0)
        with pytest.raises(GuestHung) as hung:
            guest.call("write_scratch", {**where, "offset": 1 << 20}, limit=limit / 4)
        assert hung.value.evidence["status"] == "io-error"


def test_clones_have_the_time_and_their_own_randomness(
    machine: Machine, limit: float, tmp_path: Path
) -> None:
    drawn = set()
    for _ in range(3):
        before = time.time()
        with machine.guest(workdir=tmp_path) as guest:
            clock = guest.call("clock", {}, limit=limit)
            assert isinstance(clock, float)
            assert before - 2 < clock < time.time() + 2
            drawn.add(guest.call("random", {}, limit=limit))
    assert len(drawn) == 3


def test_a_child_cannot_break_the_wire(machine: Machine, limit: float, tmp_path: Path) -> None:
    with machine.guest(workdir=tmp_path) as guest:
        assert guest.call("chatty_child", {}, limit=limit) == 0
        # A child that comes back from its handler is ended; the parent reaped it and answers.
        assert guest.call("stray_fork", {}, limit=limit) == 70
        assert "vport" not in guest.console
        assert guest.call("ping", {}, limit=limit)


def test_orphans_are_reaped_and_children_are_not_stolen(
    machine: Machine, limit: float, tmp_path: Path
) -> None:
    with machine.guest(workdir=tmp_path) as guest:
        assert guest.call("orphan", {}, limit=2 * limit) == {"status": 4, "left": False}


def test_a_hang_shows_what_is_blocked(machine: Machine, limit: float, tmp_path: Path) -> None:
    with machine.guest(workdir=tmp_path) as guest:
        with pytest.raises(GuestHung) as hung:
            guest.call("blocked", {}, limit=limit / 4)
        assert "RIP=" in hung.value.evidence["registers"]
        assert "state:D" in hung.value.evidence["blocked tasks"]
        assert "vfork" in hung.value.evidence["blocked tasks"]
        assert "state:D" in guest.console


def test_an_agent_that_dies_is_not_a_hang(machine: Machine, limit: float, tmp_path: Path) -> None:
    with machine.guest(workdir=tmp_path) as guest:
        loss = contract.lost(guest, "kill_agent", limit)
        assert "exited with code 0" in str(loss)
        assert "agent exited with status 137" in guest.console


def test_nothing_is_left_of_a_guest(machine: Machine, limit: float, tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with machine.guest(workdir=tmp_path) as guest:
        assert isinstance(guest, QemuGuest)
        pid = guest.pid
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["console.log"]
    assert set(os.listdir("/proc/self/fd")) == before


SCRIPT = """
import sys, time
from pathlib import Path
from conformance.machine.cache import Cache
from conformance.machine.image import BootFiles
from conformance.machine.machines import open_machine
from tests.machine.test_contract_qemu import boot_from
with open_machine(boot_from(sys.argv[1]), cache=Cache(root=Path(sys.argv[2]))).guest(
    workdir=Path(sys.argv[3])
) as guest:
    print(guest.pid, flush=True)
    time.sleep(600)
"""


def boot_from(text: str) -> object:
    """Boot files, as another process was given them."""
    from conformance.machine.image import BootFiles

    parts = text.split("\n")
    return BootFiles(
        **dict(zip(("vmlinuz", "initrd", "root", "modules"), map(Path, parts), strict=False)),
        release=parts[4],
        kernel_name=parts[5],
        key=parts[6],
    )


def test_it_dies_with_its_parent(
    qemu_machine: QemuMachine, template_cache: object, tmp_path: Path
) -> None:
    boot = qemu_machine.shape.boot
    parts = (boot.vmlinuz, boot.initrd, boot.root, boot.modules, boot.release)
    told = "\n".join(map(str, (*parts, boot.kernel_name, boot.key)))
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, told, str(template_cache.root), str(tmp_path)],  # type: ignore[attr-defined]
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        watched = os.pidfd_open(pid)
        try:
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            import select

            assert select.select([watched], [], [], 10)[0]
        finally:
            os.close(watched)
    assert [entry.name for entry in tmp_path.iterdir()] == ["console.log"]


def test_a_kernel_that_is_none(qemu_machine: QemuMachine, tmp_path: Path) -> None:
    from dataclasses import replace

    from conformance.machine import machines

    junk = tmp_path / "vmlinuz"
    junk.write_bytes(b"not a kernel")
    shape = replace(qemu_machine.shape, boot=replace(qemu_machine.shape.boot, vmlinuz=junk))
    with pytest.raises(LaunchFailed) as failed:
        machines.build_template(shape, tmp_path)
    assert failed.value.exit_code == 1
    assert failed.value.argv
    assert "\n" not in str(failed.value)
