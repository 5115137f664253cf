"""A small rig of layers for a probe, taken down whatever happens."""

from __future__ import annotations

from agent.basics import Json
from agent.layers import KINDS, Layer, Site

MIB = 1 << 20


class Stack:
    """The layers of ``specs``, up while the ``with`` lasts."""

    def __init__(self, specs: list[Json], site: Site) -> None:
        self._specs = specs
        self._site = site
        self.layers: dict[str, Layer] = {}

    def __enter__(self) -> dict[str, Layer]:
        try:
            for spec in self._specs:
                layer = KINDS[spec["layer"]](spec, self.layers, self._site)
                self.layers[layer.name] = layer
                layer.up()
        except BaseException:
            self.__exit__()
            raise
        return self.layers

    def __exit__(self, *_: object) -> None:
        for layer in reversed(self.layers.values()):
            layer.down()


def loop_rig(size: int) -> list[Json]:
    """The layers of a loop device of ``size`` bytes over a tmpfs."""
    return [
        {"layer": "tmpfs", "name": "probe_back", "size": 2 * size},
        {"layer": "file", "name": "probe_image", "on": "probe_back", "size": size},
        {"layer": "loop", "name": "probe_device", "on": "probe_image"},
    ]
