"""Makes docs/reports.md's pictures, of the published report: ``python -m tests.browser.pictures``."""

from __future__ import annotations

from conformance.publish import HTML
from tests.browser.chromium import Chromium
from tests.browser.pages import ROOT

FOLDER = ROOT / "docs" / "pictures"
READY = "document.documentElement && document.documentElement.dataset.ready"
REPORT = "#row=family:loop_memcg&on=debian/trixie&open=loop_memcg_bystanders[direct]"
PICTURES = (
    ("matrix.png", (1280, 640), False, "", ""),
    (
        "report-dark.png",
        (1280, 900),
        True,
        REPORT,
        "document.querySelector('.report h3').scrollIntoView()",
    ),
    ("phone.png", (390, 760), False, "", ""),
    (
        "phone-report.png",
        (390, 760),
        False,
        REPORT,
        "",
    ),
)
"""Name, size in CSS pixels, dark, fragment, what is done before the picture is taken."""


def main() -> None:
    """Write each picture."""
    FOLDER.mkdir(exist_ok=True)
    with Chromium() as browser:
        address = HTML.as_uri()
        for name, (width, height), dark, fragment, act in PICTURES:
            browser.screen(width, height, dark=dark)
            browser.open(f"{address}{fragment}")
            browser.until(READY)
            if act:
                browser.run(act)
            browser.screenshot(FOLDER / name)


if __name__ == "__main__":
    main()
