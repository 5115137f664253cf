"""Device-mapper tables, status by ioctl(2), and the gauges that are read from it."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest
from agent.basics import Json
from agent.cgroups import Tree
from agent.layers import Site, dm
from agent.layers.snapshot import DmSnapshot
from agent.layers.thin import State
from agent.layers.vdo import FORMATS, formats
from agent.processes import ended
from agent.shortages.snapshot_cow import SnapshotCow

HEAD = struct.Struct("=3I4i3IQ128s129s7s")
SPEC = struct.Struct("=QQiI16s")


def answer(*lines: tuple[str, str]) -> bytes:
    """What the kernel writes for DM_TABLE_STATUS: ``next`` counts from the first target."""
    body = b""
    for target, text in lines:
        size = -(-(SPEC.size + len(text) + 1) // 8) * 8
        following = len(body) + size
        body += (SPEC.pack(0, 8, 0, following, target.encode()) + text.encode()).ljust(size, b"\0")
    return HEAD.pack(4, 0, 0, 16384, HEAD.size, len(lines), 0, 0, 0, 0, 0, b"", b"", b"") + body


def test_a_table_is_told_in_sectors() -> None:
    table = [dm.linear("/dev/a", 1 << 20, 4096), (8192, "zero", "")]
    assert dm.text(table) == "0 8 linear /dev/a 2048\n8 16 zero"
    assert dm.device("x") == "/dev/mapper/x"


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [("linear", "")],
        [("thin-pool", "0 16/64 3/1024 - rw discard_passdown queue_if_no_space - 16")],
        [("linear", ""), ("snapshot", "16/2048 16"), ("zero", "")],
    ],
)
def test_a_status_is_read_as_the_kernel_writes_it(lines: list[tuple[str, str]]) -> None:
    assert dm.parse_status(answer(*lines)) == lines


def test_there_is_no_device_of_a_name_that_nobody_made() -> None:
    assert not dm.exists("conformance-no-such-device")


def test_a_pool_in_each_of_its_modes() -> None:
    full = State.parse(
        "1 66/512 1024/1024 - out_of_data_space discard_passdown error_if_no_space - 128"
    )
    assert (full.metadata_used, full.metadata, full.used, full.chunks) == (66, 512, 1024, 1024)
    assert (full.mode, full.needs_check) == ("out_of_data_space", False)
    broken = State.parse("1 63/64 9/99 - ro discard_passdown error_if_no_space needs_check 16")
    assert (broken.mode, broken.needs_check) == ("ro", True)
    for line in ("Fail", "Error", ""):
        with pytest.raises(OSError, match="status"):
            State.parse(line)


class Snapshot(DmSnapshot):
    """One whose status the test says."""

    says: tuple[int, int] | None = (0, 0)

    def room(self) -> tuple[int, int] | None:
        """See ``DmSnapshot``."""
        return self.says

    def attached(self) -> bool:
        """See ``DmSnapshot``."""
        return True


def test_an_invalid_snapshot_counts_as_one_hit_and_keeps_its_last_numbers() -> None:
    layer = Snapshot({"name": "snapshot", "cow": 1 << 24, "store": "P"}, {}, Site())
    gauge = SnapshotCow(
        {"kind": "snapshot_cow", "layer": "snapshot", "size": 1 << 20},
        {"snapshot": layer},
        Tree(),
    )
    layer.says = (4096, 1 << 20)
    before = gauge.reading()
    assert (before["used"], before["limit"], before["hits"]) == (4096, 1 << 20, 0)
    layer.says = None
    after = gauge.reading()
    assert (after["used"], after["limit"], after["hits"]) == (4096, 1 << 20, 1)


class Asked(Site):
    """Answers every command with what the test says."""

    says = ""

    def must(
        self, argv: list[str], limit: float = 60.0, env: Mapping[str, str] | None = None
    ) -> Json:
        """See ``Site``."""
        del limit, env
        return {"argv": argv, "ended": ended(0), "output": self.says}


@pytest.mark.parametrize(
    ("targets", "word"),
    [
        ("thin             v1.23.0\nvdo              v9.2.0", ""),
        ("vdo              v10.0.0", ""),
        ("vdo              v9.1.0", "does not format"),
        ("linear           v1.5.0", "no target vdo"),
    ],
)
def test_a_vdo_target_says_by_its_version_that_it_formats(targets: str, word: str) -> None:
    assert FORMATS == (9, 2, 0)
    site = type("Site", (Asked,), {"says": targets})()
    said = formats(site)
    assert (word in said) if word else not said
