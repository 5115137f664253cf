"""What a guest that does not answer is doing: QEMU's view of it, and the kernel's own by SysRq.

The console is a file, which takes no input. So for the moment of asking, QEMU is told to connect the
guest's serial port to a socket instead (``chardev-change``); a break and a letter over it are a SysRq
request (CONFIG_MAGIC_SYSRQ_SERIAL), and what the kernel prints is appended to the console's file.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from pathlib import Path

from qemu.qmp import QMPClient, QMPError

LIMIT = 20.0
"""Seconds that ``collect`` takes at most."""

_QUIET = 1.5  # seconds without output after which the kernel has said its piece
_EACH = 6.0  # seconds for one SysRq request
_KEPT = 16384  # characters of each that are evidence; the console's file has all of it
_MOST = 4 << 20  # bytes of output that are read

_REQUESTS = (
    ("w", "blocked tasks"),
    ("l", "backtraces of active cpus"),
)


async def collect(qmp: QMPClient, console: Path, found: dict[str, str]) -> None:
    """Add what can be had to ``found``, most useful first. Raises QMPError, OSError, EOFError."""
    found["status"] = str(_field(await qmp.execute("query-status"), "status"))
    registers = await qmp.execute("human-monitor-command", {"command-line": "info registers"})
    found["registers"] = str(registers).replace("\r", "")[:_KEPT]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        qmp.send_fd_scm(theirs.fileno())
        await qmp.execute("getfd", {"fdname": "sysrq"})
        address = {"type": "fd", "data": {"str": "sysrq"}}
        backend = {"type": "socket", "data": {"addr": address, "server": False}}
        await qmp.execute("chardev-change", {"id": "console", "backend": backend})
        for letter, name in _REQUESTS:
            await qmp.execute("chardev-send-break", {"id": "console"})
            await asyncio.get_running_loop().sock_sendall(ours, letter.encode())
            said = await _listen(ours)
            with console.open("ab") as file:
                file.write(said)
            found[name] = said.decode("utf-8", "replace").replace("\r", "")[:_KEPT]


async def _listen(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    said = bytearray()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_EACH):
            while len(said) < _MOST:
                # The first words may take a while; after them, silence is the end.
                async with asyncio.timeout(_QUIET if said else _EACH):
                    data = await loop.sock_recv(sock, 1 << 16)
                if not data:
                    break
                said += data
    return bytes(said)


def _field(answer: object, name: str) -> object:
    return answer.get(name) if isinstance(answer, Mapping) else None


__all__ = ["LIMIT", "QMPError", "collect"]
