"""No shortage: for surveys of a rig itself."""

from __future__ import annotations

from agent.basics import Json
from agent.shortages.base import Shortage


class NoShortage(Shortage):
    """There is nothing to impose, and the gauge stays at 0."""

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""

    def relieve(self) -> None:
        """Take it away again. Raises RigError."""

    def reading(self) -> Json:
        """The gauge. Bytes."""
        return self.gauge(0)
