"""The agent on a machine that no host has booted: it serves a descriptor that it was started with.

Nothing is warmed, and the clock and the pool of randomness are left as they are: the machine is not a
clone, and has others to serve.
"""

from __future__ import annotations

import os
import random
import sys
from typing import Any

from agent import serve


def settle(args: dict[str, Any]) -> None:
    """Take from a greeting what concerns this process only."""
    random.seed(bytes.fromhex(args["entropy"]))


def main(fd: int) -> int:
    """Serve on ``fd`` until its other end is closed."""
    os.set_inheritable(fd, False)
    handlers, problem = serve.load_handlers()
    agent = serve.Agent(serve.Port(fd), handlers, settle=settle)
    agent.announce(problem)
    agent.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
