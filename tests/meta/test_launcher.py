"""The launcher on machines that lack something. The machines are folders of stand-in programs."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What the launcher takes for granted on any Linux machine, and Python's own name where it is real.
TOOLS = ["sh", "sed", "grep", "env", "flock", "sha256sum", "readlink", "dirname"]
TOOLS += ["cat", "chmod", "rm", "mkdir"]

PYTHON = """\
case "$*" in
*version_info*'<'*) exit 0 ;;
*version_info*) echo 3.11 ;;
*ensurepip*) test -e {state}/python3.11-venv ;;
*'-m venv'*)
    for place; do :; done
    mkdir -p "$place/bin"
    cat >"$place/bin/python" <<'INNER'
#!/bin/sh
case "$*" in
*'-m pip'*) echo pip "$@" >>{state}/pip; test ! -e {state}/offline ;;
*) echo "ran $*" ;;
esac
INNER
    chmod +x "$place/bin/python" ;;
esac
"""

APT = """\
echo "apt-get $*" >>{state}/apt
case "$*" in *install*) for name; do : >{state}/"$name"; done ;; esac
"""

DPKG = """\
for name; do test -e {state}/"$name" && echo "installed $name"; done; exit 1
"""


class Host:
    """A checkout on a machine of which only ``PATH`` is made up."""

    def __init__(self, tmp_path: Path) -> None:
        self.checkout = tmp_path / "check out"
        self.bin = tmp_path / "bin"
        self.state = tmp_path / "state"
        for folder in (self.checkout / "vm", self.checkout / "tests", self.bin, self.state):
            folder.mkdir(parents=True)
        for name in ("conform", "requirements.lock"):
            shutil.copy(ROOT / name, self.checkout / name)
        (self.checkout / "vm/host-packages.txt").write_text("# tools\nqemu  # machine\n\nfio\n")
        (self.checkout / "tests/host-packages.txt").write_text("gcc  # for tests\n")
        for name in TOOLS:
            found = shutil.which(name)
            assert found is not None
            (self.bin / name).symlink_to(found)
        self.program("id", "echo 0\n")
        self.program("python3", PYTHON)
        self.installed("python3.11-venv")

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text("#!/bin/sh\n" + text.replace("{state}", str(self.state)))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def installed(self, *names: str) -> None:
        for name in names:
            (self.state / name).touch()

    def debian(self) -> None:
        self.program("apt-get", APT)
        self.program("dpkg-query", DPKG)

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.checkout / "conform", *words],
            env={"PATH": str(self.bin), **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def log(self, name: str) -> list[str]:
        path = self.state / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_installs_what_is_lacking_and_says_so_first(host: Host) -> None:
    host.debian()
    host.installed("fio")
    done = host.run("run", "-k", "x")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ran -P -m conformance run -k x\n"
    assert done.stderr.splitlines()[0] == ("conform: installing 1 host packages with apt-get: qemu")
    update, install = host.log("apt")
    assert update.endswith(" update")
    assert install.endswith(" install --no-install-recommends qemu")


@pytest.mark.parametrize(
    ("words", "installs"),
    [
        (("shell", "x"), True),
        (("bisect", "tree", "-k", "x"), True),
        (("worker", "host:8786"), True),
        (("run", "--list"), False),
        (("run", "-h"), False),
        (("bisect", "-h"), False),
        (("list",), False),
        (("list", "--why"), True),
        (("report", "x.jsonl"), False),
    ],
)
def test_what_boots_machines_needs_the_host_s_packages(
    host: Host, words: tuple[str, ...], installs: bool
) -> None:
    host.debian()
    assert host.run(*words).returncode == 0
    assert bool(host.log("apt")) is installs


def test_the_project_s_own_tests_need_more(host: Host) -> None:
    host.debian()
    assert host.run("test").returncode == 0
    assert host.log("apt")[-1].endswith(" install --no-install-recommends qemu fio gcc")


def test_all_there(host: Host) -> None:
    host.debian()
    host.installed("fio", "qemu")
    assert host.run("run").returncode == 0
    second = host.run("run")
    assert (second.returncode, second.stderr) == (0, "")
    assert not host.log("apt")
    assert len(host.log("pip")) == 1


def test_venv_package_is_installed_where_debian_has_split_it_off(host: Host) -> None:
    host.debian()
    (host.state / "python3.11-venv").unlink()
    assert host.run("judge", "x").returncode == 0
    assert host.log("apt")[-1].endswith("python3.11-venv")


def test_no_apt_prints_the_list(host: Host) -> None:
    done = host.run("run")
    assert done.returncode == 3
    assert [line.strip() for line in done.stderr.splitlines()[1:3]] == ["qemu", "fio"]
    assert "Traceback" not in done.stderr
    assert host.run("run", CONFORM_HOST_PACKAGES="present").returncode == 0


@pytest.mark.parametrize("words", [("judge", "x"), ("--help",), ("run", "--list"), ()])
def test_host_packages_are_for_machines_only(host: Host, words: tuple[str, ...]) -> None:
    assert host.run(*words).returncode == 0


def test_apt_fails(host: Host) -> None:
    host.debian()
    host.program("apt-get", "exit 100\n")
    done = host.run("test")
    assert done.returncode == 3
    assert "apt-get could not install the packages" in done.stderr


def test_neither_root_nor_sudo(host: Host) -> None:
    host.debian()
    host.program("id", "echo 1000\n")
    done = host.run("run")
    assert done.returncode == 3
    assert "as root: apt-get install --no-install-recommends qemu fio" in done.stderr


def test_sudo(host: Host) -> None:
    host.debian()
    host.program("id", "echo 1000\n")
    host.program("sudo", f'echo sudo >>{host.state}/sudo\nexec "$@"\n')
    assert host.run("run").returncode == 0
    assert host.log("sudo") == ["sudo", "sudo"]


def test_python_is_too_old(host: Host) -> None:
    host.program("python3", "exit 1\n")
    done = host.run("judge", "x")
    assert done.returncode == 3
    assert done.stderr == (
        "conform: Python 3.11 or later is needed, and no python3 here is that new\n"
    )


@pytest.mark.parametrize("lacks", ["apt", "network", "python", "disk", "lock"])
def test_git_stops_where_this_machine_is_at_fault(host: Host, lacks: str) -> None:
    present = {"CONFORM_HOST_PACKAGES": "present"}
    match lacks:
        case "apt":
            present = {}
        case "network":
            host.installed("offline")
        case "python":
            host.program("python3", "exit 1\n")
        case "disk":
            host.program("chmod", "exit 1\n")
        case "lock":
            (host.checkout / "requirements.lock").unlink()
    assert host.run("bisect", "-k", "x", **present).returncode == 255
    assert host.run("run", "-k", "x", **present).returncode in (1, 2, 3)


def test_a_bisection_s_own_status_is_git_s_to_read(host: Host) -> None:
    host.program("python3", PYTHON.replace('echo "ran $*"', "exit 125"))
    assert host.run("bisect", CONFORM_HOST_PACKAGES="present").returncode == 125


def test_half_a_venv_is_not_trusted(host: Host) -> None:
    host.installed("offline")
    done = host.run("judge", "x")
    assert done.returncode == 3
    assert "run the command again" in done.stderr
    (host.state / "offline").unlink()
    assert host.run("judge", "x").stdout == "ran -P -m conformance judge x\n"


def test_a_new_lock_or_place_makes_a_new_venv(host: Host) -> None:
    host.run("judge", "x")
    with (host.checkout / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    host.run("judge", "x")
    assert len(host.log("pip")) == 2
    host.checkout = host.checkout.rename(host.checkout.with_name("moved"))
    host.run("judge", "x")
    assert len(host.log("pip")) == 3


def test_two_at_once_build_one(host: Host) -> None:
    both = [
        subprocess.Popen(
            [host.checkout / "conform", "judge", "x"],
            env={"PATH": str(host.bin)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(2)
    ]
    assert [one.communicate(timeout=60)[0] for one in both] == [
        "ran -P -m conformance judge x\n"
    ] * 2
    assert len(host.log("pip")) == 1


def test_hashes_are_asked_for(host: Host) -> None:
    host.run("judge", "x")
    [line] = host.log("pip")
    assert "--require-hashes" in line


def test_called_by_a_link_from_elsewhere(host: Host, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(host.checkout / "conform")
    done = subprocess.run(
        [link, "judge", "x"],
        env={"PATH": str(host.bin)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_the_lock_names_no_index_and_no_place() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert not [line for line in text.splitlines() if line.lstrip().startswith(("-", "file:"))
                and "--hash=" not in line]  # fmt: skip
    assert "://" not in text


def test_ci_runs_the_same() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1].endswith("exec ./conform test")
