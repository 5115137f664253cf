"""Writes that the block layer itself fails: the rule, and the kernel's own word as the gauge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agent import kernel
from agent.basics import Json, RigError
from agent.cgroups import Tree
from agent.layers import Layer, Site
from agent.layers.disk import Disk
from agent.shortages import block_status
from agent.shortages.block_status import BlockStatus

SPEC: Json = {
    "kind": "block_status",
    "layer": "device",
    "status": "NOSPC",
    "start": 3 << 20,
    "length": 7 << 20,
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is debugfs, with the kernel log beside it."""
    (tmp_path / "loop3").mkdir()
    (tmp_path / "loop3" / "error_injection").write_text("")
    (tmp_path / "kmsg").write_text("6,1,1,-;loop3: injecting NOSPC error for WRITE, long ago\n")
    monkeypatch.setattr(block_status, "DEBUGFS", str(tmp_path))
    monkeypatch.setattr(block_status, "KMSG", str(tmp_path / "kmsg"))
    monkeypatch.setattr(kernel, "device_size", lambda path: 12 << 20)
    return tmp_path


def shortage() -> BlockStatus:
    device: Any = Disk({"name": "device"}, {}, Site())
    device.path = "/dev/loop3"
    layers: dict[str, Layer] = {"device": device}
    return BlockStatus(SPEC, layers, Tree())


def say(place: Path, text: str) -> None:
    with (place / "kmsg").open("a") as log:
        log.write(f"6,2,2,-;{text}\n")


def test_a_rule_is_made_in_sectors_and_taken_away(place: Path) -> None:
    rules = place / "loop3" / "error_injection"
    short = shortage()
    short.impose()
    assert rules.read_text() == "add,op=WRITE,status=NOSPC,start=6144,nr_sectors=14336"
    assert short.reading() == {"kind": "block_status", "used": 0, "limit": 12 << 20, "hits": 0}
    rules.write_text("")
    short.relieve()
    assert rules.read_text() == "removeall"
    assert short.reading()["limit"] is None


def test_only_what_the_kernel_says_of_this_device_counts(place: Path) -> None:
    short = shortage()
    short.impose()
    say(place, "loop3: injecting no space error for WRITE at sector 6144:128")
    say(place, "loop30: injecting no space error for WRITE at sector 6144:128")
    say(place, "loop3: detected capacity change from 0 to 24576")
    assert short.reading()["hits"] == 1
    say(place, "loop3: injecting no space error for WRITE at sector 6272:128")
    assert short.reading()["hits"] == 2


def test_a_kernel_that_takes_no_rules_is_told_of(place: Path) -> None:
    (place / "loop3" / "error_injection").unlink()
    (place / "loop3").rmdir()
    with pytest.raises(RigError, match="refuses 'add,op=WRITE"):
        shortage().impose()
