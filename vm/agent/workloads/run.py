"""A command as a person would type it, in a cgroup.

It is not frugal: what it needs to live is charged to its cgroup once it has executed. Its output
goes to memory that was touched before.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.basics import Json, RigError
from agent.processes import Child, Tick, no_tick, run


def filled(argv: list[str], paths: Mapping[str, str]) -> list[str]:
    """The words of a command with ``{name}`` of a layer replaced by its path. Raises RigError."""
    words = []
    for word in argv:
        try:
            words.append(word.format_map(paths))
        except (KeyError, ValueError, IndexError) as error:
            raise RigError(f"no layer for {error} in {word!r}") from error
    return words


def submit(
    argv: list[str], *, limit: float, cgroup: str, procs: str, tick: Tick = no_tick
) -> tuple[Json, Json]:
    """Run a command: (the host's ``Submitter``, the host's ``Command``)."""
    begun: list[Child] = []
    command = run(argv, limit=limit, procs=procs, tick=tick, started=begun.append)
    submitter = {
        "pid": begun[0].pid,
        "cgroup": cgroup,
        "ops": [],
        "ended": command["ended"],
        "tool": argv[0],
        "output": command["output"],
    }
    return submitter, command
