"""``-k``: held against pytest's own compiler, word for word."""

from __future__ import annotations

import pytest
from _pytest.mark.expression import Expression
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.model import Variant
from conformance.selection import SelectionError, compile_expression, select
from tests.support.results import variant

VARIANTS = (
    variant("loop_full", "loop_enospc", submit="direct", dio="off"),
    variant("loop_full", "loop_enospc", submit="buffered", dio="off"),
    variant("loop_memcg", "loop_memcg", submit="direct"),
    variant("fs_files", "fs_on_loop"),
)


@pytest.mark.parametrize(
    ("expr", "wanted"),
    [
        ("", "0123"),
        ("  ", "0123"),
        ("loop_full", "01"),
        ("LOOP_FULL", "01"),
        ("loop", "0123"),  # the family of the last
        ("direct", "02"),
        ("loop_full[direct-off]", "0"),
        ("direct and not memcg", "0"),
        ("not (direct or fs)", "1"),
        ("fs_files or buffered", "13"),
        ("nothing_of_that_name", ""),
        ("not not memcg", "2"),
        ("enospc", "01"),
    ],
)
def test_a_word_is_a_part_of_the_id_or_the_family(expr: str, wanted: str) -> None:
    assert select(VARIANTS, expr) == tuple(VARIANTS[int(number)] for number in wanted)


@pytest.mark.parametrize(
    ("expr", "told"),
    [
        ("(direct", "'(direct', column 8: the end where ')' is wanted"),
        ("direct)", "'direct)', column 7: ')' where the end, 'and' or 'or' is wanted"),
        ("direct memcg", "column 8: 'memcg' where the end, 'and' or 'or' is wanted"),
        ("and direct", "column 1: 'and' where a word, 'not' or '(' is wanted"),
        ("not", "column 4: the end where a word, 'not' or '(' is wanted"),
        ("a or", "column 5: the end where a word, 'not' or '(' is wanted"),
        ("()", "column 2: ')' where a word, 'not' or '(' is wanted"),
        ("a  or %b", "column 7: '%' where a word is wanted"),
        ("(" * 5000, "nested too deeply"),
        ("not " * 5000, "nested too deeply"),
    ],
)
def test_what_is_no_expression_is_told_with_its_column(expr: str, told: str) -> None:
    with pytest.raises(SelectionError) as caught:
        select(VARIANTS, expr)
    assert str(caught.value).endswith(told)
    assert "\n" not in str(caught.value)


@settings(deadline=None)
@given(st.lists(st.sampled_from(VARIANTS)), st.sampled_from(["direct", "loop", "", "fs"]))
def test_what_is_selected_and_what_is_not_is_everything(variants: list[Variant], word: str) -> None:
    chosen = select(variants, word)
    left = select(variants, f"not {word}") if word else ()
    assert [*chosen, *left] == sorted(variants, key=lambda v: v not in chosen)


# -- against pytest -----------------------------------------------------------------------------

WORDS = st.sampled_from(["a", "B", "x[1]", "d-e", "f.g", "h/i", "::j", "nota", "ora", "andy", "+"])


def expressions() -> st.SearchStrategy[str]:
    return st.recursive(
        WORDS,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from([" and ", " or ", "\tand  "]), inner).map("".join),
            inner.map("not {}".format),
            inner.map("({})".format),
            inner.map(" ( {} ) ".format),
        ),
        max_leaves=8,
    )


def ours(expr: str, true: frozenset[str]) -> bool | None:
    try:
        return compile_expression(expr)(lambda word: word in true)
    except SelectionError:
        return None


def theirs(expr: str, true: frozenset[str]) -> bool | None:
    try:
        return Expression.compile(expr).evaluate(lambda word, /, **_: word in true)
    except SyntaxError:
        return None


@settings(deadline=None)
@given(expressions(), st.frozensets(WORDS))
def test_an_expression_means_what_it_means_to_pytest(expr: str, true: frozenset[str]) -> None:
    assert ours(expr, true) is theirs(expr, true) is not None


TOKENS = st.sampled_from(["a", "B", "and", "or", "not", "(", ")", " ", "\t", "%", "[x]", ":"])


@settings(deadline=None)
@given(st.lists(TOKENS, min_size=1).map("".join), st.frozensets(WORDS))
def test_what_pytest_refuses_is_refused(expr: str, true: frozenset[str]) -> None:
    if not expr.strip(" \t"):
        return  # selects everything, to pytest's caller as to ours
    assert ours(expr, true) is theirs(expr, true)
