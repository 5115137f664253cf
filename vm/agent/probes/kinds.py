"""Requirements that are looked up by a name: modules, controllers, filesystems, programs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from agent import cgroups
from agent.layers import Site
from agent.layers.base import succeeded
from agent.processes import PATH


def module(name: str, site: Site) -> str:
    """Whether a module is built in, loaded or can be loaded."""
    if os.path.exists(f"/sys/module/{name.replace('-', '_')}"):
        return ""
    if succeeded(site.run(["modprobe", name])):
        return ""
    return f"the kernel has no module {name}"


def controller(name: str, _site: Site) -> str:
    """Whether a controller can be enabled for children of the root."""
    cgroups.ensure_mounted()
    failed = cgroups.enable(cgroups.MOUNT)
    if name in cgroups.enabled_in_root():
        return ""
    why = failed.get(name, "not among the controllers that the suite enables")
    return f"the cgroup v2 controller {name} cannot be enabled in the root: {why}"


def fs(name: str, site: Site) -> str:
    """Whether the kernel has a filesystem."""
    if _registered(name):
        return ""
    site.run(["modprobe", name])
    return "" if _registered(name) else f"the kernel has no filesystem {name}"


def _registered(name: str) -> bool:
    with open("/proc/filesystems", encoding="ascii") as file:
        return any(line.split()[-1] == name for line in file)


def tool(name: str, _site: Site) -> str:
    """Whether the guest has a program."""
    return "" if shutil.which(name, path=PATH) else f"the guest has no program {name}"


KINDS: dict[str, Callable[[str, Site], str]] = {
    "module": module,
    "controller": controller,
    "fs": fs,
    "tool": tool,
}
"""The words before the colon, but for ``probe``."""
