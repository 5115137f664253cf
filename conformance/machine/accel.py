"""Which accelerator works here. A /dev/kvm that opens is no KVM that works: a guest is run on it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conformance.machine.cache import ArtifactError, Cache, digest_of

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """How the guest's processor is made, and why so, in one line."""

    name: Literal["kvm", "tcg"]
    why: str


KVM = Accelerator(name="kvm", why="a guest runs on /dev/kvm")
NO_KVM = Accelerator(name="tcg", why="there is no /dev/kvm that may be used: software emulation")
BROKEN_KVM = Accelerator(
    name="tcg", why="/dev/kvm opens, but no guest runs on it: software emulation"
)


def choose(
    version: str, *, cache: Cache, progress: Progress, boots: Callable[[], bool]
) -> Accelerator:
    """KVM if ``boots()`` says that a guest comes up on it, else software emulation.

    Asked once for each boot of the host: a broken KVM costs the probe's whole limit. A guest of one
    boot sector does not do as a probe: it runs where no kernel gets past its first instructions.

    That it works is kept here. That it does not is for the caller to ``keep``, once the same kernel came
    up without it: one that does not boot says nothing of KVM.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return NO_KVM
    match cache.note(note_of(version)):
        case "kvm":
            return KVM
        case "tcg":
            return BROKEN_KVM
    progress("/dev/kvm opens: trying whether a guest runs on it")
    if not boots():
        progress(BROKEN_KVM.why)
        return BROKEN_KVM
    keep(KVM, version, cache=cache)
    return KVM


def keep(found: Accelerator, version: str, *, cache: Cache) -> None:
    """Keep what was found of KVM with this QEMU, until the host's next boot."""
    with suppress(ArtifactError, OSError):  # a cache that is read-only or full: it is tried again
        if cache.note(note_of(version)) != found.name:
            cache.write_note(note_of(version), found.name)


def note_of(version: str) -> str:
    """The cache's note on whether KVM works: for this QEMU, since this boot of the host."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return "accelerator." + digest_of(version, boot_id)[:24]
