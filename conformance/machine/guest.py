"""A guest on QEMU: started or restored, asked, watched, and given up.

One asyncio loop belongs to each guest and runs only while the guest is being waited for: qemu.qmp
needs one, and with it there is no thread that could outlive a guest. Between calls nothing is read;
what QEMU and the guest send meanwhile waits in the sockets, which are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError, Runstate

from conformance import wire
from conformance.machine import disks, sysrq
from conformance.machine.protocol import (
    AgentError,
    DiskFailed,
    DiskOrder,
    GuestGone,
    GuestHung,
    GuestLost,
    GuestPanicked,
    LaunchFailed,
    WireGarbage,
)
from conformance.machine.qemu import (
    PAGE,
    PORT_FOR_DISK,
    Fds,
    Process,
    Spec,
    argv,
    state_uri,
)

_T = TypeVar("_T")

_READ = 1 << 18
_CONSOLE = 1 << 20  # bytes of the console that are shown
_TAIL = 8192  # characters of the console in evidence
_EVENTS = 1000  # events kept
_EXIT_LIMIT = 10.0  # seconds between the end of the agent's socket and that of QEMU
_QMP_LIMIT = 30.0  # seconds, scaled, for QEMU itself to answer
_LOOK = 1.0  # seconds after which a guest that says nothing is looked at
_ENTROPY = 64  # bytes
_PANIC = re.compile(r"Kernel panic - not syncing: ?(.*)")
_INIT_FAILED = re.compile(r"conform-init: FAILED: (.*)")


class _HostDiskFailed(Exception):
    """QEMU has stopped the guest because the host could not write its disk (werror=enospc, the
    default), or had to help it and could not. That is no answer of the guest's kernel, and must not be
    judged as one."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """What a guest is made from; descriptors that stay the maker's.

    ``memory`` is the template's memory (or where to write it), ``state`` what is restored.
    """

    root: int
    modules: int
    kernel: int
    initrd: int
    scratch: IO[bytes]
    memory: int | None = None
    state: int | None = None


class QemuGuest:
    """One virtual machine. Made by ``boot`` or ``restore``; see the protocol ``Guest``."""

    def __init__(
        self, make_spec: Callable[[Fds], Spec], files: Files, console: Path, *, prefix: bytes = b""
    ) -> None:
        """Start QEMU. Its console goes on in the file ``console`` after ``prefix``.

        Raises LaunchFailed, OSError.
        """
        self._began = time.monotonic()
        self._console = console
        self._prefix = len(prefix)
        self._timing: dict[str, float] = {}
        self._events: list[dict[str, object]] = []
        self._lost: GuestLost | None = None
        self._closed = False
        self._conversation = wire.Conversation(secrets.token_hex(8))
        self._decoder = wire.Decoder()
        self._messages: list[wire.Message] = []
        self._qmp = QMPClient("conform")
        self._stops = EventListener("STOP")
        self._qmp.register_listener(self._stops)
        self._help: Callable[[], bool] | None = None
        self._disk: tuple[str, disks.PluggedDisk] | None = None
        self._template = None if files.memory is None else os.fstat(files.memory).st_ino
        self._memory: dict[str, int] = {}
        with contextlib.ExitStack() as stack:
            ours, theirs = _pair(stack)
            qmp_ours, qmp_theirs = _pair(stack)
            log = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
            stack.callback(os.close, log)
            _write_all(log, prefix)
            fds = Fds(
                qmp=qmp_theirs.fileno(),
                agent=theirs.fileno(),
                console=log,
                root=files.root,
                modules=files.modules,
                scratch=files.scratch.fileno(),
                kernel=files.kernel,
                initrd=files.initrd,
                memory=files.memory,
            )
            self._spec = make_spec(fds)
            state = () if files.state is None else (files.state,)
            self._process = Process(argv(self._spec), fds=(*fds.all(), *state))
            self._agent = socket.socket(fileno=ours.detach())
            self._monitor = socket.socket(fileno=qmp_ours.detach())
        self._agent.setblocking(False)
        self._loop = asyncio.new_event_loop()

    # -- coming up -----------------------------------------------------------------------------

    def boot(self, *, limit: float) -> Mapping[str, Any]:
        """Wait for the agent of a booting kernel, and return what it says of itself.

        Raises LaunchFailed.
        """
        try:
            self._within(self._connect(), limit)
            warm = self._within(self._warm(), limit)
        except TimeoutError as error:
            raise self._failed(f"the guest did not come up within {limit:.0f} s") from error
        except (EOFError, OSError, QMPError) as error:
            raise self._failed("the guest ended while it came up") from error
        except wire.WireError as error:
            raise self._failed(f"the agent sent something else than a greeting: {error}") from error
        self._lap("boot")
        if problem := warm.facts.get("problem"):
            raise self._failed(f"the agent cannot work: {problem}")
        return warm.facts

    def hello(self, *, limit: float) -> Mapping[str, Any]:
        """Give a guest that was booted its clock and its nonce. Raises GuestLost."""
        answer = self.call("hello", self._greeting(), limit=limit)
        self._lap("answer")
        return answer if isinstance(answer, dict) else {}

    def restore(self, state: int, *, limit: float) -> Mapping[str, Any]:
        """Load the template's state, go on, and say hello. Raises LaunchFailed, GuestLost."""
        try:
            self._within(self._restore(state), limit)
        except TimeoutError as error:
            raise self._failed(f"the template was not restored within {limit:.0f} s") from error
        except (EOFError, OSError, QMPError) as error:
            raise self._failed("the template cannot be restored") from error
        self._lap("restore")
        return self.hello(limit=limit)

    def save(self, state: int, *, limit: float) -> None:
        """Stop for good, and write what is not in the memory file to ``state``. Raises LaunchFailed."""
        try:
            self._within(self._save(state), limit)
        except TimeoutError as error:
            raise self._failed(f"the template was not saved within {limit:.0f} s") from error
        except (EOFError, OSError, QMPError) as error:
            raise self._failed(f"the template cannot be saved: {error}") from error

    async def _connect(self) -> None:
        await self._qmp.connect(self._monitor)
        self._lap("spawn")

    async def _warm(self) -> wire.Warm:
        message = await self._next_message()
        if not isinstance(message, wire.Warm):
            raise wire.WrongType(f"a {type(message).__name__.lower()} message")
        return message

    async def _restore(self, state: int) -> None:
        await self._connect()
        await self._ignore_shared()
        # QEMU runs the guest by itself once all is loaded; if loading fails it exits.
        await self._qmp.execute("migrate-incoming", {"uri": await self._state_uri(state)})

    async def _save(self, state: int) -> None:
        # No stop before: migrating stops the guest by itself when only the state is left, and has a
        # clone go on running without being told. A guest that was stopped would stay stopped.
        await self._ignore_shared()
        await self._qmp.execute("migrate", {"uri": await self._state_uri(state)})
        while True:
            told = await self._qmp.execute("query-migrate")
            status = told.get("status") if isinstance(told, dict) else None
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                raise OSError(str(told))
            await asyncio.sleep(0.005)

    async def _state_uri(self, state: int) -> str:
        uri = state_uri(self._spec.version, state)
        if uri.startswith("fd:"):
            self._qmp.send_fd_scm(state)
            await self._qmp.execute("getfd", {"fdname": uri.removeprefix("fd:")})
        return uri

    async def _ignore_shared(self) -> None:
        capability = {"capability": "x-ignore-shared", "state": True}
        await self._qmp.execute("migrate-set-capabilities", {"capabilities": [capability]})

    def _greeting(self) -> dict[str, object]:
        return {
            "nonce": self._conversation.nonce,
            "wall_ns": time.time_ns(),
            "entropy": secrets.token_hex(_ENTROPY),
        }

    # -- the protocol --------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        """Processor time that QEMU has used so far."""
        return self._process.cpu_seconds()

    @property
    def events(self) -> tuple[dict[str, object], ...]:
        """See ``Guest``."""
        self._take_events()
        return tuple(self._events)

    @property
    def console(self) -> str:
        """See ``Guest``."""
        try:
            with self._console.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _CONSOLE))
                return file.read(_CONSOLE).decode("utf-8", "replace")
        except OSError:
            return ""

    @property
    def console_path(self) -> Path:
        """See ``Guest``."""
        return self._console

    @property
    def timing(self) -> Mapping[str, float]:
        """See ``Guest``."""
        return dict(self._timing)

    @property
    def work(self) -> Mapping[str, int]:
        """See ``Guest``."""
        self._look_at_memory()
        how = "boots" if self._spec.role == "boot" else "clones"
        return {how: 1, **self._conversation.work(self._decoder), **self._memory}

    def call(self, do: str, args: Mapping[str, object], *, limit: float) -> object:
        """See ``Guest``."""
        if self._lost is not None:
            raise self._lost
        if self._closed:
            raise GuestGone("the guest was closed")
        line = self._conversation.ask(do, args)
        self._decoder.begin_call()
        try:
            answer = self._finish(self._answered(line, limit))
        except TimeoutError as error:
            raise self._lose(self._hung(do, limit)) from error
        except wire.WireError as error:
            raise self._lose(WireGarbage(f"in answer to {do}: {error}")) from error
        except _HostDiskFailed as error:
            why = f"the host's disk failed during {do}: {error}"
            raise self._lose(GuestGone(why, evidence=self._evidence())) from error
        except (EOFError, OSError) as error:
            raise self._lose(self._gone(do)) from error
        if answer.error is not None:
            failed = answer.error
            raise AgentError(failed.kind, failed.message, failed.detail)
        return answer.value

    def plug(self, order: DiskOrder) -> disks.PluggedDisk:
        """See ``Guest``."""
        if self._disk is not None:
            raise DiskFailed(f"there is no place for {order.name}: the guest has a disk already")
        try:
            file = disks.ShortFile(order.size)
        except OSError as error:
            raise DiskFailed(f"no file for {order.name}: {error.strerror or error}") from error
        self._disk = (order.name, disks.PluggedDisk(file))
        try:
            self._within(self._plug(order, file), _QMP_LIMIT)
        except (TimeoutError, EOFError, OSError, QMPError) as error:
            raise DiskFailed(f"QEMU does not take {order.name}: {error}") from error
        return self._disk[1]

    def when_stopped(self, help_it: Callable[[], bool]) -> None:
        """See ``Guest``."""
        self._help = help_it

    def evidence(self) -> Mapping[str, str]:
        """See ``Guest``."""
        if self._closed or self._lost is not None or self._process.exit_code() is not None:
            return {}
        return self._evidence()

    def close(self) -> None:
        """See ``Guest``."""
        if self._closed:
            return
        self._closed = True
        self._process.close()
        try:
            self._loop.run_until_complete(self._disconnect())
        finally:
            self._loop.close()
            self._agent.close()
            self._monitor.close()
            if self._disk is not None:
                self._disk[1].close()

    def __enter__(self) -> QemuGuest:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- being lost ----------------------------------------------------------------------------

    def _lose(self, loss: GuestLost) -> GuestLost:
        self._lost = loss
        self._take_events()
        self._look_at_memory()
        self._process.close()
        return loss

    def _hung(self, do: str, limit: float) -> GuestLost:
        if title := self._panic():
            return GuestPanicked(title, evidence=self._tail())
        return GuestHung(f"no answer to {do} within {limit:.1f} s", evidence=self._evidence())

    def _gone(self, do: str) -> GuestLost:
        code = self._process.exit_code(limit=_EXIT_LIMIT)
        # What QEMU said last is still in the socket.
        with contextlib.suppress(Exception):
            self._within(self._drain(), 1.0)
        if title := self._panic():
            return GuestPanicked(title, evidence=self._tail())
        reason = self._told("SHUTDOWN", "reason")
        why = f", {reason}" if reason else ""
        how = "closed the agent's port" if code is None else _exited(code)
        said = {"qemu": self._process.output()} if self._process.output() else {}
        return GuestGone(f"QEMU {how} during {do}{why}", evidence={**self._tail(), **said})

    def _told(self, event: str, name: str) -> str:
        """What QEMU said in its last event of that kind; nothing if there was none."""
        for one in reversed(self._events):
            if one.get("event") == event and isinstance(data := one.get("data"), dict):
                return str(data.get(name, ""))
        return ""

    async def _drain(self) -> None:
        while self._qmp.runstate == Runstate.RUNNING:
            await self._qmp.runstate_changed()

    def _panic(self) -> str:
        found = _PANIC.search(self.console)
        return f"Kernel panic - not syncing: {found[1].strip()}"[:300] if found else ""

    def _tail(self) -> dict[str, str]:
        return {"console": self.console[-_TAIL:]}

    def _evidence(self) -> dict[str, str]:
        found: dict[str, str] = {}
        with contextlib.suppress(Exception):
            self._within(sysrq.collect(self._qmp, self._console, found), sysrq.LIMIT)
        return {**found, **self._tail()}

    def _failed(self, message: str) -> LaunchFailed:
        console = self.console
        if found := _INIT_FAILED.search(console):
            message = f"the guest's init failed: {found[1].strip()}"
        elif title := self._panic():
            message = title
        code = self._process.exit_code(limit=0.5)
        said = self._process.output()
        self._process.close()
        if code is not None:
            message += f" (exit code {code})"
        if said and not console[self._prefix :].strip():
            message += f": {said.splitlines()[-1]}"
        return LaunchFailed(
            message[:500],
            exit_code=code,
            argv=self._process.argv,
            output="\n".join(part for part in (said, console[-_TAIL:]) if part),
        )

    # -- the loop ------------------------------------------------------------------------------

    def _within(self, work: Coroutine[Any, Any, _T], limit: float) -> _T:
        """What ``work`` comes to. Raises TimeoutError after ``limit`` seconds."""
        return self._finish(_timed(work, limit))

    def _finish(self, work: Coroutine[Any, Any, _T]) -> _T:
        try:
            return self._loop.run_until_complete(work)
        finally:
            self._take_events()

    async def _answered(self, line: bytes, limit: float) -> wire.Answer:
        """The answer to ``line``, within ``limit`` seconds of those in which the machine ran."""
        async with asyncio.timeout(limit) as deadline:
            helper = asyncio.create_task(self._keep_running(deadline))
            exchange = asyncio.create_task(self._exchange(line))
            try:
                await asyncio.wait({helper, exchange}, return_when=asyncio.FIRST_COMPLETED)
                if not exchange.done() and isinstance(e := helper.exception(), _HostDiskFailed):
                    raise e
                return await exchange
            finally:
                helper.cancel()
                exchange.cancel()
                await asyncio.gather(helper, exchange, return_exceptions=True)

    async def _keep_running(self, deadline: asyncio.Timeout) -> None:
        """Help the machine whenever it has stopped over a disk's error, for as long as that helps.

        Raises _HostDiskFailed where the host cannot, and QMPError if QEMU is gone.
        """
        while True:
            await self._stops.get()
            began = self._loop.time()
            told = await self._qmp.execute("query-status")
            status = told.get("status") if isinstance(told, dict) else None
            if status != "io-error" or self._help is None:
                continue
            try:
                if not self._help():
                    continue
                await self._qmp.execute("cont")
            except (OSError, ExecuteError) as error:
                raise _HostDiskFailed(f"no help for the stopped machine: {error}") from error
            if (when := deadline.when()) is not None:
                deadline.reschedule(when + self._loop.time() - began)

    async def _plug(self, order: DiskOrder, file: disks.ShortFile) -> None:
        self._qmp.send_fd_scm(file.fileno())
        await self._qmp.execute("add-fd", {"fdset-id": disks.FDSET})
        for command, arguments in disks.commands(order, PORT_FOR_DISK):
            await self._qmp.execute(command, arguments)

    async def _exchange(self, line: bytes) -> wire.Answer:
        await self._loop.sock_sendall(self._agent, line)
        return self._conversation.take(await self._next_message())

    async def _next_message(self) -> wire.Message:
        while not self._messages:
            data = await self._received()
            if not data:
                raise EOFError
            self._messages += self._decoder.feed(data)
        return self._messages.pop(0)

    async def _received(self) -> bytes:
        """Some bytes of the agent's. Raises _HostDiskFailed when none will come."""
        reading = asyncio.ensure_future(self._loop.sock_recv(self._agent, _READ))
        try:
            while True:
                done, _ = await asyncio.wait({reading}, timeout=_LOOK)
                if done:
                    return reading.result()
                self._take_events()
                plugged = self._disk[0] if self._disk else ""
                if (reason := disks.stopped_by_another(self._events, plugged)) is not None:
                    raise _HostDiskFailed(reason)
        finally:
            reading.cancel()

    async def _disconnect(self) -> None:
        with contextlib.suppress(Exception):
            await self._qmp.disconnect()
        mine = asyncio.current_task()
        left = [task for task in asyncio.all_tasks() if task is not mine]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _look_at_memory(self) -> None:
        held = self._process.private_memory(self._template)
        if held is not None:
            self._memory["private"] = held.private
            if self._template is not None:
                self._memory["pages"] = held.copied // PAGE

    def _take_events(self) -> None:
        fresh = [dict(event) for event in self._qmp.events.clear()]
        self._events += fresh[: _EVENTS - len(self._events)]
        if self._disk is not None:
            name, disk = self._disk
            disk.refused += disks.refused(fresh, name)

    def _lap(self, name: str) -> None:
        spent = time.monotonic() - self._began - sum(self._timing.values())
        self._timing[name] = round(spent, 4)


def _exited(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


async def _timed(work: Awaitable[_T], limit: float) -> _T:
    async with asyncio.timeout(limit):
        return await work


def _pair(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    stack.enter_context(theirs)
    return ours, theirs


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
