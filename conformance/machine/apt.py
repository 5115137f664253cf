"""Packages of a named Debian suite, through an apt that shares nothing with the host's.

The host keeps its own releases, pins and package lists; this apt has its own state, its own lists
and one suite's sources each, and verifies signatures against the Debian archive keyring. What it
does share is how to reach a mirror: the address comes from the host's own apt configuration, or
from CONFORM_DEBIAN_MIRROR, and proxy settings are the host's.

A resolution (which package versions a suite offered) is remembered in the cache, so that a later
run needs no network and boots the same bytes; only `refresh=True` asks the mirror again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from conformance.machine.cache import Cache
from conformance.machine.tool import ArtifactError, ToolError, run, telling_line

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ARCHITECTURE = "amd64"

# Releases with an -updates and a -security pocket; the others stand alone.
_STABLE = ("bullseye", "bookworm", "trixie", "forky")
_ALONE = ("sid", "experimental")
SUITES = (*_STABLE, *(f"{name}-backports" for name in _STABLE), *_ALONE)

# What the host's sources may call a Debian release, besides the names above.
_ALIASES = ("oldoldstable", "oldstable", "stable", "testing", "unstable", "rc-buggy", "buster")

_FIELDS = ("$(SITE)", "$(RELEASE)", "$(CREATED_BY)", "$(ORIGIN)", "$(REPO_URI)")


class Run(Protocol):
    """Runs a host tool: `tool.run`, or a test's stand-in. Raises ToolError."""

    def __call__(self, argv: Sequence[str | Path], *, cwd: Path | None = None) -> bytes:
        """Run `argv` in `cwd` and return its standard output."""


class AptError(ArtifactError):
    """A suite or package cannot be had from the mirror."""


@dataclass(frozen=True, kw_only=True)
class Mirrors:
    """Base addresses of the Debian archive and of its security archive."""

    main: str
    security: str


@dataclass(frozen=True, kw_only=True)
class Package:
    """One binary package as a suite offers it. `sha256` is the archive's own, for the .deb file."""

    name: str
    version: str
    sha256: str


def host_mirrors(environ: Mapping[str, str] | None = None, *, tool: Run = run) -> Mirrors:
    """The mirrors to use: CONFORM_DEBIAN_MIRROR, else those of the host's own apt.

    CONFORM_DEBIAN_SECURITY_MIRROR names the security archive; else it is taken from the host's
    apt, else it is the `debian-security` beside the archive's `debian`. Raises AptError when the
    host (not a Debian, say) configures none.
    """
    env = os.environ if environ is None else environ
    main = env.get("CONFORM_DEBIAN_MIRROR", "").rstrip("/")
    security = env.get("CONFORM_DEBIAN_SECURITY_MIRROR", "").rstrip("/")
    if not main:
        main, host_security = _configured(tool)
        security = security or host_security
    if not main:
        raise AptError(
            "no Debian mirror is known here: set CONFORM_DEBIAN_MIRROR to the address of one"
            " (the directory that holds dists/ and pool/)"
        )
    if not security:
        security = re.sub(r"/debian$", "", main) + "/debian-security"
    return Mirrors(main=main, security=security)


def _configured(tool: Run) -> tuple[str, str]:
    main = security = ""
    targets = tool(["apt-get", "indextargets", "--format", " ".join(_FIELDS)]).decode()
    for line in targets.splitlines():
        words = line.split(" ")
        if len(words) != len(_FIELDS) or words[2] != "Packages":
            continue
        _, release, _, origin, address = words
        if origin not in ("Debian", ""):
            continue
        release = release.removesuffix("/updates")
        base = re.sub(r"-(security|updates|backports|proposed-updates)$", "", release)
        if base not in (*_STABLE, *_ALONE, *_ALIASES):
            continue
        if release.endswith("-security"):
            security = security or address.rstrip("/")
        else:
            main = main or address.rstrip("/")
    return main, security


def sources(suite: str, mirrors: Mirrors) -> str:
    """The text of a sources.list for one suite with its security and updates pockets.

    Raises AptError for a name that is not one of SUITES.
    """
    if suite not in SUITES:
        raise AptError(
            f"{suite!r} is not a Debian suite known here: use one of {', '.join(SUITES)}"
        )
    places = [(mirrors.main, suite)]
    if suite in _STABLE:
        places.append((mirrors.main, f"{suite}-updates"))
        places.append((mirrors.security, f"{suite}-security"))
    options = f"[arch={ARCHITECTURE} signed-by={KEYRING}]"
    return "".join(f"deb {options} {address} {name} main\n" for address, name in places)


@dataclass(frozen=True, kw_only=True)
class Apt:
    """One suite's packages. `mirrors` is asked for only when the network is really needed."""

    suite: str
    cache: Cache
    mirrors: Callable[[], Mirrors] = host_mirrors
    tool: Run = run

    def resolve(
        self, package: str, *, follow: re.Pattern[str], refresh: bool = False
    ) -> tuple[Package, ...]:
        """The package and those of its dependencies, transitively, whose names match `follow`.

        Answered from the cache unless `refresh`. Raises AptError when the suite has no such
        package or the mirror does not answer.
        """
        if self.suite not in SUITES:
            sources(self.suite, Mirrors(main="", security=""))  # raises
        note = f"resolved.{self.suite}.{package}"
        known = None if refresh else self.cache.note(note)
        if known is not None:
            return tuple(Package(**item) for item in json.loads(known))
        with self.cache.lock(f"apt.{self.suite}"):
            configuration = self._configure()
            self._update(configuration)
            found = self._closure(configuration, package, follow)
        self.cache.write_note(note, json.dumps([asdict(item) for item in found], indent=1))
        return found

    def knows(self, package: str) -> bool:
        """Whether `resolve` can answer without the mirror."""
        return self.cache.note(f"resolved.{self.suite}.{package}") is not None

    def forget(self, package: str) -> None:
        """Forget what `resolve` remembers of a package: it turned out not to be had."""
        self.cache.forget_note(f"resolved.{self.suite}.{package}")

    def download(self, packages: Sequence[Package], directory: Path) -> tuple[Path, ...]:
        """Fetch the packages' .deb files into a directory, verified; their paths, in order.

        Raises AptError when the mirror does not answer, or no longer has that version.
        """
        names = [f"{item.name}={item.version}" for item in packages]
        with self.cache.lock(f"apt.{self.suite}"):
            configuration = self._configure()
            if not any((self._home() / "lists").glob("*Packages*")):
                self._update(configuration)
            try:
                # It writes into the working directory and has no option to say where.
                self.tool(["apt-get", "-c", configuration, "download", *names], cwd=directory)
            except ToolError as error:
                raise AptError(
                    f"cannot download {', '.join(names)} of {self.suite}: {error}"
                    " (if the mirror has moved on, the next run asks it for what it has now)"
                ) from error
            finally:
                # Tens of megabytes that apt makes again in seconds from the lists, if ever needed.
                for index in ("pkgcache.bin", "srcpkgcache.bin"):
                    (self._home() / index).unlink(missing_ok=True)
        return tuple(self._fetched(directory, item) for item in packages)

    @staticmethod
    def _fetched(directory: Path, package: Package) -> Path:
        version = package.version.replace(":", "%3a")
        matches = sorted(directory.glob(f"{package.name}_{version}_*.deb"))
        if len(matches) != 1:
            raise AptError(f"apt fetched no file for {package.name}={package.version}")
        return matches[0]

    def _home(self) -> Path:
        return self.cache.root / "apt" / self.suite

    def _configure(self) -> Path:
        """Write this apt's configuration; it is read after the host's and overrides it."""
        home = self._home()
        for part in ("lists/partial", "archives/partial"):
            (home / part).mkdir(parents=True, exist_ok=True)
        (home / "status").touch()
        (home / "sources.list").write_text(sources(self.suite, self.mirrors()))
        configuration = home / "apt.conf"
        configuration.write_text(
            # A host may run hooks after an update, or have no package cache on disk; not here.
            "#clear APT::Update;\n"
            "#clear DPkg::Post-Invoke;\n"
            "#clear Acquire::IndexTargets::deb::Contents-deb;\n"
            "#clear Acquire::IndexTargets::deb::DEP-11;\n"
            f'Dir::State "{home}";\n'
            f'Dir::State::lists "{home}/lists";\n'
            f'Dir::State::status "{home}/status";\n'
            f'Dir::Cache "{home}";\n'
            'Dir::Cache::archives "archives";\n'
            'Dir::Cache::pkgcache "pkgcache.bin";\n'
            'Dir::Cache::srcpkgcache "srcpkgcache.bin";\n'
            f'Dir::Etc::sourcelist "{home}/sources.list";\n'
            'Dir::Etc::sourceparts "/dev/null";\n'
            'Dir::Etc::preferences "/dev/null";\n'
            'Dir::Etc::preferencesparts "/dev/null";\n'
            'Dir::Etc::trusted "/dev/null";\n'
            'Dir::Etc::trustedparts "/dev/null";\n'
            f'APT::Architecture "{ARCHITECTURE}";\n'
            f'#clear APT::Architectures;\nAPT::Architectures {{ "{ARCHITECTURE}"; }};\n'
            # apt's unprivileged helper user cannot write into a cache in somebody's home.
            'APT::Sandbox::User "root";\n'
            'APT::Get::AllowUnauthenticated "false";\n'
            'Acquire::AllowInsecureRepositories "false";\n'
            'Acquire::Languages "none";\n'
            'Acquire::GzipIndexes "true";\n'
            'Acquire::Retries "3";\n'
        )
        return configuration

    def _update(self, configuration: Path) -> None:
        if not KEYRING.exists():
            raise AptError(f"{KEYRING} is missing: apt install debian-archive-keyring")
        try:
            self.tool(["apt-get", "-c", configuration, "--error-on=any", "update"])
        except ToolError as error:
            if "Could not get lock" in str(error):
                hint = "another apt-get is at work there: wait for its end, or end it"
            else:
                hint = "is the mirror reachable? CONFORM_DEBIAN_MIRROR names another"
            raise AptError(
                f"cannot read the package lists of {self.suite}: {error} ({hint})"
            ) from error

    def _closure(
        self, configuration: Path, package: str, follow: re.Pattern[str]
    ) -> tuple[Package, ...]:
        found: dict[str, Package] = {}
        wanted = [package]
        while wanted:
            name = wanted.pop(0)
            if name in found:
                continue
            record = self._record(configuration, name)
            found[name] = Package(
                name=name, version=record["Version"], sha256=record.get("SHA256", "")
            )
            wanted += [item for item in dependencies(record) if follow.fullmatch(item)]
        return tuple(found.values())

    def _record(self, configuration: Path, name: str) -> dict[str, str]:
        try:
            text = self.tool(
                ["apt-cache", "-c", configuration, "show", "--no-all-versions", name]
            ).decode()
        except ToolError as error:
            raise AptError(f"{self.suite} has no package {name}") from error
        record = parse_record(text)
        if "Version" not in record:
            raise AptError(f"{self.suite} has no package {name}: {telling_line(text)}")
        return record


def parse_record(text: str) -> dict[str, str]:
    """The fields of the first paragraph of a control file; continuation lines are dropped."""
    record: dict[str, str] = {}
    for line in text.split("\n\n", 1)[0].splitlines():
        if line[:1] not in (" ", "\t") and ":" in line:
            key, value = line.split(":", 1)
            record[key] = value.strip()
    return record


def dependencies(record: Mapping[str, str]) -> list[str]:
    """Names a package depends on; of alternatives the first.

    >>> dependencies({"Depends": "kmod, linux-base (>= 4.3~), dracut | initramfs-tools"})
    ['kmod', 'linux-base', 'dracut']
    """
    names = []
    for clause in ",".join(
        record[key] for key in ("Pre-Depends", "Depends") if record.get(key)
    ).split(","):
        first = clause.split("|", 1)[0].strip()
        if first:
            names.append(re.split(r"[\s(:]", first, maxsplit=1)[0])
    return names
