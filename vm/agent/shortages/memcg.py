"""memory.max of a cgroup."""

from __future__ import annotations

from agent import cgroups
from agent.basics import Json, RigError, keyed_numbers, read_text
from agent.shortages.base import Shortage


class Memcg(Shortage):
    """The gauge is memory.current, with the count of times that the limit was met."""

    def _set(self, text: str) -> None:
        path = f"{self.cgroups.directory(self.spec['cgroup'])}/memory.max"
        try:
            # Below what is in use it is written all the same: the kernel reclaims what it can.
            cgroups.write(path, text)
        except OSError as error:
            raise RigError(f"cannot set memory.max of {self.spec['cgroup']}: {error}") from error

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        self._set(str(self.spec["limit"]))

    def relieve(self) -> None:
        """Take it away again. Raises RigError."""
        relief = self.spec.get("relief")
        self._set("max" if relief is None else str(relief))

    def reading(self) -> Json:
        """The gauge. Bytes."""
        directory = self.cgroups.directory(self.spec["cgroup"])
        limit = read_text(f"{directory}/memory.max", "max")
        hits = keyed_numbers(read_text(f"{directory}/memory.events")).get("max", 0)
        used = int(read_text(f"{directory}/memory.current", "0") or 0)
        return self.gauge(used, int(limit) if limit.isdigit() else None, hits)
