"""What every report does to text that a guest may have written."""

from __future__ import annotations

import re

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def clean(text: str) -> str:
    """``text`` without terminal escapes and without characters that XML 1.0 cannot hold."""
    return _ILLEGAL.sub("", _ESCAPES.sub("", text))


def middle_out(text: str, limit: int) -> str:
    """``text`` if it has at most ``limit`` characters, else its two ends and a word on the rest."""
    if len(text) <= limit:
        return text
    # Ten digits are room enough for the number.
    half = (limit - len("\n[ characters left out]\n") - 10) // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
