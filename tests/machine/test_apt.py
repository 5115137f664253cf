"""Which mirror, which sources, which packages; and nothing asked of the network twice."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from conformance.machine.apt import (
    SUITES,
    Apt,
    AptError,
    Mirrors,
    dependencies,
    host_mirrors,
    parse_record,
    sources,
)
from conformance.machine.cache import Cache
from conformance.machine.tool import ArtifactError, ToolError, run, telling_line

MIRRORS = Mirrors(main="http://mirror.example/debian", security="http://mirror.example/security")
KERNEL = re.compile(r"linux-(image|binary|modules|base)-.+")

RECORDS = {
    "linux-image-cloud-amd64": (
        "Depends: linux-base-cloud-amd64 (= 7.2-1), linux-image-7.2 (= 7.2-1)"
    ),
    "linux-base-cloud-amd64": "Depends: linux-base-7.2 (= 7.2-1)",
    "linux-base-7.2": "Depends: linux-base (>= 4.3~)",
    "linux-image-7.2": (
        "Depends: dracut | initramfs-tools, linux-base-7.2 (= 7.2-1),"
        " linux-binary-7.2 (= 7.2-1), linux-modules-7.2 (= 7.2-1)"
    ),
    "linux-binary-7.2": "",
    "linux-modules-7.2": "",
}


class FakeApt:
    """Stands in for apt-get and apt-cache; remembers what it was asked."""

    def __init__(self, records: Mapping[str, str], failing: str = "", said: str = "E: no") -> None:
        self.records = records
        self.failing = failing
        self.said = said
        self.asked: list[str] = []

    def __call__(self, argv: Sequence[str | Path], *, cwd: Path | None = None) -> bytes:
        words = [str(word) for word in argv]
        self.asked.append(" ".join(words))
        if self.failing and self.failing in words:
            raise ToolError(f"{words[0]} failed (exit 100): {self.said}")
        if "show" in words:
            name = words[-1]
            if name not in self.records:
                raise ToolError("apt-cache failed (exit 100): E: No packages found")
            return (
                f"Package: {name}\nVersion: 7.2-1\n{self.records[name]}\nSHA256: {name}sum\n"
                "Description: a\n continued: line\n\nPackage: other\n"
            ).encode()
        if "download" in words:
            assert cwd is not None
            for wanted in words[words.index("download") + 1 :]:
                name, version = wanted.split("=")
                (cwd / f"{name}_{version.replace(':', '%3a')}_amd64.deb").touch()
        return b""


def apt(tmp_path: Path, tool: FakeApt, suite: str = "sid") -> Apt:
    return Apt(suite=suite, cache=Cache(root=tmp_path), mirrors=lambda: MIRRORS, tool=tool)


def targets(*lines: str) -> FakeTargets:
    return FakeTargets("".join(f"{line}\n" for line in lines))


class FakeTargets:
    """Stands in for `apt-get indextargets` on a host with the given answer."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def __call__(self, argv: Sequence[str | Path], *, cwd: Path | None = None) -> bytes:
        assert argv[1] == "indextargets"
        return self.answer.encode()


def test_mirrors_are_those_of_the_host() -> None:
    found = host_mirrors(
        {},
        tool=targets(
            "http://third.example stable Packages Third http://third.example/apt/",
            "http://m.example/debian bookworm Packages Debian http://m.example/debian/",
            "http://m.example/debian bookworm Translations Debian http://no.example/debian/",
            "http://m.example/debian bookworm-updates Packages Debian http://u.example/debian/",
            "http://s.example/sec bookworm-security Packages Debian http://s.example/sec/",
        ),
    )
    assert found == Mirrors(main="http://m.example/debian", security="http://s.example/sec")


def test_security_archive_is_beside_the_archive_when_unknown() -> None:
    found = host_mirrors(
        {}, tool=targets("http://m.example/debian sid Packages Debian http://m.example/debian/")
    )
    assert found.security == "http://m.example/debian-security"


def test_environment_names_another_mirror() -> None:
    nothing = targets()
    found = host_mirrors({"CONFORM_DEBIAN_MIRROR": "http://e.example/debian/"}, tool=nothing)
    assert found.main == "http://e.example/debian"
    assert found.security == "http://e.example/debian-security"
    found = host_mirrors(
        {
            "CONFORM_DEBIAN_MIRROR": "http://e.example/debian",
            "CONFORM_DEBIAN_SECURITY_MIRROR": "http://f.example/s",
        },
        tool=nothing,
    )
    assert found.security == "http://f.example/s"


def test_host_without_a_debian_mirror_is_told_what_to_set() -> None:
    other = targets("http://u.example/ubuntu noble Packages Ubuntu http://u.example/ubuntu/")
    with pytest.raises(AptError, match="set CONFORM_DEBIAN_MIRROR"):
        host_mirrors({}, tool=other)


def test_stable_suites_have_pockets_and_others_do_not() -> None:
    assert [line.split("] ")[1] for line in sources("bookworm", MIRRORS).splitlines()] == [
        "http://mirror.example/debian bookworm main",
        "http://mirror.example/debian bookworm-updates main",
        "http://mirror.example/security bookworm-security main",
    ]
    for suite in ("sid", "experimental", "trixie-backports"):
        assert len(sources(suite, MIRRORS).splitlines()) == 1


@pytest.mark.parametrize("suite", SUITES)
def test_every_source_is_verified(suite: str) -> None:
    for line in sources(suite, MIRRORS).splitlines():
        assert "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg" in line
        assert "trusted" not in line


def test_unknown_suite_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(AptError, match="'warty' is not a Debian suite known here"):
        apt(tmp_path, FakeApt(RECORDS), suite="warty").resolve("linux", follow=KERNEL)


def test_resolution_follows_only_what_was_asked(tmp_path: Path) -> None:
    found = apt(tmp_path, FakeApt(RECORDS)).resolve("linux-image-cloud-amd64", follow=KERNEL)
    assert {item.name for item in found} == set(RECORDS)
    assert {item.version for item in found} == {"7.2-1"}
    assert found[0].sha256 == "linux-image-cloud-amd64sum"


def test_a_known_resolution_needs_no_tool_and_no_mirror(tmp_path: Path) -> None:
    first = apt(tmp_path, FakeApt(RECORDS)).resolve("linux-image-cloud-amd64", follow=KERNEL)

    def offline() -> Mirrors:
        raise AssertionError("the mirror was asked for")

    idle = FakeApt({})
    again = Apt(suite="sid", cache=Cache(root=tmp_path), mirrors=offline, tool=idle)
    assert again.resolve("linux-image-cloud-amd64", follow=KERNEL) == first
    assert idle.asked == []


def test_refresh_and_forget_ask_again(tmp_path: Path) -> None:
    tool = FakeApt(RECORDS)
    suite = apt(tmp_path, tool)

    def updates() -> int:
        return sum("update" in line.split() for line in tool.asked)

    suite.resolve("linux-base-7.2", follow=KERNEL)
    assert updates() == 1
    suite.resolve("linux-base-7.2", follow=KERNEL, refresh=True)
    assert updates() == 2
    suite.forget("linux-base-7.2")
    suite.resolve("linux-base-7.2", follow=KERNEL)
    assert updates() == 3


def test_a_failed_update_is_not_remembered(tmp_path: Path) -> None:
    with pytest.raises(AptError, match=r"cannot read the package lists of sid.*CONFORM_DEBIAN"):
        apt(tmp_path, FakeApt(RECORDS, failing="update")).resolve("linux-base-7.2", follow=KERNEL)
    assert apt(tmp_path, FakeApt(RECORDS)).resolve("linux-base-7.2", follow=KERNEL)


def test_a_cache_that_cannot_be_written_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    here = apt(tmp_path / "file", FakeApt(RECORDS))
    with pytest.raises(ArtifactError, match=r"cannot be written .* CONFORM_CACHE"):
        here.resolve("linux-image-cloud-amd64", follow=KERNEL)
    with pytest.raises(ArtifactError, match=r"cannot be written .* CONFORM_CACHE"):
        here.download([], tmp_path)


def test_a_missing_package_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(AptError, match=r"^sid has no package linux-nothing$"):
        apt(tmp_path, FakeApt(RECORDS)).resolve("linux-nothing", follow=KERNEL)


def test_download_answers_with_the_files(tmp_path: Path) -> None:
    suite = apt(tmp_path / "cache", FakeApt(RECORDS))
    found = suite.resolve("linux-binary-7.2", follow=KERNEL)
    files = suite.download(found, tmp_path)
    assert [path.name for path in files] == ["linux-binary-7.2_7.2-1_amd64.deb"]


def test_a_failed_download_is_one_line(tmp_path: Path) -> None:
    suite = apt(tmp_path / "cache", FakeApt(RECORDS, failing="download"))
    found = suite.resolve("linux-binary-7.2", follow=KERNEL)
    with pytest.raises(AptError, match=r"cannot download linux-binary-7.2=7.2-1 of sid"):
        suite.download(found, tmp_path)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (
            "E: Could not get lock /x/lists/lock. It is held by process 7 (apt-get)",
            "wait for its end",
        ),
        ("E: Failed to fetch http://mirror.example/debian", "is the mirror reachable?"),
    ],
)
def test_lists_that_cannot_be_read_come_with_what_to_do(
    tmp_path: Path, said: str, hint: str
) -> None:
    suite = apt(tmp_path, FakeApt(RECORDS, failing="update", said=said))
    with pytest.raises(
        AptError, match=re.escape(f"of sid: apt-get failed (exit 100): {said} (")
    ) as e:
        suite.resolve("linux-base-7.2", follow=KERNEL)
    assert hint in str(e.value)


def test_configuration_shares_nothing_with_the_host(tmp_path: Path) -> None:
    apt(tmp_path, FakeApt(RECORDS)).resolve("linux-base-7.2", follow=KERNEL)
    text = (tmp_path / "apt/sid/apt.conf").read_text()
    for setting in ("Dir::State ", "Dir::Cache ", "Dir::Etc::sourcelist "):
        assert f'{setting}"{tmp_path}' in text
    assert 'Dir::Etc::sourceparts "/dev/null"' in text
    assert 'Dir::Etc::trustedparts "/dev/null"' in text
    assert 'AllowInsecureRepositories "false"' in text
    json.loads((tmp_path / "notes/resolved.sid.linux-base-7.2").read_text())


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt-get")
def test_an_unsigned_mirror_is_refused(tmp_path: Path) -> None:
    suite = tmp_path / "mirror/dists/sid"
    (suite / "main/binary-amd64").mkdir(parents=True)
    (suite / "main/binary-amd64/Packages").write_text("Package: linux-image-x\nVersion: 1\n")
    (suite / "Release").write_text("Origin: Debian\nSuite: sid\nCodename: sid\nComponents: main\n")
    here = Mirrors(main=f"file:{tmp_path}/mirror", security="")
    with pytest.raises(AptError, match=r"sid.*is not signed"):
        Apt(
            suite="sid", cache=Cache(root=tmp_path / "cache"), mirrors=lambda: here, tool=run
        ).resolve("linux-image-x", follow=KERNEL)


def test_records_and_dependencies() -> None:
    record = parse_record(
        "Package: a\nDepends: b (>= 1:2) | c, d:any\nPre-Depends: e\n f: g\n\nX: y\n"
    )
    assert dependencies(record) == ["e", "b", "d"]
    assert "X" not in record
    assert dependencies({}) == []


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("W: a\nE: b\nE: c\n", "E: b"),
        ("checking\ndepmod: ERROR: bad\nbye\n", "depmod: ERROR: bad"),
        ("first\nlast\n\n", "last"),
        ("", "it said nothing"),
    ],
)
def test_the_line_that_tells(said: str, line: str) -> None:
    assert telling_line(said) == line


def test_a_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        __import__("conformance.machine.tool", fromlist=["x"]).PACKAGE_OF, "no-such-tool", "pkg"
    )
    with pytest.raises(ToolError, match=r"^no-such-tool is not installed: apt install pkg$"):
        run(["no-such-tool"])


def test_a_failing_tool_is_one_line() -> None:
    with pytest.raises(ToolError, match=r"^sh failed \(exit 3\): E: two$"):
        run(["sh", "-c", "echo one >&2; echo 'E: two' >&2; exit 3"])
