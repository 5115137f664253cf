"""Run the agent. As process 1 it also reaps orphans, and ends the machine when the agent ends."""

from __future__ import annotations

import ctypes
import os
import sys

from agent import serve

_RB_AUTOBOOT = 0x01234567  # linux/reboot.h; QEMU is started with -no-reboot, so this ends it


def _be_init() -> None:
    """Fork. The child goes on as the agent; process 1 reaps whatever it inherits, and no other
    process does: the agent's own children are the agent's to wait for."""
    agent = os.fork()
    if not agent:
        os.setsid()
        return
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == agent:
            print(f"agent: ended with wait status {status}", flush=True)
            os.sync()
            ctypes.CDLL(None).reboot(_RB_AUTOBOOT)


if __name__ == "__main__":
    if os.getpid() == 1:
        _be_init()
    sys.exit(serve.main())
