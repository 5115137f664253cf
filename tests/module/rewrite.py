"""Builds rewrite.ko, which gives a loop device's failed writes another end (``rewrite.c``)."""

from __future__ import annotations

from pathlib import Path

from conformance.machine.cache import Cache, digest_of
from tests.module import kbuild

_SOURCE = Path(__file__).with_suffix(".c")


def build(cache: Cache, suite: str) -> Path:
    """The module's path; built once for each version of the kernel. Raises ArtifactError."""
    text = _SOURCE.read_text()
    return kbuild.build(
        cache,
        suite=suite,
        module="rewrite",
        key=digest_of(text),
        packages=(),
        text=lambda _root: text,
    )
