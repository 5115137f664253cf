"""``conform worker``: lend this machine to the runs of a Dask scheduler."""

from __future__ import annotations

import click

from conformance.commands.common import examples
from conformance.exits import INTERRUPTED, Refused
from conformance.scheduler import slots_from


@click.command(
    epilog=examples("conform worker tcp://build1:8786", "conform worker tls://build1:8786 -n 4")
)
@click.argument("address")
@click.option("-n", "slots", default="auto", metavar="N|auto", help="Machines at the same time.")
def worker(*, address: str, slots: str) -> int:
    """Run variants for whoever asks the Dask scheduler at ADDRESS, until it ends.

    Whoever reaches the scheduler can run any program here: docs/scale.md has how to set up TLS.
    """
    try:
        count = slots_from(slots)
    except ValueError as error:
        raise Refused(f"-n: {error}") from error
    try:
        from conformance.cluster.worker import serve  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise Refused(f"{error}: pip install -r requirements-dask.lock") from error
    return INTERRUPTED if serve(address, slots=count) else 0
