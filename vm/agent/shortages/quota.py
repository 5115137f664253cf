"""A hard block limit for a user, group or project on a filesystem."""

from __future__ import annotations

from agent import kernel
from agent.basics import Json, RigError
from agent.shortages.base import Shortage


class Quota(Shortage):
    """The gauge is the filesystem's own account of the id, in bytes, by quotactl(2)."""

    def _limit(self, limit: int) -> None:
        layer = self.layer()
        kind, ident = self.spec["type"], self.spec["id"]
        try:
            kernel.quota_limit(layer.base().path, kind, ident, limit)
            found = kernel.quota_read(layer.base().path, kind, ident)[1]
        except OSError as error:
            raise RigError(f"cannot set a {kind} quota on {layer.name}: {error}") from error
        if found != limit:
            raise RigError(f"the {kind} quota on {layer.name} is {found}, not {limit}")

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        self._limit(self.spec["limit"])

    def relieve(self) -> None:
        """Take it away again. Raises RigError."""
        self._limit(0)

    def reading(self) -> Json:
        """The gauge. Bytes."""
        device = self.layer().base().path
        used, limit = kernel.quota_read(device, self.spec["type"], self.spec["id"])
        return self.gauge(used, limit or None)
