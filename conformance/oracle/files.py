"""Which files were acknowledged, and how they were found.

A file is acknowledged when it was written whole, its fsync returned 0 and none had failed before,
and, where the step syncs directories at all, its directory was synced after it. By the letter of
fsync(2) the name of a new file is durable only then.

A sync of the whole filesystem (syncfs(2), or FIFREEZE, which fsfreeze(8) says writes all dirty data)
speaks for every file of its step that nothing failed for. What a step ``trim`` or ``mkfs`` took away
is no longer expected, whether or not all of it went.

Of a load that is all metadata, like operations in a row are recorded as one, so that not every name
is among them. The agent lists the names that were synced with their directory; that list is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import compress

from conformance.model import (
    FileOp,
    Files,
    FileState,
    Metadata,
    Mkfs,
    Mount,
    Trim,
    Unmount,
    VerifyFiles,
)
from conformance.oracle.scene import Phase, Scene, Taken, phases

CHANGES = frozenset({"create", "truncate", "write", "setxattr"})
FILE_SYNCS = frozenset({"fsync", "msync"})
WHOLE_SYNCS = frozenset({"syncfs", "freeze"})
SYNCS = FILE_SYNCS | WHOLE_SYNCS | {"dirsync"}


@dataclass(slots=True)
class _File:
    ok: bool = True  # nothing that was done to it failed
    synced: bool = field(init=False)  # since it was changed: the first that is done to it says so
    named: bool = False  # its directory was synced since

    def changed(self, op: FileOp) -> None:
        short = op.kind == "write" and op.result < op.length
        self.ok = self.ok and op.result >= 0 and not short
        self.synced = self.named = False

    def fsynced(self, op: FileOp) -> None:
        self.ok = self.ok and op.result >= 0
        self.synced = self.ok


@dataclass(slots=True)
class _Tree:
    """What a filesystem should hold."""

    files: dict[str, _File] = field(default_factory=dict)
    listed: dict[str, frozenset[str]] = field(default_factory=dict)
    """For each directory of a metadata step that synced: the files fsynced in it by name."""
    failed: set[str] = field(default_factory=set)

    def play(self, step: Files | Metadata, ops: tuple[FileOp, ...]) -> None:
        if isinstance(step, Metadata):
            self._metadata(step, ops)
            return
        mine: dict[str, _File] = {}
        for op in ops:
            if op.kind == "dirsync":
                _name(mine, op)
            elif op.kind in CHANGES:
                mine.setdefault(op.path, _File()).changed(op)
            elif op.kind in FILE_SYNCS:
                mine.setdefault(op.path, _File()).fsynced(op)
            elif op.kind in WHOLE_SYNCS:
                for one in mine.values():
                    one.fsynced(op)
                    one.named = one.synced
        if not any(op.kind == "dirsync" for op in ops):
            for one in mine.values():
                one.named = True
        self.files.update(mine)

    def remove(self, directory: str) -> None:
        """What is below a directory is expected no more; all of it if that is empty."""
        below = f"{directory}/" if directory else ""
        self.files = {p: one for p, one in self.files.items() if not p.startswith(below)}
        self.listed = {d: names for d, names in self.listed.items() if directory not in ("", d)}

    def _metadata(self, step: Metadata, ops: tuple[FileOp, ...]) -> None:
        self.failed |= {op.path for op in ops if op.kind == "fsync" and op.result < 0}
        if not any(op.kind in SYNCS and op.result == 0 for op in ops):
            return
        synced: set[str] = set()
        named: set[str] = set()
        for op in ops:
            if op.kind == "fsync" and op.result == 0:
                synced.add(op.path)
            elif op.kind == "dirsync" and op.result == 0:
                named |= synced
        by_name = any(op.kind == "dirsync" for op in ops)
        self.listed[step.directory] = frozenset(named if by_name else synced)

    def acknowledged(self, path: str) -> bool:
        one = self.files.get(path)
        if one is not None:
            return one.synced and one.named
        return path not in self.failed and any(_below(path, name) for name in self.listed)

    def to_tell(self) -> set[str]:
        """The paths that a verification cannot leave out."""
        told = {path for path, one in self.files.items() if one.synced and one.named}
        return told.union(*self.listed.values())


def _name(files: dict[str, _File], op: FileOp) -> None:
    """A directory was synced: told by its own path, or by that of the file whose name it is for."""
    if op.result < 0:
        return
    directory = op.path.rpartition("/")[0] if op.path in files else op.path.rstrip("/")
    for path, one in files.items():
        if path.rpartition("/")[0] == directory:
            one.named = True


def _below(path: str, directory: str) -> bool:
    return path.startswith(f"{directory}/") or f"/{directory}/" in path


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """An acknowledged file that is not whole. ``lasting``: after relief and a mount."""

    verify: int
    lasting: bool
    state: FileState


def _played(scene: Scene) -> Iterator[tuple[Taken, VerifyFiles, _Tree]]:
    """Each verification of files, with the tree as it should be then."""
    trees: dict[str, _Tree] = {}
    for taken in scene.taken:
        step = taken.step
        if isinstance(step, Files | Metadata):
            trees.setdefault(step.target, _Tree()).play(step, taken.seen.file_ops)
        elif isinstance(step, Trim):
            trees.setdefault(step.target, _Tree()).remove(step.directory)
        elif isinstance(step, Mkfs):
            trees.setdefault(step.target, _Tree()).remove("")
        elif isinstance(step, VerifyFiles):
            yield taken, step, trees.setdefault(step.target, _Tree())


def damages(scene: Scene) -> tuple[Damage, ...]:
    """Each acknowledged file that was found other than whole, once: lasting if it lasted."""
    worst: dict[tuple[str, str], Damage] = {}
    for taken, step, tree in _played(scene):
        for state in taken.seen.files:
            if state.state == "whole" or not tree.acknowledged(state.path):
                continue
            one = Damage(verify=taken.index, lasting=_lasts(scene, taken, step.target), state=state)
            known = worst.get((step.target, state.path))
            if known is None or (one.lasting and not known.lasting):
                worst[step.target, state.path] = one
    return tuple(worst.values())


def unlisted(scene: Scene) -> Iterator[str]:
    """Verifications that leave out a file that was acknowledged."""
    for taken, _, tree in _played(scene):
        if taken.seen.problem or taken.seen.commands:
            continue
        left_out = tree.to_tell() - {state.path for state in taken.seen.files}
        if left_out:
            yield f"arm {scene.name}: {taken.name} does not tell of {min(left_out)}"


def _lasts(scene: Scene, taken: Taken, target: str) -> bool:
    """Whether what a verification finds is how it stays: after relief, and a mount if the case has one."""
    if taken.phase is not Phase.AFTER:
        return False
    after = [phase is Phase.AFTER for phase in phases(scene.arm)]
    steps = [*compress(scene.arm.steps, after)]
    mine = [one for one in steps if isinstance(one, Mount | Unmount) and one.target == target]
    tried = any(t.step in mine and isinstance(t.step, Mount) for t in scene.taken[: taken.index])
    return tried or not mine
