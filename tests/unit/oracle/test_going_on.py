"""Going on with the device, word by word (``reusable``, S4 S12): during the shortage, and after it.

During it whoever comes next gets data or errors, what gave space back has given it, and reading takes
none; after it everything works.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

import pytest

from conformance.model import (
    AnyShortage,
    Clause,
    Command,
    Ended,
    Finding,
    Inodes,
    Level,
    Op,
    RangeKind,
    RangeOp,
    Reading,
    Role,
    Submitter,
    Trim,
)
from conformance.model.shortages import ThinData
from tests.support import trials
from tests.support.builders import (
    EIO,
    ENOSPC,
    PID,
    Act,
    Story,
    extents,
    imposed,
    ran,
    read,
    relieved,
    synced,
    write,
    wrote,
)

EPERM = -errno.EPERM
REUSE, RECOVER, OBSERVE = Role.REUSE, Role.RECOVER, Role.OBSERVE
SPACE_LATE = ThinData(kind="thin_data", layer="back", leave=0)
"""A shortage whose gauge may tell a step later of what came back."""
NO_SPACE = Inodes(kind="inodes", layer="back")
"""A shortage of something else than space for data."""
GIB = 1 << 30


def found(*acts: Act, shortage: AnyShortage | None = None) -> list[Finding]:
    tale = Story(acts=acts)
    if shortage is not None:
        tale = tale.with_(shortage=shortage)
    return trials.found(Clause.REUSABLE, tale)


def told(*acts: Act, shortage: AnyShortage | None = None) -> list[tuple[str, str]]:
    """Signature and words of each finding."""
    return [(one.signature, one.observed) for one in found(*acts, shortage=shortage)]


def at(used: int, act: Act) -> Act:
    """An act after which the gauge shows so many bytes in use."""
    return act.watching(reading=Reading(kind="gauge", used=used))


def discarded(frees: int, *ops: Op, name: str = "discard", role: Role = REUSE) -> Act:
    step = RangeOp(
        name=name, role=role, verb="range_op", op=RangeKind.DISCARD, length=8192, frees=frees
    )
    done = ops or (Op("discard", 0, 8192, 0, 0, 1, 2), synced())
    submitter = Submitter(pid=PID, cgroup="", ops=done, ended=Ended(exit_code=0))
    return Act(step=step, seen={"submitter": submitter})


def command(name: str, exit_code: int = 0, output: str = "") -> Command:
    return Command(argv=(f"/sbin/{name}", "-v"), ended=Ended(exit_code=exit_code), output=output)


def trimmed(frees: int, *commands: Command) -> Act:
    step = Trim(name="trim", role=REUSE, verb="trim", directory="d", frees=frees)
    return Act(step=step, seen={"commands": commands or (command("fstrim"),)})


def wrote_for(role: Role, *ops: Op, blocks: tuple[int, int] = (0, 2), name: str = "next") -> Act:
    return write(name, role, blocks, ops or (wrote(*blocks), synced()), generation=3)


# -- what was given back ----------------------------------------------------------------------------


def test_a_discard_gives_back_what_it_says() -> None:
    (one,) = found(at(GIB, imposed()), at(GIB - 8191, discarded(8192)))
    assert (one.clause, one.level, one.arm, one.step) == (
        Clause.REUSABLE,
        Level.MUST,
        "main",
        "discard",
    )
    assert one.signature == "space-not-given-back"
    assert one.expected == "discard gives back 8 KiB or more"
    assert one.observed == "8191 bytes came back, and nothing of discard failed"
    assert one.evidence == ()


def test_a_trim_gives_back_what_it_says_and_its_last_words_are_shown() -> None:
    talks = command("fstrim", output=f"before {'y' * 199}\n")
    (one,) = found(at(GIB, imposed()), at(GIB, trimmed(8192, command("rm"), talks)))
    assert one.expected == "removing and trimming gives back 8 KiB or more"
    assert one.observed == "0 bytes came back, and nothing of trim failed"
    assert one.evidence == ("rm: ", f"fstrim: {'y' * 199}")
    (one,) = found(at(GIB, imposed()), at(GIB, trimmed(8192, command("sync", output="z" * 201))))
    assert one.evidence == (f"sync: {'z' * 200}",)


GIVES_BACK: dict[str, tuple[list[Act], AnyShortage | None, str]] = {
    "just as much": ([at(GIB, imposed()), at(GIB - 8192, discarded(8192))], None, ""),
    "more came to be used": (
        [at(GIB, imposed()), at(GIB + 4096, discarded(8192))],
        None,
        "0 bytes",
    ),
    "what need not give anything back": (
        [at(GIB, imposed()), at(GIB + 4096, discarded(0))],
        None,
        "",
    ),
    "a discard that failed": (
        [at(GIB, imposed()), at(GIB, discarded(8192, Op("discard", 0, 8192, 0, EPERM, 1, 2)))],
        None,
        "",
    ),
    "a trim that failed": (
        [at(GIB, imposed()), at(GIB, trimmed(8192, command("fstrim", 1)))],
        None,
        "",
    ),
    "by the gauge just before": (
        [at(GIB, read("look", "..")), at(4096, imposed()), at(0, discarded(8192))],
        None,
        "4 KiB",
    ),
    "by a gauge that is not late": (
        [at(GIB, imposed()), at(GIB, discarded(8192)), at(0, read("look", ".."))],
        None,
        "0 bytes",
    ),
    "by a late gauge": (
        [
            *(at(GIB, imposed()), at(GIB, discarded(8192)), at(GIB - 8192, read("look", ".."))),
            at(0, relieved()),
        ],
        SPACE_LATE,
        "",
    ),
    "by a late gauge, at once, and taken again": (
        [at(GIB, imposed()), at(GIB - 8192, discarded(8192)), at(GIB, wrote_for(OBSERVE))],
        SPACE_LATE,
        "",
    ),
    "by a late gauge, with nothing after it": (
        [at(GIB, imposed()), at(GIB - 4096, discarded(8192))],
        SPACE_LATE,
        "4 KiB",
    ),
    "by a late gauge, but two steps later": (
        [
            at(GIB, imposed()),
            at(GIB, discarded(8192)),
            at(GIB - 4096, read("look", "..")),
            at(0, read("look_again", "..")),
        ],
        SPACE_LATE,
        "4 KiB",
    ),
    "by a late gauge, after relief": (
        [at(GIB, imposed()), at(GIB, discarded(8192)), at(0, relieved())],
        SPACE_LATE,
        "0 bytes",
    ),
    "by a late gauge, after another discard": (
        [at(GIB, imposed()), at(GIB, discarded(8192)), at(0, discarded(8192, name="more"))],
        SPACE_LATE,
        "0 bytes",
    ),
    "by a late gauge, after a trim": (
        [at(GIB, imposed()), at(GIB, discarded(8192)), at(0, trimmed(8192))],
        SPACE_LATE,
        "0 bytes",
    ),
}


@pytest.mark.parametrize("name", GIVES_BACK)
def test_what_came_back_is_told_by_the_gauge(name: str) -> None:
    acts, shortage, amount = GIVES_BACK[name]
    text = f"{amount} came back, and nothing of discard failed"
    assert told(*acts, shortage=shortage) == ([("space-not-given-back", text)] if amount else [])


# -- what was refused although there is space --------------------------------------------------------

REFUSED = (wrote(0, 2, ENOSPC), wrote(2, 2, EIO))


def test_a_write_is_not_refused_for_want_of_what_it_does_not_take() -> None:
    (one,) = found(imposed(), wrote_for(REUSE, *REFUSED, blocks=(0, 4)), shortage=NO_SPACE)
    assert (one.level, one.step, one.evidence) == (Level.MUST, "next", ())
    assert one.signature == "refused-for-nothing:ENOSPC"
    assert one.expected == "a write of 16 KiB succeeds: what runs short is not space for data"
    assert one.observed == "write(0, 8192) = -1 ENOSPC"


def test_a_write_is_not_refused_the_space_that_was_just_given_back() -> None:
    room = [at(GIB, imposed()), at(0, discarded(8192, name="made_room"))]
    (one,) = found(*room, at(0, wrote_for(REUSE, wrote(0, 2, ENOSPC))), read("look", ".."))
    assert one.signature == "refused-for-nothing:ENOSPC"
    assert one.expected == "a write of 8 KiB succeeds: made_room gave space back"


def after_discard(frees: int, *ops: Op) -> tuple[Act, ...]:
    """A write of two blocks that is refused, right after a discard."""
    return at(GIB, imposed()), at(0, discarded(frees, *ops)), wrote_for(REUSE, wrote(0, 2, ENOSPC))


REFUSALS: dict[str, tuple[Sequence[Act], AnyShortage | None, bool]] = {
    "after a discard of more": (after_discard(12288), None, True),
    "after a discard of less": (after_discard(8191), None, False),
    "after a discard that failed": (
        after_discard(8192, Op("discard", 0, 8192, 0, EPERM, 1, 2)),
        None,
        False,
    ),
    "with no discard before it": ((imposed(), wrote_for(REUSE, *REFUSED)), None, False),
    "with a discard long before it": (
        (*after_discard(8192)[:2], at(0, read("look", "..")), after_discard(8192)[2]),
        None,
        False,
    ),
    "to provoke": ((imposed(), wrote_for(Role.PROVOKE, *REFUSED)), NO_SPACE, False),
    "before the shortage": ((wrote_for(REUSE, *REFUSED), imposed()), NO_SPACE, False),
    "once it is relieved": ((imposed(), relieved(), wrote_for(REUSE, *REFUSED)), NO_SPACE, False),
    "not at all": ((imposed(), wrote_for(REUSE)), NO_SPACE, False),
    "to a command": ((imposed(), discarded(8192), ran("cp", REUSE, ["cp"])), NO_SPACE, False),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_write_that_was_refused(name: str) -> None:
    acts, shortage, wrong = REFUSALS[name]
    signatures = [one.signature for one in found(*acts, shortage=shortage)]
    assert ("refused-for-nothing:ENOSPC" in signatures) is wrong, signatures


# -- reading ----------------------------------------------------------------------------------------


def test_reading_succeeds_while_nothing_can_be_written() -> None:
    (one,) = found(imposed(), read("again", ".!.!", REUSE))
    assert (one.level, one.step) == (Level.MUST, "again")
    assert one.signature == "unreadable:EIO"
    assert one.expected == (
        "reading succeeds while nothing can be written, where nothing was written too"
    )
    assert one.observed == (
        "bytes 4096 to 8191 (4 KiB), bytes 12288 to 16383 (4 KiB) could not be read"
    )


@pytest.mark.parametrize(
    ("first", "signature"), [(errno.EROFS, "unreadable:EROFS"), (None, "unreadable:errno 0")]
)
def test_the_first_error_of_a_reading_names_it(first: int | None, signature: str) -> None:
    one, *others = extents("!!!")
    act = read("again", "!!!", REUSE)
    seen = {"extents": (one._replace(errno=first), *others)}
    assert [s for s, _ in told(imposed(), Act(step=act.step, seen=seen))] == [signature]


def test_reading_takes_no_space() -> None:
    (one,) = found(at(GIB, imposed()), at(GIB + 65537, read("again", "..", REUSE)))
    assert (one.level, one.step) == (Level.SHOULD, "again")
    assert (one.signature, one.expected) == ("reading-takes-space", "reading takes no space")
    assert one.observed == "65537 bytes more were in use after again"


READINGS: dict[str, list[Act]] = {
    "while a little that was put off is carried out": [
        at(GIB, imposed()),
        at(GIB + 65536, read("again", "..", REUSE)),
    ],
    "while as much is used as before": [
        at(0, read("look", "..")),
        at(GIB, imposed()),
        at(GIB, read("again", "..", REUSE)),
        at(0, relieved()),
    ],
    "by who does not go on": [at(0, imposed()), at(GIB, read("again", "!."))],
    "after relief": [imposed(), at(0, relieved()), at(GIB, read("again", "!.", REUSE))],
    "by who writes": [at(0, imposed()), at(GIB, wrote_for(REUSE))],
}


@pytest.mark.parametrize("name", READINGS)
def test_nothing_is_said_of_reading(name: str) -> None:
    assert told(*READINGS[name]) == []


# -- how whoever goes on ends ------------------------------------------------------------------------

KILLED, STUCK = {"signal": 9}, {"timed_out": True}


@pytest.mark.parametrize(
    ("role", "how", "expected"),
    [
        (REUSE, KILLED, [("reuse-killed", "next was ended by SIGKILL")]),
        (REUSE, STUCK, [("reuse-timed-out", "next did not end within its limit")]),
        (RECOVER, KILLED, [("recover-killed", "next was ended by SIGKILL")]),
        (RECOVER, STUCK, [("recover-timed-out", "next did not end within its limit")]),
        (REUSE, {"exit_code": 0}, []),
        (Role.PROVOKE, KILLED, []),
        (OBSERVE, STUCK, []),
    ],
)
def test_who_uses_the_device_next_gets_data_or_errors(
    role: Role, how: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    findings = found(imposed(), wrote_for(role).ended(**how))
    assert [(one.signature, one.observed) for one in findings] == expected
    for one in findings:
        assert (one.level, one.step) == (Level.MUST, "next")
        assert one.expected == "data or errors for whoever uses the device next"


def test_who_uses_the_device_next_says_what_it_waits_for() -> None:
    (finding,) = found(imposed(), wrote_for(REUSE).in_a("write", 4096, 8192).ended(**STUCK))
    assert (
        finding.observed == "next did not end within its limit: write(4096, 8192) had not returned"
    )
