"""A run as one HTML file that needs nothing else: no network, no second file, no server.

The matrix and the claims are in the page as it is read, for readers that allow no scripts. The rest
is data: an index of every result as JSON, and the short reports in compressed chunks that are opened
when somebody asks for one. What a guest wrote reaches the page as text alone: escaped here, and by
the page's script set as text; a Content-Security-Policy names the hashes of the page's own script and
style, so that nothing else could run.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from conformance.compare import Pair
from conformance.report.html.changes import grouped
from conformance.report.html.data import SIGN, STANDING, Page, embedded, page
from conformance.report.result import Asked, Result

STYLE = ("style.css",)
SCRIPT = ("dom.js", "plot.js", "report.js", "app.js")
"""In the order in which they stand in the page: one script, so that one hash covers it."""

_TEMPLATES = Environment(
    loader=PackageLoader("conformance.report.html", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

_SOFT = re.compile(r"(?<=[_/+-])(?=\w)")


def _soft(text: str) -> Markup:
    """``text``, which may be broken where its words join: names have no blanks."""
    return Markup("<wbr>").join(_SOFT.split(text))


_TEMPLATES.filters["soft"] = _soft


def document(results: Sequence[Result], asked: Asked, *, started: str = "") -> str:
    """The whole page. ``started`` is an ISO 8601 time in UTC, without a zone."""
    made: Page = page(results, asked, started=started)
    return _rendered(
        "report.html.j2",
        SCRIPT,
        rules=f":root {{ --kernels: {len(made.kernels)} }}\n",
        page=made,
        sign=SIGN,
        standing=STANDING,
        index=embedded(made.data),
        chunks=made.chunks,
    )


def comparison(pairs: Sequence[Pair], before: str, after: str) -> str:
    """Two runs held against each other, as a page; ``before`` and ``after`` name them."""
    return _rendered(
        "compare.html.j2", (), groups=grouped(pairs), sign=SIGN, before=before, after=after
    )


def _rendered(template: str, scripts: Sequence[str], *, rules: str = "", **values: Any) -> str:
    style, script = _source(STYLE) + rules, _source(scripts)
    allowed = _hash(script) if scripts else "none"
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{allowed}'"
    )
    text = _TEMPLATES.get_template(template).render(
        style=style,
        script=script,
        policy=policy,
        **values,
    )
    return text if text.endswith("\n") else f"{text}\n"


def _source(names: Sequence[str]) -> str:
    loader = _TEMPLATES.loader
    assert loader is not None
    return "\n" + "\n".join(loader.get_source(_TEMPLATES, name)[0] for name in names) + "\n"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
