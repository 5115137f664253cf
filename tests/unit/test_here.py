"""``--here``: what it refuses, and the agent as a process. Nothing is built on this machine."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.exits import REFUSED
from conformance.machine.local import LocalMachine, left_behind
from conformance.machine.protocol import AgentError, GuestGone, GuestHung, LaunchFailed
from conformance.session import ROOT
from conformance.workstation import impossible, signs

# -- signs ----------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A machine that nobody works at."""
    write(tmp_path / "sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")
    write(tmp_path / "sys/class/power_supply/AC/type", "Mains\n")
    write(tmp_path / "run/systemd/sessions/1", "UID=0\nUSER=root\nCLASS=user\n")
    write(tmp_path / "run/systemd/sessions/c1", "UID=110\nUSER=gdm\nCLASS=greeter\n")
    return tmp_path


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_machine_that_nobody_works_at_has_no_sign(server: Path) -> None:
    assert signs(server, environ={}) == ()


@pytest.mark.parametrize(
    ("path", "text", "sign"),
    [
        ("tmp/.X11-unix/X0", "", "a graphical session: "),
        ("run/user/1000/wayland-0", "", "a graphical session: "),
        ("run/systemd/sessions/7", "UID=1000\nUSER=ann\nCLASS=user\n", "else is logged in: ann"),
        ("sys/class/power_supply/BAT0/type", "Battery\n", "a battery: BAT0"),
        (".dockerenv", "", "a container"),
        ("run/.containerenv", "", "a container"),
        ("run/systemd/container", "lxc", "a container"),
        ("sys/fs/cgroup/cgroup.controllers", "cpu memory\n", "no controller io"),
        ("sys/fs/cgroup/cgroup.controllers", "", "no controller memory and io"),
    ],
)
def test_each_sign(server: Path, path: str, text: str, sign: str) -> None:
    write(server / path, text)
    [found] = signs(server, environ={})
    assert sign in found


def test_cgroup_v1_is_a_sign(server: Path) -> None:
    (server / "sys/fs/cgroup/cgroup.controllers").unlink()
    [found] = signs(server, environ={})
    assert "no cgroup v2" in found


def test_who_called_sudo_is_nobody_else(server: Path) -> None:
    write(server / "run/systemd/sessions/7", "UID=1000\nUSER=ann\nCLASS=user\n")
    assert signs(server, environ={"SUDO_UID": "1000"}) == ()


def test_a_display_is_a_sign(server: Path) -> None:
    assert signs(server, environ={"DISPLAY": ":0"}) == ("a graphical session: DISPLAY is set",)


def test_root_is_needed() -> None:
    assert "root" in impossible(uid=1000)
    assert impossible(uid=0) == ""


def test_it_is_refused_with_every_sign(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("conformance.here.impossible", lambda: "")
    monkeypatch.setattr("conformance.here.signs", lambda: ("a battery: BAT0", "ann is here"))
    assert main(["run", "--here", "-k", "loop_enospc_short_write"]) == REFUSED
    told = capsys.readouterr().err
    assert "a battery: BAT0; ann is here (--here-anyway" in told


@pytest.mark.parametrize("words", [["--kernel", "debian/sid"], ["-n", "2"]])
def test_there_is_one_machine_and_one_kernel(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--here", "-k", "loop_enospc_short_write", *words]) == REFUSED
    assert "one machine, with its own kernel" in capsys.readouterr().err


# -- what is left ---------------------------------------------------------------------------------


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    write(tmp_path / "proc/self/mountinfo", "22 1 0:20 / /run rw - tmpfs tmpfs rw\n")
    return tmp_path


def test_nothing_is_left(clean: Path) -> None:
    write(clean / "sys/block/loop0/loop/backing_file", "/var/lib/snap\n")
    assert left_behind(clean) == ""


@pytest.mark.parametrize(
    ("path", "text", "left"),
    [
        ("proc/self/mountinfo", "9 1 0:2 / /run/rig/back rw - tmpfs x rw\n", "/run/rig/back"),
        ("sys/block/loop3/loop/backing_file", "/run/rig/back/image\n", "/dev/loop3"),
        ("sys/fs/cgroup/case/writer/cgroup.procs", "", "the cgroup writer"),
    ],
)
def test_what_is_left_is_told(clean: Path, path: str, text: str, left: str) -> None:
    write(clean / path, text)
    assert left in left_behind(clean)


# -- the agent ------------------------------------------------------------------------------------


@pytest.fixture
def machine() -> Iterator[LocalMachine]:
    made = LocalMachine(memory_mib=1024, cpus=2, left=lambda: "")
    yield made
    made.close()


def test_the_agent_answers(machine: LocalMachine, tmp_path: Path) -> None:
    with machine.guest(workdir=tmp_path / "new") as guest:
        assert guest.call("ping", {"echo": 1}, limit=60) == {"pong": 1}
        asked = {"requirements": ["tool:sh", "tool:no_such_tool"]}
        answer = guest.call("probe", asked, limit=60)
        assert isinstance(answer, dict)
        assert answer["tool:sh"] == ""
        assert "no_such_tool" in answer["tool:no_such_tool"]
        with pytest.raises(AgentError, match="NotImplementedError"):
            guest.call("nonsense", {}, limit=60)
        assert guest.console_path.is_file()
    assert machine.describe()["machine"] == "here"


def spoilt(machine: LocalMachine, folder: Path) -> str:
    """Why the machine makes no further guest; nothing if it does."""
    try:
        with machine.guest(workdir=folder):
            return ""
    except LaunchFailed as error:
        return str(error)


def test_a_rig_that_could_not_be_built_spoils_the_machine(
    machine: LocalMachine, tmp_path: Path
) -> None:
    with machine.guest(workdir=tmp_path) as guest:
        with pytest.raises(AgentError, match="KeyError"):
            guest.call("build", {}, limit=60)  # which names no run: nothing is built
        with pytest.raises(AgentError, match="no rig"):
            guest.call("teardown", {"speed": 1.0}, limit=60)
    assert "a rig that was not taken down" in spoilt(machine, tmp_path)


def test_a_build_that_hangs_spoils_the_machine(machine: LocalMachine, tmp_path: Path) -> None:
    with machine.guest(workdir=tmp_path) as guest:
        os.kill(guest.pid, signal.SIGSTOP)  # type: ignore[attr-defined] # a LocalGuest
        with pytest.raises(GuestHung, match="no answer to build"):
            guest.call("build", {}, limit=0.01)
    assert "a rig that was not taken down" in spoilt(machine, tmp_path)


def test_who_was_asked_for_no_rig_spoils_nothing(machine: LocalMachine, tmp_path: Path) -> None:
    with machine.guest(workdir=tmp_path) as guest, pytest.raises(AgentError):
        guest.call("nonsense", {}, limit=60)
    assert spoilt(machine, tmp_path) == ""


def test_an_agent_that_sends_noise_and_lives_is_ended(tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "here.py").write_text(
        "import socket, sys, time\n"
        "socket.socket(fileno=int(sys.argv[1])).sendall(b'noise\\n')\n"
        "time.sleep(600)\n"
    )
    made = LocalMachine(memory_mib=1024, cpus=2, left=lambda: "", agent=tmp_path / "agent")
    with (
        closing(made),
        pytest.raises(LaunchFailed, match="the agent did not come up"),
        made.guest(workdir=tmp_path / "one"),
    ):
        pass


def test_an_agent_that_ends_is_gone(machine: LocalMachine, tmp_path: Path) -> None:
    with machine.guest(workdir=tmp_path) as guest:
        os.kill(guest.pid, signal.SIGKILL)  # type: ignore[attr-defined] # a LocalGuest
        with pytest.raises(GuestGone, match="ended during ping"):
            guest.call("ping", {}, limit=60)
        with pytest.raises(GuestGone):
            guest.call("ping", {}, limit=60)


def test_an_agent_that_does_not_answer_is_hung_and_killed(
    machine: LocalMachine, tmp_path: Path
) -> None:
    with machine.guest(workdir=tmp_path) as guest:
        pid: int = guest.pid  # type: ignore[attr-defined] # a LocalGuest
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(GuestHung, match="no answer to ping within"):
            guest.call("ping", {}, limit=0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


SESSION = """
import os
from agent import processes

def leave(_args):
    command = processes.fork_exec(["sleep", "600"], os.open(os.devnull, os.O_WRONLY))
    told = processes.run(["sh", "-c", "setsid sleep 600 >/dev/null & echo $!"], limit=60)
    return [command.pid, int(told["output"])]

def handlers():
    return {"leave": leave}
"""
"""In place of the agent's: it leaves a command running, and a process that has lost its parent."""


@pytest.mark.parametrize("hangs", [False, True])
def test_nothing_that_an_agent_has_started_outlives_it(tmp_path: Path, hangs: bool) -> None:
    agent = tmp_path / "agent"
    shutil.copytree(ROOT / "vm" / "agent", agent)
    (agent / "session.py").write_text(SESSION)
    made = LocalMachine(memory_mib=1024, cpus=2, left=lambda: "", agent=agent)
    with closing(made), made.guest(workdir=tmp_path / "work") as guest:
        started = guest.call("leave", {}, limit=60)
        assert isinstance(started, list)
        if hangs:
            os.kill(guest.pid, signal.SIGSTOP)  # type: ignore[attr-defined] # a LocalGuest
            with pytest.raises(GuestHung):
                guest.call("ping", {}, limit=0.01)
    left = []
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            left.append(pid)
    assert left == []


def test_a_machine_that_was_interrupted_as_it_was_made_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_words: object, **_more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("shutil.copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        LocalMachine(memory_mib=1024, cpus=2)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_with_something_left_on_it_makes_no_guest(tmp_path: Path) -> None:
    machine = LocalMachine(memory_mib=1024, cpus=2, left=lambda: "/dev/loop3")
    try:
        with (
            pytest.raises(LaunchFailed, match="has left /dev/loop3"),
            machine.guest(workdir=tmp_path),
        ):
            pass
    finally:
        machine.close()
