"""No shortage: for surveys of a rig itself."""

from __future__ import annotations

from agent.basics import Json
from agent.shortages.base import Shortage


class NoShortage(Shortage):
    """There is nothing to impose, and the gauge stays at 0."""

    def impose(self) -> None:
        pass

    def relieve(self) -> None:
        pass

    def reading(self) -> Json:
        return self.gauge(0)
