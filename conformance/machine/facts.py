"""What a kernel was found to be able to do, kept as a note of the cache for who asks later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from conformance.machine.cache import Cache, digest_of


@dataclass(frozen=True, kw_only=True)
class Probed:
    """The answers of one kernel: for each requirement nothing if it is met, else the reason."""

    kernel: str
    release: str
    facts: Mapping[str, str]

    @property
    def lacks(self) -> dict[str, str]:
        """The requirements that are not met, with their reasons."""
        return {need: why for need, why in sorted(self.facts.items()) if why}


def _note(kernel: str) -> str:
    # A kernel may be named by a path, which is no name for a note.
    return f"probed.{digest_of(kernel)[:32]}"


def keep(probed: Probed, *, cache: Cache) -> None:
    """Keep what was found, beside what was found before of the same release."""
    before = recall(probed.kernel, cache=cache)
    old = before.facts if before is not None and before.release == probed.release else {}
    values = {
        "kernel": probed.kernel,
        "release": probed.release,
        "facts": {**old, **probed.facts},
    }
    cache.write_note(_note(probed.kernel), json.dumps(values))


def recall(kernel: str, *, cache: Cache) -> Probed | None:
    """What was found of a kernel when it was asked last; None if it never was."""
    text = cache.note(_note(kernel))
    try:
        return None if text is None else Probed(**json.loads(text))
    except (ValueError, TypeError):
        return None  # of another version of this program: it is asked again
