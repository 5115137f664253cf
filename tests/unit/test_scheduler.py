"""How a worker of the command line is ended."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from conformance.scheduler import _Ended


def test_an_event_loop_does_not_keep_the_end_to_itself() -> None:
    def end() -> None:
        raise _Ended

    with closing(asyncio.new_event_loop()) as loop:
        loop.call_soon(end)
        loop.call_later(10, loop.stop)
        with pytest.raises(_Ended):
            loop.run_forever()
