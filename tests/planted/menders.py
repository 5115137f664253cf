"""Menders: each makes up for what every kernel lacks in a variant, so that it is seen to pass.

They show that a case can pass, and that nothing else is wrong with what it fails for: a case that failed
for its rig's sake would fail with the mender, too. By the same means as saboteurs, and as little known to
case, plan, record and judge.
"""

from __future__ import annotations

from typing import Final

from conformance.model import Clause
from tests.planted.saboteurs import Act, Saboteur

_ROOM_FOR_TWO_PAGES: Final = """
zram=/sys/block/$(basename {device})
read -r _ _ _ limit _ <$zram/mm_stat
echo $((limit + 8192)) >$zram/mem_limit
"""
_FIRST_CHUNK: Final = "dd if=/dev/zero of={device} bs=64K count=1 oflag=direct conv=notrunc"

MENDERS: Final = (
    Saboteur(
        name="a mender (zram)",
        does="at its limit the device gets room for two pages more: for the new ones before it frees the old",
        variant="zram_overwrite[direct]",
        acts=(Act(step="overwrite", script=_ROOM_FOR_TWO_PAGES),),
        mends=frozenset({Clause.OVERWRITE_IN_PLACE}),
    ),
    Saboteur(
        name="a mender (dm-thin)",
        does="the first chunk, which a flush is sent to, gets its space before there is none",
        variant="thin_flush[direct]",
        acts=(Act(step="impose", script=_FIRST_CHUNK),),
        mends=frozenset({Clause.OVERWRITE_IN_PLACE}),
    ),
)
"""One row of the table each."""
