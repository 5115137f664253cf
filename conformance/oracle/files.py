"""Which files were acknowledged, and how they were found.

A file is acknowledged when its fsync returned 0 after everything that was done to it, and no fsync of it
had failed before. Strictly, fsync(2) of a new file does not promise its directory entry; ext4, xfs, btrfs
and f2fs all give that promise for a file that was created and fsynced. Where a step records that it synced
the directory as well, that must have succeeded for a missing file to count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from conformance.model import FileOp, Files, FileState, Metadata, VerifyFiles
from conformance.oracle.scene import Phase, Scene, Taken

CHANGES = frozenset({"create", "write", "mkdir", "setxattr"})
SYNCS = frozenset({"fsync", "dirsync", "syncfs"})


@dataclass(slots=True)
class _File:
    ok: bool = True  # nothing that was done to it failed
    synced: bool = False
    entry: bool | None = None  # whether its directory was synced since; None: nobody tried


@dataclass(slots=True)
class _Tree:
    files: dict[str, _File] = field(default_factory=dict)
    trusted: list[str] = field(default_factory=list)  # directories of metadata steps that synced

    def play(self, step: Files | Metadata, ops: tuple[FileOp, ...]) -> None:
        for op in ops:
            self._one(op)
        if isinstance(step, Metadata) and any(o.kind in SYNCS and o.result == 0 for o in ops):
            self.trusted.append(step.directory)

    def _one(self, op: FileOp) -> None:
        if op.kind == "dirsync":
            for path, one in self.files.items():
                if path.rpartition("/")[0] == op.path.rstrip("/"):
                    one.entry = op.result >= 0
            return
        if op.kind == "rename":
            # Whether the path is the old name or the new one: it no longer says where the file is.
            self.files.pop(op.path, None)
            return
        kept = self.files.setdefault(op.path, _File())
        if op.kind in CHANGES:
            short = op.kind == "write" and op.result < op.length
            kept.ok = kept.ok and op.result >= 0 and not short
            kept.synced = False
        elif op.kind == "fsync":
            kept.ok = kept.ok and op.result >= 0
            kept.synced = kept.ok and op.result == 0

    def acknowledged(self, state: FileState) -> bool:
        kept = self.files.get(state.path)
        if kept is None:
            # The agent lists the files that a metadata step synced; like operations in a row are
            # recorded as one, so that not every path is among them.
            return any(_below(state.path, directory) for directory in self.trusted)
        if state.state == "missing" and kept.entry is False:
            return False
        return kept.synced


def _below(path: str, directory: str) -> bool:
    return path.startswith(f"{directory}/") or f"/{directory}/" in path


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """An acknowledged file that is not whole. ``lasting``: after relief and a mount."""

    verify: int
    lasting: bool
    state: FileState


def _played(scene: Scene) -> Iterator[tuple[Taken, VerifyFiles, _Tree]]:
    """Each verification of files with the tree as it should be then."""
    trees: dict[str, _Tree] = {}
    for taken in scene.taken:
        step = taken.step
        if isinstance(step, Files | Metadata):
            trees.setdefault(step.target, _Tree()).play(step, taken.seen.file_ops)
        elif isinstance(step, VerifyFiles):
            yield taken, step, trees.setdefault(step.target, _Tree())


def damages(scene: Scene) -> tuple[Damage, ...]:
    """Each acknowledged file that was found other than whole, once: lasting if it lasted."""
    worst: dict[str, Damage] = {}
    for taken, step, tree in _played(scene):
        for state in taken.seen.files:
            if state.state == "whole" or not tree.acknowledged(state):
                continue
            one = Damage(
                verify=taken.index, lasting=_mounted_anew(scene, taken, step.target), state=state
            )
            known = worst.get(state.path)
            if known is None or (one.lasting and not known.lasting):
                worst[state.path] = one
    return tuple(worst.values())


def unlisted(scene: Scene) -> Iterator[str]:
    """Verifications that leave out a file that a step ``files`` synced."""
    for taken, _, tree in _played(scene):
        told = {state.path for state in taken.seen.files}
        left_out = [path for path, one in tree.files.items() if one.synced and path not in told]
        singles = [path for path in left_out if not any(_below(path, d) for d in tree.trusted)]
        if singles or (tree.trusted and not told):
            what = singles[0] if singles else "any file"
            yield f"arm {scene.name}: {taken.name} does not tell of {what}"


def _mounted_anew(scene: Scene, taken: Taken, target: str) -> bool:
    return taken.phase is Phase.AFTER and any(
        t.step.verb == "mount" and t.step.target == target and t.phase is Phase.AFTER
        for t in scene.taken[: taken.index]
    )
