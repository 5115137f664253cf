"""The memory behind a server: what has space is counted, and nothing is stored past the limit."""

from __future__ import annotations

from agent.basics import BLOCK
from agent.servers.store import Store
from hypothesis import given
from hypothesis import strategies as st

BLOCKS = 16
regions = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, 6)).map(
    lambda found: (found[0], min(found[1], BLOCKS - found[0]))
)


def data_of(number: int, count: int) -> memoryview:
    return memoryview(bytes([number]) * (BLOCK * count))


@given(writes=st.lists(regions, max_size=12), space=st.integers(0, BLOCKS), cached=st.booleans())
def test_what_is_stored_is_counted_and_fits(
    writes: list[tuple[int, int]], space: int, *, cached: bool
) -> None:
    store = Store(BLOCKS * BLOCK)
    store.limit = space * BLOCK
    held = [0] * BLOCKS
    stored: set[int] = set()
    waiting: set[int] = set()
    for generation, (first, count) in enumerate(writes, 1):
        done = store.write(first * BLOCK, data_of(generation, count), cached=cached) // BLOCK
        expected = 0
        for block in range(first, first + count):
            if block not in stored:
                if len(stored) < space:
                    stored.add(block)
                    waiting.discard(block)
                elif cached:
                    waiting.add(block)
                else:
                    break
            held[block] = generation
            expected += 1
        assert done == expected
        assert store.used == len(stored) * BLOCK <= space * BLOCK
    assert [store.view(at * BLOCK, 1)[0] for at in range(BLOCKS)] == held
    assert store.flush() == (not waiting)
    store.limit = None
    assert store.flush()
    assert store.used == (len(stored) + len(waiting)) * BLOCK
    store.close()


def test_a_request_that_does_not_fit_is_a_hit() -> None:
    store = Store(BLOCKS * BLOCK)
    store.limit = 2 * BLOCK
    assert store.room_for(0, 2 * BLOCK)
    assert store.write(0, data_of(1, 2)) == 2 * BLOCK
    assert (store.used, store.hits) == (2 * BLOCK, 0)
    assert store.room_for(0, 2 * BLOCK)
    assert not store.room_for(BLOCK, 2 * BLOCK)
    assert store.write(BLOCK, data_of(2, 2)) == BLOCK
    assert (store.used, store.hits) == (2 * BLOCK, 1)
    store.close()


def test_a_volatile_cache_is_lost_with_its_server_and_what_was_stored_is_not() -> None:
    store = Store(BLOCKS * BLOCK)
    store.limit = BLOCK
    store.write(0, data_of(7, 3), cached=True)
    assert [store.view(at * BLOCK, 1)[0] for at in range(3)] == [7, 7, 7]
    assert not store.flush()
    store.serving(1)
    assert [store.view(at * BLOCK, 1)[0] for at in range(3)] == [7, 0, 0]
    assert store.flush()
    assert store.used == BLOCK
    store.close()


def test_discarded_blocks_give_their_space_back_and_read_as_zeros() -> None:
    store = Store(BLOCKS * BLOCK)
    store.write(0, data_of(1, 4))
    store.discard(BLOCK, 2 * BLOCK)
    store.discard(BLOCK, 2 * BLOCK)
    assert store.used == 2 * BLOCK
    assert [store.view(at * BLOCK, 1)[0] for at in range(4)] == [1, 0, 0, 1]
    store.close()


def test_last_words_are_kept_until_the_next_server_begins() -> None:
    store = Store(BLOCK)
    store.complain("x" * 9000)
    assert set(store.complaint()) == {"x"}
    store.serving(42)
    assert (store.complaint(), store.pid) == ("", 42)
    store.close()
