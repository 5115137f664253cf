"""What every report does to text that a guest may have written."""

from __future__ import annotations

import re

# Legal in XML 1.0, but to a terminal U+0080 to U+009F are controls, as are their two-byte forms.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\u007e\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-9;?]*[ -/]*[@-~]")


def clean(text: str) -> str:
    """``text`` without terminal escapes, control characters, and what else XML 1.0 cannot hold."""
    return _ILLEGAL.sub("", _ESCAPES.sub("", text))


def middle_out(text: str, limit: int) -> str:
    """``text`` if it has at most ``limit`` characters, else its two ends and a word on the rest."""
    if len(text) <= limit:
        return text
    # Ten digits are room enough for the number.
    half = (limit - len("\n[ characters left out]\n") - 10) // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"


def one_line(text: str) -> str:
    """``text`` clean, and in one line."""
    return " ".join(clean(text).split())
