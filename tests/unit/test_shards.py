"""A run in parts: each job in one part, parts of like length, and none missing when they are merged."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.cli import main
from conformance.exits import BROKEN, REFUSED, Refused
from conformance.model import Status, Verdict
from conformance.record import PART, Cases, Header, RecordWriter, read_interrupted, read_record
from conformance.report.formats import FORMATS
from conformance.report.result import Asked
from conformance.resume import same_part
from conformance.session import DURATIONS, open_library
from conformance.shards import (
    Durations,
    Shard,
    ShardError,
    deal,
    described,
    longest_first,
    shard_from,
)
from conformance.task import Job
from tests.support.results import variant

TABLE = Durations.load(DURATIONS)
LIBRARY = open_library(()).variants
KERNELS = ("debian/bullseye", "debian/bookworm", "debian/trixie")


def jobs_of(*numbers: int) -> tuple[list[Job], Durations]:
    """A job for each number of seconds, three kernels in turn."""
    jobs = [
        Job(variant=variant(case=f"case_{at}"), kernel=KERNELS[at * len(KERNELS) // len(numbers)])
        for at in range(len(numbers))
    ]
    table = {job.variant.id: float(number) for job, number in zip(jobs, numbers, strict=True)}
    return jobs, Durations(seconds=table)


def parts_of(jobs: list[Job], count: int, table: Durations) -> list[list[Job]]:
    return [deal(jobs, Shard(index=at + 1, count=count), table) for at in range(count)]


# -- dividing -------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 150), min_size=1, max_size=60), st.integers(1, 9))
def test_every_job_is_in_one_part(numbers: list[int], count: int) -> None:
    jobs, table = jobs_of(*numbers)
    parts = parts_of(jobs, count, table)
    dealt = [job.variant.id for part in parts for job in part]
    assert sorted(dealt) == sorted(job.variant.id for job in jobs)
    again = parts_of(jobs, count, table)
    assert [[id(job) for job in part] for part in again] == [[id(j) for j in p] for p in parts]
    order = {id(job): number for number, job in enumerate(jobs)}
    for part in parts:
        numbers = [order[id(job)] for job in part]
        assert numbers == sorted(numbers)


@pytest.mark.parametrize("kernels", [1, 6])
@pytest.mark.parametrize("count", [2, 4, 16])
def test_parts_of_the_library_are_of_like_length(kernels: int, count: int) -> None:
    jobs = [
        Job(variant=one, kernel=f"kernel/{number}") for number in range(kernels) for one in LIBRARY
    ]
    lengths = [sum(map(TABLE.of, part)) for part in parts_of(jobs, count, TABLE)]
    longest = max(map(TABLE.of, jobs))
    assert max(lengths) - min(lengths) <= max(longest, 0.02 * sum(lengths) / count)


def test_a_part_has_few_kernels() -> None:
    jobs = [Job(variant=one, kernel=f"kernel/{number}") for number in range(6) for one in LIBRARY]
    for part in parts_of(jobs, 6, TABLE):
        assert len({job.kernel for job in part}) <= 2


def test_the_table_has_the_library_s_variants() -> None:
    """The planted fault: a table of other names would leave the division to chance."""
    ids = {one.id for one in LIBRARY}
    assert len(ids & TABLE.seconds.keys()) > 0.9 * len(ids)
    assert not ids & Durations(seconds={"other[case]": 1.0}).seconds.keys()


def test_what_nobody_measured_is_taken_for_its_case_s_median() -> None:
    table = Durations.parse(
        "# a comment\n9.0\tmine[a]\n1.0\tmine[b]\n5.0\tmine[c]\n-\tmine[d]\n2.0\tx"
    )
    new = Job(variant=variant(case="mine", of="d"), kernel="k")
    other = Job(variant=variant(case="other"), kernel="k")
    assert table.of(new) == 5.0
    assert table.of(other) == 3.5
    assert Durations(seconds={}).of(new) == 1.0


@pytest.mark.parametrize(
    "line", ["9.0 mine", "<<<<<<< HEAD", "soon\tmine", "nan\tmine", "-1\tmine"]
)
def test_what_is_no_duration_is_told_with_its_line(line: str) -> None:
    with pytest.raises(ValueError, match="^2: not seconds, a tab and an id: "):
        Durations.parse(f"# seconds\n{line}\n")


def test_longest_first_and_kernel_by_kernel() -> None:
    jobs, table = jobs_of(1, 5, 3, 9)
    jobs = [*jobs, *(Job(variant=job.variant, kernel="z") for job in jobs)]
    order = [(job.kernel, table.of(job)) for job in longest_first(jobs, table)]
    assert [kernel for kernel, _ in order] == sorted(
        (job.kernel for job in jobs), key=[job.kernel for job in jobs].index
    )
    assert [spent for kernel, spent in order if kernel == "z"] == [9, 5, 3, 1]


def test_who_waits_for_minutes_does_not_fill_the_slots() -> None:
    jobs, table = jobs_of(90, 80, 40, *(range(10, 4, -1)), *([2] * 300))
    jobs = [Job(variant=job.variant, kernel="k") for job in jobs]
    order = [table.of(job) for job in longest_first(jobs, table)]
    assert sorted(order) == sorted(table.of(job) for job in jobs)
    long = [place for place, spent in enumerate(order) if spent > 8.0]
    assert [order[place] for place in long] == [90, 80, 40, 10, 9]
    # While one takes its time, two slots have others to do.
    for begin, end in itertools.pairwise(long[:4]):
        assert 2 * order[begin] <= sum(order[begin + 1 : end]) <= 2 * order[begin] + 8
    # And who is not long comes as before, the longest first.
    assert [spent for spent in order if spent <= 8.0] == [8, 7, 6, 5, *([2] * 300)]


# -- which part -----------------------------------------------------------------------------------

SLURM = {f"SLURM_ARRAY_TASK_{name}": number for name, number in
         (("ID", "13"), ("MIN", "10"), ("MAX", "16"), ("STEP", "3"), ("COUNT", "3"))}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "environ", "told"),
    [
        ("1/1", {}, "1/1"),
        ("3/4", {"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "2"}, "3/4"),
        ("auto", {}, "None"),
        ("auto", {"CI_NODE_INDEX": "2", "CI_NODE_TOTAL": "5"}, "2/5"),
        ("auto", {"SHARD_INDEX": "5", "SHARD_NUMBER": "5"}, "5/5"),
        ("auto", {"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "5"}, "1/5"),
        ("auto", SLURM, "2/3"),
    ],
)
def test_which_part(text: str, environ: dict[str, str], told: str) -> None:
    assert str(shard_from(text, environ)) == told


@pytest.mark.parametrize(
    ("text", "environ", "told"),
    [
        ("0/4", {}, "no part of 4"),
        ("5/4", {}, "no part of 4"),
        ("1", {}, "neither auto nor I/N"),
        ("a/b", {}, "neither auto nor I/N"),
        ("auto", {"CI_NODE_INDEX": "2"}, "CI_NODE_TOTAL is not"),
        ("auto", {"CI_NODE_INDEX": "3", "CI_NODE_TOTAL": "2"}, "CI_NODE_INDEX=3"),
        ("auto", {"JOB_COMPLETION_INDEX": "5", "JOB_COMPLETIONS": "5"}, "no part of 5"),
        ("auto", {"SHARD_INDEX": "x", "SHARD_NUMBER": "5"}, "not a whole number"),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_COUNT": "2"}, "an array with gaps"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "2"}, "SLURM_ARRAY_TASK_MIN="),
    ],
)
def test_what_is_no_part(text: str, environ: dict[str, str], told: str) -> None:
    with pytest.raises(ShardError, match=told):
        shard_from(text, environ)


def test_no_part_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-k", "loop_enospc_short_write", "--shard", "7/4"]) == REFUSED
    assert capsys.readouterr().err == "conform: --shard: '7/4': no part of 4\n"


# -- taken up again --------------------------------------------------------------------------------


def test_a_part_has_what_it_had_though_the_table_is_another(tmp_path: Path) -> None:
    some, table = jobs_of(1, 2, 3, 4, 5, 6)
    jobs = [Job(variant=job.variant, kernel="k") for job in some]
    mine = deal(jobs, Shard(index=1, count=2), table)
    left = record(tmp_path / "record.jsonl", mine, jobs, "1/2", done=1)
    other = Durations(seconds={job.variant.id: 1.0 for job in jobs})
    assert deal(jobs, Shard(index=1, count=2), other) != mine
    assert same_part(read_interrupted(left), jobs) == mine


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("mine", None, "does not say what fell to it"),
        ("mine", [0, 3], "has what is not among the 3 jobs"),
        ("mine", [-1], "has what is not among the 3 jobs"),
        ("repeat", 2, "of another whole"),
        ("kernels", ["k", "l"], "of another whole"),
        ("index", "first", "not a shard"),
    ],
)
def test_a_part_of_something_else_is_not_taken_up(
    name: str, value: object, told: str, tmp_path: Path
) -> None:
    jobs = [Job(variant=job.variant, kernel="k") for job in jobs_of(1, 2, 3)[0]]
    path = record(tmp_path / "record.jsonl", jobs[:2], jobs, "1/2", done=1)
    header, *rest = path.read_text().splitlines(keepends=True)
    changed = json.loads(header)
    changed["host"][PART][name] = value
    path.write_text("".join([json.dumps(changed) + "\n", *rest]))
    with pytest.raises(Refused, match=told):
        same_part(read_interrupted(path), jobs)


# -- together again --------------------------------------------------------------------------------


def record(
    path: Path, jobs: list[Job], of: list[Job], shard: str, *, done: int | None = None
) -> Path:
    """A part's record; of its first ``done`` jobs, if it was cut short."""
    part = shard_from(shard, {})
    assert part is not None
    header = Header(
        started="2026-01-02T03:04:05Z",
        command=("conform",),
        host={"kernels": {}, PART: described(part, of, jobs)},
        cases=Cases(sha256="0" * 64),
    )
    writer = RecordWriter(path, header, planned=len(jobs))
    for job in jobs[:done]:
        writer.add(
            plan=None,
            observation=None,
            verdict=Verdict(
                case=job.variant.case,
                values=job.variant.values,
                kernel=job.kernel,
                release="1",
                status=Status.PASS,
            ),
            attempt=job.attempt,
        )
    writer.finish() if done is None else writer.abandon()
    return path


@pytest.fixture
def four(tmp_path: Path) -> list[str]:
    jobs = [Job(variant=one.variant, kernel=kernel) for one in jobs_of(3, 1, 4, 1, 5)[0]
            for kernel in KERNELS]  # fmt: skip
    table = jobs_of(3, 1, 4, 1, 5)[1]
    return [
        str(record(tmp_path / f"{at}.jsonl", part, jobs, f"{at}/4"))
        for at, part in enumerate(parts_of(jobs, 4, table), 1)
    ]


def merged(words: list[str], to: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["merge", *words, "--to", str(to)])
    return code, capsys.readouterr().err


def test_all_parts_are_the_whole(
    four: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert merged(four[::-1], tmp_path / "all", capsys)[0] == 0
    whole = read_record(tmp_path / "all")
    assert len(whole.entries) == 15
    assert PART not in whole.header.host


def test_a_missing_part_is_refused_or_marked(
    four: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = merged([four[0], four[3]], tmp_path / "all", capsys)
    assert code == REFUSED
    assert "shard 2/4, 3/4 is missing" in told
    assert not (tmp_path / "all").exists()
    code, told = merged([four[0], four[3], "--mark-missing"], tmp_path / "all", capsys)
    assert code == BROKEN
    verdicts = read_record(tmp_path / "all").verdicts
    assert len(verdicts) == 15
    absent = [verdict for verdict in verdicts if verdict.status is Status.BROKEN]
    assert 0 < len(absent) < 15
    assert {verdict.reasons for verdict in absent} == {("shard 2/4, 3/4 is missing",)}


def test_a_part_that_is_there_twice_is_refused(
    four: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ([], ["--mark-missing"]):
        code, told = merged([*four, four[1], *more], tmp_path / "all", capsys)
        assert code == REFUSED
        assert "shard 2/4 is in" in told


def test_a_part_that_was_cut_short_is_refused_or_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some, table = jobs_of(1, 2, 3, 4, 5, 6)
    jobs = [Job(variant=job.variant, kernel="k") for job in some]
    first, second = parts_of(jobs, 2, table)
    paths = [
        str(record(tmp_path / "1", first, jobs, "1/2", done=1)),
        str(record(tmp_path / "2", second, jobs, "2/2")),
    ]
    assert merged(paths, tmp_path / "all", capsys)[0] == REFUSED
    assert merged([*paths, "--mark-missing"], tmp_path / "all", capsys)[0] == BROKEN
    absent = [v for v in read_record(tmp_path / "all").verdicts if v.status is Status.BROKEN]
    assert len(absent) == len(first) - 1
    assert "no footer" in absent[0].reasons[0]


def test_parts_of_two_runs_are_not_one(
    four: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The planted fault: as many parts as there should be, but one of another run."""
    jobs, _ = jobs_of(1, 1)
    other = record(tmp_path / "other", jobs[:1], jobs, "2/4")
    code, told = merged([four[0], str(other), four[2], four[3]], tmp_path / "all", capsys)
    assert code == REFUSED
    assert "shard 2/4 is missing" in told


def test_the_attempts_of_a_missing_part_are_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The planted fault: each variant is in the part that is there, once."""
    some, _ = jobs_of(1, 2, 3)
    jobs = [
        Job(variant=job.variant, kernel="k", attempt=attempt) for attempt in (1, 2) for job in some
    ]
    there = record(tmp_path / "1", [*jobs[:2], jobs[5]], jobs, "1/2")
    assert merged([str(there)], tmp_path / "all", capsys)[0] == REFUSED
    code, told = merged([str(there), "--mark-missing"], tmp_path / "all", capsys)
    assert code == BROKEN
    assert "3 of them BROKEN: shard 2/2 is missing" in told
    entries = read_record(tmp_path / "all").entries
    absent = [entry for entry in entries if entry.verdict.status is Status.BROKEN]
    assert len(entries) == 6
    assert [(entry.verdict.case, entry.attempt) for entry in absent] == [
        ("case_0", 2),
        ("case_1", 2),
        ("case_2", 1),
    ]
    assert {entry.verdict.reasons for entry in absent} == {("shard 2/2 is missing",)}


def test_a_missing_part_is_told_although_nothing_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs, _ = jobs_of(1)
    there = record(tmp_path / "1", jobs, jobs, "1/2")
    code, told = merged([str(there), "--mark-missing"], tmp_path / "all", capsys)
    assert code == BROKEN
    assert "shard 2/2 is missing: of what was planned nothing is missing" in told


def test_a_part_to_which_nothing_fell_is_a_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs, _ = jobs_of(1)
    paths = [
        str(record(tmp_path / "2", [], jobs, "2/2")),
        str(record(tmp_path / "1", jobs, jobs, "1/2")),
    ]
    assert main(["judge", paths[0]]) == 0
    for form in FORMATS.values():
        form((), Asked(), started="2026-01-02T03:04:05")
    assert merged(paths, tmp_path / "all", capsys)[0] == 0
    assert len(read_record(tmp_path / "all").entries) == 1
    # Without its footer nobody can tell that this was all.
    path = Path(paths[0])
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert main(["judge", str(path)]) & BROKEN
