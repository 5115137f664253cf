"""A program that passes for QEMU: its monitor and its guest's agent are real, and one of them misbehaves.

Called by a wrapper that puts the name of a fault before QEMU's own command line. Whatever the fault, it
greets, says hello and answers ``ping``; the fault comes in answer to ``go``, or before anything.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

GIB = 1 << 30
RANDOM_SEED = 20200505


def wrapper(folder: Path, fault: str) -> str:
    """A program in ``folder`` that is QEMU with that fault."""
    program = folder / f"qemu-{fault}"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P {__file__} {fault} "$@"\n')
    program.chmod(0o755)
    return str(program)


def descriptor(words: list[str], name: str) -> int:
    """The inherited descriptor of the socket chardev called ``name``."""
    (found,) = [m for word in words if (m := re.fullmatch(rf"socket,id={name},fd=(\d+)", word))]
    return int(found[1])


class Monitor(threading.Thread):
    """As much of QMP as the host uses."""

    def __init__(self, fd: int) -> None:
        super().__init__(daemon=True)
        self.status = "running"
        self._stream = socket.socket(fileno=fd)

    def say(self, value: object) -> None:
        self._stream.sendall(json.dumps(value).encode() + b"\n")

    def run(self) -> None:
        self.say({"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""},
                          "capabilities": []}})  # fmt: skip
        for asked in self._requests():
            answer: object = {}
            if asked["execute"] == "query-status":
                answer = {"status": self.status, "running": True, "singlestep": False}
            self.say({"return": answer, "id": asked.get("id")})

    def _requests(self) -> Iterator[dict[str, Any]]:
        """One after the other; nothing but its closing bracket ends one."""
        text = ""
        while data := self._stream.recv(1 << 16):
            text = (text + data.decode()).lstrip()
            while text:
                try:
                    asked, end = json.JSONDecoder().raw_decode(text)
                except ValueError:
                    break
                text = text[end:].lstrip()
                yield asked


class Agent:
    """The guest's end of the wire."""

    def __init__(self, fd: int, monitor: Monitor) -> None:
        self.monitor = monitor
        self._stream = socket.socket(fileno=fd)
        self.file = self._stream.makefile("rb")

    def send(self, data: bytes) -> None:
        self._stream.sendall(data)

    def say(self, fields: dict[str, Any]) -> None:
        self.send(json.dumps({"v": 1, **fields}).encode() + b"\n")

    def answer(self, asked: dict[str, Any], value: object, **other: object) -> None:
        address = {"nonce": asked["nonce"], "id": asked["id"]}
        self.say({**address, "ok": True, "value": value, **other})


def _flood(agent: Agent, _asked: dict[str, Any]) -> None:
    for _ in range(GIB >> 20):
        agent.send(b"x" * (1 << 20))


def _flood_of_answers(agent: Agent, asked: dict[str, Any]) -> None:
    """A gibibyte of whole, well-formed answers, none of which is due."""
    fields = {"v": 1, "nonce": asked["nonce"], "id": 0, "ok": True, "value": "x" * 1000}
    line = json.dumps(fields).encode() + b"\n"
    block = line * ((1 << 20) // len(line))
    for _ in range(GIB // len(block)):
        agent.send(block)


def _cut(agent: Agent, asked: dict[str, Any]) -> None:
    agent.send(b'{"v":1,"nonce":"' + asked["nonce"].encode())
    os._exit(0)


def _noise(agent: Agent, _asked: dict[str, Any]) -> None:
    agent.send(random.Random(RANDOM_SEED).randbytes(1 << 20))


def _twice(agent: Agent, asked: dict[str, Any]) -> None:
    agent.answer(asked, 1)
    agent.answer(asked, 2)


def _killed(_agent: Agent, _asked: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _silent(_agent: Agent, _asked: dict[str, Any]) -> None:
    threading.Event().wait()


def _host_disk_full(agent: Agent, _asked: dict[str, Any]) -> None:
    """What QEMU 7.2 says when a scratch disk's file cannot grow."""
    data = {"device": "", "node-name": "scratch", "reason": "No space left on device",
            "operation": "write", "action": "stop", "nospace": True}  # fmt: skip
    agent.monitor.status = "io-error"
    for event in ({"event": "BLOCK_IO_ERROR", "data": data}, {"event": "STOP"}):
        agent.monitor.say({**event, "timestamp": {"seconds": 0, "microseconds": 0}})
    threading.Event().wait()


def _stopped(agent: Agent, _asked: dict[str, Any]) -> None:
    """It stops over its plugged disk, until it is helped."""
    agent.monitor.status = "io-error"
    agent.monitor.say({"event": "STOP", "timestamp": {"seconds": 0, "microseconds": 0}})
    threading.Event().wait()


FAULTS: dict[str, Callable[[Agent, dict[str, Any]], None]] = {
    "none": lambda agent, asked: agent.answer(asked, "gone"),
    "flood": _flood,
    "flood_of_answers": _flood_of_answers,
    "cut": _cut,
    "noise": _noise,
    "deep": lambda agent, _: agent.send(b'{"v":1,"value":' + b"[" * 100_000 + b"\n"),
    "large": lambda agent, asked: agent.answer(asked, "x" * (17 << 20)),
    "large_number": lambda agent, asked: agent.send(
        json.dumps({"v": 1, "nonce": asked["nonce"], "ok": True, "value": 1}).encode()[:-1]
        + b',"id":1'
        + b"0" * 100_000
        + b"}\n"
    ),
    "infinite": lambda agent, asked: agent.answer(asked, float("inf")),
    "wrong_type": lambda agent, asked: agent.answer(asked, 1, id="1"),
    "no_object": lambda agent, _: agent.send(b"[1, 2, 3]\n"),
    "unknown_field": lambda agent, asked: agent.answer(asked, 1, root="yes"),
    "twice": _twice,
    "to_nothing": lambda agent, asked: agent.answer(asked, 1, id=asked["id"] + 7),
    "of_another_run": lambda agent, asked: agent.answer(asked, 1, nonce="0" * 16),
    "a_request": lambda agent, asked: agent.say({**asked, "do": "ping", "args": {}}),
    "warm_again": lambda agent, _: agent.say({"warm": True}),
    "other_version": lambda agent, asked: agent.answer(asked, 1, v=2),
    "killed": _killed,
    "silent": _silent,
    "host_disk_full": _host_disk_full,
    "stopped": _stopped,
}


def main(fault: str, *words: str) -> None:
    if words[:1] == ("--version",):
        sys.stdout.write("QEMU emulator version 7.2.0 (none)\n")
        return
    if fault == "cannot_start":
        sys.stderr.write("qemu: could not set up host forwarding rule\n")
        sys.exit(1)
    if fault == "mute":
        time.sleep(600)
    monitor = Monitor(descriptor(list(words), "qmp"))
    monitor.start()
    agent = Agent(descriptor(list(words), "agent"), monitor)
    if fault == "greets_with_noise":
        agent.send(b"\0\1\2 hello\n")
    agent.say({"warm": True, "release": "6.1.0-none"})
    for line in agent.file:
        asked = json.loads(line)
        if asked["do"] == "go":
            FAULTS[fault](agent, asked)
        else:
            agent.answer(asked, {})


if __name__ == "__main__":
    main(*sys.argv[1:])
