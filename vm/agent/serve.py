"""The agent's loop: find the port, say that it is warm, answer requests until the host has gone.

Imported, and everything it needs with it, before it says `warm`: a template is taken at that moment,
and what a clone need not do again is time saved in each.

A handler is a function of the request's arguments to a JSON value. It may fork, and wait for its own
children; it cannot reach the port by accident: the descriptor is closed on exec, and a forked child
that returns from its handler is ended here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import platform
import random
import select
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agent import warmth

if TYPE_CHECKING:  # the host's own file; in the guest it lies beside this one
    from conformance import wire
else:
    from agent import wire

Handler = Callable[[dict[str, Any]], object]

_PORTS = "/sys/class/virtio-ports"
_PORT_LIMIT = 10.0  # seconds for the port to appear: its driver may load late
_READ = 1 << 16
_RNDRESEEDCRNG = 0x5207  # linux/random.h, since 4.17
_DETAIL = 4000  # characters of a traceback
_MESSAGE = 2000  # characters of an exception's text


class HostGone(Exception):
    """The host's end of the port is closed."""


class WrongState(Exception):
    """A request came out of order."""


class _Quit(Exception):
    """The host has asked for the end."""


def find_port(name: str = wire.PORT, *, root: str = _PORTS, limit: float = _PORT_LIMIT) -> str:
    """The device node of the virtio-serial port called ``name``. Raises TimeoutError."""
    deadline = time.monotonic() + limit
    while True:
        with contextlib.suppress(OSError):
            for port in sorted(os.listdir(root)):
                with contextlib.suppress(OSError), open(f"{root}/{port}/name") as file:
                    if file.read().strip() == name:
                        return f"/dev/{port}"
        if time.monotonic() >= deadline:
            raise TimeoutError(f"no virtio-serial port is called {name}")
        time.sleep(0.01)


class Port:
    """A stream of bytes to the host over a descriptor that stays open."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def read(self) -> bytes:
        """Some bytes; waits for them. Raises HostGone where that is final."""
        while True:
            try:
                if data := os.read(self._fd, _READ):
                    return data
            except OSError as error:
                if error.errno != errno.EINTR:
                    raise HostGone from error
            # Of a virtio port: nobody has the other end open at the moment. Of a socket or a pipe
            # (tests): for good.
            if not self._is_port():
                raise HostGone
            self._poll.poll(1000)
            time.sleep(0.005)  # POLLHUP comes at once, as long as it lasts

    def write(self, data: bytes) -> None:
        """All of ``data``. Raises HostGone."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except OSError as error:
                if error.errno not in (errno.EINTR, errno.EAGAIN):
                    raise HostGone from error

    def _is_port(self) -> bool:
        return os.readlink(f"/proc/self/fd/{self._fd}").startswith("/dev/vport")


class Agent:
    """Answers requests with ``handlers`` and a few verbs of its own: hello, ping, sync-shutdown."""

    def __init__(
        self,
        port: Port,
        handlers: Mapping[str, Handler],
        *,
        settle: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        own: dict[str, Handler] = {
            "hello": self._hello,
            "ping": self._ping,
            "sync-shutdown": self._shutdown,
        }
        if taken := own.keys() & handlers.keys():
            raise ValueError(f"handlers must not be called {', '.join(sorted(taken))}")
        self._handlers = {**handlers, **own}
        self._port = port
        self._settle = settle_guest if settle is None else settle
        self._pid = os.getpid()
        self._nonce: str | None = None
        self._quit = False

    def announce(self, problem: str = "", *, warming: float = 0.0) -> None:
        """Say that the agent is ready, or what keeps it from being so. ``warming``: seconds of it."""
        facts = {"verbs": sorted(self._handlers), **about(), "warming": round(warming, 3)}
        if problem:
            facts["problem"] = problem
        self._port.write(wire.encode(wire.Warm(facts=facts)))

    def serve(self) -> None:
        """Answer until the host is gone, asks for the end, or sends what is no request."""
        decoder = wire.Decoder()
        while not self._quit:
            try:
                messages = decoder.feed(self._port.read())
            except HostGone:
                return
            except wire.WireError as error:
                # There is nobody to answer: the host will see that no answer comes.
                print(f"agent: {error}", file=sys.stderr)
                return
            for message in messages:
                decoder.begin_call()
                if isinstance(message, wire.Request):
                    try:
                        self._port.write(self._answer(message))
                    except HostGone:
                        return

    def _answer(self, request: wire.Request) -> bytes:
        try:
            value = self._dispatch(request)
            line = wire.encode(wire.Answer(nonce=request.nonce, id=request.id, value=value))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the host is to know
            if os.getpid() == self._pid:
                return wire.encode(
                    wire.Answer(nonce=request.nonce, id=request.id, error=failure(error))
                )
            traceback.print_exc()
            line = b""
        if os.getpid() != self._pid:
            # A child that a handler forked has come back here: it must not answer too.
            os._exit(70)
        return line

    def _dispatch(self, request: wire.Request) -> object:
        if request.do == "hello":
            if request.args.get("nonce") != request.nonce:
                raise WrongState("hello has two nonces")
        elif request.nonce != self._nonce:
            raise WrongState("no hello was said with this nonce")
        handler = self._handlers.get(request.do)
        if handler is None:
            raise NotImplementedError(f"no verb is called {request.do}")
        return handler(request.args)

    def _hello(self, args: dict[str, Any]) -> object:
        if self._nonce is not None:
            raise WrongState("hello was said before")
        self._settle(args)
        self._nonce = args["nonce"]
        return about()

    def _ping(self, args: dict[str, Any]) -> object:
        return {"pong": args.get("echo")}

    def _shutdown(self, args: dict[str, Any]) -> object:
        del args
        os.sync()
        # Process 1 ends the machine when the agent has ended.
        self._quit = True
        return {}


def settle_guest(args: dict[str, Any]) -> None:
    """Make a clone its own: the host's clock (``wall_ns``), and randomness it shares with nobody
    (``entropy``, in hexadecimal)."""
    time.clock_settime_ns(time.CLOCK_REALTIME, int(args["wall_ns"]))
    fresh = bytes.fromhex(args["entropy"])
    fd = os.open("/dev/urandom", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(fd, fresh)
        # Without this the pool is mixed in minutes later, and clones draw the same numbers till then.
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, _RNDRESEEDCRNG)
    finally:
        os.close(fd)
    random.seed(fresh)


def about() -> dict[str, Any]:
    """The agent and its kernel, as the host records them. ``uptime``: seconds since the boot."""
    return {**_LASTING, "pid": os.getpid(), "uptime": time.clock_gettime(time.CLOCK_BOOTTIME)}


def failure(error: BaseException) -> wire.Failure:
    """An exception as the host is told of it."""
    frames = "".join(traceback.format_exception(error))
    return wire.Failure(
        kind=type(error).__name__,
        message=" ".join(str(error).split())[:_MESSAGE],
        detail=frames[-_DETAIL:],
    )


def _small_file(path: str) -> str:
    try:
        with open(path) as file:
            return file.read(4096).strip()
    except OSError:
        return ""


# Found out before the template is taken: a clone says hello the sooner.
_LASTING = {
    "python": platform.python_version(),
    "release": os.uname().release,
    "tainted": _small_file("/proc/sys/kernel/tainted"),
    "clocksource": _small_file("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
}


def load_handlers() -> tuple[dict[str, Handler], str]:
    """The verbs of agent.session, and what is wrong with it (nothing, if it is not there at all)."""
    try:
        from agent.session import handlers  # noqa: PLC0415 - may be absent, and may be broken

        made = handlers()
    except ModuleNotFoundError as error:
        if error.name == "agent.session":
            return {}, ""
        return {}, f"agent.session cannot be imported: {error}"
    except Exception as error:  # noqa: BLE001 - the host is to know, whatever it is
        traceback.print_exc()
        return {}, f"agent.session cannot be imported: {type(error).__name__}: {error}"
    return dict(made), ""


def main() -> int:
    """Serve the host on its port. The exit status is 0 when the host is done."""
    handlers, problem = load_handlers()
    fd = os.open(find_port(), os.O_RDWR | os.O_CLOEXEC)
    agent = Agent(Port(fd), handlers)
    took, wrong = warmth.warm()
    # What lives now lives for ever; not touching it again keeps a clone's pages shared.
    gc.collect()
    gc.freeze()
    agent.announce(problem or wrong, warming=took)
    agent.serve()
    return 0
