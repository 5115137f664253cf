"""Who helps a device that runs short: as long as he is wanted, and not a word is lost when he fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from agent import kernel
from agent.basics import Json, RigError, poll_until
from agent.cgroups import Tree
from agent.layers import Site
from agent.layers.thin import State, ThinPool
from agent.processes import Child, no_tick
from agent.shortages import memory, thin
from agent.shortages.memory import GuestMemory
from agent.shortages.thin import ThinData
from agent.shortages.watched import Helper, Tally, watch

Start = Callable[..., Helper]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts helpers, and ends those that a test has left."""
    started: list[Helper] = []

    def begin(*args: object, **how: object) -> Helper:
        helper = watch("who helps", *args, **how)  # type: ignore[arg-type] # as the test has them
        started.append(helper)
        return helper

    yield begin
    for helper in started:
        helper.end()


def failed(helper: Helper) -> str:
    """What is said of one that fails, once he has."""
    said: list[str] = []

    def look() -> bool:
        try:
            helper.check()
        except RigError as error:
            said.append(str(error))
        return bool(said)

    assert poll_until(look, 30)
    return said[0]


def test_who_watches_extends_what_is_short_until_he_is_ended(start: Start) -> None:
    space, help_given = Tally(), Tally()
    helper = start(lambda: space.value == 0, space.add, help_given)
    assert poll_until(lambda: space.value == 1, 30)
    assert help_given.value == 1
    helper.check()
    helper.end()


def test_who_fails_to_extend_is_told_of_with_the_reason(start: Start) -> None:
    extended = Tally()

    def extend() -> None:
        if extended.value:
            raise RigError("dmsetup reload pool: device busy")
        extended.add()

    helper = start(lambda: True, extend, Tally(), wait=0.01)
    assert failed(helper) == "who helps has ended: RigError: dmsetup reload pool: device busy"
    assert extended.value == 1


def test_who_is_killed_is_told_of_too(start: Start) -> None:
    def die() -> bool:
        os.kill(os.getpid(), signal.SIGKILL)
        return True

    assert "'signal': 9" in failed(start(die, lambda: None, Tally()))


def test_who_is_ended_comes_to_the_end_of_an_extension_and_begins_none(start: Start) -> None:
    begun, done, over = Tally(), Tally(), Tally()

    def extend() -> None:
        begun.add()
        assert poll_until(lambda: over.value == 1, 60)
        done.add()

    helper = start(lambda: True, extend, Tally(), wait=0.0, pause=0.0)
    assert poll_until(lambda: begun.value == 1, 30)
    helper._child.wait = lambda *_, **__: over.add()  # type: ignore[method-assign] # now he is waited for
    kill = helper._child.kill

    def killed(**_: object) -> bool:
        assert poll_until(helper._child.look, 30)
        return kill()

    helper._child.kill = killed  # type: ignore[method-assign]
    helper.end()
    assert (begun.value, done.value) == (1, 1)


class Pool(ThinPool):
    """A pool that is full, and out of use where it is wanted, and cannot be extended."""

    gone = False

    def state(self) -> State:
        """See ``ThinPool``."""
        if self.gone:
            raise OSError("no such device")
        return State.parse("1 6/512 9/9 - out_of_data_space queue_if_no_space - 128")

    def grow(self, by: int | None = None) -> None:
        """See ``ThinPool``."""
        # The kernel's log is the agent's to read.
        own = "" if self.site.tick is no_tick else " with the agent's tick"
        raise RigError(f"cannot grow by {by}{own}")


def full_pool() -> tuple[Pool, ThinData]:
    spec: Json = {"name": "pool", "chunk": 65536, "metadata": 1 << 20, "data": 1 << 24}
    pool = Pool(spec, {}, Site(tick=lambda: None))
    shortage = ThinData(
        {"kind": "thin_data", "layer": "pool", "leave": 0, "grows": 7}, {"pool": pool}, Tree()
    )
    return pool, shortage


def test_a_pool_that_is_not_extended_is_the_rig_s_and_not_relieved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(thin, "watch", lambda *args: watch(*args, pause=0.01, wait=0.01))
    pool, shortage = full_pool()
    shortage._watch(pool, 7)
    try:
        assert shortage._helper is not None
        wanted = "who extends the pool has ended: RigError: cannot grow by 7"
        assert failed(shortage._helper) == wanted
        with pytest.raises(RigError, match=wanted):
            shortage.check()
        with pytest.raises(RigError, match=wanted):
            shortage.relieve()
    finally:
        shortage.end()
    shortage.check()


def test_a_pool_out_of_use_is_not_short_and_who_watches_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[Callable[[], bool]] = []

    def begin(name: str, short: Callable[[], bool], *_: object) -> None:
        assert name == "who extends the pool"
        looks.append(short)

    monkeypatch.setattr(thin, "watch", begin)
    pool, shortage = full_pool()
    shortage._watch(pool, 7)
    assert looks[0]()
    pool.gone = True
    assert not looks[0]()


def test_who_takes_the_memory_and_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(kernel, "die_with_parent", fail)
    # So little more than is to be left that nothing would be taken of this machine's.
    monkeypatch.setattr(memory, "_available", lambda: 5 << 20)
    gauge = GuestMemory({"kind": "guest_memory", "leave": 4 << 20}, {}, Tree())
    for ask in (gauge.impose, gauge.check, gauge.relieve):
        with pytest.raises(RigError, match="gave up: OSError: .* Cannot allocate memory"):
            ask()
    gauge.end()
    gauge.check()


def test_memory_is_taken_until_what_is_left_stays_so() -> None:
    taken: list[int] = []
    # The kernel gives 8 MiB back a moment after the machine has run short, as kswapd does.
    looks = iter(range(100))

    def available() -> int:
        return (100 << 20) - sum(taken) + (8 << 20 if next(looks) > 5 else 0)

    memory.come_to(16 << 20, available, take=taken.append, give=taken.pop, pause=0)
    assert (16 << 20) <= (108 << 20) - sum(taken) < (18 << 20)

    # One that keeps giving is given up, and the gauge that is read then tells.
    memory.come_to(16 << 20, lambda: 100 << 20, take=taken.append, give=taken.pop, pause=0)


def test_memory_is_given_back_where_more_is_gone_than_was_taken() -> None:
    taken: list[int] = []
    looks = iter(range(100))

    def available() -> int:
        """Pages that were dropped are read again a moment later: 12 MiB."""
        return (100 << 20) - sum(taken) - (12 << 20 if next(looks) > 5 else 0)

    memory.come_to(16 << 20, available, take=taken.append, give=taken.pop, pause=0)
    assert (12 << 20) <= (88 << 20) - sum(taken) < (18 << 20)

    # Where nothing was taken there is nothing to give.
    memory.come_to(16 << 20, lambda: 0, take=taken.append, give=taken.pop, pause=0)


def test_who_has_the_memory_may_be_killed_and_is_ended_with_the_rig() -> None:
    gauge = GuestMemory({"kind": "guest_memory", "leave": 0}, {}, Tree())
    for killed in (True, False):
        gauge._hog = hog = Child.adopt(os.posix_spawn("/bin/sleep", ["sleep", "60"], {}))
        if killed:
            os.kill(hog.pid, signal.SIGKILL)
            assert poll_until(hog.look, 30)
        gauge.check()
        gauge.end()
        assert hog.look()
        assert gauge._hog is None
