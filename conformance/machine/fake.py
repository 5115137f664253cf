"""A machine in memory, for tests: handlers run in this process, behind the real wire.

What is asked is encoded, decoded, answered, encoded and decoded again by the same code as between a
host and a real guest; tests/machine/contract.py holds both kinds of machine to the same contract.
Handlers whose names begin with ``host:`` are no verbs, but what the host does for a disk of the guest's:
``plug``, ``squeeze``, ``give``, ``reading`` and ``when_stopped``.
A verb in ``mischief`` does to its guest what no handler can: it panics, hangs, or breaks the wire.
"""

from __future__ import annotations

import enum
import secrets
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conformance import wire
from conformance.machine.protocol import (
    AgentError,
    DiskFailed,
    DiskOrder,
    DiskReading,
    Guest,
    GuestGone,
    GuestHung,
    GuestLost,
    GuestPanicked,
    LaunchFailed,
    WireGarbage,
)

Handler = Callable[[dict[str, Any]], object]

_BOOTED = "[    0.000000] Linux version 6.1.0-fake (made up) #1 SMP\n"
HOST = "host:"


class Mischief(enum.Enum):
    """What may become of a guest that is asked something."""

    PANIC = "panic"  # the kernel panics
    HANG = "hang"  # no answer comes
    CLOSE = "close"  # the machine ends, without a panic
    GARBAGE = "garbage"  # a line that is no message
    FLOOD = "flood"  # bytes without end
    CUT = "cut"  # the machine ends in the middle of an answer
    TWICE = "twice"  # the answer comes twice
    WRONG_NONCE = "wrong_nonce"  # the answer has another nonce
    WRONG_ID = "wrong_id"  # the answer has another number


class FakeMachine:
    """Makes guests in memory. See the protocol ``Machine``.

    ``handlers`` is called for every guest, as each is a machine of its own. With ``launch_fails`` no
    guest comes up, and the text says why.
    """

    def __init__(
        self,
        handlers: Callable[[], Mapping[str, Handler]],
        *,
        mischief: Mapping[str, Mischief] | None = None,
        kernel: str = "fake",
        release: str = "6.1.0-fake",
        speed: float = 1.0,
        launch_fails: str = "",
        lacks: Mapping[str, str] | None = None,
    ) -> None:
        self._lacks = dict(lacks or {})
        self._handlers = handlers
        self._mischief = dict(mischief or {})
        self._kernel = kernel
        self._release = release
        self._speed = speed
        self._launch_fails = launch_fails

    @property
    def speed(self) -> float:
        """See ``Machine``."""
        return self._speed

    def describe(self) -> Mapping[str, object]:
        """See ``Machine``."""
        return {
            "kernel": self._kernel,
            "boot": "fake",
            "release": self._release,
            "accelerator": "none",
            "accelerator_why": "a fake",
            "qemu": "none",
            "machine": "fake",
            "start": "template",
            "start_why": "",
            "memory_mib": 1024,
            "cpus": 1,
            "speed": self._speed,
        }

    @contextmanager
    def guest(self, *, workdir: Path) -> Iterator[Guest]:
        """See ``Machine``."""
        if self._launch_fails:
            raise LaunchFailed(self._launch_fails, exit_code=1)
        workdir.mkdir(parents=True, exist_ok=True)
        console = workdir / "console.log"
        console.write_text(_BOOTED)
        guest = FakeGuest(dict(self._handlers()), self._mischief, console)
        try:
            yield guest
        finally:
            guest.close()

    def lacks(self, need: str) -> str:
        """See ``Machine``."""
        return self._lacks.get(need, "" if need == "short_file" else f"no host has {need}")

    def close(self) -> None:
        """See ``Machine``."""


class FakeDisk:
    """A disk of a fake guest. See the protocol ``Disk``."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers

    def reading(self) -> DiskReading:
        """See ``Disk``."""
        return DiskReading(**self._do("reading"))

    def squeeze(self, leave: int) -> None:
        """See ``Disk``."""
        self._do("squeeze", leave=leave)

    def give(self, amount: int | None = None) -> bool:
        """See ``Disk``."""
        return bool(self._do("give", amount=amount))

    def _do(self, what: str, **args: object) -> Any:
        return self._handlers[HOST + what](args)


class FakeGuest:
    """A guest in memory. See the protocol ``Guest``; ``limit`` is not measured."""

    def __init__(
        self, handlers: dict[str, Handler], mischief: Mapping[str, Mischief], console: Path
    ) -> None:
        self._host = {name: act for name, act in handlers.items() if name.startswith(HOST)}
        self._handlers: dict[str, Handler] = {
            **{name: act for name, act in handlers.items() if name not in self._host},
            "ping": lambda args: {"pong": args.get("echo")},
            "sync-shutdown": lambda args: {},
        }
        self._mischief = mischief
        self._console = console
        self._events: list[dict[str, object]] = []
        self._lost: GuestLost | None = None
        self._closed = False
        self._ends = False
        self._conversation = wire.Conversation(secrets.token_hex(8))
        self._inbound = wire.Decoder()
        self._outbound = wire.Decoder()
        self._messages: list[wire.Message] = []

    @property
    def events(self) -> tuple[dict[str, object], ...]:
        """See ``Guest``."""
        return tuple(self._events)

    @property
    def console(self) -> str:
        """See ``Guest``."""
        return self._console.read_text()

    @property
    def console_path(self) -> Path:
        """See ``Guest``."""
        return self._console

    @property
    def timing(self) -> Mapping[str, float]:
        """See ``Guest``."""
        return {"spawn": 0.0, "restore": 0.0, "answer": 0.0}

    @property
    def work(self) -> Mapping[str, int]:
        """See ``Guest``."""
        return {"clones": 1, **self._conversation.work(self._outbound)}

    def call(self, do: str, args: Mapping[str, object], *, limit: float) -> object:
        """See ``Guest``."""
        if self._lost is not None:
            raise self._lost
        if self._closed:
            raise GuestGone("the guest was closed")
        line = self._conversation.ask(do, args)
        self._outbound.begin_call()
        try:
            answer = self._exchange(do, line, limit)
        except GuestLost as loss:
            self._lost = loss
            raise
        except wire.WireError as error:
            self._lost = WireGarbage(f"in answer to {do}: {error}")
            raise self._lost from error
        if answer.error is not None:
            raise AgentError(answer.error.kind, answer.error.message, answer.error.detail)
        return answer.value

    def plug(self, order: DiskOrder) -> FakeDisk:
        """See ``Guest``."""
        plug = self._host.pop(f"{HOST}plug", None)
        if plug is None:
            raise DiskFailed(f"there is no place for {order.name}")
        plug({"order": order})
        return FakeDisk(self._host)

    def when_stopped(self, help_it: Callable[[], bool]) -> None:
        """See ``Guest``."""
        self._host[f"{HOST}when_stopped"]({"help_it": help_it})

    def evidence(self) -> Mapping[str, str]:
        """See ``Guest``."""
        if self._closed or self._lost is not None:
            return {}
        return {"status": "running", "console": self.console}

    def close(self) -> None:
        """See ``Guest``."""
        self._closed = True

    def _exchange(self, do: str, line: bytes, limit: float) -> wire.Answer:
        if self._ends:
            raise self._gone(do)
        for data in self._guest_side(do, line, limit):
            self._messages += self._outbound.feed(data)
            if self._messages:
                return self._conversation.take(self._messages.pop(0))
        raise self._gone(do)

    def _guest_side(self, do: str, line: bytes, limit: float) -> Iterator[bytes]:
        """What the guest sends, piece by piece. Its end is the end of the machine."""
        kind = self._mischief.get(do)
        if kind is Mischief.PANIC:
            title = "Kernel panic - not syncing: asked for"
            with self._console.open("a") as file:
                file.write(f"[    1.000000] {title}\n")
            self._shut_down("guest-reset")
            raise GuestPanicked(title, evidence={"console": self.console})
        if kind is Mischief.HANG:
            raise GuestHung(f"no answer to {do} within {limit:.1f} s", evidence=self.evidence())
        if kind is Mischief.CLOSE:
            self._shut_down("guest-shutdown")
            return
        if kind is Mischief.GARBAGE:
            yield b"[    1.000000] this is no message\n"
        if kind is Mischief.FLOOD:
            while True:
                yield b"x" * (1 << 20)
        (request,) = self._inbound.feed(line)
        self._inbound.begin_call()
        assert isinstance(request, wire.Request)
        nonce, number = request.nonce, request.id
        if kind is Mischief.WRONG_NONCE:
            nonce = "0" * len(nonce)
        if kind is Mischief.WRONG_ID:
            number += 7
        try:
            value = self._handle(request)
            said = wire.encode(wire.Answer(nonce=nonce, id=number, value=value))
        except Exception as error:  # noqa: BLE001 - as in the agent: the host is to know
            failure = wire.Failure(
                kind=type(error).__name__,
                message=" ".join(str(error).split()),
                detail="".join(traceback.format_exception(error)),
            )
            said = wire.encode(wire.Answer(nonce=nonce, id=number, error=failure))
        if kind is Mischief.CUT:
            self._shut_down("guest-shutdown")
            yield said[: len(said) // 2]
            return
        if request.do == "sync-shutdown":
            self._shut_down("guest-reset")
        yield said * 2 if kind is Mischief.TWICE else said

    def _handle(self, request: wire.Request) -> object:
        if request.do in self._mischief:
            return {}
        handler = self._handlers.get(request.do)
        if handler is None:
            raise NotImplementedError(f"no verb is called {request.do}")
        return handler(request.args)

    def _shut_down(self, reason: str) -> None:
        self._ends = True
        self._events.append({"event": "SHUTDOWN", "data": {"guest": True, "reason": reason}})

    def _gone(self, do: str) -> GuestLost:
        reason = self._events[-1]["data"] if self._events else {}
        why = reason.get("reason", "") if isinstance(reason, dict) else ""
        return GuestGone(
            f"QEMU exited with code 0 during {do}, {why}", evidence={"console": self.console}
        )
