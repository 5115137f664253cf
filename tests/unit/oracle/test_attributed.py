"""Whose error an error is, where a cgroup is at its limit and others have space.

``neighbour`` is in a cgroup that has space, ``fill`` in the one that has not, unless a test says otherwise.
The expectation is NORMS': the error goes to whose I/O failed, and to nobody else.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest

from conformance.model import (
    Bystander,
    BystanderState,
    Finding,
    IoError,
    Level,
    Memcg,
    Op,
    Role,
    TmpfsSize,
)
from conformance.oracle.clauses.answers import attributed
from conformance.oracle.trial import trial
from tests.support.builders import (
    EIO,
    ENOSPC,
    Act,
    Story,
    imposed,
    ran,
    read,
    relieved,
    stored,
    synced,
    write,
)
from tests.support.submitters import files, refused, script, unseen, wrote_all
from tests.support.trials import joined

EPERM = -errno.EPERM
MIB = 1 << 20
FULL = TmpfsSize(kind="tmpfs_size", layer="back", size=MIB)
LIMIT = Memcg(kind="memcg", cgroup="limited", limit=MIB)
DD = ("dd", "if=/dev/zero", "of={device}")

NOBODY_S = "no error for a submitter whose cgroup is not at its limit"


def errors(*acts: Act, bystanders: tuple[Bystander, ...] = ()) -> list[Finding]:
    story = Story(acts=(imposed(), *acts), shortage=LIMIT, bystanders=bystanders)
    return list(attributed(joined(story)))


def test_an_error_of_who_has_space_is_another_s() -> None:
    (finding,) = errors(refused("neighbour", EIO, ENOSPC, cgroup="other"))
    assert (finding.level, finding.signature) == (Level.MUST, "error-of-another:EIO")
    assert (finding.step, finding.expected) == ("neighbour", NOBODY_S)
    assert finding.observed == "write(0, 8192) = -1 EIO in step neighbour, from other"
    assert finding.evidence == ("write(0, 8192) = -1 EIO", "write(8192, 8192) = -1 ENOSPC")


@pytest.mark.parametrize(
    ("act", "name", "observed"),
    [
        pytest.param(
            refused("root", ENOSPC, cgroup=""),
            "ENOSPC",
            "write(0, 8192) = -1 ENOSPC in step root, from the root cgroup",
            id="the root cgroup is nobody's",
        ),
        pytest.param(
            files("save", 0, EPERM, EIO, cgroup="other"),
            "EPERM",
            "write of d/1 failed in step save, from other",
            id="the first of a file's operations that failed",
        ),
        pytest.param(
            ran("dd", Role.REUSE, DD, exit_code=1, output="dd: a\ndd: b: Input/output error\nx"),
            "EIO",
            "dd: b: Input/output error in step dd, from the root cgroup",
            id="a command's own words",
        ),
        pytest.param(
            ran("dd", Role.REUSE, DD, exit_code=3, output="dd: no"),
            "unknown",
            "exit status 3 in step dd, from the root cgroup",
            id="a command that does not say which",
        ),
    ],
)
def test_who_was_told_of_what(act: Act, name: str, observed: str) -> None:
    (finding,) = errors(act)
    assert finding.signature == f"error-of-another:{name}"
    assert finding.observed == observed


def test_the_last_three_hundred_characters_of_a_command_s_words_are_evidence() -> None:
    output = "Input/output error".rjust(299, "b").rjust(300, "a").rjust(400, "-")
    (finding,) = errors(ran("dd", Role.PROVOKE, DD, exit_code=1, output=output))
    (evidence,) = finding.evidence
    assert (len(evidence), evidence[:2]) == (300, "ab")


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(refused("fill", ENOSPC), id="in the cgroup at its limit"),
        pytest.param(refused("fill", ENOSPC, cgroup="limited/below"), id="below it"),
        pytest.param(script("calls", EIO), id="a script, of which no cgroup is known"),
        pytest.param(unseen(refused("fill", EIO, cgroup="other")), id="nothing was seen"),
        pytest.param(wrote_all(exit_code=1), id="a ledger's exit status names no error"),
        pytest.param(files("save", 0, 0, 0), id="files that were written"),
        pytest.param(ran("dd", Role.PROVOKE, DD), id="a command that succeeded"),
        pytest.param(refused("look", EIO, cgroup="other", role=Role.OBSERVE), id="who looks on"),
    ],
)
def test_no_error_of_another(act: Act) -> None:
    assert errors(act) == []


def test_after_relief_an_error_is_the_device_s_own() -> None:
    assert errors(relieved(), refused("late", EIO, cgroup="other")) == []


def test_a_shortage_that_is_no_cgroup_s_is_everybody_s() -> None:
    """Another arm's, on a cgroup, is judged all the same."""
    neighbour = refused("neighbour", EIO, cgroup="other")
    full, limited = (Story(acts=(imposed(), neighbour), shortage=one) for one in (FULL, LIMIT))
    asked, seen = limited.variant.arms[0], limited.observation.arms[0]
    other = {"name": "other"}
    both = trial(
        full.variant.model_copy(
            update={"arms": (*full.variant.arms, asked.model_copy(update=other))}
        ),
        full.observation.model_copy(
            update={"arms": (*full.observation.arms, seen.model_copy(update=other))}
        ),
    )
    assert [finding.arm for finding in attributed(both)] == ["other"]


# -- an error that nobody had been told of ----------------------------------------------------------


def buffered(name: str, cgroup: str, *ops: Op) -> Act:
    return write(name, Role.PROVOKE, (0, 2), ops, generation=2, cgroup=cgroup)


NEIGHBOUR = buffered("neighbour", "other", *stored(0, 2), synced(EIO))
LEFT = buffered("fill", "limited", *stored(0, 2))
TOLD_LATE = ": an error of fill, of which nobody had been told"


@pytest.mark.parametrize(
    "before",
    [
        pytest.param((LEFT,), id="just before"),
        pytest.param((LEFT, ran("look", Role.OBSERVE, ("true",))), id="with a command in between"),
    ],
)
def test_an_error_that_was_left_over_is_told_late(before: Sequence[Act]) -> None:
    (finding,) = errors(*before, NEIGHBOUR)
    assert finding.signature == "late-error-of-another:EIO"
    assert finding.observed == f"sync() = -1 EIO in step neighbour, from other{TOLD_LATE}"


def test_an_error_of_which_another_was_told_in_between_is_not_late() -> None:
    told = buffered("told", "limited", *stored(0, 2), synced(EIO))
    (finding,) = errors(LEFT, told, NEIGHBOUR)
    assert finding.signature == "error-of-another:EIO"
    assert finding.observed == "sync() = -1 EIO in step neighbour, from other"


# -- bystanders -------------------------------------------------------------------------------------


def watched(act: Act, cgroup: str, *codes: int, name: str = "reader") -> Act:
    """The same act, after which a bystander has had these errors."""
    state = BystanderState(
        name=name,
        pid=300,
        cgroup=cgroup,
        alive=True,
        io_errors=tuple(IoError("read", 0, code, 10) for code in codes),
    )
    return act.watching(bystanders=(state,))


BESIDE = (Bystander(name="reader"),)


def test_an_error_of_a_bystander_who_has_space_is_another_s() -> None:
    findings = errors(
        watched(wrote_all(), "other"),
        watched(read("first", ".."), "other", errno.EIO),
        watched(read("then", ".."), "other", errno.EIO, errno.ENOSPC),
        bystanders=BESIDE,
    )
    assert [(f.signature, f.step, f.observed) for f in findings] == [
        (
            "bystander:reader:EIO",
            "first",
            "EIO for bystander reader, whose cgroup has no limit",
        ),
        (
            "bystander:reader:ENOSPC",
            "then",
            "ENOSPC for bystander reader, whose cgroup has no limit",
        ),
    ]
    assert {(finding.level, finding.expected) for finding in findings} == {(Level.MUST, NOBODY_S)}


def test_an_error_of_a_bystander_at_the_limit_is_its_own() -> None:
    assert errors(watched(wrote_all(), "limited", errno.EIO), bystanders=BESIDE) == []
