"""A limit on the memory of a cgroup: memory.max or memory.high, or cgroup v1's limit."""

from __future__ import annotations

from agent import cgroups
from agent.basics import Json, RigError, keyed_numbers, read_text
from agent.shortages.base import Shortage


class Memcg(Shortage):
    """The gauge is memory.current, with the count of times that the limit was met.

    It stays that of memory alone where the cgroup may swap: what counts is that the limit was met.
    """

    def _write(self, name: str, text: str) -> None:
        path = f"{self.cgroups.directory(self.spec['cgroup'])}/{name}"
        try:
            # Below what is in use it is written all the same: the kernel reclaims what it can.
            cgroups.write(path, text)
        except OSError as error:
            raise RigError(f"cannot set {name} of {self.spec['cgroup']}: {error}") from error

    def _knob(self) -> str:
        return f"memory.{self.spec.get('knob', 'max')}"

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        if self.spec.get("swap"):
            self._write("memory.swap.max", str(self.spec["swap"]))
        if self.spec.get("oom_group") == "on":
            self._write("memory.oom.group", "1")
        self._write(self._knob(), str(self.spec["limit"]))

    def relieve(self) -> None:
        """Take it away again. Raises RigError."""
        relief = self.spec.get("relief")
        self._write(self._knob(), "max" if relief is None else str(relief))

    def reading(self) -> Json:
        """The gauge. Bytes."""
        directory = self.cgroups.directory(self.spec["cgroup"])
        limit = read_text(f"{directory}/{self._knob()}", "max")
        events = keyed_numbers(read_text(f"{directory}/memory.events"))
        used = int(read_text(f"{directory}/memory.current", "0") or 0)
        hits = events.get(self.spec.get("knob", "max"), 0)
        return self.gauge(used, int(limit) if limit.isdigit() else None, hits)


class MemcgV1(Shortage):
    """The gauge is memory.usage_in_bytes, with the count of charges that failed at first."""

    def _set(self, limit: int) -> None:
        path = f"{self.cgroups.directory(self.spec['cgroup'])}/memory.limit_in_bytes"
        try:
            cgroups.write(path, str(limit))
        except OSError as error:
            raise RigError(f"cannot limit {self.spec['cgroup']}: {error}") from error

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        self._set(self.spec["limit"])

    def relieve(self) -> None:
        """Take it away again. Raises RigError."""
        relief = self.spec.get("relief")
        self._set(-1 if relief is None else relief)

    def reading(self) -> Json:
        """The gauge. Bytes."""
        directory = self.cgroups.directory(self.spec["cgroup"])
        limit = int(read_text(f"{directory}/memory.limit_in_bytes", "0") or 0)
        used = int(read_text(f"{directory}/memory.usage_in_bytes", "0") or 0)
        hits = int(read_text(f"{directory}/memory.failcnt", "0") or 0)
        return self.gauge(used, limit if limit < cgroups.NO_LIMIT_V1 else None, hits)
