"""What runs on a worker: ``attempt``, once for each variant, and the worker's own life.

A worker is one process with one thread and one machine at a time, as a slot is: what befalls it befalls
one variant, and its guests die with it. ``conform worker`` starts so many, each watched over by a
nanny that replaces it when it is lost.
"""

from __future__ import annotations

import asyncio
import json
import platform
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Nanny, get_worker

from conformance.cluster.store import Store
from conformance.engine import Bench, Engine, Parcel, Progress, Setup, load_engine
from conformance.machine import accel, qemu
from conformance.machine.cache import Cache, digest_of
from conformance.machine.protocol import LaunchFailed
from conformance.task import Slot, run_case

VM = "vm"
"""The resource that a worker has which can run guests."""
_ENDING = (signal.SIGINT, signal.SIGTERM)
_GRACE = 30
"""Seconds that the nannies get to end their workers."""


@dataclass(frozen=True, kw_only=True)
class _Unpacking:
    """An engine that knows one kernel: the one that was sent."""

    engine: Engine
    parcel: Parcel
    store: Store

    def open(self, kernel: str, progress: Progress) -> Bench:  # noqa: ARG002 - there is only one
        """See ``engine.Opener``."""
        return self.engine.unpack(self.parcel, self.store.find, progress)


class _Kept:
    """The slot of this process: of the kernel that it ran last."""

    key = ""
    slot: Slot | None = None
    folder = Path()

    def of(self, parcel: Parcel, store: Store) -> tuple[Slot, Path]:
        key = digest_of(parcel.model_dump_json())
        if self.slot is None or key != self.key:
            if self.slot is not None:
                self.slot.close()
            # In the worker's own directory, which its nanny removes whatever becomes of the worker.
            self.folder = Path(tempfile.mkdtemp(prefix="guests-", dir=get_worker().local_directory))
            unpacking = _Unpacking(engine=load_engine(Setup()), parcel=parcel, store=store)
            self.slot, self.key = Slot(unpacking, self.folder), key
        return self.slot, self.folder


_kept = _Kept()


def attempt(request: str) -> dict[str, Any]:
    """Run what ``request`` asks for, a JSON text: a parcel, and the arguments of ``run_case``.

    ``lacks`` in the answer: the pieces that have to be sent first. Else ``outcome``, and ``consoles``
    with the guests' console logs by the names that the outcome has for them.
    """
    asked = json.loads(request)
    parcel = Parcel.model_validate(asked["parcel"])
    store = Store(Cache.from_environ())
    if lacks := store.lacks(parcel):
        return {"lacks": lacks, "store": store.name}
    slot, folder = _kept.of(parcel, store)
    outcome = run_case(**asked["task"], slot=slot)
    consoles = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.glob("**/*"))
        if path.is_file()
    }
    shutil.rmtree(folder, ignore_errors=True)
    return {"outcome": json.dumps(outcome), "consoles": consoles}


def receive(*, sending: str, sha256: str, data: bytes, last: bool) -> None:
    """Take a chunk of a piece, see ``Store.receive``."""
    Store(Cache.from_environ()).receive(sending=sending, sha256=sha256, data=data, last=last)


def tags() -> dict[str, float]:
    """What a worker on this machine can do, as Dask's resources: ``vm``, ``kvm``, and the processor's
    architecture. ``kvm`` only if a guest was seen to run on it.
    """
    found = {VM: 1.0, platform.machine(): 1.0}
    try:
        note = accel.note_of(qemu.find_qemu().text)
    except LaunchFailed:
        return found
    if Cache.from_environ().note(note) == "kvm":
        found["kvm"] = 1.0
    return found


def serve(address: str, *, slots: int) -> bool:
    """Be so many workers of the scheduler at ``address``, until it ends (False) or SIGINT or SIGTERM
    comes (True). A second signal ends this process at once, and the workers with it.

    Raises OSError if the scheduler cannot be reached.
    """
    try:
        return asyncio.run(_serve(address, slots))
    except RuntimeError as error:
        if isinstance(error.__cause__, OSError):  # Dask's "Nanny failed to start"
            raise error.__cause__ from None
        raise


async def _serve(address: str, slots: int) -> bool:
    told = asyncio.Event()
    for number in _ENDING:
        # An exception that a handler raises would strike amid whatever a nanny is about.
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    nannies = [
        Nanny(
            address,
            nthreads=1,
            resources=tags(),
            # What guests take is QEMU's memory and not the worker's.
            memory_limit=0,
            # No page of the worker's own, and no port for it.
            dashboard=False,
            local_directory=tempfile.gettempdir(),
        )
        for _ in range(slots)
    ]
    lives: asyncio.Future[Any] = asyncio.gather(*map(_live, nannies))
    ending: asyncio.Future[Any] = asyncio.ensure_future(told.wait())
    await asyncio.wait([lives, ending], return_when=asyncio.FIRST_COMPLETED)
    for number in (*_ENDING, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    # Whatever Dask or Python waits for when they end: a worker dies with its nanny.
    signal.alarm(_GRACE)
    if not told.is_set():
        ending.cancel()
        await lives
        return False
    # One that had not got ready fails in both.
    await asyncio.gather(lives, *(nanny.close() for nanny in nannies), return_exceptions=True)
    return True


async def _live(nanny: Nanny) -> None:
    async with nanny:
        await nanny.finished()
