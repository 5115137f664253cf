"""What is mutated, and by which tests its mutants have to be killed: none of them needs a machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]

# Without test_planted_faults.py: test_words.py judges the same guests, and runs none of them anew; without
# test_properties.py: what it draws differs from run to run, and so would what it kills.
_ORACLE: Final = (
    *sorted(
        str(file.relative_to(_ROOT))
        for file in (_ROOT / "tests/unit/oracle").glob("test_*.py")
        if file.stem not in {"test_planted_faults", "test_properties"}
    ),
    "tests/unit/test_calls_script.py",
)
_READBACK: Final = tuple(
    f"tests/agent/test_{name}.py"
    for name in (
        "pattern",
        "pattern_layout",
        "readback",
        "readback_devices",
        "readback_regions",
    )
)

TARGETS: Final[dict[str, tuple[str, ...]]] = {
    **{
        f"conformance/oracle/{name}.py": _ORACLE
        for name in (
            "clauses/answers",
            "clauses/data",
            "clauses/integrity",
            "clauses/killing",
            "clauses/progress",
            "clauses/telling",
            "clauses/usage",
            "account",
            "losses",
            "answer",
            "calls",
            "arrival",
            "files",
            "judge",
            "kernel_log",
            "later",
            "oom",
            "scene",
            "trial",
        )
    },
    "conformance/oracle/text.py": ("tests/unit/oracle/test_parts.py",),
    "conformance/known.py": ("tests/unit/test_known.py",),
    "conformance/planner.py": ("tests/unit/test_planner.py",),
    "vm/agent/workloads/readback.py": _READBACK,
    "vm/agent/workloads/pattern.py": _READBACK,
}

LEFT_OUT: Final = (
    # The suite's own rows, which say nothing of how rows are read.
    "test_the_suite_s_own_rows_speak_of_cases_that_exist",
)
"""Tests that are not run on mutants; a part of their ids."""

ONE_OF_EACH_CASE: Final = ("test_the_answer_key_never_enters",)
"""Tests that are run for each variant of the library: on mutants one variant of each case does."""


def among(tests: Iterable[str], parts: Iterable[str]) -> tuple[str, ...]:
    """Of a module's tests those that a part of a path chooses; all of them if none is given."""
    chosen = tuple(parts)
    return tuple(test for test in tests if not chosen or any(part in test for part in chosen))
