"""pytest glue: the options, and ``items`` when cases may be collected.

What runs cases is imported only then: the project's own tests are run with this plugin too, and
must not depend on all that they test.
"""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT / "cases"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of ``./conform run`` that pytest does not have itself."""
    group = parser.getgroup("conformance", "kernels and cases")
    group.addoption(
        "--kernel",
        action="append",
        metavar="SPEC",
        help="a name (debian/trixie if absent), build tree, bzImage or .deb files; repeatable",
    )
    group.addoption(
        "--module",
        action="append",
        default=[],
        metavar="FILE.ko",
        help="replace one module of the kernel; repeatable",
    )
    group.addoption(
        "--cases",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of cases of your own, beside the suite's; repeatable",
    )
    group.addoption("--known", metavar="DIR", help="known deviations in place of results/known/")
    group.addoption("--should", action="store_true", help="advisories count like deviations")
    group.addoption(
        "--repeat",
        type=int,
        default=1,
        metavar="N",
        help="each variant N times, each in a fresh guest; how they spread is told",
    )
    group.addoption("--out", metavar="DIR", help="write to DIR in place of results/runs/<time>/")


def pytest_configure(config: pytest.Config) -> None:
    """Bring in the cases, if they are among what is to be collected."""
    if config.option.repeat < 1:
        raise pytest.UsageError(f"--repeat {config.option.repeat}: at least 1")
    own = [Path(name) for name in config.option.cases]
    for folder in own:
        if not folder.is_dir():
            raise pytest.UsageError(f"--cases {folder}: no such folder")
    config.args += [str(folder) for folder in own]
    folders = [folder.resolve() for folder in (CASES, *own)]
    if not _among(config, folders):
        return
    from conformance.exits import Refused  # noqa: PLC0415 - see the top
    from conformance.items import CaseSession  # noqa: PLC0415

    try:
        CaseSession(config, folders)
    except Refused as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """What ``-n auto`` means where cases run: as many machines as this one carries."""
    from conformance import capacity  # noqa: PLC0415 - see the top

    own = [Path(name).resolve() for name in config.option.cases]
    return capacity.here() if _among(config, [CASES.resolve(), *own]) else None


def _among(config: pytest.Config, folders: list[Path]) -> bool:
    """Whether an argument is in one of ``folders``, or one of them in an argument."""
    for word in config.args:
        path = (config.invocation_params.dir / word.partition("::")[0]).resolve()
        for folder in folders:
            if path == folder or folder in path.parents or path in folder.parents:
                return True
    return False
