"""A case on a kernel as data: JSON in, JSON out, the same whoever carries it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from conformance.bench import MachineBench
from conformance.engine import Engine, Progress, Setup
from conformance.exits import Refused
from conformance.machine.fake import FakeMachine, Mischief
from conformance.model import Status, Variant, as_json
from conformance.runner import Limits, Outcome
from conformance.session import open_library
from conformance.task import TRIES, Job, Slot, answer, answered, asked, run_case, told
from tests.support import model_engine
from tests.support.model_guest import ModelGuest

LIBRARY = open_library(())
ONE = next(v for v in LIBRARY.variants if v.case == "loop_enospc_tmpfs_full")


def slot(folder: Path, engine: Engine | None = None) -> Slot:
    return Slot(engine or model_engine.engine(Setup()), folder)


def without_times(told: Any) -> Any:
    """An answer but for what a clock, a counter or a place decides."""
    if isinstance(told, dict):
        return {
            key: without_times(value)
            for key, value in told.items()
            if key not in ("seconds", "work") and not key.endswith("_us")
        }
    return [without_times(value) for value in told] if isinstance(told, list) else told


def test_every_variant_survives_being_told() -> None:
    for variant in LIBRARY.variants:
        text = json.dumps(as_json(variant))
        assert Variant.model_validate(json.loads(text)) == variant


def test_json_in_json_out_and_the_same_each_time(tmp_path: Path) -> None:
    case = json.loads(json.dumps(as_json(ONE)))
    # One slot that has run before, and one that is new.
    used = slot(tmp_path / "used")
    run_case(case, "debian/bookworm", {}, slot=used)
    answers = [
        run_case(case, "debian/bookworm", as_json(Limits()), slot=one)
        for one in (used, slot(tmp_path / "new"))
    ]
    assert without_times(answers[0]) == without_times(answers[1])
    json.dumps(answers[0], allow_nan=False)
    outcome = Outcome.model_validate(answers[0])
    assert outcome.verdict.status is Status.PASS
    assert outcome.observation is not None
    assert (tmp_path / "new" / outcome.observation.arms[0].console).is_file()


def test_by_text_it_is_the_same_as_by_hand(tmp_path: Path) -> None:
    job = Job(variant=ONE, kernel="debian/bookworm")
    by_hand = slot(tmp_path).run(job)
    by_text = answered(answer(asked(job), slot(tmp_path)))
    assert without_times(as_json(by_text)) == without_times(as_json(by_hand))
    assert answered(told(by_hand)) == by_hand


def test_what_no_encoding_takes_is_carried() -> None:
    verdict = {"case": "c", "kernel": "k", "release": "", "status": "BROKEN"}
    odd = Outcome.model_validate({
        "plan": None, "observation": None, "verdict": {**verdict, "reasons": ["\udcff\x00"]}
    })  # fmt: skip
    assert answered(told(odd)) == odd


def test_limits_reach_the_guest(tmp_path: Path) -> None:
    machine = FakeMachine(lambda: ModelGuest().handlers(), mischief={"build": Mischief.HANG})
    bench = MachineBench("debian/bookworm", machine)
    outcome = bench.run(ONE, folder=tmp_path, limits=Limits(build=7.0))
    assert outcome.observation is not None
    lost = outcome.observation.arms[0].lost
    assert lost is not None
    assert lost.title == "no answer to build within 7.0 s"


@pytest.mark.parametrize(
    "number",
    [10**400, -(10**400), "9" * 400, 1 << 64],
    ids=["high", "low", "text", "65_bits"],
)
def test_a_number_beyond_a_kernel_s_is_the_guest_s_garbage(
    number: int | str, tmp_path: Path
) -> None:
    def lie(verb: str, asked: dict[str, Any], honest: dict[str, Any]) -> dict[str, Any]:
        return {**honest, "end_us": number} if verb == "step" else honest

    machine = FakeMachine(lambda: ModelGuest(lie=lie).handlers())
    outcome = MachineBench("debian/bookworm", machine).run(ONE, folder=tmp_path)
    assert outcome.observation is not None
    lost = outcome.observation.arms[0].lost
    assert lost is not None
    assert lost.how == "wire"
    assert lost.title.startswith("the answer to step has no valid end_us: ")


@pytest.mark.parametrize("spoilt", [{}, {"case": "x"}, {**as_json(ONE), "colour": "red"}])
def test_what_is_no_case_is_not_run(tmp_path: Path, spoilt: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        run_case(spoilt, "debian/bookworm", {}, slot=slot(tmp_path))


def test_a_limit_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        run_case(as_json(ONE), "debian/bookworm", {"patience": 3}, slot=slot(tmp_path))


class Crowded(model_engine.ModelEngine):
    """An engine on a host that has no space, so many times."""

    def __init__(self, times: int) -> None:
        self.times, self.tried = times, 0

    def open(self, kernel: str, progress: Progress) -> MachineBench:
        self.tried += 1
        if self.tried <= self.times:
            raise Refused("no space")
        return super().open(kernel, progress)


def test_a_kernel_that_could_not_be_opened_is_tried_again(tmp_path: Path) -> None:
    one = slot(tmp_path, Crowded(1))
    first, second = (one.run(Job(variant=ONE, kernel="debian/bookworm")) for _ in range(2))
    assert first.unopened
    assert first.verdict.reasons == ("no space",)
    assert not second.unopened
    assert second.verdict.status is Status.PASS


def test_a_kernel_that_cannot_be_opened_is_not_tried_for_each_job(tmp_path: Path) -> None:
    engine = Crowded(100)
    one = slot(tmp_path, engine)
    outcomes = [one.run(Job(variant=ONE, kernel="debian/bookworm")) for _ in range(10)]
    assert engine.tried == TRIES
    assert all(outcome.unopened for outcome in outcomes)
    assert {outcome.verdict.reasons for outcome in outcomes} == {("no space",)}


class Faulty(model_engine.ModelEngine):
    """An engine with a bug."""

    def open(self, kernel: str, progress: Progress) -> MachineBench:
        raise ValueError("a bug")


def test_a_bug_of_the_suite_is_part_of_the_answer(tmp_path: Path) -> None:
    given = run_case(as_json(ONE), "debian/bookworm", {}, slot=slot(tmp_path, Faulty()))
    assert given["verdict"]["status"] == "BROKEN"
    assert "a bug" in given["verdict"]["reasons"][0]
