"""Whether a dm-vdo volume can be had."""

from __future__ import annotations

from collections.abc import Callable

from agent.layers import Site
from agent.layers.vdo import formats

PROBES: dict[str, Callable[[Site], str]] = {"vdo_formats": formats}
"""The names after ``probe:``."""
