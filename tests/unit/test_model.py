"""The values: sizes as dd reads them, closed vocabularies, nothing accepted by accident."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from conformance.model import (
    CLAIMS,
    CLAUSE_CLAIMS,
    ROLL_UP,
    AnyStep,
    Clause,
    Finding,
    Level,
    Status,
    Variant,
    Verdict,
    format_size,
    parse_size,
)

STEP: TypeAdapter[object] = TypeAdapter(AnyStep)


@pytest.mark.parametrize(
    ("text", "count"), [("4K", 4096), ("1M", 1048576), (512, 512), ("0", 0), ("2G", 2147483648)]
)
def test_sizes_are_binary(text: object, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["4k", "1MB", "-1", -1, "1.5M", True, None, "", " 4K"])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"not a size|negative"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=1 << 50))
def test_a_size_survives_being_written_and_read(count: int) -> None:
    assert parse_size(format_size(count)) == count


def test_every_clause_names_its_claims_and_every_claim_exists() -> None:
    assert set(CLAUSE_CLAIMS) == set(Clause)
    assert {claim for claims in CLAUSE_CLAIMS.values() for claim in claims} <= set(CLAIMS)
    assert set(ROLL_UP) == set(Status)


def test_an_unknown_key_of_a_step_is_refused() -> None:
    with pytest.raises(ValidationError, match="extra_forbidden|Extra inputs"):
        STEP.validate_python({"verb": "impose", "as": "impose", "limitt": 3})


def test_a_verdict_is_broken_until_something_says_otherwise() -> None:
    assert Verdict(case="c", kernel="k", release="6.1").status is Status.BROKEN


def test_only_must_findings_are_deviations() -> None:
    def finding(level: Level) -> Finding:
        return Finding(
            clause=Clause.BOUNDED, level=level, expected="e", observed="o", signature="s"
        )

    verdict = Verdict(
        case="c", kernel="k", release="6.1", findings=tuple(finding(level) for level in Level)
    )
    assert [f.level for f in verdict.deviations] == [Level.MUST]
    assert {f.level for f in verdict.advisories} == {Level.SHOULD, Level.MAY, Level.SURVEY}


def test_a_variant_is_called_by_its_case_and_values() -> None:
    bare: dict[str, Any] = {"case": "loop_x", "values": {}}
    cell = {"submit": "direct", "loop_dio": "on"}
    assert Variant.model_construct(None, **{**bare, "values": cell}).id == "loop_x[direct-on]"
    assert Variant.model_construct(None, **bare).id == "loop_x"
