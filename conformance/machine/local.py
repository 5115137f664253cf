"""An agent on the machine that the suite is started on, in place of a guest: for machines to be thrown away.

Needs nothing but the standard library. A "guest" is a fresh agent and nothing else: what it left of
itself (mounts, cgroups, loop devices) is still there for the next one. So a guest is refused once
something is left behind, and the machine has to be started anew.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from conformance import wire
from conformance.machine import keeper
from conformance.machine.protocol import (
    AgentError,
    Disk,
    DiskFailed,
    DiskOrder,
    Guest,
    GuestGone,
    GuestHung,
    GuestLost,
    LaunchFailed,
    WireGarbage,
)

_PROJECT = Path(__file__).resolve().parents[2]
_READ = 1 << 18
_TAIL = 8192  # characters of the kernel log in evidence
_LOG = 4 << 20  # bytes of the kernel log that are kept of a guest
_START_LIMIT = 60.0  # seconds for the agent to greet
_LAST_LIMIT = 5.0  # seconds for an agent whose host has gone to finish what it is at
_END_LIMIT = keeper.GRACE + 5.0  # seconds for its keeper to end all that it has started
RIG = "/run/rig"
"""Where the agent mounts what it builds."""
CGROUP = "sys/fs/cgroup/case"
"""Where it makes its cgroups."""


class LocalMachine:
    """Makes agents on this machine. See the protocol ``Machine``."""

    def __init__(
        self,
        *,
        memory_mib: int,
        cpus: int,
        left: Callable[[], str] | None = None,
        agent: Path = _PROJECT / "vm" / "agent",
    ) -> None:
        """``left`` says what is left of earlier guests; nothing, if the machine is as it was.

        ``agent`` is the agent's folder in the checkout.
        """
        self._memory_mib = memory_mib
        self._cpus = cpus
        self._left = left or left_behind
        self._spoilt = ""
        # It removes itself at the latest when this process ends, if nobody comes to close the machine.
        self._folder = tempfile.TemporaryDirectory(
            prefix="conform-here-", ignore_cleanup_errors=True
        )
        copy = Path(self._folder.name) / "agent"
        try:
            shutil.copytree(agent, copy)
            shutil.copyfile(_PROJECT / "conformance" / "wire.py", copy / "wire.py")
        except BaseException:  # Ctrl-C, too
            self.close()
            raise

    @property
    def speed(self) -> float:
        """See ``Machine``. How fast this machine is has not been measured."""
        return 2.0

    def describe(self) -> Mapping[str, object]:
        """See ``Machine``."""
        return {
            "kernel": "here",
            "release": os.uname().release,
            "accelerator": "none",
            "accelerator_why": "the suite runs on this machine itself, not in a guest",
            "qemu": "none",
            "machine": "here",
            "start": "none",
            "start_why": "every variant has the same machine: --here",
            "memory_mib": self._memory_mib,
            "cpus": self._cpus,
            "speed": self.speed,
        }

    @contextmanager
    def guest(self, *, workdir: Path) -> Iterator[Guest]:
        """See ``Machine``."""
        if left := self._spoilt or self._left():
            raise LaunchFailed(f"an earlier variant has left {left} on this machine: start it anew")
        workdir.mkdir(parents=True, exist_ok=True)
        guest = LocalGuest(Path(self._folder.name), workdir / "console.log")
        try:
            guest.greet()
            yield guest
        finally:
            guest.close()
            self._spoilt = guest.left

    def lacks(self, need: str) -> str:
        """See ``Machine``. A machine cannot plug disks into itself."""
        return f"{need}: the suite runs on this machine itself, which nobody plugs a disk into"

    def close(self) -> None:
        """See ``Machine``."""
        self._folder.cleanup()


class LocalGuest:
    """One agent. See the protocol ``Guest``; its console is what the kernel logs meanwhile."""

    def __init__(self, agent: Path, console: Path) -> None:
        self._began = time.monotonic()
        self.pid = 0
        """The agent's process id, once it has greeted."""
        self._console = console
        console.write_bytes(b"")
        self._timing: dict[str, float] = {}
        self._lost: GuestLost | None = None
        self.left = ""  # what the agent could not take down, or its whole rig
        self._conversation = wire.Conversation(secrets.token_hex(8))
        self._decoder = wire.Decoder()
        self._messages: list[wire.Message] = []
        self._log: int | None = None
        with contextlib.suppress(OSError):
            self._log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._log, 0, os.SEEK_END)
        self._port, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                keeper.kept([sys.executable, "-m", "agent.here", str(theirs.fileno())]),
                cwd=agent,
                env={**os.environ, "PYTHONPATH": str(agent), "LC_ALL": "C.UTF-8"},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )

    def greet(self) -> None:
        """Wait for the agent, and say hello. Raises LaunchFailed, GuestLost."""
        try:
            message = self._next(time.monotonic() + _START_LIMIT)
        except TimeoutError as error:
            raise LaunchFailed(f"the agent did not greet within {_START_LIMIT:.0f} s") from error
        except (EOFError, OSError, wire.WireError) as error:
            self._process.terminate()  # an agent that lives may hold the pipe open for ever
            said = self._process.communicate()[1].decode("utf-8", "replace").strip()
            last = said.splitlines()[-1] if said else str(error)
            raise LaunchFailed(f"the agent did not come up: {last}", output=said) from error
        if not isinstance(message, wire.Warm):
            raise LaunchFailed("the agent sent something else than a greeting")
        if problem := message.facts.get("problem"):
            raise LaunchFailed(f"the agent cannot work: {problem}")
        self.pid = int(message.facts["pid"])
        self._timing["boot"] = round(time.monotonic() - self._began, 4)
        hello = {
            "nonce": self._conversation.nonce,
            "wall_ns": time.time_ns(),
            "entropy": secrets.token_hex(64),
        }
        self.call("hello", hello, limit=_START_LIMIT)

    @property
    def events(self) -> tuple[dict[str, object], ...]:
        """There is no QEMU to tell anything."""
        return ()

    @property
    def console(self) -> str:
        """See ``Guest``."""
        self._drain()
        return self._console.read_text(encoding="utf-8", errors="replace")

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
        """See ``Guest``. Nothing is cloned or booted."""
        return self._conversation.work(self._decoder)

    def call(self, do: str, args: Mapping[str, object], *, limit: float) -> object:
        """See ``Guest``."""
        if self._lost is not None:
            raise self._lost
        self._decoder.begin_call()
        deadline = time.monotonic() + limit
        if do == "build":
            # From now on: one that fails or hangs may have got anywhere.
            self.left = "a rig that was not taken down"
        try:
            self._port.settimeout(limit)
            self._port.sendall(self._conversation.ask(do, args))
            answer = self._conversation.take(self._next(deadline))
        except TimeoutError as error:
            lost = GuestHung(f"no answer to {do} within {limit:.1f} s", evidence=self.evidence())
            raise self._lose(lost) from error
        except wire.WireError as error:
            raise self._lose(WireGarbage(str(error), evidence=self.evidence())) from error
        except (EOFError, OSError) as error:
            gone = GuestGone(f"the agent ended during {do}", evidence=self.evidence())
            raise self._lose(gone) from error
        if answer.error is not None:
            raise AgentError(answer.error.kind, answer.error.message, answer.error.detail)
        if do == "teardown" and isinstance(answer.value, dict):
            self.left = ", ".join(map(str, answer.value.get("left", ())))
        return answer.value

    def plug(self, order: DiskOrder) -> Disk:
        """See ``Guest``. There is no such disk: the machine ``lacks`` what it takes."""
        raise DiskFailed(f"{order.name}: nobody plugs a disk into this machine itself")

    def when_stopped(self, help_it: Callable[[], bool]) -> None:
        """See ``Guest``. A machine that runs this does not stop."""

    def evidence(self) -> Mapping[str, str]:
        """See ``Guest``."""
        return {"console": self.console[-_TAIL:]}

    def close(self) -> None:
        """End the agent and all that it has started, as far as the kernel lets go of them."""
        self._port.close()
        if self._lost is None:
            # Amid a tear-down, say, it ends by itself afterwards, and leaves the less behind.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST_LIMIT)
        self._process.terminate()  # its keeper
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_LIMIT)
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._drain()
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def _lose(self, loss: GuestLost) -> GuestLost:
        self._lost = loss
        return loss

    def _next(self, deadline: float) -> wire.Message:
        while not self._messages:
            # Not zero, which would mean: do not wait at all.
            self._port.settimeout(max(deadline - time.monotonic(), 0.001))
            data = self._port.recv(_READ)
            if not data:
                raise EOFError("the agent has closed its end")
            self._messages += self._decoder.feed(data)
        return self._messages.pop(0)

    def _drain(self) -> None:
        """Put what the kernel has logged by now into the console's file."""
        if self._log is None:
            return
        with self._console.open("ab") as file:
            while file.tell() < _LOG:
                try:
                    record = os.read(self._log, 8192)
                except BrokenPipeError:
                    continue  # overwritten before it was read: the next one is there
                except OSError:
                    return  # no more
                head, _, text = record.partition(b";")
                microseconds = int(head.split(b",")[2])
                file.write(b"[%12.6f] %s" % (microseconds / 1e6, text))


def left_behind(root: Path = Path("/")) -> str:
    """What is left of a rig, also of an earlier run's, in a few words; nothing if there is nothing."""
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4]
        if place == RIG or place.startswith(f"{RIG}/"):
            return f"the mount {place}"
    for backing in sorted((root / "sys/block").glob("loop*/loop/backing_file")):
        with contextlib.suppress(OSError):
            if backing.read_text().startswith(f"{RIG}/"):
                return f"/dev/{backing.parts[-3]}"
    for name in sorted((root / CGROUP).glob("*/cgroup.procs")):
        return f"the cgroup {name.parent.name}"
    return ""
