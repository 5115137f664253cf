"""Run a host tool (apt-get, mkfs.erofs, depmod, ...) and say in one line what went wrong.

Everything a throwaway machine boots from is made by a tool of the host's distribution. A tool can
be absent, can fail, or can run out of disk; each of these becomes one `ArtifactError` line that
says what is wrong and what to do. No tool outlives the process that runs it: it has a keeper.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from conformance.machine.keeper import kept

# Where the administrator's tools are; an unprivileged user's PATH often lacks them.
_SBIN = ("/usr/sbin", "/sbin")

# The Debian package to install when a tool is missing. vm/host-packages.txt lists the same names.
PACKAGE_OF = {
    "apt-cache": "apt",
    "apt-get": "apt",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "mkfs.erofs": "erofs-utils",
    "mmdebstrap": "mmdebstrap",
    "modinfo": "kmod",
    "strip": "binutils",
    "tar": "tar",
    "zstd": "zstd",
}


class ArtifactError(Exception):
    """Something a machine boots from cannot be had. Renders as one line: what, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class ToolError(ArtifactError):
    """A host tool is missing or failed."""


class NoSpaceError(ArtifactError):
    """The file system that holds the cache (or a temporary directory) is full."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment tools run in: the caller's, in the C locale, with the sbin directories."""
    env = dict(os.environ)
    path = env.get("PATH", "/usr/bin:/bin").split(":")
    env["PATH"] = ":".join(path + [d for d in _SBIN if d not in path])
    env["LC_ALL"] = "C.UTF-8"
    env.update(extra or {})
    return env


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> bytes:
    """Run a tool to its end and return its standard output.

    An exception that comes meanwhile, Ctrl-C too, goes on once the tool and all its children have ended.
    Raises ToolError (missing tool, non-zero exit) or NoSpaceError (it said the disk is full).
    """
    words = [str(word) for word in argv]
    require(words[0])
    with subprocess.Popen(
        kept(words),
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as keeper:
        try:
            output, errors = keeper.communicate(stdin)
        except BaseException:
            keeper.terminate()
            keeper.wait()
            raise
    if keeper.returncode == 0:
        return output
    said = errors.decode(errors="replace")
    if "No space left on device" in said:
        raise NoSpaceError(
            f"no space left on device while running {words[0]}: free some space,"
            " or point CONFORM_CACHE (and TMPDIR) at a larger file system"
        )
    raise ToolError(f"{words[0]} failed (exit {keeper.returncode}): {telling_line(said)}")


def require(tool: str) -> Path:
    """Where a tool is. Raises ToolError, naming the package to install, when it is nowhere."""
    found = shutil.which(tool, path=environment()["PATH"])
    if found is None:
        raise ToolError(f"{tool} is not installed: apt install {PACKAGE_OF.get(tool, tool)}")
    return Path(found)


def telling_line(output: str) -> str:
    r"""The line of a tool's error output that names the error: the first such, else the last.

    >>> telling_line("W: minor\nE: Unable to locate package foo\nI: bye\n")
    'E: Unable to locate package foo'
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for line in lines:
        if line.startswith("E: ") or "error:" in line.lower():
            return line
    return lines[-1] if lines else "it said nothing"
