"""What stands where in a ledger's block, byte by byte, told by blocks that are made by hand."""

from __future__ import annotations

import hashlib
import zlib

import pytest
from agent.workloads.pattern import Pattern

RUN = b"\x01\x02\x03\x04\x05\x06\x07\x08"
MARK = b"LEDGER1\n" + RUN

# A body is cut at 8 * ((37 * number + 101 * generation) % 1021) of the bytes that come of the run.
PLACES = [
    (0, 0, 0),
    (1, 0, 296),
    (0, 1, 808),
    (200, 7, 7680),
    (1000, 3, 4376),
    (1020, 0, 7872),
    (1 << 40, 255, 1312),
]
placed = pytest.mark.parametrize(("number", "generation", "place"), PLACES)


def by_hand(number: int, generation: int, place: int, *, mark: bytes = MARK) -> bytes:
    """A block whose checksum is right, whatever its mark is."""
    body = hashlib.shake_256(MARK).digest(place + 4064)[place:]
    head = mark + number.to_bytes(8, "little") + generation.to_bytes(4, "little")
    return head + zlib.crc32(body + head).to_bytes(4, "little") + body


@placed
def test_a_block_is_its_header_then_its_checksum_then_its_body(
    number: int, generation: int, place: int
) -> None:
    assert Pattern(RUN).block(number, generation) == by_hand(number, generation, place)


@placed
def test_a_block_that_was_made_by_hand_is_recognised(
    number: int, generation: int, place: int
) -> None:
    block = by_hand(number, generation, place)
    assert Pattern(RUN).recognise(block) == (number, generation)


@placed
def test_a_buffer_is_filled_from_a_block_s_start_to_the_last_one_s_end(
    number: int, generation: int, place: int
) -> None:
    buffer = bytearray(b"\xee" * 4 * 4096)
    Pattern(RUN).fill(memoryview(buffer), 4096, number, 2, generation)
    # One block further on is 296 bytes, and round the 1021 places.
    blocks = by_hand(number, generation, place) + by_hand(
        number + 1, generation, (place + 296) % 8168
    )
    assert bytes(buffer) == b"\xee" * 4096 + blocks + b"\xee" * 4096


def test_a_body_comes_again_after_a_prime_number_of_blocks_and_not_before() -> None:
    pattern = Pattern(RUN)
    bodies = [pattern.block(number, 1)[32:] for number in range(1022)]
    assert len(set(bodies[:1021])) == 1021
    assert bodies[1021] == bodies[0]


@pytest.mark.parametrize("mark", [b"LEDGER2\n" + RUN, b"LEDGER1\n" + b"another!"])
def test_a_block_of_another_mark_is_foreign_though_its_checksum_is_right(mark: bytes) -> None:
    assert Pattern(RUN).recognise(by_hand(200, 7, 7680, mark=mark)) is None


@pytest.mark.parametrize(
    ("length", "found"),
    [
        (0, None),
        (16, None),
        (28, None),
        (31, None),
        (32, (200, 7)),
        (33, (200, 7)),
        (4095, (200, 7)),
    ],
)
def test_what_there_is_of_a_block_tells_it_once_its_header_is_whole(
    length: int, found: tuple[int, int] | None
) -> None:
    assert Pattern(RUN).recognise(by_hand(200, 7, 7680)[:length]) == found


def test_a_block_s_beginning_with_a_wrong_last_byte_is_foreign() -> None:
    begun = by_hand(200, 7, 7680)[:512]
    assert Pattern(RUN).recognise(begun[:-1] + bytes([begun[-1] ^ 1])) is None


@pytest.mark.parametrize("run", [RUN[:7], RUN + b"\x09"])
def test_a_mark_of_seven_or_nine_bytes_is_none(run: bytes) -> None:
    with pytest.raises(ValueError, match="a run's mark is 8 bytes"):
        Pattern(run)
