"""A zoned device over files: the words that make it, and what is said where there is no such driver."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from agent import probes
from agent.basics import Json, RigError
from agent.layers import Layer, Site, zoned
from agent.layers.tmpfs import Tmpfs
from agent.layers.zoned import Zloop
from agent.probes import zoned as probe
from agent.processes import ended

MIB = 1 << 20
SPEC: Json = {"name": "device", "on": "back", "size": 12 * MIB, "zone": 2 * MIB}


class Quiet(Site):
    """Commands succeed, and do nothing."""

    def run(self, argv: list[str], *_: object, **__: object) -> Json:
        """See ``Site``."""
        return {"argv": argv, "ended": ended(0), "output": ""}


def device(place: Path, **more: object) -> Zloop:
    back: Any = Tmpfs({"name": "back", "size": MIB}, {}, Site())
    back.path = str(place)
    rig: Mapping[str, Layer] = {"back": back}
    return Zloop({**SPEC, **more}, rig, Quiet())


def test_it_is_added_by_words_and_over_the_files_of_its_layer(tmp_path: Path) -> None:
    words = f"add id=0,capacity_mb=12,zone_size_mb=2,conv_zones=0,base_dir={tmp_path}/device"
    assert device(tmp_path).words() == words
    assert device(tmp_path, buffered_io="on").words() == f"{words},buffered_io"


def test_the_files_of_its_zones_are_below_it(tmp_path: Path) -> None:
    layer = device(tmp_path)
    assert layer.files_below() == []
    (tmp_path / "device" / "0").mkdir(parents=True)
    (tmp_path / "device" / "0" / "seq-000000").touch()
    assert layer.files_below() == [f"{tmp_path}/device/0/seq-000000"]
    assert layer.down() == []
    assert not (tmp_path / "device").exists()


def test_a_driver_that_refuses_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoned, "CONTROL", str(tmp_path / "nowhere" / "zloop-control"))
    monkeypatch.setattr(zoned, "LIMIT", 0.1)
    with pytest.raises(RigError, match="no zloop device: FileNotFoundError"):
        device(tmp_path).up()


def test_a_kernel_without_the_driver_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "CONTROL", str(tmp_path / "zloop-control"))
    told = probes.answer("probe:zloop", Quiet())
    assert told.startswith("this kernel has no CONFIG_BLK_DEV_ZONED_LOOP")
    (tmp_path / "zloop-control").touch()
    assert probes.answer("probe:zloop", Quiet()) == ""
