"""What every machine promises, whichever way it is made: the fake, and QEMU.

A test class inherits ``MachineContract`` and has two fixtures: ``machine``, whose guests answer the
verbs of ``VERBS`` (mischief_session.py does so in a real guest) and do the mischief named ``panic``,
``hang`` and so on; and ``limit``, seconds that a well guest needs for an answer at most.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.machine.protocol import (
    AgentError,
    DiskFailed,
    DiskOrder,
    DiskReading,
    Guest,
    GuestGone,
    GuestHung,
    GuestLost,
    GuestPanicked,
    Machine,
    WireGarbage,
)

Handler = Callable[[dict[str, Any]], object]


def handlers() -> dict[str, Handler]:
    """The verbs of a well guest under this contract."""
    kept: list[object] = []
    room: list[int] = []  # of a disk of 8 MiB, of which nothing is in use

    def squeeze(args: dict[str, Any]) -> None:
        room[:] = [args["leave"]]

    def give(args: dict[str, Any]) -> bool:
        missing = bool(room)
        room[:] = [] if args["amount"] is None else [room[0] + args["amount"]]
        return missing

    def remember(args: dict[str, Any]) -> object:
        kept.append(args["what"])
        return kept

    def fail(args: dict[str, Any]) -> object:
        raise LookupError(args["message"])

    return {
        "echo": lambda args: args["value"],
        "remember": remember,
        "fail": fail,
        "unspeakable": lambda args: object(),
        "large": lambda args: "x" * args["bytes"],
        "host:plug": lambda args: None,
        "host:squeeze": squeeze,
        "host:give": give,
        "host:reading": lambda args: {"used": 0, "room": room[0] if room else None},
    }


def lost(guest: Guest, do: str, limit: float) -> GuestLost:
    """How the guest is lost over ``do``; checks that it stays so."""
    with pytest.raises(GuestLost) as first:
        guest.call(do, {}, limit=limit)
    with pytest.raises(type(first.value)) as second:
        guest.call("ping", {}, limit=limit)
    assert str(second.value) == str(first.value)
    assert "\n" not in str(first.value)
    assert guest.evidence() == {}
    return first.value


class MachineContract:
    """Inherited by the tests of each kind of machine."""

    def test_it_describes_itself(self, machine: Machine) -> None:
        told = machine.describe()
        names = {"kernel", "boot", "release", "accelerator", "accelerator_why", "qemu", "machine"}
        assert names | {"start", "start_why", "memory_mib", "cpus", "speed"} <= set(told)
        assert told["start"] in ("template", "cold boot")
        json.dumps(dict(told))
        assert machine.speed >= 1.0

    def test_a_guest_answers(self, machine: Machine, limit: float, tmp_path: Path) -> None:
        with machine.guest(workdir=tmp_path / "new" / "folder") as guest:
            assert guest.call("ping", {"echo": 1}, limit=limit) == {"pong": 1}
            assert guest.call("ping", {}, limit=limit) == {"pong": None}
            assert set(guest.timing) >= {"spawn", "answer"}
            assert all(spent >= 0 for spent in guest.timing.values())

    def test_values_get_through_both_ways(
        self, machine: Machine, limit: float, tmp_path: Path
    ) -> None:
        values: list[object] = [
            None,
            [True, 0, -1.5, 2**70, ""],
            {"ä\n\u2028\0": "\U0001f600", "nested": {"a": [[], {}]}},
            "\udcff",  # what Python makes of a file name that is no UTF-8
        ]
        with machine.guest(workdir=tmp_path) as guest:
            for value in values:
                assert guest.call("echo", {"value": value}, limit=limit) == value

    def test_large_answers_get_through(
        self, machine: Machine, limit: float, tmp_path: Path
    ) -> None:
        with machine.guest(workdir=tmp_path) as guest:
            answer = guest.call("large", {"bytes": 3 << 20}, limit=2 * limit)
            assert answer == "x" * (3 << 20)
            value = "y" * (1 << 20)
            assert guest.call("echo", {"value": value}, limit=2 * limit) == value

    def test_a_disk_is_as_short_as_the_host_makes_it(
        self, machine: Machine, limit: float, tmp_path: Path
    ) -> None:
        assert machine.lacks("short_file") == ""
        assert "a pony" in machine.lacks("a pony")
        with machine.guest(workdir=tmp_path) as guest:
            disk = guest.plug(DiskOrder(name="short", bus="virtio_blk", size=8 << 20))
            assert disk.reading() == DiskReading(used=0, room=None)
            disk.squeeze(1 << 20)
            assert disk.reading() == DiskReading(used=0, room=1 << 20)
            assert disk.give(2 << 20)
            assert disk.reading() == DiskReading(used=0, room=3 << 20)
            assert disk.give()
            assert disk.reading() == DiskReading(used=0, room=None)
            assert not disk.give()
            with pytest.raises(DiskFailed, match="no place for other"):
                guest.plug(DiskOrder(name="other", bus="nvme", size=8 << 20))
            assert guest.call("ping", {}, limit=limit)

    def test_guests_are_strangers(self, machine: Machine, limit: float, tmp_path: Path) -> None:
        with (
            machine.guest(workdir=tmp_path / "a") as one,
            machine.guest(workdir=tmp_path / "b") as other,
        ):
            assert one.call("remember", {"what": 1}, limit=limit) == [1]
            assert other.call("remember", {"what": 2}, limit=limit) == [2]
            assert one.call("remember", {"what": 3}, limit=limit) == [1, 3]
        with machine.guest(workdir=tmp_path / "c") as third:
            assert third.call("remember", {"what": 4}, limit=limit) == [4]

    def test_a_failure_is_told_and_the_guest_goes_on(
        self, machine: Machine, limit: float, tmp_path: Path
    ) -> None:
        with machine.guest(workdir=tmp_path) as guest:
            with pytest.raises(AgentError, match="LookupError: no such thing") as told:
                guest.call("fail", {"message": "no such thing"}, limit=limit)
            assert told.value.kind == "LookupError"
            assert told.value.message == "no such thing"
            assert "Traceback" in told.value.detail
            with pytest.raises(AgentError) as unknown:
                guest.call("nonsense", {}, limit=limit)
            assert unknown.value.kind == "NotImplementedError"
            with pytest.raises(AgentError) as unspeakable:
                guest.call("unspeakable", {}, limit=limit)
            assert unspeakable.value.kind == "TypeError"
            assert guest.call("ping", {}, limit=limit)

    def test_what_cannot_be_said_is_not_asked(
        self, machine: Machine, limit: float, tmp_path: Path
    ) -> None:
        with machine.guest(workdir=tmp_path) as guest:
            with pytest.raises(TypeError):
                guest.call("echo", {"value": object()}, limit=limit)
            assert guest.call("echo", {"value": 1}, limit=limit) == 1

    def test_the_console_is_a_file_that_stays(
        self, machine: Machine, limit: float, tmp_path: Path
    ) -> None:
        with machine.guest(workdir=tmp_path) as guest:
            assert "Linux version" in guest.console
            path = guest.console_path
        assert "Linux version" in path.read_text(errors="replace")
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]

    def test_a_panic(self, machine: Machine, limit: float, tmp_path: Path) -> None:
        with machine.guest(workdir=tmp_path) as guest:
            loss = lost(guest, "panic", limit)
            assert isinstance(loss, GuestPanicked)
            assert str(loss).startswith("Kernel panic - not syncing: ")
            assert "Kernel panic" in loss.evidence["console"]
            shutdowns = [event for event in guest.events if event["event"] == "SHUTDOWN"]
            assert shutdowns

    def test_a_hang(self, machine: Machine, limit: float, tmp_path: Path) -> None:
        with machine.guest(workdir=tmp_path) as guest:
            loss = lost(guest, "hang", 1.0)
            assert isinstance(loss, GuestHung)
            assert "hang" in str(loss)
            assert loss.evidence["status"] == "running"
            assert loss.evidence["console"]

    def test_an_end_without_a_panic(self, machine: Machine, limit: float, tmp_path: Path) -> None:
        with machine.guest(workdir=tmp_path) as guest:
            loss = lost(guest, "close", limit)
            assert type(loss) is GuestGone

    def test_an_answer_that_is_cut_off(
        self, machine: Machine, limit: float, tmp_path: Path
    ) -> None:
        with machine.guest(workdir=tmp_path) as guest:
            assert type(lost(guest, "cut", limit)) is GuestGone

    @pytest.mark.parametrize(
        ("do", "told"),
        [
            ("garbage", "not a message"),
            ("flood", "longer than"),
            ("wrong_nonce", "another nonce"),
            ("wrong_id", "an answer to request"),
        ],
    )
    def test_what_is_no_answer(
        self, machine: Machine, limit: float, tmp_path: Path, do: str, told: str
    ) -> None:
        with machine.guest(workdir=tmp_path) as guest:
            loss = lost(guest, do, 6 * limit)
            assert isinstance(loss, WireGarbage)
            assert told in str(loss)

    def test_an_answer_that_comes_twice(
        self, machine: Machine, limit: float, tmp_path: Path
    ) -> None:
        with machine.guest(workdir=tmp_path) as guest:
            guest.call("twice", {}, limit=limit)
            with pytest.raises(WireGarbage, match="an answer to request"):
                guest.call("ping", {}, limit=limit)

    def test_it_can_be_shut_down(self, machine: Machine, limit: float, tmp_path: Path) -> None:
        with machine.guest(workdir=tmp_path) as guest:
            guest.call("sync-shutdown", {}, limit=limit)
            with pytest.raises(GuestGone):
                guest.call("ping", {}, limit=limit)

    def test_after_its_end_it_says_so(self, machine: Machine, limit: float, tmp_path: Path) -> None:
        with machine.guest(workdir=tmp_path) as guest:
            guest.close()
            guest.close()
            with pytest.raises(GuestGone):
                guest.call("ping", {}, limit=limit)
            assert guest.evidence() == {}

    def test_it_tells_what_it_is_doing(
        self, machine: Machine, limit: float, tmp_path: Path
    ) -> None:
        with machine.guest(workdir=tmp_path) as guest:
            found = guest.evidence()
            assert found["status"] == "running"
            assert all(isinstance(text, str) for text in found.values())
            # It has only been looked at.
            assert guest.call("ping", {}, limit=limit)

    def test_an_error_in_the_body_goes_through(self, machine: Machine, tmp_path: Path) -> None:
        class Mine(Exception):
            pass

        with pytest.raises(Mine), machine.guest(workdir=tmp_path):
            raise Mine

    def test_a_folder_that_cannot_be_made_is_an_os_error(
        self, machine: Machine, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(OSError), machine.guest(workdir=tmp_path / "file" / "folder"):
            pass
