"""``tox -e soak``: each variant twenty times on two kernels, six machines to a processor.

``python -m tests.soak [--repeat N] [--work DIR] [-n N] [OPTIONS]``, where OPTIONS are those of
``./conform run``: ``-k``, ``--kernel`` (two if absent). It goes in rounds. Each is a run with every variant
once; it is counted in results/soak.tsv, and its record is removed. It ends when each variant has N attempts
(20 if absent). The same command takes up a round that was ended, so that many nights can make one soak.
``--enter RECORD``, repeatable, counts a record that was made on a busy machine elsewhere, and runs nothing.

The other machines are what keeps the processors from each. Should all wait at once, a process for each
processor, at the lowest priority, keeps it busy (decision 76).

At the end the table of docs/detection.md is made, and each variant that did not come to the same every time
is told, with how it spread. The exit status is 1 if the status of one wavers and no row of results/known
calls that a matter of chance (``sometimes``), and 2 if a round is not whole.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from conformance import tsv
from conformance.record import Entry, RecordError, read_record
from conformance.session import known_rows, open_library
from tests.soak import tally
from tests.soak.spread import spreads, told
from tests.support.detection import put

ROOT: Final = Path(__file__).parents[2]
TALLY: Final = ROOT / "results" / "soak.tsv"
KERNELS: Final = ("debian/bookworm", "debian/trixie")
MACHINES: Final = 6
"""To a processor."""


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """Within, so many processes take what processor time nobody else wants. They die with this one."""
    with contextlib.ExitStack() as stack:
        for _ in range(processes):
            spin = [sys.executable, "-c", "while True: pass"]
            busy = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", "nice", "-n", "19", *spin]
            )
            stack.callback(busy.wait)
            stack.callback(busy.kill)
        yield


def command(work: Path, machines: str, options: Sequence[str]) -> list[str]:
    """One round: begun, or taken up again, which ``run`` refuses if it began with other options."""
    if not any(word.startswith("--kernel") for word in options):
        options = [*options, *(word for name in KERNELS for word in ("--kernel", name))]
    where = "--resume" if (work / "record.jsonl").exists() else "--out"
    words = [sys.executable, "-P", "-m", "conformance", "run", "-n", machines]
    return [*words, where, str(work), *options]


def enter(path: Path, entries: Sequence[Entry]) -> tuple[tally.Count, ...]:
    """Add the attempts of a record to the file."""
    before = tsv.read(tally.Count, path.read_text()) if path.exists() else ()
    counts = tally.entered(before, entries)
    new = path.with_suffix(".new")
    new.write_text(tsv.document(tally.Count, counts))
    new.replace(path)
    return counts


def rounds(work: Path, machines: str, options: Sequence[str], repeat: int) -> None:
    """Run until each variant has its attempts. Raises RecordError or OSError if a round is not whole."""
    while True:
        run = subprocess.Popen(command(work, machines, options), cwd=ROOT)
        # One SIGTERM or Ctrl-C ends the run in order; Ctrl-C reaches it by itself.
        signal.signal(signal.SIGTERM, lambda *_, run=run: run.terminate())
        run.wait()
        entries = read_record(work / "record.jsonl").entries
        counts = enter(TALLY, entries)
        shutil.rmtree(work)
        if tally.least(counts, entries) >= repeat:
            return


def main(arguments: Sequence[str]) -> int:
    """Run, and tell: the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "runs" / "soak")
    processors = len(os.sched_getaffinity(0))
    parser.add_argument("-n", default=str(MACHINES * processors), dest="machines")
    parser.add_argument("--enter", type=Path, action="append", default=[])
    asked, options = parser.parse_known_args(arguments)
    whole = True
    try:
        for path in asked.enter:
            enter(TALLY, read_record(path).entries)
        if not asked.enter:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            with load(processors):
                rounds(asked.work, asked.machines, options, asked.repeat)
    except (RecordError, OSError, ValueError) as error:
        sys.stderr.write(
            f"{error}\nthe same command goes on from there; for another one remove {asked.work}\n"
        )
        whole = False
    if not TALLY.exists():
        return 2
    variants = {one.id: one for one in open_library(()).variants}
    found = spreads(tsv.read(tally.Count, TALLY.read_text()), variants, known_rows(None))
    put("soak", told(found).rstrip())
    sys.stdout.write(told(found))
    return 2 if not whole else int(any(one.unexplained for one in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
