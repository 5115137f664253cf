"""A story has the gauge, the errors, the kills and the relief of an observation, at their times."""

from __future__ import annotations

import pytest

from conformance.model import Ended, Extent, Norm, Observation, Op, StepSeen, TornDown
from conformance.report.norm import link, linked, told
from conformance.report.story import POINTS, log_of, size, stories
from tests.support.results import variant
from tests.support.stories import MIB, OOM, observed, step, watch, writer


def test_a_story_has_what_one_draws() -> None:
    [arm] = stories(variant(), observed(variant()))
    assert [(g.t_us, g.used, g.limit) for g in arm.gauge] == [
        (1_000_000, 0, None),
        (1_200_000, 0, 4 * MIB),
        (2_500_000, 4 * MIB, 4 * MIB),
        (2_700_000, 4 * MIB, None),
    ]
    assert [(m.kind, m.text) for m in arm.marks] == [
        ("impose", "the shortage begins"),
        ("error", "write: ENOSPC, 2 times"),
        ("kill", "OOM killer: python3 (pid 183)"),
        ("relief", "relief"),
    ]
    assert [m.t_us for m in arm.marks] == sorted(m.t_us for m in arm.marks)
    fill = arm.steps[1]
    assert fill.told == "4 MiB written, write ENOSPC (2 times), killed by SIGKILL"
    assert fill.written[0] == (2_000_000, 0)
    assert fill.written[-1] == (2_003_900, 4 * MIB)
    assert arm.gauge_of == "memcg"


def test_when_all_is_down_there_is_no_gauge_and_yet_a_log() -> None:
    seen = observed(variant())
    down = TornDown(watch=watch(3_000_000, 0), after=watch(4_000_000, 0, None, *OOM, "gone"))
    arm = seen.arms[0].model_copy(update={"torn_down": down})
    [told_of] = stories(variant(), seen.model_copy(update={"arms": (arm,)}))
    assert [gauge.t_us for gauge in told_of.gauge][-2:] == [2_700_000, 3_000_000]
    assert told_of.log[-1].text == "gone"
    assert [mark.t_us for mark in told_of.marks if mark.kind == "kill"] == [2_499_999, 3_999_998]


def test_the_log_of_several_arms_says_whose_is_which() -> None:
    seen = observed(variant())
    [arm] = stories(variant(), seen)
    assert log_of([arm]).splitlines()[0] == "[    0.999999] loop: loaded"
    assert "# arm main" in log_of([arm, arm])
    assert log_of([]) == ""


def test_a_long_line_of_writes_is_thinned_and_keeps_its_ends() -> None:
    ops = [Op("write", n * 4096, 4096, 1, 4096, n * 10, n * 10 + 5) for n in range(1000)]
    told_of = stories(
        variant(), _with(step("fill", "write", 0, watch(9, 0), submitter=writer(*ops)))
    )
    written = told_of[0].steps[0].written
    assert len(written) == POINTS
    assert written[0].bytes == 0
    assert written[-1].bytes == 4096 * 1000


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (Ended(timed_out=True, killable=False), "did not end by itself, and cannot be killed"),
        (Ended(signal=7), "killed by SIGBUS"),
        (Ended(signal=99), "killed by signal 99"),
        (Ended(exit_code=3), "exit status 3"),
    ],
)
def test_how_a_submitter_ended(ended: Ended, said: str) -> None:
    one = step("fill", "write", 0, watch(9, 0), submitter=writer(**ended.model_dump()))
    assert stories(variant(), _with(one))[0].steps[0].told == said


def test_what_was_read() -> None:
    extents = (
        Extent(0, 8192, "generation", 1, None),
        Extent(8192, 4096, "zero", None, None),
        Extent(12288, 4096, "zero", None, None),
    )
    one = step("look", "verify", 0, watch(9, 0), extents=extents, problem="odd")
    assert (
        stories(variant(), _with(one))[0].steps[0].told == "odd; reads 8 KiB as written, 8 KiB zero"
    )


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (4096, "4 KiB"), (1536 << 10, "1.5 MiB")])
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("write(2)", "https://man7.org/linux/man-pages/man2/write.2.html"),
        ("btrfs-qgroup(8)", "https://man7.org/linux/man-pages/man8/btrfs-qgroup.8.html"),
        (
            "lkml:2020.GH2005@dread.disaster.area",
            "https://lore.kernel.org/r/2020.GH2005@dread.disaster.area",
        ),
        (
            "linux:Documentation/admin-guide/xfs.rst, Error handling",
            "https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/"
            "Documentation/admin-guide/xfs.rst",
        ),
        ("posix:msync", "https://pubs.opengroup.org/onlinepubs/9799919799/functions/msync.html"),
        ("https://www.t10.org/drafts.htm", "https://www.t10.org/drafts.htm"),
        ("javascript:alert(1)", ""),
        ("https:alert(1)", ""),
        ('https://x/"onclick=', ""),
        ("data:text/html,x", ""),
        ("a book", ""),
    ],
)
def test_a_norm_s_link_is_https_or_none(source: str, address: str) -> None:
    assert link(Norm(source=source)) == address


def test_sources_in_prose_are_linked() -> None:
    parts = linked("linux:Documentation/x.rst, memory.max; J. Weiner, lkml:1.A@b.org")
    assert "".join(text for text, _ in parts).endswith("J. Weiner, lkml:1.A@b.org")
    assert [text for text, address in parts if address] == [
        "linux:Documentation/x.rst",
        "lkml:1.A@b.org",
    ]
    assert linked("") == []


def test_a_norm_is_told_with_its_section() -> None:
    assert told(Norm(source="write(2)", section="ERRORS")) == "write(2), ERRORS"
    assert told(Norm(source="write(2)")) == "write(2)"


def _with(one: StepSeen) -> Observation:
    seen = observed(variant())
    return seen.model_copy(update={"arms": (seen.arms[0].model_copy(update={"steps": (one,)}),)})
