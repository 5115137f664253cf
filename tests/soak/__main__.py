"""``tox -e soak``: each variant twenty times on two kernels, while all processors are kept busy.

``python -m tests.soak [--out DIR | --resume DIR] [OPTIONS]``, where OPTIONS are those of ``./conform run``:
``-k``, ``--repeat`` (20 if absent), ``--kernel`` (two if absent), ``-n``. A run that was ended goes on with
``--resume``. At the end each variant that did not come to the same every time is told, with how it spread.
The exit status is 1 if the status of one wavers that no row of results/known calls a matter of chance
(``sometimes``), and 2 if the run is not whole.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from conformance.record import RecordError, read_record
from conformance.session import known_rows
from tests.soak.spread import spreads, told

ROOT: Final = Path(__file__).parents[2]
KERNELS: Final = ("debian/bookworm", "debian/trixie")
REPEAT: Final = 20


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """Within, so many processes do nothing but take processor time. They die with this one."""
    with contextlib.ExitStack() as stack:
        for _ in range(processes):
            busy = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-c", "while True: pass"]
            )
            stack.callback(busy.wait)
            stack.callback(busy.kill)
        yield


def command(asked: argparse.Namespace, options: Sequence[str]) -> list[str]:
    """The run that is asked for."""
    words = [sys.executable, "-P", "-m", "conformance", "run"]
    if asked.resume:
        return [*words, "--resume", str(asked.resume), *options]
    if not any(word.startswith("--repeat") for word in options):
        options = [*options, "--repeat", str(REPEAT)]
    if not any(word.startswith("--kernel") for word in options):
        options = [*options, *(word for name in KERNELS for word in ("--kernel", name))]
    return [*words, "--out", str(asked.out), *options]


def main(arguments: Sequence[str]) -> int:
    """Run, and tell: the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, default=ROOT / "results" / "runs" / "soak")
    where.add_argument("--resume", type=Path)
    asked, options = parser.parse_known_args(arguments)
    with load(len(os.sched_getaffinity(0))):
        run = subprocess.Popen(command(asked, options), cwd=ROOT)
        # One SIGTERM or Ctrl-C ends the run in order; Ctrl-C reaches it by itself.
        signal.signal(signal.SIGTERM, lambda *_: run.terminate())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        run.wait()
    folder = asked.resume or asked.out
    try:
        record = read_record(folder / "record.jsonl")
    except (RecordError, OSError) as error:
        sys.stderr.write(f"{error}\nto go on: tox -e soak -- --resume {folder}\n")
        return 2
    found = spreads(record.entries, known_rows(None))
    sys.stdout.write(told(found))
    return int(any(one.wavers and not one.known for one in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
