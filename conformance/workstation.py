"""Whether a machine may be thrown away: what speaks against running the suite on it, for ``--here``.

A case fills memory, sets limits, loads modules and may have the kernel kill processes or hang. Nobody
can be sure that a machine is of no value; what one can see is whether somebody works at it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

CONTROLLERS = ("memory", "io")


def impossible(*, uid: int | None = None) -> str:
    """Why the suite cannot run on this machine at all; nothing if it can."""
    if (os.geteuid() if uid is None else uid) != 0:
        return "the agent mounts, makes devices and cgroups: it needs root"
    return ""


def signs(root: Path = Path("/"), *, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """What makes this machine look as if it must not be thrown away, or is not a machine of its own."""
    known = os.environ if environ is None else environ
    return tuple(
        sign
        for look in (_graphics, _users, _battery, _container, _cgroups)
        for sign in look(root, known)
    )


def _graphics(root: Path, environ: Mapping[str, str]) -> Iterator[str]:
    shown = [name for name in ("DISPLAY", "WAYLAND_DISPLAY") if environ.get(name)]
    if shown:
        yield f"a graphical session: {shown[0]} is set"
    sockets = [*(root / "tmp/.X11-unix").glob("X*"), *(root / "run/user").glob("*/wayland-*")]
    if sockets:
        yield f"a graphical session: {min(sockets)}"


def _users(root: Path, environ: Mapping[str, str]) -> Iterator[str]:
    own = {"0", environ.get("SUDO_UID", "0")}
    for session in sorted((root / "run/systemd/sessions").glob("*")):
        try:
            lines = dict(
                line.split("=", 1) for line in session.read_text().splitlines() if "=" in line
            )
        except OSError:
            continue  # it has ended, or is one of the FIFOs that nobody may read
        if lines.get("CLASS") == "user" and lines.get("UID") not in own:
            yield f"somebody else is logged in: {lines.get('USER', lines.get('UID'))}"


def _battery(root: Path, _environ: Mapping[str, str]) -> Iterator[str]:
    for kind in sorted((root / "sys/class/power_supply").glob("*/type")):
        if kind.read_text().strip() == "Battery":
            yield f"a battery: {kind.parent.name}"


def _container(root: Path, _environ: Mapping[str, str]) -> Iterator[str]:
    marks = [root / "run/.containerenv", root / ".dockerenv", root / "run/systemd/container"]
    for mark in marks:
        if mark.exists():
            yield f"a container, whose kernel others use too: {mark}"


def _cgroups(root: Path, _environ: Mapping[str, str]) -> Iterator[str]:
    try:
        there = (root / "sys/fs/cgroup/cgroup.controllers").read_text().split()
    except OSError:
        yield "no cgroup v2 at /sys/fs/cgroup: its controllers are not free for use"
        return
    if missing := [name for name in CONTROLLERS if name not in there]:
        yield f"cgroup v2 has no controller {' and '.join(missing)} to give"
