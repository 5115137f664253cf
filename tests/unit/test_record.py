"""Records: what is written is read back, and what is wrong with a file is told in one line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conformance import record as module
from conformance.model import (
    Arm,
    ArmSeen,
    Built,
    Clause,
    Disposition,
    Ended,
    Extent,
    Finding,
    KernelLine,
    Level,
    Lost,
    NoShortage,
    NotApplicable,
    Observation,
    Op,
    Plan,
    Reading,
    Role,
    Status,
    StepSeen,
    Submitter,
    TmpfsLayer,
    Verdict,
    Verify,
    Watch,
)
from conformance.record import (
    Cases,
    Header,
    RecordError,
    RecordWriter,
    key_of,
    merge_records,
    read_record,
)

SLOW_DISK = settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
"""Every record is waited for until it is on the disk; each example writes over the last one's."""

HEADER = Header(
    started="2026-01-02T03:04:05Z",
    command=("conform", "run", "-k", "loop"),
    host={"machine": "x86_64", "cpus": 2},
    cases=Cases(sha256="0" * 64),
)
VALUES = {"submit": "direct", "loop_dio": "off"}
WATCH = Watch(t_us=3, reading=Reading(kind="tmpfs", used=4096, limit=8192), oom_kill=0)


def a_plan(case: str = "loop_full", kernel: str = "debian/bookworm") -> Plan:
    arm = Arm(
        layers=(TmpfsLayer(name="back", layer="tmpfs", size=4096),),
        shortage=NoShortage(kind="none"),
        steps=(Verify(name="look", role=Role.OBSERVE, verb="verify", length=4096),),
    )
    return Plan(case=case, values=VALUES, kernel=kernel, arms=(arm,))


def an_observation(case: str = "loop_full", kernel: str = "debian/bookworm") -> Observation:
    log = KernelLine(1, 4, 17, "dd invoked oom-killer: gfp_mask=0x1 \N{SNOWMAN}\n\x00")
    submitter = Submitter(
        pid=7, cgroup="", ops=(Op("write", 0, 4096, 1, -28, 5, 6),), ended=Ended(exit_code=1)
    )
    step = StepSeen(
        name="fill",
        verb="write",
        start_us=4,
        end_us=9,
        submitter=submitter,
        extents=(Extent(0, 4096, "unreadable", None, 5),),
        watch=WATCH.model_copy(update={"kernel_log": (log,)}),
    )
    arm = ArmSeen(
        name="main",
        built=Built(layers={"back": {"path": "/x", "size": 4096}}, watch=WATCH),
        steps=(step,),
        lost=Lost(how="panicked", step="read", title="Kernel panic"),
        qemu_events=({"event": "GUEST_PANICKED", "data": {"n": [1, None]}},),
        seconds={"build": 0.25},
    )
    return Observation(case=case, values=VALUES, kernel=kernel, release="6.1.0-9", arms=(arm,))


def a_verdict(
    case: str = "loop_full",
    kernel: str = "debian/bookworm",
    status: Status = Status.FAIL,
    **more: Any,
) -> Verdict:
    finding = Finding(
        clause=Clause.ERRNO_PRECISE,
        level=Level.SHOULD,
        expected="ENOSPC or EDQUOT",
        observed="EIO",
        claims=("S2",),
        signature="EIO",
    )
    about = {
        "values": VALUES,
        "release": "6.1.0-9",
        "findings": (finding,),
        "disposition": Disposition.AS_KNOWN,
        "seconds": {"total": 1.5},
    }
    return Verdict.model_validate(
        {"case": case, "kernel": kernel, "status": status, **about, **more}
    )


def whole(path: Path) -> list[dict[str, Any]]:
    """A record of two variants, one of them skipped; its lines."""
    with RecordWriter(path, HEADER, planned=2) as writer:
        writer.add(plan=a_plan(), observation=an_observation(), verdict=a_verdict())
        skipped = NotApplicable(
            case="loop_full", values=VALUES, kernel="other", reasons=("tool:fio: none",)
        )
        verdict = a_verdict(kernel="other", status=Status.SKIP, reasons=("tool:fio: none",))
        writer.add(plan=skipped, observation=None, verdict=verdict)
    return [json.loads(line) for line in path.read_text().splitlines()]


# -- what is right ------------------------------------------------------------------------------


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    whole(tmp_path / "record.jsonl")
    record = read_record(tmp_path / "record.jsonl")
    assert record.header == HEADER
    assert record.problems == ()
    assert record.footer is not None
    first, second = record.entries
    assert (first.plan, first.observation, first.verdict) == (
        a_plan(),
        an_observation(),
        a_verdict(),
    )
    assert isinstance(second.plan, NotApplicable)
    assert second.observation is None
    assert [verdict.status for verdict in record.verdicts] == [Status.FAIL, Status.SKIP]


def test_the_names_in_the_lines_are_those_that_other_tools_read(tmp_path: Path) -> None:
    lines = whole(tmp_path / "record.jsonl")
    kinds = [line["kind"] for line in lines]
    assert kinds == ["header", "plan", "observation", "verdict", "plan", "verdict", "footer"]
    assert lines[0] == {
        "kind": "header",
        "format": 1,
        "started": "2026-01-02T03:04:05Z",
        "command": ["conform", "run", "-k", "loop"],
        "host": {"machine": "x86_64", "cpus": 2},
        "cases": {"sha256": "0" * 64},
    }
    for line in lines[1:-1]:
        assert (line["case"], line["variant"]) == ("loop_full", VALUES)
        assert "values" not in line
    assert lines[3]["release"] == "6.1.0-9"
    assert lines[3]["status"] == "FAIL"
    assert lines[3]["findings"][0]["clause"] == "errno_precise"
    assert lines[3]["findings"][0]["level"] == "should"
    assert lines[3]["findings"][0]["expected"] == "ENOSPC or EDQUOT"
    assert lines[3]["findings"][0]["observed"] == "EIO"
    assert lines[3]["findings"][0]["claims"] == ["S2"]
    assert lines[3]["disposition"] == "as-known"
    assert lines[3]["reasons"] == []
    assert lines[3]["seconds"] == {"total": 1.5}
    assert lines[4]["reasons"] == ["tool:fio: none"]
    footer = lines[-1]
    assert footer["counts"] == {"PASS": 0, "FAIL": 1, "BROKEN": 0, "SKIP": 1, "RECORDED": 0}
    assert (footer["planned"], footer["judged"]) == (2, 2)
    data = (tmp_path / "record.jsonl").read_bytes()
    above = data[: data.rindex(b"\n", 0, -1) + 1]
    assert footer["sha256"] == hashlib.sha256(above).hexdigest()


def test_a_plan_line_has_nothing_of_the_answer_key(tmp_path: Path) -> None:
    plan = whole(tmp_path / "record.jsonl")[1]
    assert set(plan) == {"kind", "case", "variant", "kernel", "arms"}


def test_each_variant_is_on_the_disk_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    writer = RecordWriter(path, HEADER, planned=2)
    assert len(path.read_bytes().splitlines()) == 1
    writer.add(plan=None, observation=None, verdict=a_verdict())
    assert len(path.read_bytes().splitlines()) == 2
    writer.abandon()


TEXT = st.text(st.characters(exclude_categories=[]), max_size=20)  # lone surrogates, too
NAME = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)


@st.composite
def verdicts(draw: st.DrawFn) -> list[Verdict]:
    finding = st.builds(
        Finding,
        clause=st.sampled_from(Clause),
        level=st.sampled_from(Level),
        expected=TEXT,
        observed=TEXT,
        claims=st.lists(NAME).map(tuple),
        signature=TEXT,
        step=TEXT,
        evidence=st.lists(TEXT).map(tuple),
    )
    one = st.builds(
        Verdict,
        case=NAME,
        values=st.dictionaries(NAME, TEXT, max_size=2),
        kernel=NAME,
        release=TEXT,
        status=st.sampled_from(Status),
        findings=st.lists(finding, max_size=2).map(tuple),
        disposition=st.sampled_from(Disposition),
        reasons=st.lists(TEXT, max_size=2).map(tuple),
        known=st.lists(TEXT, max_size=2).map(tuple),
        notes=st.lists(TEXT, max_size=2).map(tuple),
        seconds=st.dictionaries(NAME, st.floats(0, 1e6), max_size=2),
    )
    return draw(st.lists(one, unique_by=key_of, max_size=6))


@given(verdicts())
@SLOW_DISK
def test_any_verdicts_survive_being_written_and_read(tmp_path: Path, told: list[Verdict]) -> None:
    path = tmp_path / "record.jsonl"
    path.unlink(missing_ok=True)
    with RecordWriter(path, HEADER, planned=len(told)) as writer:
        for verdict in told:
            writer.add(plan=None, observation=None, verdict=verdict)
    assert list(read_record(path).verdicts) == told


@given(st.data())
@SLOW_DISK
def test_whatever_a_crash_leaves_can_be_salvaged(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "record.jsonl"
    path.unlink(missing_ok=True)
    whole(path)
    full = path.read_bytes()
    head = full.index(b"\n") + 1
    cut = data.draw(st.integers(head, len(full) - 1))
    path.write_bytes(full[:cut])
    with pytest.raises(RecordError):
        read_record(path)
    record = read_record(path, salvage=True)
    verdicts = [line for line in full[:cut].split(b"\n")[:-1] if b'"kind":"verdict"' in line]
    assert len(record.entries) == len(verdicts)
    assert len(record.problems) == 1


@given(st.data())
@SLOW_DISK
def test_a_changed_byte_never_passes(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "record.jsonl"
    path.unlink(missing_ok=True)
    whole(path)
    full = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, full.rindex(b"\n", 0, -1)))
    new = data.draw(st.integers(0, 255).filter(lambda byte: byte != full[at]))
    full[at] = new
    path.write_bytes(bytes(full))
    with pytest.raises(RecordError):
        read_record(path)


# -- what is wrong ------------------------------------------------------------------------------

Spoil = Callable[[list[bytes]], list[bytes]]


def replace(number: int, old: bytes, new: bytes) -> Spoil:
    def spoil(lines: list[bytes]) -> list[bytes]:
        assert old in lines[number]
        return [*lines[:number], lines[number].replace(old, new), *lines[number + 1 :]]

    return spoil


WRONG: dict[str, tuple[str, Spoil]] = {
    "empty": (": empty", lambda _: []),
    "not JSON": (":3: not JSON", lambda x: [*x[:2], b"{]\n", *x[2:]]),
    "an empty line": (":2: not JSON", lambda x: [x[0], b"\n", *x[1:]]),
    "not UTF-8": (":2: not JSON", lambda x: [x[0], b'{"kind": "\xff"}\n', *x[1:]]),
    "nested to death": (":2: not JSON", lambda x: [x[0], b"[" * 100_000 + b"\n", *x[1:]]),
    "no object": (":2: not an object with a kind", lambda x: [x[0], b"[1]\n", *x[1:]]),
    "no kind": (":2: not an object with a kind", lambda x: [x[0], b"{}\n", *x[1:]]),
    "an unknown kind": (":2: unknown kind 'note'", lambda x: [x[0], b'{"kind":"note"}\n', *x[1:]]),
    "no header": (":1: a record begins with its header, not with kind 'plan'", lambda x: x[1:]),
    "a second header": (":2: a second header", lambda x: [x[0], *x]),
    "a newer format": (":1: format 2 is newer than 1", replace(0, b'"format":1', b'"format":2')),
    "no format": (":1: the header names no format", replace(0, b'"format":1', b'"format":true')),
    "an unknown key": (":1: colour: Extra inputs", replace(0, b'"format"', b'"colour":1,"format"')),
    "a key by its Python name": (
        ":4: status: Input should be",
        replace(3, b'"status":"FAIL"', b'"status":"FAILED"'),
    ),
    "a second verdict": (
        ":5: a second verdict of loop_full[direct-off] on debian/bookworm",
        lambda x: [*x[:4], x[3], *x[4:]],
    ),
    "a second plan": (":3: a second plan of", lambda x: [*x[:2], x[1], *x[2:]]),
    "a second observation": (":4: a second observation of", lambda x: [*x[:3], x[2], *x[3:]]),
    "no footer": (":7: no footer: the run did not come to its end", lambda x: x[:-1]),
    "cut in the footer": (":7: cut short", lambda x: [*x[:-1], x[-1][:-1]]),
    "something after the footer": (":8: something follows the footer", lambda x: [*x, x[-1]]),
    "a count that does not match": (
        ":7: the counts are not those of the 2 verdicts above",
        replace(-1, b'"PASS":0', b'"PASS":1'),
    ),
    "a verdict taken out": (
        ":5: the counts are not those of the 1 verdicts above",
        lambda x: [*x[:4], x[-1]],
    ),
    "fewer judged than planned": (
        ":7: 3 were planned, and 2 judged",
        replace(-1, b'"planned":2', b'"planned":3'),
    ),
    "a key of two lines": (
        ":3: arms.0.built.watch.reading.'a\\nb': Extra inputs",
        replace(2, b'"kind":', b'"a\\nb":1,"kind":'),
    ),
    "edited by hand": (
        ":7: the lines above were changed after the run (sha256)",
        replace(3, b'"EIO"', b'"ENOSPC"'),
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_told_in_one_line_that_names_it(wrong: str, tmp_path: Path) -> None:
    told, spoil = WRONG[wrong]
    path = tmp_path / "record.jsonl"
    whole(path)
    path.write_bytes(b"".join(spoil(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert str(caught.value).startswith(f"{path}{told}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["empty", "no header", "a newer format"])
def test_without_a_header_there_is_nothing_to_salvage(wrong: str, tmp_path: Path) -> None:
    _, spoil = WRONG[wrong]
    path = tmp_path / "record.jsonl"
    whole(path)
    path.write_bytes(b"".join(spoil(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(RecordError):
        read_record(path, salvage=True)


def test_a_line_too_long_to_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole(tmp_path / "record.jsonl")
    lengths = [len(line) for line in (tmp_path / "record.jsonl").read_bytes().splitlines()]
    most = max(lengths[:2]) + 1  # with its newline
    assert lengths[2] > most, "the third is the longest"
    monkeypatch.setattr(module, "MAX_LINE", most)
    with pytest.raises(RecordError, match=rf":3: longer than {most} bytes"):
        read_record(tmp_path / "record.jsonl")


def test_a_line_too_long_to_write_is_refused_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.jsonl"
    monkeypatch.setattr(module, "MAX_LINE", 800)
    with RecordWriter(path, HEADER, planned=1) as writer:
        with pytest.raises(RecordError, match=r"loop_full\[direct-off\] on debian/bookworm: \d+"):
            writer.add(plan=None, observation=an_observation(), verdict=a_verdict())
        writer.add(plan=None, observation=None, verdict=a_verdict())
    assert len(read_record(path).entries) == 1


def test_a_record_is_never_written_over(tmp_path: Path) -> None:
    whole(tmp_path / "record.jsonl")
    with pytest.raises(FileExistsError):
        RecordWriter(tmp_path / "record.jsonl", HEADER, planned=0)


def test_a_run_that_was_cut_short_gets_no_footer(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"

    def run() -> None:
        with RecordWriter(path, HEADER, planned=1) as writer:
            writer.add(plan=None, observation=None, verdict=a_verdict())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    with pytest.raises(RecordError, match="no footer"):
        read_record(path)
    assert len(read_record(path, salvage=True).entries) == 1


def test_a_run_that_judged_less_than_it_planned_gets_no_footer(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    writer = RecordWriter(path, HEADER, planned=2)
    writer.add(plan=None, observation=None, verdict=a_verdict())
    with pytest.raises(RecordError, match="1 of 2 judged; no footer is written"):
        writer.finish()
    with pytest.raises(RecordError, match="no footer"):
        read_record(path)


# -- several records, and compressed ones ---------------------------------------------------------


def test_merged_and_compressed_it_is_the_same(tmp_path: Path) -> None:
    first, second = write_one(tmp_path / "a.jsonl", "a"), write_one(tmp_path / "b.jsonl", "b")
    to = tmp_path / "both.jsonl.xz"
    assert merge_records([(p, read_record(p)) for p in (first, second)], to) == 2
    both = read_record(to)
    assert both.entries == (*read_record(first).entries, *read_record(second).entries)
    assert both.problems == ()


def test_merged_it_began_when_the_first_of_them_did(tmp_path: Path) -> None:
    paths = [
        write_one(tmp_path / f"{case}.jsonl", case, hour=hour)
        for case, hour in (("a", 9), ("b", 8))
    ]
    merge_records([(path, read_record(path)) for path in paths], tmp_path / "c.jsonl")
    assert read_record(tmp_path / "c.jsonl").header.started == "2026-11-24T08:00:00Z"


def test_a_variant_that_two_records_have_is_refused(tmp_path: Path) -> None:
    first, second = write_one(tmp_path / "a.jsonl", "a"), write_one(tmp_path / "b.jsonl", "a")
    with pytest.raises(RecordError, match=r"b\.jsonl: a on .* is in .*a\.jsonl already"):
        merge_records([(p, read_record(p)) for p in (first, second)], tmp_path / "c.jsonl")


def test_records_of_other_cases_are_not_merged(tmp_path: Path) -> None:
    first = write_one(tmp_path / "a.jsonl", "a")
    second = write_one(tmp_path / "b.jsonl", "b", cases="other")
    with pytest.raises(RecordError, match="made with other cases"):
        merge_records([(p, read_record(p)) for p in (first, second)], tmp_path / "c.jsonl")


def test_a_damaged_compressed_record_is_told(tmp_path: Path) -> None:
    whole = tmp_path / "a.jsonl.xz"
    merge_records([(Path("a"), read_record(write_one(tmp_path / "a.jsonl", "a")))], whole)
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) // 2])
    with pytest.raises(RecordError, match="damaged"):
        read_record(whole)


def write_one(path: Path, case: str, *, cases: str = "0", hour: int = 8) -> Path:
    header = Header(
        started=f"2026-11-24T{hour:02}:00:00Z", command=("conform",), cases=Cases(sha256=cases)
    )
    verdict = Verdict(case=case, kernel="k", release="6.1", status=Status.PASS)
    with RecordWriter(path, header, planned=1) as writer:
        writer.add(plan=None, observation=None, verdict=verdict)
    return path


# -- what is salvaged -------------------------------------------------------------------------------


def three(path: Path) -> list[bytes]:
    """A record of three variants of three lines each: header, 1 to 3, 4 to 6, 7 to 9, footer."""
    with RecordWriter(path, HEADER, planned=3) as writer:
        for case in "abc":
            writer.add(plan=a_plan(case), observation=an_observation(case), verdict=a_verdict(case))
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("spoil", "left", "problem"),
    [
        (lambda x: [*x[:4], b"{]\n", *x[5:]], "ac", ":5: not JSON"),  # a plan
        (lambda x: [*x[:5], b"{]\n", *x[6:]], "ac", ":6: not JSON"),  # what was observed
        (lambda x: [*x[:6], b"{]\n", *x[7:]], "ac", ":7: not JSON"),  # a verdict
        (lambda x: [*x[:5], x[5][:99], *x[6:]], "ac", ":6: not JSON"),  # cut: the next runs into it
        (lambda x: [*x[:7], x[6], *x[7:]], "abc", ":8: a second verdict of b"),
        (lambda x: [*x[:7], *x[4:7], *x[7:]], "abc", ":8: a second plan of b"),
        (lambda x: x[:8], "ab", ":9: no footer"),
    ],
)
def test_what_is_whole_is_taken_and_the_rest_is_told(
    tmp_path: Path, spoil: Spoil, left: str, problem: str
) -> None:
    path = tmp_path / "record.jsonl"
    path.write_bytes(b"".join(spoil(three(path))))
    record = read_record(path, salvage=True)
    assert "".join(entry.verdict.case for entry in record.entries) == left
    assert all(entry.plan and entry.observation for entry in record.entries)
    assert record.problems[0].startswith(f"{path}{problem}")
    assert {key.case for key in record.unjudged} == {*"abc"} - {*left}
    assert record.footer is None


def test_of_many_problems_the_first_are_told(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    lines = three(path)
    path.write_bytes(b"".join([*lines[:-1], *([b"nonsense\n"] * 30)]))
    problems = read_record(path, salvage=True).problems
    assert len(problems) == module._SHOWN + 1
    assert problems[-1] == f"{path}: and 20 more"
