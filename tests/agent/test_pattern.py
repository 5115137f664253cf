"""The ledger's pattern: every byte of a block is checked, and every block is its own."""

from __future__ import annotations

import pytest
from agent.basics import BLOCK
from agent.workloads.pattern import Pattern
from hypothesis import given
from hypothesis import strategies as st

RUN = b"\x01\x02\x03\x04\x05\x06\x07\x08"
PATTERN = Pattern(RUN)
PATTERN.warm()

numbers = st.integers(min_value=0, max_value=2**63)
generations = st.integers(min_value=0, max_value=255)


@given(number=numbers, generation=generations)
def test_a_block_is_recognised_as_what_it_is(number: int, generation: int) -> None:
    data = PATTERN.block(number, generation)
    assert len(data) == BLOCK
    assert PATTERN.recognise(data) == (number, generation)


@given(number=numbers, generation=generations, at=st.integers(0, BLOCK - 1), bit=st.integers(0, 7))
def test_one_wrong_bit_anywhere_makes_a_block_foreign(
    number: int, generation: int, at: int, bit: int
) -> None:
    data = bytearray(PATTERN.block(number, generation))
    data[at] ^= 1 << bit
    assert PATTERN.recognise(bytes(data)) is None


@given(number=numbers, generation=st.integers(1, 254), cut=st.integers(1, BLOCK - 1))
def test_a_block_torn_between_two_generations_is_foreign(
    number: int, generation: int, cut: int
) -> None:
    old, new = PATTERN.block(number, generation), PATTERN.block(number, generation + 1)
    torn = new[:cut] + old[cut:]
    if torn not in (old, new):
        assert PATTERN.recognise(torn) is None


@given(number=st.integers(0, 2**40), power=st.integers(0, 12), cut=st.sampled_from([512, 2048]))
def test_a_block_whose_tail_is_a_power_of_two_away_is_foreign(
    number: int, power: int, cut: int
) -> None:
    here, there = PATTERN.block(number, 1), PATTERN.block(number + (1 << power), 1)
    assert PATTERN.recognise(here[:cut] + there[cut:]) is None


def test_a_block_of_another_run_is_foreign() -> None:
    assert PATTERN.recognise(Pattern(b"another!").block(7, 1)) is None


def test_the_tail_of_a_device_is_recognised_by_what_there_is_of_it() -> None:
    data = PATTERN.block(9, 2)
    assert PATTERN.recognise(data[:512]) == (9, 2)
    assert PATTERN.recognise(data[:16]) is None


@given(first=st.integers(0, 2**40), count=st.integers(1, 5), generation=generations)
def test_filling_a_buffer_in_place_writes_the_same_blocks(
    first: int, count: int, generation: int
) -> None:
    buffer = bytearray((count + 1) * BLOCK)
    PATTERN.fill(memoryview(buffer), BLOCK, first, count, generation)
    blocks = b"".join(PATTERN.block(first + index, generation) for index in range(count))
    assert bytes(buffer) == bytes(BLOCK) + blocks


def test_a_run_is_marked_by_eight_bytes() -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        Pattern(b"short")
