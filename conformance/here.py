"""The engine of ``--here``: the suite on this machine itself, which is to be thrown away afterwards."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing

from conformance.bench import MachineBench
from conformance.engine import Progress, Setup
from conformance.exits import Refused
from conformance.machine.local import LocalMachine, left_behind
from conformance.model import HERE
from conformance.workstation import impossible, signs


def allow(*, anyway: bool) -> None:
    """Raise Refused, with every sign, if this machine does not look as if it may be thrown away."""
    if why := impossible():
        raise Refused(f"--here: {why}")
    found = signs()
    if found and not anyway:
        told = "; ".join(found)
        raise Refused(
            f"--here is for machines to be thrown away: {told} (--here-anyway runs all the same)"
        )
    if left := left_behind():
        raise Refused(f"--here: an earlier run has left {left}: start the machine anew")


class HereEngine:
    """Opens the one bench that there is."""

    def prepare(self, kernel: str, progress: Progress) -> Mapping[str, object]:
        """See ``engine.Engine``."""
        with closing(self.open(kernel, progress)) as bench:
            return bench.describe()

    def prepared(self) -> Setup:
        """See ``engine.Engine``: the kernel that has booted is the same for all."""
        return Setup(here=True)

    def open(self, kernel: str, progress: Progress) -> MachineBench:
        """See ``engine.Engine``."""
        if kernel != HERE:
            raise Refused(f"{kernel}: on this machine runs what it has booted")
        progress(f"on this machine, {os.uname().release}, with no guest around it")
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        machine = LocalMachine(memory_mib=pages >> 20, cpus=len(os.sched_getaffinity(0)))
        return MachineBench(kernel, machine)


def engine(_setup: Setup) -> HereEngine:
    """What ``--here`` names."""
    return HereEngine()
