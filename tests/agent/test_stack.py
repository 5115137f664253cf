"""Tables of stacked devices, and what a mirror says of its legs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import pytest
from agent.basics import Json, RigError
from agent.cgroups import Tree
from agent.layers import KINDS, Layer, Site
from agent.layers.base import Fact
from agent.layers.memory import Zram
from agent.layers.stack import Cache, Crypt, Integrity, Linear, Mirror, Writecache, computed, health
from agent.shortages import memory
from agent.shortages.memory import GuestMemory, Meminfo, ZramLimit

MIB = 1 << 20


class Leg(Layer):
    """A layer that is there already."""

    def up(self) -> None:
        """See ``Layer``."""

    def down(self) -> list[Json]:
        """See ``Layer``."""
        return []

    def facts(self) -> dict[str, Fact]:
        """See ``Layer``."""
        return {"size": MIB}

    def left(self) -> list[str]:
        """See ``Layer``."""
        return []


def leg(name: str) -> Leg:
    """A layer whose path tells its name."""
    found = Leg({"name": name}, {}, Site())
    found.path = f"/dev/{name}"
    return found


RIG: dict[str, Layer] = {name: leg(name) for name in ("a", "b")}


def test_every_stacked_device_is_as_large_as_it_should_be() -> None:
    spec = {"name": "device", "on": "a", "cache": "b", "mode": "writeback"}
    linear = Linear(spec, RIG, Site()).table()
    assert linear == [(MIB, "linear", "/dev/a 0")]
    [(size, target, words)] = Crypt(spec, RIG, Site()).table()
    assert (size, target, words.split()[2:]) == (MIB, "crypt", ["0", "/dev/a", "0"])
    cache = Cache(spec, RIG, Site())
    cache.parts = ["m", "c"]
    assert cache.table()[0][2] == "/dev/mapper/m /dev/mapper/c /dev/a 128 1 writeback smq 0"
    writecache = Writecache(spec, RIG, Site())
    writecache.parts = ["c"]
    assert writecache.table() == [(MIB, "writecache", "s /dev/a /dev/mapper/c 4096 0")]


class Mute(Site):
    """Where dmsetup runs over its limit and says nothing."""

    def run(self, argv: list[str], *_: object, **__: object) -> Json:
        """See ``Site``."""
        over = argv[0] == "dmsetup"
        how = {"exit_code": None if over else 0, "timed_out": over}
        return {"argv": argv, "ended": how, "output": ""}


def test_a_device_that_could_not_be_made_without_a_word_is_told_with_how_that_ended() -> None:
    with pytest.raises(RigError, match=r"^device: \{'exit_code': None, 'timed_out': True\}$"):
        Crypt({"name": "device", "on": "a"}, RIG, Mute()).up()


def test_checksums_are_computed_once() -> None:
    layer = Integrity({"name": "device", "on": "a", "size": 4096, "mode": "J"}, RIG, Site())
    first = layer.table()[0][2]
    layer._first = False
    assert first == f"/dev/a 0 - J 3 {' '.join(first.split()[5:])}"
    assert "recalculate" in first.split()
    assert "recalculate" not in layer.table()[0][2].split()


@pytest.mark.parametrize(
    ("status", "done"), [("0 24 -", True), ("0 24 24", True), ("0 24 8", False), ("3 24 25", True)]
)
def test_a_status_tells_whether_all_checksums_are_there(status: str, *, done: bool) -> None:
    assert computed(status) is done


def test_a_mirror_tells_which_leg_failed() -> None:
    assert health("2 254:1 254:2 24/24 1 DA 1 core") == "DA"
    assert health("") == ""
    assert health("3 254:1 254:2 254:3 24/24 1 AAD 1 core") == "AAD"


def test_a_mirror_made_anew_reads_from_the_good_leg_and_writes_the_other_again() -> None:
    layer = Mirror({"name": "device", "legs": ["a", "b"], "size": MIB}, RIG, Site())
    assert layer.table()[0][2] == "core 2 1024 nosync 2 /dev/a 0 /dev/b 0"
    layer._failed = {"a"}
    assert layer.table()[0][2] == "core 2 1024 sync 2 /dev/b 0 /dev/a 0"


class Device(Zram):
    """One that the test fills."""

    limits: ClassVar[list[int]] = []
    holds = 0

    def used(self) -> int:
        """See ``Zram``."""
        return self.holds

    def limit(self, size: int) -> None:
        """See ``Zram``."""
        self.limits.append(size)


def test_a_zram_limit_is_what_is_used_and_what_is_left() -> None:
    layer = Device({"name": "device", "size": MIB}, {}, Site())
    spec = {"kind": "zram_limit", "layer": "device", "leave": 65536}
    gauge = ZramLimit(spec, {"device": layer}, Tree())
    assert gauge.reading()["limit"] is None
    layer.holds = 4096
    gauge.impose()
    assert (gauge.reading()["used"], gauge.reading()["limit"]) == (4096, 69632)
    gauge.relieve()
    assert gauge.reading()["limit"] is None
    assert layer.limits == [69632, 0]
    with pytest.raises(RigError, match="no zram"):
        ZramLimit(spec, {"device": leg("device")}, Tree()).impose()


def test_who_takes_the_memory_leaves_no_less_than_there_is() -> None:
    gauge = GuestMemory({"kind": "guest_memory", "leave": 1 << 60}, {}, Tree())
    assert gauge.reading()["limit"] is None
    assert gauge.reading()["used"] > 0
    with pytest.raises(RigError, match="less than"):
        gauge.impose()
    with pytest.raises(RigError, match="nobody takes"):
        gauge.relieve()


def test_memory_is_given_back_once_there_was_none_for_so_long_on_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it depends on how fast this machine is: the clock goes as its reader looks."""
    told = iter([9000, 500, 9000, 400, 300, 200, 100])
    meminfo = tmp_path / "meminfo"

    def look(_: float) -> None:
        # In place, as the kernel's file: it was opened once.
        with meminfo.open("r+") as file:
            file.write(f"MemTotal: 9999 kB\nMemAvailable: {next(told):5} kB\n")
        now[0] += 1.0

    now = [100.0]
    meminfo.write_text(f"MemTotal: 9999 kB\nMemAvailable: {9999:5} kB\n")
    monkeypatch.setattr("agent.shortages.memory.time.sleep", look)
    monkeypatch.setattr("agent.shortages.memory.time.monotonic", lambda: now[0])
    memory._sit_out(Meminfo(str(meminfo)), 2.0, 512 * 1024)
    # 500 KiB did not last; of the four after that the third is two seconds after the first.
    assert list(told) == [100]


def test_a_file_that_says_nothing_of_memory_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 1 kB\n")
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(RigError, match="no MemAvailable"):
        Meminfo(str(tmp_path / "meminfo"))
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_guest_knows_every_new_device() -> None:
    names = {"dm_linear", "dm_crypt", "dm_integrity", "dm_writecache", "dm_cache", "dm_mirror"}
    assert names | {"md_raid", "zram", "brd", "null_blk", "zloop"} <= set(KINDS)
