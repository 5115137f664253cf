"""Which files were acknowledged: a line of calls each, and who may rely on what.

The letter of fsync(2): a file's bytes are durable once its fsync has returned 0, and its name once its
directory was synced after that. A line reads as the calls were made; ``EIO`` and the like after a path
is what the call got, ``short`` that a write stored less than it was given.
"""

from __future__ import annotations

import errno
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from conformance.model import (
    Command,
    Ended,
    FileOp,
    Files,
    FileState,
    Metadata,
    Mkfs,
    Mount,
    Role,
    Trim,
    Unmount,
    VerifyFiles,
)
from conformance.oracle import files as module
from conformance.oracle.files import damages, unlisted
from conformance.oracle.scene import Scene, scenes
from tests.support.builders import Act, Story, imposed, relieved

SIZE = 8192
DONE = Command(argv=("true",), ended=Ended(exit_code=0))


def did(script: str) -> tuple[FileOp, ...]:
    """Calls on files as a line tells them."""
    ops = []
    for at, words in enumerate(call.split() for call in script.split(";")):
        kind, path, how = (*words, "")[:3]
        length = SIZE if kind == "write" else 0
        result = {"": length, "short": length - 1}.get(how)
        ops.append(
            FileOp(
                kind, path, 1, length, -getattr(errno, how) if result is None else result, at, at
            )
        )
    return tuple(ops)


def wrote(script: str, name: str = "load", *, target: str = "fs") -> Act:
    """A step that writes files into ``d``."""
    values = {"as": name, "role": "provoke", "verb": "files", "directory": "d", "size": SIZE}
    step = Files.model_validate({**values, "target": target, "count": 9, "generation": 2})
    return Act(step=step, seen={"file_ops": did(script)})


def stormed(script: str, name: str = "storm") -> Act:
    """A step that is all metadata, in ``d``."""
    values = {"as": name, "role": "provoke", "verb": "metadata", "directory": "d", "count": 9}
    return Act(step=Metadata.model_validate(values), seen={"file_ops": did(script)})


def found(states: str, name: str = "look", *, target: str = "fs", **seen: Any) -> Act:
    """A verification: ``d/a=missing`` and the like. Nothing after a path is a whole file."""
    told = [word.partition("=") for word in states.split()]
    return Act(
        step=VerifyFiles(name=name, role=Role.OBSERVE, verb="verify_files", target=target),
        seen={
            "files": tuple(
                FileState.model_validate({"path": path, "state": state or "whole"})
                for path, _, state in told
            ),
            **seen,
        },
    )


def mounted(name: str = "mount", *, target: str = "fs") -> Act:
    step = Mount(name=name, role=Role.RECOVER, verb="mount", target=target)
    return Act(step=step, seen={"commands": (DONE,)})


def unmounted(*, target: str = "fs") -> Act:
    step = Unmount(name="unmount", role=Role.RECOVER, verb="unmount", target=target)
    return Act(step=step, seen={"commands": (DONE,)})


def trimmed(directory: str, *, target: str = "fs") -> Act:
    step = Trim(
        name="trim", role=Role.REUSE, verb="trim", directory=directory, frees=0, target=target
    )
    return Act(step=step, seen={"commands": (DONE,)})


def made_anew(*, target: str = "fs") -> Act:
    step = Mkfs(name="mkfs", role=Role.RECOVER, verb="mkfs", target=target)
    return Act(step=step, seen={"commands": (DONE,)})


def imposed_again() -> Act:
    return Act(step=imposed().step.model_copy(update={"name": "impose_again"}))


def seen(*acts: Act) -> Scene:
    story = Story(acts=acts)
    return scenes(story.variant, story.observation)[0]


def relied_on(*acts: Act, among: str = "d/a d/b") -> str:
    """Those of some paths whose loss is damage: all of them are missed by a verification."""
    missed = found(" ".join(f"{path}=missing" for path in among.split()))
    return " ".join(sorted(damage.state.path for damage in damages(seen(*acts, missed))))


def must_tell(*acts: Act) -> list[str]:
    """What a verification that tells of no file leaves out: the first by its name."""
    return list(unlisted(seen(*acts, found(""))))


MADE = "create d/a; write d/a"
BOTH = f"{MADE}; create d/b; write d/b"

FILES: dict[str, tuple[str, str]] = {
    "each with its directory, by the file's own path": (
        f"{MADE}; fsync d/a; dirsync d/a; create d/b; write d/b; fsync d/b; dirsync d/b",
        "d/a d/b",
    ),
    "a directory by its own path": (f"{BOTH}; fsync d/a; fsync d/b; dirsync d", "d/a d/b"),
    "a directory with a slash at its end": (f"{MADE}; fsync d/a; dirsync d/", "d/a"),
    "another directory": (f"{MADE}; fsync d/a; dirsync e", ""),
    "where no directory is synced at all": (f"{MADE}; fsync d/a", "d/a"),
    "by msync": ("create d/a; truncate d/a; write d/a; msync d/a; dirsync d/a", "d/a"),
    "a file that nobody synced": (f"{BOTH}; fsync d/a", "d/a"),
    "a file that nobody synced, and its directory": (f"{BOTH}; fsync d/a; dirsync d/a", "d/a"),
    "calls that change nothing": (f"mkdir d; open d/a; {MADE}; close d/a; close d", ""),
    "a directory that was synced before the file was made": (f"dirsync d; {MADE}; fsync d/a", ""),
    "a failed sync of the directory": (f"{MADE}; fsync d/a; dirsync d EPERM", ""),
    "a file that was only synced, and its directory could not be": ("fsync d/a; dirsync d EIO", ""),
    "a write that failed": ("create d/a; write d/a EPERM; fsync d/a; dirsync d", ""),
    "a write that failed, and then one that did not": (
        "create d/a; write d/a ENOSPC; write d/a; fsync d/a; dirsync d",
        "",
    ),
    "a short write": ("create d/a; write d/a short; fsync d/a; dirsync d", ""),
    "a file that could not be created": ("create d/a EPERM; fsync d/a; dirsync d", ""),
    "an fsync that failed": (f"{MADE}; fsync d/a EPERM; dirsync d", ""),
    "an fsync that failed, and then one that did not": (
        f"{MADE}; fsync d/a EIO; fsync d/a; dirsync d",
        "",
    ),
    "a write after the sync": (f"{MADE}; fsync d/a; dirsync d; write d/a", ""),
    "a write after the sync, synced again without its directory": (
        f"{MADE}; fsync d/a; dirsync d; setxattr d/a; fsync d/a",
        "",
    ),
    "the whole filesystem": (f"{BOTH}; syncfs /", "d/a d/b"),
    "the whole filesystem, frozen": (f"{BOTH}; freeze /; thaw /", "d/a d/b"),
    "the whole filesystem, and directories before": (
        f"mkdir d; dirsync d EIO; {BOTH}; syncfs /",
        "d/a d/b",
    ),
    "the whole filesystem, of which one could not be written": (
        f"{MADE}; create d/b; write d/b ENOSPC; syncfs /",
        "d/a",
    ),
    "the whole filesystem in vain": (f"{BOTH}; syncfs / EIO", ""),
    "the whole filesystem, before the last file": (f"{MADE}; syncfs /; create d/b", "d/a"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_acknowledged_with_its_name_by_syncing(name: str) -> None:
    script, acknowledged = FILES[name]
    assert relied_on(wrote(script)) == acknowledged
    first = acknowledged.split()[:1]
    assert must_tell(wrote(script)) == [f"arm main: look does not tell of {p}" for p in first]


STORMS: dict[str, tuple[str, str, str]] = {
    "rows of creations, an fsync and one of the directory": (
        "create d/a; create d/b; fsync d/b; dirsync d",
        "d/a d/b",
        "d/b",
    ),
    "a directory alone": ("mkdir d/x; dirsync d", "d/a d/b", ""),
    "no directory": ("create d/a; fsync d/a", "d/a d/b", "d/a"),
    "nothing": ("create d/a; mkdir d/b", "", ""),
    "an fsync after the directory's last": (
        "create d/a; fsync d/a; dirsync d; create d/b; fsync d/b",
        "d/a d/b",
        "d/a",
    ),
    "an fsync of which the directory's failed": (
        "fsync d/a; create d/a; dirsync d EIO",
        "d/a d/b",
        "",
    ),
    "a directory that was synced later, and then could not be": (
        "fsync d/a; dirsync d; fsync d/b; dirsync d EIO",
        "d/a d/b",
        "d/a",
    ),
    "an fsync that failed": ("fsync d/b; fsync d/a EPERM; dirsync d", "d/b", "d/b"),
    "creations that failed": ("create d/a EPERM; fsync d/b; dirsync d", "d/a d/b", "d/b"),
    "syncs that all failed": ("create d/a; fsync d/a EIO; dirsync d EIO", "", ""),
}


@pytest.mark.parametrize("name", STORMS)
def test_of_a_load_that_is_all_metadata_what_was_listed_is_acknowledged(name: str) -> None:
    """The agent lists the names that were synced with their directory, more than were recorded."""
    script, acknowledged, recorded = STORMS[name]
    assert relied_on(stormed(script)) == acknowledged
    told = [f"arm main: look does not tell of {recorded}"] if recorded else []
    assert must_tell(stormed(script)) == told


def test_what_lies_in_another_directory_is_not_of_the_load() -> None:
    storm = stormed("fsync d/a; dirsync d")
    assert relied_on(storm, among="d/x/a mnt/d/a e/a ed/a") == "d/x/a mnt/d/a"


def test_a_file_of_a_known_story_is_judged_by_it_and_not_by_its_directory() -> None:
    assert relied_on(stormed("fsync d/b; dirsync d"), wrote(f"{MADE}; fsync d/a EIO")) == "d/b"


SYNCED = wrote(f"{BOTH}; fsync d/a; fsync d/b; dirsync d")
LISTED = stormed("fsync d/b; dirsync d")
TAKEN_AWAY: dict[str, tuple[tuple[Act, ...], str]] = {
    "a directory of files": ((SYNCED, trimmed("d")), ""),
    "a directory of a load that is all metadata": ((LISTED, trimmed("d")), ""),
    "another directory": ((SYNCED, trimmed("e")), "d/a d/b"),
    "another directory, of a load that is all metadata": ((LISTED, trimmed("e")), "d/a d/b"),
    "a directory of another filesystem": ((SYNCED, trimmed("d", target="other")), "d/a d/b"),
    "a directory with a longer name": ((SYNCED, trimmed("dd")), "d/a d/b"),
    "a filesystem of files": ((SYNCED, made_anew()), ""),
    "a filesystem of a load that is all metadata": ((LISTED, made_anew()), ""),
    "another filesystem": ((SYNCED, made_anew(target="other")), "d/a d/b"),
    "a directory that was there before the files": ((trimmed("d"), SYNCED), "d/a d/b"),
    "files of another filesystem": ((wrote(f"{MADE}; fsync d/a", target="other"),), ""),
}


@pytest.mark.parametrize("name", TAKEN_AWAY)
def test_what_was_taken_away_is_expected_no_more(name: str) -> None:
    acts, left = TAKEN_AWAY[name]
    assert relied_on(*acts) == left


# -- what a verification found ----------------------------------------------------------------------

DURING = (imposed(), SYNCED)


def told(*acts: Act) -> list[tuple[str, str, str, bool]]:
    """Damage: at which verification it was found first, of which file, how, and whether it lasted."""
    scene = seen(*acts)
    return [
        (scene.taken[one.verify].name, one.state.path, one.state.state, one.lasting)
        for one in damages(scene)
    ]


def test_a_whole_file_is_no_damage_and_ends_no_search() -> None:
    assert told(*DURING, found("d/a d/x=wrong d/b=wrong")) == [("look", "d/b", "wrong", False)]


LASTING: dict[str, tuple[tuple[Act, ...], bool]] = {
    "while the shortage lasts": ((found("d/a=wrong d/b"),), False),
    "after relief, from what is mounted still": ((relieved(), found("d/a=wrong d/b")), True),
    "after relief and a mount": ((relieved(), mounted(), found("d/a=wrong d/b")), True),
    "after a mount while the shortage lasted": (
        (mounted(), relieved(), found("d/a=wrong d/b")),
        True,
    ),
    "after relief and an unmounting": ((relieved(), unmounted(), found("d/a=wrong d/b")), False),
    "after relief and a mount of another": (
        (relieved(), mounted(target="other"), found("d/a=wrong d/b")),
        True,
    ),
    "before the mount that follows": ((relieved(), found("d/a=wrong d/b"), mounted()), False),
    "in a second shortage, after a mount between": (
        (relieved(), mounted(), imposed_again(), found("d/a=wrong d/b")),
        False,
    ),
}


@pytest.mark.parametrize("name", LASTING)
def test_damage_lasts_if_it_is_there_after_relief_and_any_mount_of_the_case(name: str) -> None:
    acts, lasting = LASTING[name]
    assert told(*DURING, *acts) == [("look", "d/a", "wrong", lasting)]


def look(number: int, state: str) -> Act:
    return found(f"d/a={state} d/b", f"look{number}")


HISTORY: dict[str, tuple[tuple[Act, ...], tuple[str, str, str, bool]]] = {
    "at first, of two looks during the shortage": (
        (look(1, "wrong"), look(2, "missing")),
        ("look1", "d/a", "wrong", False),
    ),
    "the lasting one": (
        (look(1, "wrong"), relieved(), mounted(), look(2, "missing")),
        ("look2", "d/a", "missing", True),
    ),
    "the first of two that last": (
        (relieved(), mounted(), look(1, "wrong"), look(2, "missing")),
        ("look1", "d/a", "wrong", True),
    ),
    "the lasting one, before a second shortage": (
        (
            *(relieved(), mounted(), look(1, "wrong")),
            imposed_again(),
            look(2, "missing"),
        ),
        ("look1", "d/a", "wrong", True),
    ),
}


@pytest.mark.parametrize("name", HISTORY)
def test_a_file_is_told_of_once(name: str) -> None:
    acts, damage = HISTORY[name]
    assert told(*DURING, *acts) == [damage]


def test_files_of_one_name_on_two_filesystems_are_two() -> None:
    made = f"{MADE}; fsync d/a"
    assert told(
        *(wrote(made, "here"), found("d/a=wrong", "look_here")),
        *(wrote(made, "there", target="other"), found("d/a=missing", "look_there", target="other")),
    ) == [("look_here", "d/a", "wrong", False), ("look_there", "d/a", "missing", False)]


def test_each_verification_tells_of_every_acknowledged_file() -> None:
    partly = (*DURING, found("d/a d/x", "first"), found("d/a d/b", "second"), found("d/b", "third"))
    assert list(unlisted(seen(*partly))) == [
        "arm main: first does not tell of d/b",
        "arm main: third does not tell of d/a",
    ]


def test_a_reader_that_could_not_read_owes_nothing_and_the_next_one_does() -> None:
    """What went wrong with it is told of elsewhere."""
    acts = (
        found("", "first", problem="no reader"),
        found("", "second", commands=(DONE,)),
        found("", "third"),
    )
    assert list(unlisted(seen(*DURING, *acts))) == ["arm main: third does not tell of d/a"]


def test_damage_is_built_by_keyword_and_stays_as_it_is() -> None:
    blank = object.__new__(module.Damage)
    with pytest.raises(FrozenInstanceError):
        setattr(blank, "lasting", True)  # noqa: B010 - what the type forbids
    with pytest.raises(TypeError):
        module.Damage(*range(len(fields(module.Damage))))  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["Damage", "_File", "_Tree"])
def test_nothing_can_be_said_of_a_file_under_a_misspelt_name(name: str) -> None:
    assert not hasattr(object.__new__(getattr(module, name)), "__dict__")
