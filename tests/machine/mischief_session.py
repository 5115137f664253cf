"""The guest's half of the contract: takes the place of agent/session.py in the test's guest.

Runs in the guest alone. The verbs that break the wire find the port among the agent's descriptors,
which no real handler does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any, NoReturn

Handler = Callable[[dict[str, Any]], object]


def _port() -> int:
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith("/dev/vport"):
            return int(name)
    raise LookupError("no port")


def _say(data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(_port(), left) :]


def _forever() -> NoReturn:
    while True:
        time.sleep(60)


def _panic(args: dict[str, Any]) -> object:
    with open("/proc/sysrq-trigger", "w") as file:
        file.write("c")
    _forever()


def _end() -> NoReturn:
    with open("/proc/sysrq-trigger", "w") as file:
        file.write("b")
    _forever()


class Mischief:
    """Counts the requests, to know the number of the answer that is due."""

    def __init__(self) -> None:
        self.kept: list[object] = []

    def answer(self, nonce: str, number: int) -> bytes:
        """The line of an answer."""
        fields = {"v": 1, "nonce": nonce, "id": number, "ok": True, "value": {}}
        return json.dumps(fields).encode() + b"\n"

    def remember(self, args: dict[str, Any]) -> object:
        """Keep something in this guest's memory."""
        self.kept.append(args["what"])
        return self.kept


def _due() -> tuple[str, int]:
    """The nonce and the number of the request that is being answered: from the serve loop's frame."""
    import sys

    frame = sys._getframe()
    while frame is not None:
        request = frame.f_locals.get("request")
        if request is not None:
            return request.nonce, request.id
        frame = frame.f_back  # type: ignore[assignment]
    raise LookupError("no request")


def handlers() -> dict[str, Handler]:
    """See contract.py."""
    state = Mischief()

    def fail(args: dict[str, Any]) -> object:
        raise LookupError(args["message"])

    def close(args: dict[str, Any]) -> object:
        _end()

    def cut(args: dict[str, Any]) -> object:
        _say(state.answer(*_due())[:20])
        _end()

    def garbage(args: dict[str, Any]) -> object:
        _say(b"[    1.000000] this is no message\n")
        return {}

    def flood(args: dict[str, Any]) -> object:
        while True:
            _say(b"x" * (1 << 20))

    def twice(args: dict[str, Any]) -> object:
        _say(state.answer(*_due()))
        return {}

    def wrong_nonce(args: dict[str, Any]) -> object:
        nonce, number = _due()
        _say(state.answer("0" * len(nonce), number))
        return {}

    def wrong_id(args: dict[str, Any]) -> object:
        nonce, number = _due()
        _say(state.answer(nonce, number + 7))
        return {}

    return {
        "echo": lambda args: args["value"],
        "remember": state.remember,
        "fail": fail,
        "unspeakable": lambda args: object(),
        "large": lambda args: "x" * args["bytes"],
        "panic": _panic,
        "hang": lambda args: _forever(),
        "close": close,
        "cut": cut,
        "garbage": garbage,
        "flood": flood,
        "twice": twice,
        "wrong_nonce": wrong_nonce,
        "wrong_id": wrong_id,
        **_probes(),
    }


def _probes() -> dict[str, Handler]:
    """Questions about the guest itself, for the tests of real machines."""

    def read(args: dict[str, Any]) -> object:
        with open(args["path"]) as file:
            return file.read(1 << 16)

    def blocks(args: dict[str, Any]) -> object:
        found = {}
        for name in os.listdir("/sys/block"):
            base = f"/sys/block/{name}"
            if os.path.exists(f"{base}/serial"):
                with open(f"{base}/serial") as serial, open(f"{base}/size") as size:
                    found[serial.read().strip()] = {
                        "name": name,
                        "bytes": int(size.read()) * 512,
                        "ro": open(f"{base}/ro").read().strip() == "1",  # noqa: SIM115
                    }
        return found

    def chatty_child(args: dict[str, Any]) -> object:
        done = subprocess.run(["/bin/sh", "-c", "echo noise; ls -l /proc/self/fd"], check=False)
        return done.returncode

    def stray_fork(args: dict[str, Any]) -> object:
        pid = os.fork()
        if pid:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return "the child answers too"

    def orphan(args: dict[str, Any]) -> object:
        read_end, write_end = os.pipe()
        pid = os.fork()
        if not pid:
            grandchild = os.fork()
            if not grandchild:
                time.sleep(0.2)
                os._exit(3)
            os.write(write_end, str(grandchild).encode())
            os._exit(4)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        grandchild = int(os.read(read_end, 20))
        deadline = time.monotonic() + 20
        while os.path.exists(f"/proc/{grandchild}") and time.monotonic() < deadline:
            time.sleep(0.01)
        return {"status": status, "left": os.path.exists(f"/proc/{grandchild}")}

    return {
        "read": read,
        "blocks": blocks,
        "chatty_child": chatty_child,
        "stray_fork": stray_fork,
        "orphan": orphan,
        "clock": lambda args: time.time(),
        "random": lambda args: os.urandom(16).hex(),
        "write_scratch": _write_scratch,
        "kill_agent": lambda args: os.kill(os.getpid(), signal.SIGKILL),
        "blocked": _blocked,
    }


def _write_scratch(args: dict[str, Any]) -> object:
    """Write and read back a block of the scratch disk; what was there before."""
    fd = os.open(f"/dev/{args['name']}", os.O_RDWR)
    try:
        before = os.pread(fd, 4096, args["offset"])
        os.pwrite(fd, args["text"].encode().ljust(4096), args["offset"])
        os.fsync(fd)
        return {"before": before.count(0), "after": os.pread(fd, 4096, args["offset"]).decode()}
    finally:
        os.close(fd)


def _blocked(args: dict[str, Any]) -> object:
    """A child in uninterruptible sleep, waiting for its own vfork child; then hang."""
    subprocess.Popen(
        [
            "/usr/bin/python3",
            "-c",
            "import ctypes, time; c = ctypes.CDLL(None);c.vfork() == 0 and time.sleep(1000)",
        ]
    )
    _forever()
