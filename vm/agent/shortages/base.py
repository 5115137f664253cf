"""What a shortage is: it is imposed and relieved, and has a gauge that asks no I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from agent.basics import Json, RigError
from agent.cgroups import Tree
from agent.layers.base import Layer


class Shortage(ABC):
    """``reading`` is taken after every step: it forks nothing and does not block."""

    def __init__(self, spec: Json, layers: Mapping[str, Layer], cgroups: Tree) -> None:
        self.spec = spec
        self.kind: str = spec["kind"]
        self.cgroups = cgroups
        self._layers = layers

    @abstractmethod
    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""

    @abstractmethod
    def relieve(self) -> None:
        """Take the shortage away. Raises RigError."""

    @abstractmethod
    def reading(self) -> Json:
        """The gauge, as the host's ``Reading``. Raises OSError where there is nothing to read, and
        RigError, ValueError or LookupError where that makes no sense.
        """

    def check(self) -> None:  # noqa: B027 - most have no process of their own
        """Raises RigError if a process of the shortage's own has failed. Then the shortage is not the
        case's any more, and what the kernel answered meanwhile is no answer to the case.
        """

    def end(self) -> None:  # noqa: B027
        """End the processes of the shortage's own, at tear-down, also where nothing was relieved.

        A limit that is in force stays: tear-down is judged under it. Raises RigError.
        """

    def layer(self) -> Layer:
        """The layer that runs short. Raises RigError."""
        name = self.spec["layer"]
        if name not in self._layers:
            raise RigError(f"the shortage names no layer of the rig: {name}")
        return self._layers[name]

    def gauge(self, used: int, limit: int | None = None, hits: int | None = None) -> Json:
        """A ``Reading`` of this kind. Bytes, and a count."""
        return {"kind": self.kind, "used": used, "limit": limit, "hits": hits}


Maker = Callable[[Json, Mapping[str, Layer], Tree], Shortage]
