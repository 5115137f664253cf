"""What the agent does to a device itself, bounded and told like a command."""

from __future__ import annotations

import os
from collections.abc import Callable

from agent.basics import Json
from agent.layers.base import Site
from agent.processes import Child, ended


def told(argv: list[str], problem: str = "", how: Json | None = None) -> Json:
    """What was done, as the host's ``Command``; ``problem`` if it failed."""
    return {"argv": argv, "ended": how or ended(1 if problem else 0), "output": problem}


def in_child(argv: list[str], work: Callable[[], None], limit: float, site: Site) -> Json:
    """Do something in a child, because it may hang in the kernel: the host's ``Command``."""
    answer = os.memfd_create("answer")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:  # noqa: BLE001 - the parent is told, whatever it is
            os.write(answer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(code)
    how = Child.adopt(pid).finish(limit * site.pace, tick=site.tick)
    text = os.pread(answer, 4000, 0).decode("utf-8", "replace")
    os.close(answer)
    return told(argv, text, how)
