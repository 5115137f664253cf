"""What is made of the published records: by name, compact, and refused in one line."""

from __future__ import annotations

import pytest

from conformance import publish
from conformance.exits import REFUSED
from conformance.model import Status
from conformance.publish import PARTS, _compact, alone, main, outcomes, worth
from conformance.report.story import stories
from conformance.reproduce.trials import AGREES, CHANCE, Outcome, Trial
from tests.support.results import result, variant
from tests.support.stories import observed


def test_an_unknown_part_is_refused_before_anything_is_made(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["findings", "catalog"]) == REFUSED
    err = capsys.readouterr().err
    assert err == "conform: there is no part 'catalog'; did you mean catalogue?\n"


def test_parts_share_the_records_and_are_made_in_the_order_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[object] = []

    def part(records: object) -> str:
        given.append(records)
        return f"part {len(given)}"

    monkeypatch.setattr(publish, "PARTS", dict.fromkeys(PARTS, part))
    assert main([]) == 0
    assert len(given) == len(PARTS)
    assert len({id(one) for one in given}) == 1
    assert capsys.readouterr().err.startswith("conform: part 1\nconform: part 2\n")


@pytest.mark.parametrize(
    ("status", "kept"), [(s, s in (Status.FAIL, Status.BROKEN)) for s in Status]
)
def test_the_page_keeps_the_course_of_what_failed(status: Status, kept: bool) -> None:
    of = variant("a")
    one = result(status, of=of).model_copy(update={"story": stories(of, observed(of, "x"))})
    assert one.story
    assert bool(_compact(one).story) is kept
    assert _compact(one).verdict == one.verdict


def test_the_kept_outcomes_can_be_read() -> None:
    assert all(one.variant and one.kernel for one in outcomes())


def trials(
    kernels: int, clauses: str, *, chance: bool = False, text: str = "#!/bin/sh\n"
) -> list[Trial]:
    return [
        Trial(
            variant=variant("a"),
            kernel=str(number),
            release="6.12.117",
            status=Status.FAIL,
            clauses=tuple(clauses.split()),
            chance=chance,
            text=text,
        )
        for number in range(kernels)
    ]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (trials(2, "bounded"), trials(1, "no_oom_kill reusable")),
        (trials(1, "bounded"), trials(1, "no_oom_kill", chance=True)),
        (trials(1, "no_oom_kill"), trials(1, "no_oom_kill reusable bounded")),
        (trials(1, "no_oom_kill reusable"), trials(1, "no_oom_kill")),
        (trials(1, "no_oom_kill"), trials(1, "no_oom_kill", text="#!/bin/sh\ntrue\n")),
    ],
    ids=["more kernels", "not by chance", "nothing else", "more of it", "shorter"],
)
def test_a_script_shows_a_deviation_the_better(better: list[Trial], worse: list[Trial]) -> None:
    own = frozenset({"no_oom_kill", "reusable"})
    assert worth(better, own) < worth(worse, own)


def outcome(release: str, said: str) -> Outcome:
    return Outcome(
        variant="a",
        kernel=release,
        release=release,
        suite=Status.FAIL,
        script=said,
        clauses="",
        seconds=1,
        digest="",
    )


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ({}, ""),
        ({"6.1": AGREES, "7.2": AGREES}, "; run alone it agreed on 6.1, 7.2"),
        ({"6.1": CHANCE}, "; run alone it did not meet this in three tries on 6.1"),
        (
            {"6.1": CHANCE, "7.2": AGREES},
            "; run alone it agreed on 7.2, and it did not meet this in three tries on 6.1",
        ),
    ],
    ids=["not run", "agreed", "passed by chance", "both"],
)
def test_a_script_that_only_passed_is_not_said_to_have_agreed(
    kept: dict[str, str], told: str
) -> None:
    assert alone([outcome(release, said) for release, said in kept.items()]) == told
