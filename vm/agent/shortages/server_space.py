"""The space of a server of our own behind a block device."""

from __future__ import annotations

from agent.basics import Json, RigError
from agent.servers.store import Store
from agent.shortages.base import Shortage


class ServerSpace(Shortage):
    """The gauge is the server's own count, in memory that the agent shares with it."""

    def _store(self) -> Store:
        store = getattr(self.layer(), "store", None)
        if not isinstance(store, Store):
            raise RigError(f"{self.layer().name} has no server of ours")
        return store

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        store = self._store()
        store.limit = store.used + int(self.spec["leave"])

    def relieve(self) -> None:
        """Take it away again. Raises RigError."""
        self._store().limit = None

    def reading(self) -> Json:
        """The gauge. Bytes."""
        store = self._store()
        return self.gauge(store.used, store.limit, store.hits)
