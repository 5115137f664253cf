"""nbd devices: over the suite's own server, and over qemu-nbd."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Mapping

from agent import netlink
from agent.basics import BLOCK, Json, RigError, read_text
from agent.layers.base import Attachable, Fact, Layer, Site, said, succeeded
from agent.layers.command import in_child, told
from agent.processes import Child, fork_exec
from agent.servers import nbd as server
from agent.servers.conduct import Conduct
from agent.servers.store import Store

LIMIT = 30.0
"""Seconds to attach or to detach: a program that starts under emulation on a busy host takes long."""
START_LIMIT = 80.0
"""Seconds for qemu-nbd to serve: it has many libraries to be linked with."""
REPLACED_WITHIN = 20
"""Seconds that a request may wait for a server in place of one that went away."""

# linux/nbd.h
_SET_SOCK, _SET_BLOCK, _DO_IT, _CLEAR_SOCK, _CLEAR_QUEUE = 0xAB00, 0xAB01, 0xAB03, 0xAB04, 0xAB05
_SET_SIZE_BLOCKS, _DISCONNECT, _SET_TIMEOUT, _SET_FLAGS = range(0xAB07, 0xAB0B)


class _Nbd(Attachable):
    """A numbered nbd device that is in use, or is not, by sysfs."""

    number = -1

    def _choose(self) -> None:
        self.site.must(["modprobe", "nbd"])
        for number in range(16):
            if os.path.exists(f"/sys/block/nbd{number}") and not self._in_use(number):
                self.number, self.path = number, f"/dev/nbd{number}"
                return
        raise RigError("no nbd device is free")

    @staticmethod
    def _in_use(number: int) -> bool:
        return os.path.exists(f"/sys/block/nbd{number}/pid")

    def attached(self) -> bool:
        """Whether the device has a connection, by sysfs."""
        return self._in_use(self.number)

    def size(self) -> int:
        """Bytes of the device. Asked of sysfs: to open it would read from its server."""
        return int(read_text(f"/sys/block/nbd{self.number}/size", "0")) * 512

    def left(self) -> list[str]:
        """What is still there of it."""
        return [self.path] if self.number >= 0 and self.attached() else []


class Nbd(_Nbd):
    """An nbd device over the suite's own server, which has its space in memory of its own.

    A keeper process stands between the agent and the server: it starts the server, brings the device
    into use, and, where the rig asks for that, puts a new server in place of one that went away.
    """

    def __init__(self, spec: Json, rig: Mapping[str, Layer], site: Site) -> None:
        super().__init__(spec, rig, site)
        self.store = Store(spec["size"])
        self._keeper: Child | None = None

    def up(self) -> None:
        """Make it."""
        self._choose()
        command = self.attach()
        if not succeeded(command):
            raise RigError(f"{self.path}: {said(command)}")

    def attach(self) -> Json:
        """Start a server over the same store, and connect the device to it."""
        how = self.spec.get("attach", "netlink")
        argv = ["nbd", "connect", how, self.path]
        # It may have gone away with the server, and its keeper with it.
        self._end_keeper()
        pid = os.fork()
        if pid == 0:
            _keep(self.number, self.store, self.spec)
        self._keeper = keeper = Child.adopt(pid)

        def settled() -> bool:
            self.site.tick()
            return keeper.look() or (self.attached() and self.size() == self.spec["size"])

        self.site.poll(settled, START_LIMIT)
        if self.attached() and self.size() == self.spec["size"]:
            return told(argv)
        said = self.store.complaint() or f"not attached, with {self.size()} bytes"
        self._end_keeper()
        return told(argv, said)

    def detach(self) -> Json:
        """Disconnect it the way that it was connected."""
        how = self.spec.get("attach", "netlink")
        argv = ["nbd", "disconnect", how, self.path]
        if not self.attached():
            self._end_keeper()
            return told(argv)

        def disconnect() -> None:
            if how == "netlink":
                netlink.nbd_disconnect(self.number)
                return
            fd = os.open(self.path, os.O_RDONLY)
            fcntl.ioctl(fd, _DISCONNECT)

        command = in_child(argv, disconnect, LIMIT, self.site)
        self.site.poll(lambda: not self.attached(), LIMIT)
        self._end_keeper()
        return command

    def _end_keeper(self) -> None:
        if self._keeper is not None:
            self._keeper.wait(1.0, tick=self.site.tick)
            self._keeper.kill(tick=self.site.tick)
            self._keeper = None
        if self.store.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.store.pid, signal.SIGKILL)

    def down(self) -> list[Json]:
        """Take it away."""
        commands = [self.detach()] if self.number >= 0 and self.attached() else []
        self._end_keeper()
        self.store.close()
        return commands

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        return {
            "path": self.path,
            "size": self.size(),
            "connections": int(self.spec.get("connections", 1)),
            "at_limit": str(self.spec.get("at_limit", "refuse")),
            "behaviour": str(self.spec.get("behaviour", "honest")),
        }


def _keep(number: int, store: Store, spec: Json) -> None:
    """The keeper's process. Never returns."""
    code = 1
    try:
        conduct = Conduct.of(spec)
        ours, pid = _start(store, conduct, spec.get("connections", 1))
        if spec.get("attach", "netlink") == "ioctl":
            _do_it(f"/dev/nbd{number}", ours, spec)
        else:
            replaced = spec.get("replaced", "off") == "on"
            netlink.nbd_connect(
                number,
                [one.fileno() for one in ours],
                size=spec["size"],
                block=BLOCK,
                flags=_flags(spec),
                timeout=spec.get("timeout", 0),
                dead=REPLACED_WITHIN if replaced else 0,
            )
            _close(ours)
            _, status = os.waitpid(pid, 0)
            if replaced and os.waitstatus_to_exitcode(status) == server.WENT_AWAY:
                # Whoever comes in its place is as full, and says so.
                refusing = Conduct(error=conduct.error)
                ours, pid = _start(store, refusing, spec.get("connections", 1))
                fds = [one.fileno() for one in ours]
                netlink.nbd_replace(number, fds, dead=REPLACED_WITHIN)
                _close(ours)
                os.waitpid(pid, 0)
        code = 0
    except BaseException as error:  # noqa: BLE001 - the agent is told, whatever it is
        store.complain(f"{type(error).__name__}: {error}")
    finally:
        os._exit(code)


def _start(store: Store, conduct: Conduct, count: int) -> tuple[list[socket.socket], int]:
    """Fork a server: the kernel's ends of its connections, and its pid."""
    pairs = [socket.socketpair() for _ in range(count)]
    pid = os.fork()
    if pid == 0:
        _close([ours for ours, _ in pairs])
        server.run(store, conduct, [theirs for _, theirs in pairs])
    _close([theirs for _, theirs in pairs])
    return [ours for ours, _ in pairs], pid


def _close(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()


def _flags(spec: Json) -> int:
    many = spec.get("connections", 1) > 1
    return server.FLAGS | (server.MULTI_CONN if many else 0)


def _do_it(path: str, ours: list[socket.socket], spec: Json) -> None:
    """What nbd-client does without netlink: NBD_DO_IT returns when the device is disconnected."""
    fd = os.open(path, os.O_RDWR)
    fcntl.ioctl(fd, _CLEAR_SOCK)
    fcntl.ioctl(fd, _SET_BLOCK, BLOCK)
    fcntl.ioctl(fd, _SET_SIZE_BLOCKS, spec["size"] // BLOCK)
    fcntl.ioctl(fd, _SET_FLAGS, _flags(spec))
    if spec.get("timeout", 0):
        fcntl.ioctl(fd, _SET_TIMEOUT, spec["timeout"])
    for one in ours:
        fcntl.ioctl(fd, _SET_SOCK, one.fileno())
    _close(ours)
    with contextlib.suppress(OSError):
        # EPIPE or ETIMEDOUT when the server went away: the device is out of use all the same.
        fcntl.ioctl(fd, _DO_IT)
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, _CLEAR_QUEUE)
        fcntl.ioctl(fd, _CLEAR_SOCK)
    os.close(fd)


class QemuNbd(_Nbd):
    """An nbd device over qemu-nbd, which stores in a file of the layer below."""

    def __init__(self, spec: Json, rig: Mapping[str, Layer], site: Site) -> None:
        super().__init__(spec, rig, site)
        self._server: Child | None = None

    def up(self) -> None:
        """Make it."""
        # For its own control socket; it is a boot script's to make elsewhere.
        os.makedirs(os.path.realpath("/var/lock"), exist_ok=True)
        self._choose()
        command = self.attach()
        if not succeeded(command):
            raise RigError(f"{self.path}: {said(command)}")

    def attach(self) -> Json:
        """Run qemu-nbd over the file, which stays for as long as the device is in use."""
        self._end_server()
        cache = self.spec.get("cache", "writeback")
        argv = ["qemu-nbd", f"--connect={self.path}", "--format=raw", f"--cache={cache}"]
        argv.append(self.base().path)
        output = os.memfd_create("output")
        self._server = served = fork_exec(argv, output)

        def settled() -> bool:
            self.site.tick()
            # What was started ends with 0 when what it forked has the device; the size comes later.
            failed = served.look() and (served.how() or {}).get("exit_code") != 0
            return failed or (self.attached() and self.size() > 0)

        self.site.poll(settled, START_LIMIT)
        text = os.pread(output, 4000, 0).decode("utf-8", "replace")
        os.close(output)
        if self.attached() and self.size() > 0:
            return told(argv)
        how = served.how()
        self._end_server()
        if served.complaint():
            raise RigError(served.complaint())
        state = f"in use: {self.attached()}, {self.size()} bytes"
        return told(argv, text or f"qemu-nbd ended: {how}; {state}")

    def detach(self) -> Json:
        """Run qemu-nbd -d, and see its server end."""
        command = self.site.run(["qemu-nbd", "--disconnect", self.path], LIMIT)
        self.site.poll(lambda: not self.attached(), LIMIT)
        self._end_server()
        return command

    def _end_server(self) -> None:
        if self._server is not None:
            self._server.wait(LIMIT, tick=self.site.tick)
            self._server.kill(tick=self.site.tick)
            self._server = None

    def down(self) -> list[Json]:
        """Take it away."""
        return [self.detach()] if self.number >= 0 and self.attached() else []

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        return {
            "path": self.path,
            "size": self.size(),
            "cache": str(self.spec.get("cache", "writeback")),
        }
