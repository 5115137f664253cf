"""How scripts end: what they made is undone, and nothing else, whatever stops them and in any shell."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance.reproduce import Inexpressible, script
from conformance.reproduce.functions import FUNCTIONS
from conformance.session import open_library

SHELLS = {"dash": ("dash",), "bash": ("bash",), "busybox": ("busybox", "sh")}
EFFECTS = (
    *("mount", "umount", "losetup", "modprobe", "mkswap", "swapon", "swapoff", "dmsetup", "mdadm"),
    *("chown", "chattr", "fallocate", "blockdev", "blkdiscard", "fstrim", "sync"),
)
"""What a script changes the machine by. Here it is only noted. Shell functions: busybox's shell has some
of these built in, and would not look for programs."""
HARMLESS = ("mktemp", "mkdir", "rmdir", "rm", "cat", "grep", "sed", "find", "truncate", "sleep")
INHERITED = "/inherited"


def every() -> Iterator[tuple[str, str]]:
    """Family and text of every script."""
    for variant in open_library(()).variants:
        for arm in variant.arms if len(variant.arms) > 1 else ("",):
            with suppress(Inexpressible):
                yield variant.family, script(variant, arm=arm if isinstance(arm, str) else arm.name)


MADE = sorted(every(), key=lambda made: -len(made[1]))
SCRIPTS = dict(MADE)
"""The shortest of each family."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a script ended: its exit status, what it said, and what it called."""

    status: int
    out: str
    err: str
    called: tuple[str, ...]


class Bench:
    """Runs scripts in one shell, whose effects are noted and not had."""

    def __init__(self, shell: str, folder: Path) -> None:
        self._shell = SHELLS[shell]
        self._log = folder / "log"
        self._path = folder / "path"
        self._path.mkdir()
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        for name in HARMLESS:
            (self._path / name).symlink_to(str(shutil.which(name)))
        self._program = str(shutil.which(self._shell[0]))

    def program(self, name: str, text: str) -> None:
        """Puts a program where the shell looks for it."""
        (self._path / name).write_text(text)
        (self._path / name).chmod(0o755)

    def run(
        self, text: str, *lines: str, env: dict[str, str] | None = None, stdout: int | None = None
    ) -> Ended:
        """Runs a script; ``lines``: shell that comes first."""
        self._log.write_text("")
        noted = (f'{name}() {{ echo "{name} $*" >>"$CALLED"; }}' for name in EFFECTS)
        done = subprocess.run(
            [self._program, *self._shell[1:]],
            input="\n".join((*noted, "id() { echo 0; }", *lines, text)),
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=self._path.parent,
            env={
                "TMPDIR": str(self.temporary),
                **(env or {}),
                "PATH": str(self._path),
                "CALLED": str(self._log),
            },
        )
        called = self._log.read_text().splitlines()
        return Ended(
            status=done.returncode, out=done.stdout or "", err=done.stderr, called=tuple(called)
        )

    @property
    def left(self) -> list[str]:
        """What is left behind."""
        return sorted(os.listdir(self.temporary))


@pytest.fixture(params=SHELLS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    if shutil.which(SHELLS[request.param][0]) is None:
        pytest.skip(f"{request.param} is not installed")
    return Bench(request.param, tmp_path)


def rigged(text: str, *lines: str) -> str:
    """A script with other lines in place of its rig, its steps and what it needs."""
    begin = text[: text.index("\ntrap 'exit 77' ")]
    traps = re.findall(r"^trap .*$", text, re.MULTILINE)
    return "\n".join((begin, traps[-1], *lines))


@pytest.mark.parametrize("family", SCRIPTS)
def test_without_a_tool_nothing_is_undone_that_somebody_else_made(
    family: str, bench: Bench
) -> None:
    text = SCRIPTS[family]
    names = {*re.findall(r"\b([A-Za-z_]+)=", text)} - {"TMPDIR", "LC_ALL", "PATH"}
    needs = re.findall(r"^need (.*)$", text, re.MULTILINE)
    assert names >= {"work", "undo"}
    for tool in needs[0].split():
        ended = bench.run(
            text,
            f'command() {{ [ "$2" != {tool} ]; }}',
            'grep() { [ "$2" != /proc/filesystems ] || command grep "$@"; }',
            env=dict.fromkeys(names, INHERITED),
        )
        assert (ended.status, ended.out) == (77, f"CANNOT TELL: {tool} is not installed\n")
        assert [call for call in ended.called if not call.startswith("modprobe ")] == []
        assert (INHERITED in str(ended), bench.left) == (False, [])


LOSETUP = """\
#!/bin/sh
echo "losetup $*" >>"$CALLED"
case $1 in
-f) echo /dev/loop7 ;;
-j) echo "$OURS" ;;
-*=*) [ -n "$OURS" ] ;;
esac
"""
"""Of a device that was free a moment ago: ``OURS`` is what it says of it, if it was not taken meanwhile."""


@pytest.mark.parametrize("bench", ["dash"], indirect=True)
@pytest.mark.parametrize("ours", ["/dev/loop7: [0042]:2 (image)", ""])
def test_the_rig_is_undone_in_turn_but_for_what_it_did_not_get(bench: Bench, ours: str) -> None:
    text = SCRIPTS["loop_enospc"]
    rig = text[: text.index("# -- the steps")]
    bench.program("losetup", LOSETUP)
    ended = bench.run(rig + "exit 5\n", "command() { :; }", "unset -f losetup", env={"OURS": ours})
    called = " ".join(call.split(" -o ")[0].split("=")[0] for call in ended.called)
    assert re.sub(rf"{bench.temporary}/[^ ]*/", "", called) == (
        "modprobe -q loop mount -t tmpfs losetup -f losetup --direct-io losetup -j image"
        + (" losetup -d /dev/loop7" if ours else "")
        + " umount back"
    )
    assert (ended.status, bench.left) == (5 if ours else 77, [])


def test_an_array_that_is_not_made_is_not_stopped(bench: Bench) -> None:
    """Its name is somebody else's if two scripts run at once."""
    text = SCRIPTS["md_raid"]
    lines = text[text.index("array=100\n") : text.index("FS=$work/fs")]
    for made, stops in ((0, 1), (1, 0)):
        mdadm = f'mdadm() {{ echo "mdadm $1 $2" >>"$CALLED"; return {made}; }}'
        ended = bench.run(rigged(text, "LEG= SPARE=", lines, "exit 5"), mdadm)
        assert [call.split()[1] for call in ended.called if "mdadm" in call] == [
            "--create",
            *["--stop"] * stops,
        ]
        assert (ended.status, bench.left) == ((77, []) if made else (5, []))


def test_a_gauge_does_not_go_by_a_request_of_the_environment(bench: Bench) -> None:
    text = rigged(SCRIPTS["loop_enospc"], 'stat() { echo "8192 * 1"; }', "gauge", 'echo "$arrived"')
    ended = bench.run(text, env={"request": "1048576", "BACK": "/"})
    assert (ended.status, ended.out) == (0, "no\n")


def test_without_a_temporary_directory_nothing_is_done(bench: Bench) -> None:
    before = sorted(os.listdir(bench.temporary.parent))
    ended = bench.run(SCRIPTS["loop_enospc"], env={"TMPDIR": "/nonexistent"})
    assert (ended.status, ended.out) == (77, "CANNOT TELL: no temporary directory\n")
    assert ended.called == ()
    assert sorted(os.listdir(bench.temporary.parent)) == sorted([*before, "log"])


UNDO = """later 'echo undone && losetup "$work"'"""


@pytest.fixture
def heard() -> Iterator[None]:
    """As from a terminal: who is started by nohup, or in the background of a script, has these ignored, and
    a shell cannot trap what was ignored when it began.
    """
    before = {
        number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGHUP, signal.SIGINT)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("name", ["HUP", "INT", "PIPE", "TERM"])
def test_a_signal_ends_it_and_the_rig_is_undone(bench: Bench, name: str) -> None:
    lines = (UNDO, "later 'kill -s TERM $$'", f"kill -s {name} $$", "say on", "exit 5")
    ended = bench.run(rigged(SCRIPTS["loop_enospc"], *lines))
    assert (ended.status, ended.out, len(ended.called), bench.left) == (77, "", 1, [])


def test_when_nobody_reads_it_any_more_the_rig_is_undone(bench: Bench) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        lines = (UNDO, "say on", "exit 5")
        ended = bench.run(rigged(SCRIPTS["loop_enospc"], *lines), stdout=write)
    finally:
        os.close(write)
    assert (ended.status, len(ended.called), bench.left) == (77, 1, [])


def reliefs() -> dict[str, tuple[str, str]]:
    """Of every relief its first line and a script that has it, by that line's first words."""
    found: dict[str, tuple[str, str]] = {}
    for _, text in MADE:
        if "\nstep relieve\n" not in text:
            continue
        lines = text.split("\nstep relieve\n")[1].partition("\nverify")[0].splitlines()
        first = next(line for line in lines if not line.startswith("#"))
        found.setdefault(" ".join(re.findall(r"[a-z-]+", first)[:2]), (first, text))
    return found


RELIEFS = reliefs()


@pytest.mark.parametrize("bench", ["dash"], indirect=True)
@pytest.mark.parametrize("relief", RELIEFS)
def test_where_the_relief_is_refused_nobody_is_accused(relief: str, bench: Bench) -> None:
    line, text = RELIEFS[relief]
    names = {*re.findall(r"\$([A-Z_]+)", line)}
    given = [f"{name}=/nonexistent" for name in sorted(names)]
    refused = [f"{name}() {{ return 1; }}" for name in EFFECTS]
    some = ("before=1 zram=/nonexistent thin_taken=512", "groups=/nonexistent")
    ended = bench.run(rigged(text, *refused, *given, *some, line, "echo went on"))
    assert (ended.status, ended.out.startswith("CANNOT TELL: ")) == (77, True)


def test_every_relief_is_met() -> None:
    commands = {name.split()[0] for name in RELIEFS}
    assert commands == {"detach", "dm", "dmsetup", "echo", "mount", "rm", "setquota", "thin"}
    assert {"echo max", "echo sys"} <= {*RELIEFS}


@pytest.mark.parametrize(
    ("before", "free", "meanwhile"), [(0, 0, 8), (4, 4, 8), (64, 64, 64), (64, 0, 72), (64, 3, 69)]
)
def test_huge_pages_are_added_for_a_time_and_none_is_taken_away(
    tmp_path: Path, before: int, free: int, meanwhile: int
) -> None:
    number, told = tmp_path / "nr_hugepages", tmp_path / "meminfo"
    number.write_text(f"{before}\n")
    told.write_text(f"HugePages_Total:   {before}\nHugePages_Free:    {free}\n")
    functions = FUNCTIONS["later"].text + FUNCTIONS["huge"].text
    moved = functions.replace("/proc/sys/vm/nr_hugepages", str(number))
    moved = moved.replace("/proc/meminfo", str(told))
    lines = (moved, "huge_pages", f"cat {number}", 'eval "$undo"', f"cat {number}")
    done = subprocess.run(
        ["sh", "-u"], input="\n".join(lines), capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.stderr) == ([str(meanwhile), str(before)], "")


@pytest.mark.parametrize("there", [False, True])
def test_cgroups_are_mounted_beside_what_the_machine_has(bench: Bench, there: bool) -> None:
    top = bench.temporary.parent / "cgroup"
    top.mkdir()
    if there:
        (top / "cgroup.controllers").write_text("memory io\n")
    moved = FUNCTIONS["cgroups"].text.replace("/sys/fs/cgroup", str(top))
    lines = (f"groups={top}/reproduce.7", moved, 'cgroups "a/b"', 'say "$groups"')
    ended = bench.run(rigged(SCRIPTS["loop_enospc"], *lines, "exit 5"))
    place = ended.out.strip().removesuffix("/reproduce.7")
    if there:
        assert (place, ended.called) == (str(top), ())
    else:
        assert Path(place).parents[1] == bench.temporary
        assert ended.called == (f"mount -t cgroup2 none {place}", f"umount {place}")
    assert (ended.status, bench.left) == (5, [])


def test_cgroups_are_removed_from_the_innermost_on(bench: Bench) -> None:
    """Of plain directories, whose files are none of the kernel's."""
    text = SCRIPTS["loop_memcg"]
    undo = re.findall(r"^ *(later 'find .*)$", text, re.MULTILINE)
    lines = ("groups=$work/groups", 'mkdir -p "$groups/a/b" "$groups/c"', *undo, 'eval "$undo"')
    assert bench.run(rigged(text, *lines, '[ -e "$groups" ] || exit 5')).status == 5
