"""What docs/security.md promises: of QEMU's command line, of reports, of paths."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lxml import etree
from lxml import html as lxml_html
from rich.console import Console
from rich.table import Table
from rich.text import Text

from conformance.commands.common import console as console_on
from conformance.commands.common import say, say_traceback, tell
from conformance.library import LibraryErrors, load_library
from conformance.machine.qemu import Fds, Role, Spec, Version, argv
from conformance.model import ArmSeen, Observation, Status
from conformance.progress import display, preparing
from conformance.report.console import print_summary
from conformance.report.formats import FORMATS
from conformance.report.result import Asked, Result
from conformance.runner import Outcome
from conformance.session import result_of
from tests.support.case_tree import plant
from tests.support.results import finding, result, variant

ASKED = Asked(folder="results/runs/now")

# -- QEMU ---------------------------------------------------------------------------------------

FDS = Fds(qmp=10, agent=11, console=12, root=13, modules=14, scratch=15, kernel=16, initrd=17,
          memory=18)  # fmt: skip


def words(role: Role, number: tuple[int, int] = (7, 2)) -> list[str]:
    version = Version(binary="qemu", number=number, text="QEMU")
    return argv(Spec(version=version, accel="tcg", memory_mib=64, cpus=1, role=role, fds=FDS))


ROLES: tuple[Role, ...] = ("boot", "template", "clone")
SHARES = re.compile(
    r"netdev|\bnic\b|virtio-net|e1000|slirp|user,|tap,|bridge|virtfs|fsdev|9p|virtiofs|vhost|smb=|tftp="
    r"|hostfwd|guestfwd|usb-host|vfio|spice|vnc|monitor|gdb|0\.0\.0\.0|::|tcp:|\bport="
)
"""What would let a guest reach something, or somebody a guest."""


def test_a_clone_reads_no_kernel_of_its_own() -> None:
    assert [role for role in ROLES if "-kernel" not in words(role)] == ["clone"]


def wrong(line: list[str]) -> list[str]:
    """What a command line has that it must not, or lacks."""
    found = [word for word in line if SHARES.search(word)]
    if "-nodefaults" not in line or "-no-user-config" not in line:
        found.append("defaults")
    sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    if "-sandbox" not in line or line[line.index("-sandbox") + 1] != sandbox:
        found.append("no sandbox")
    for name in ("root", "modules"):
        (disk,) = [word for word in line if f"node-name={name}," in word]
        if "read-only=on" not in disk.split(","):
            found.append(disk)
    # Every file is a descriptor that QEMU inherits; it is told no path of the host.
    found += [word for word in line if re.search(r"(^|=)/(?!dev/fdset/\d|proc/self/fd/\d)", word)]
    return found


@pytest.mark.parametrize("number", [(7, 2), (10, 0)])
@pytest.mark.parametrize("role", ROLES)
def test_a_guest_is_alone(role: Role, number: tuple[int, int]) -> None:
    assert wrong(words(role, number)) == []


@pytest.mark.parametrize(
    "planted",
    [
        lambda line: [*line, "-nic", "user"],
        lambda line: [*line, "-netdev", "user,id=n"],
        lambda line: [*line, "-device", "virtio-net-pci"],
        lambda line: [*line, "-virtfs", "local,path=/srv,mount_tag=x,security_model=none"],
        lambda line: [*line, "-drive", "file=/dev/vda"],
        lambda line: [*line, "-monitor", "tcp:0.0.0.0:4444"],
        lambda line: [word for word in line if word != "-nodefaults"],
        lambda line: [word for word in line if word != "-sandbox"],
        lambda line: [word.replace("spawn=deny", "spawn=allow") for word in line],
        lambda line: [word.replace("read-only=on", "read-only=off") for word in line],
    ],
)
def test_a_guest_that_is_not_alone_is_seen(planted: Callable[[list[str]], list[str]]) -> None:
    assert wrong(planted(words("clone")))


def test_a_clone_does_not_write_into_its_template() -> None:
    (memory,) = [word for word in words("clone") if word.startswith("memory-backend-file")]
    assert "share=off" in memory.split(",")


# -- what a guest wrote -------------------------------------------------------------------------

EVIL = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)>]]><evil a='\"'>&amp;&evil;"
    "\x1b[2J\x1b]0;title\x07\x00\x08\x0b\x1f\x7f\x9b31m\ufffe\ud800\u202e"
    "\nnot ok 9 - evil\nok 8 evil\n<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=evil RESULT=pass>\n- name: evil"
)


def evil() -> list[Result]:
    """Whatever text of a result may come from a guest, is evil."""
    found = finding(expected=EVIL, observed=EVIL, signature=EVIL, step=EVIL, evidence=(EVIL,))
    return [
        result(Status.FAIL, found, of=variant("fails")),
        result(Status.BROKEN, of=variant("broken"), reasons=(EVIL,)),
        result(Status.SKIP, of=variant("skipped"), reasons=(EVIL,)),
        result(Status.RECORDED, of=variant("surveyed"), notes=(EVIL,)),
    ]


def made(name: str) -> str:
    text = FORMATS[name](evil(), ASKED, started="2026-11-24T08:00:00")
    # As files are written, for which lone surrogates are no reason to fail.
    return text.encode("utf-8", "backslashreplace").decode()


def names(value: Any) -> set[str]:
    """The keys of JSON or YAML, however deep."""
    if isinstance(value, dict):
        return set(value) | {name for item in value.values() for name in names(item)}
    return {name for item in value for name in names(item)} if isinstance(value, list) else set()


def check_xml(text: str) -> None:
    root = etree.fromstring(text.encode())
    assert not root.findall(".//evil")
    assert not root.findall(".//script")
    assert len(root.findall(".//testcase")) == len(evil())


def check_html(text: str) -> None:
    root = lxml_html.document_fromstring(text)
    assert not list(root.iter("img", "evil"))
    assert "alert(1)" not in "".join(
        script.text or "" for script in root.iter("script") if script.get("type") is None
    )
    for one in root.iter():
        assert not [name for name in one.attrib if name.startswith("on")]


def check_lines(pattern: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        assert not re.search(pattern, text, re.MULTILINE)

    return check


def check_json(text: str) -> None:
    assert "evil" not in names(json.loads(text))


def check_tmt(text: str) -> None:
    entries = yaml.safe_load(text)
    assert len(entries) == len(evil())
    assert all(entry["name"].startswith("/loop_enospc/") for entry in entries)


CHECKS: dict[str, Callable[[str], None]] = {
    "html": check_html,
    "junit": check_xml,
    "junit-strict": check_xml,
    "ktap": check_lines(r"^\s*(not )?ok \d+ (- )?evil"),
    "kcidb": check_json,
    "squad": check_json,
    "lava": check_lines(r"^<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=evil"),
    "tmt": check_tmt,
    # Of numbers and the cases' own names.
    "timing": check_lines("evil|alert"),
    "durations": check_lines("evil|alert"),
}


def test_no_format_is_without_a_check() -> None:
    assert set(CHECKS) == set(FORMATS)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_what_a_guest_wrote_stays_text(name: str) -> None:
    text = made(name)
    assert not set(text) & set("\x00\x07\x08\x0b\x1b\x1f\ufffe")
    CHECKS[name](text)


def test_a_terminal_is_not_written_to_by_a_guest() -> None:
    out = io.StringIO()
    console = Console(file=out, width=200, highlight=False)
    print_summary(evil(), ASKED, console)
    with display(console, len(evil()), ASKED) as live:
        for one in evil():
            live.finished("name", one)
    assert not set(out.getvalue()) & set("\x00\x07\x08\x1b\x9b")
    told = [line for line in out.getvalue().splitlines() if line.startswith("[")]
    assert len(told) == len(evil())


class Terminal(io.StringIO):
    """A terminal, to rich."""

    def isatty(self) -> bool:
        return True


OWNED = "\x1b]0;owned\x07\x1b[2J\x9b2J"
"""A title for the terminal's window, and a screen wiped twice."""


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_terminal_is_not_written_to_before_the_first_case(stream: type[io.StringIO]) -> None:
    out = stream()
    with preparing(console_on(out)) as progress:
        progress(f"a template is not to be had: {OWNED} [red]panic")
    console_on(out).print(Text(f"lacks {OWNED}"), f"for {OWNED}", style="bold")
    table = Table(title=Text(OWNED))
    table.add_row(OWNED)
    console_on(out).print(table)
    told = out.getvalue()
    assert "owned" in told
    assert "[red]panic" in told
    assert not {"\x07", "\x9b"} & set(told)
    assert "\x1b]" not in told
    assert "\x1b[2J" not in told
    assert "\x1b[1m" in told or stream is not Terminal  # rich's own are left


def test_no_line_of_a_command_s_writes_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"the guest's init failed: {OWNED}\nand more")
    tell(f"no module x{OWNED}\tat all")

    def fail() -> None:
        raise ValueError(OWNED)

    try:
        fail()
    except ValueError:
        say_traceback()
    told, wrong = capsys.readouterr()
    assert told == "no module x]0;owned\tat all\n"
    assert wrong.startswith(
        "conform: the guest's init failed: ]0;owned\nconform: and more\nTraceback"
    )
    assert wrong.endswith("ValueError: ]0;owned\n")


# -- paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("console", ["/etc/passwd", "../../etc/passwd", "consoles/../../x", ""])
def test_a_record_names_no_path_outside_its_folder(console: str) -> None:
    of = variant()
    arms = (ArmSeen(name="main", console=console), ArmSeen(name="more", console="consoles/a.log"))
    seen = Observation(case=of.case, values=of.values, kernel="k", release="6.1", arms=arms)
    outcome = Outcome(plan=None, observation=seen, verdict=result(Status.PASS).verdict)
    assert result_of(of, outcome).consoles == ("consoles/a.log",)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rig: stack", "rig: ../../stack"),
        ("rig: stack", "rig: /etc/stack"),
        ('loop_dio: ["off", "on"]', 'loop_dio: ["off", "on", "../../x"]'),
        ("cgroups: [limited,", "cgroups: [../../x, limited,"),
        ("{name: idle,", "{name: ../x,"),
    ],
)
def test_a_case_names_no_path_outside_its_folder(old: str, new: str, tmp_path: Path) -> None:
    plant(tmp_path, ("case", old, new))
    with pytest.raises(LibraryErrors):
        load_library([tmp_path / "cases"], tmp_path / "fixtures")
