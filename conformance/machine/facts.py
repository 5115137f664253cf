"""What a kernel was found to be able to do, kept as a note of the cache for who asks later."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from conformance.machine.cache import ArtifactError, Cache, digest_of


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


def _met_note(template: str) -> str:
    return f"met.{template[:32]}"


def keep_met(template: str, needs: Iterable[str], *, cache: Cache) -> None:
    """Keep which requirements the guests of a template (its key) meet, beside those that were kept.

    They will meet them tomorrow: kernel, image and the guest's program are in the key. What is *not* met is
    not kept, lest a probe that went wrong once have cases SKIP for ever.
    """
    with suppress(ArtifactError, OSError):  # a cache that is read-only or full: it is asked again
        known = met(template, cache=cache)
        if more := set(needs) - known:
            cache.write_note(_met_note(template), json.dumps(sorted(known | more)))


def met(template: str, *, cache: Cache) -> frozenset[str]:
    """The requirements that guests of a template are known to meet."""
    with suppress(ValueError, OSError):
        found = json.loads(cache.note(_met_note(template)) or "[]")
        if isinstance(found, list) and all(isinstance(need, str) for need in found):
            return frozenset(found)
    return frozenset()
