"""What is kept of a kernel log that is longer than a record may be."""

from __future__ import annotations

import os
from collections.abc import Iterable
from types import SimpleNamespace

import pytest
from agent.basics import Clock
from agent.watchers import kmsg
from agent.watchers.kmsg import FIRST_KEPT, LAST_KEPT, TELLING, TELLING_KEPT, KernelLog

from conformance.oracle.kernel_log import clean
from tests.unit.oracle.test_kernel_log import FAULTS, GLOBAL, GROUP, KWORKER

NOISE = "loop: Write error at byte offset 74747904, length 4096."
KILL = "Memory cgroup out of memory: Killed process 141 (dd) total-vm:1kB"


def taken(monkeypatch: pytest.MonkeyPatch, texts: Iterable[str]) -> list[str]:
    """What is told of a log of these lines."""
    records = [f"4,{number},{number},-;{text}\n".encode() for number, text in enumerate(texts)]
    records.reverse()

    def read(_fd: int, _size: int) -> bytes:
        if not records:
            raise BlockingIOError
        return records.pop()

    fake = SimpleNamespace(
        open=lambda *_: -1, read=read, O_RDONLY=os.O_RDONLY, O_NONBLOCK=os.O_NONBLOCK
    )
    monkeypatch.setattr(kmsg, "os", fake)
    log = KernelLog()
    log._clock = Clock(epoch_ns=0)
    lines = log.take()
    assert [int(str(line[0])) for line in lines] == sorted(int(str(line[0])) for line in lines)
    assert log.take() == []
    return [str(line[3]) for line in lines]


def test_a_short_log_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{NOISE} {number}" for number in range(FIRST_KEPT + 2 * LAST_KEPT)]
    assert taken(monkeypatch, texts) == texts


def test_of_a_long_one_the_middle_is_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{NOISE} {number}" for number in range(FIRST_KEPT + 5 * LAST_KEPT)]
    found = taken(monkeypatch, texts)
    at = FIRST_KEPT
    assert found[:at] == texts[:at]
    kept = len(found) - at - 1
    assert LAST_KEPT <= kept <= 2 * LAST_KEPT
    assert found[at + 1 :] == texts[-kept:]
    assert found[at] == f"[{len(texts) - at - kept} lines of the kernel log left out]"


def test_kills_and_faults_in_the_middle_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    flood = [NOISE] * (FIRST_KEPT + 2 * LAST_KEPT)
    found = taken(monkeypatch, [*flood, KILL, *flood, "BUG: unable to handle page fault", *flood])
    assert found[FIRST_KEPT + 1 : FIRST_KEPT + 3] == [KILL, "BUG: unable to handle page fault"]
    gone = int(found[FIRST_KEPT].strip("[").split()[0])
    assert gone + len(found) - 1 == 3 * len(flood) + 2


def test_a_flood_of_them_is_bounded_and_what_is_left_out_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = FIRST_KEPT + 20 * LAST_KEPT
    found = taken(monkeypatch, [KILL] * many)
    gone = int(found[FIRST_KEPT].strip("[").split()[0])
    assert gone + len(found) - 1 == many
    assert len(found) - 1 <= FIRST_KEPT + TELLING_KEPT + 2 * LAST_KEPT


@pytest.mark.parametrize(
    "line", [*FAULTS, *(line for line in GLOBAL if line != "Mem-Info:"), GROUP]
)
def test_what_the_judge_looks_for_is_kept(line: str) -> None:
    assert TELLING.search(line)


def test_of_a_report_those_lines_are_kept_that_say_who_and_whom() -> None:
    kept = [line.split()[0] for line in map(clean, KWORKER) if TELLING.search(line)]
    constraint = kept.pop(3)
    assert kept == ["kworker/u2:1", "CPU:", "Workqueue:", "Memory"]
    assert constraint.startswith("oom-kill:constraint=")


def test_noise_is_no_fault() -> None:
    assert not TELLING.search(NOISE)
