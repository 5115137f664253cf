"""Clauses on soundness: ``filesystem_consistent``, ``kernel_sound``, ``nothing_leaked``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from conformance.model import Clause, Finding, Role
from conformance.oracle.answer import failed_commands
from conformance.oracle.kernel_log import STALLS, TAINTED_BY, clean, fault, taints
from conformance.oracle.scene import TEARDOWN, Look, Phase, Scene, Taken, program
from conformance.oracle.text import amount, listed, plural, stable
from conformance.oracle.trial import Trial

SHMEM_SLACK: Final = 1 << 20
"""Bytes of shared memory by which a guest's own doings may differ before and after."""

MODULES: Final = frozenset({"E", "O"})
"""Taints of a module that is not signed or not in the tree: the kernel's maker's choice."""

CRASHES: Final = ("bug", "kernel-bug", "general-protection-fault", "list-corruption", "kasan")
"""Reports that an oops may follow. KASAN tells of an access before it is made."""


def filesystem_consistent(trial: Trial) -> Iterator[Finding]:
    """After relief the filesystem mounts and its checker finds nothing that a log replay does not
    repair (NORMS, S7).

    The check comes after a mount and an unmount, which replay the log. Files that are not whole are
    findings of ``acknowledged_readable``. Where mkfs failed, and said so, nothing is promised until
    a later one succeeds.
    """
    for act in trial.acts:
        unmade = False
        for taken in act.scene.taken:
            if taken.step.verb == "mkfs":
                unmade = bool(failed_commands(taken.seen.commands))
            if taken.phase is Phase.AFTER and not taken.must_work and not unmade:
                yield from _commands(trial, act.scene, taken)


def _commands(trial: Trial, scene: Scene, taken: Taken) -> Iterator[Finding]:
    verb = taken.step.verb
    if verb not in ("mount", "check", "unmount"):
        return
    if verb == "unmount" and taken.step.role is not Role.RECOVER:
        return
    for command in failed_commands(taken.seen.commands):
        how = (
            "ran over its limit"
            if command.ended.timed_out
            else f"ended with {command.ended.exit_code}"
        )
        words = command.output.strip().splitlines()
        yield trial.finding(
            Clause.FILESYSTEM_CONSISTENT,
            scene,
            signature=f"{verb}-failed",
            expected="after relief the filesystem mounts, and its checker finds nothing",
            observed=f"{program(command.argv)} {how}" + (f": {words[-1][:200]}" if words else ""),
            step=taken.name,
            evidence=[" ".join(command.argv), *words[-10:]],
        )


def kernel_sound(trial: Trial) -> Iterator[Finding]:
    """No BUG, WARNING, oops, lockdep, sanitizer, hung-task or lockup report, and no new taint.

    A guest that panicked after the shortage was imposed is a finding too.
    """
    for act in trial.acts:
        reported = _faults(act.scene)
        for signature, (look, title, count) in reported.items():
            times = f" ({count} times)" if count > 1 else ""
            yield trial.finding(
                Clause.KERNEL_SOUND,
                act.scene,
                signature=signature,
                expected="no report of a fault of the kernel's own",
                observed=f"{title}{times}",
                step=look.where,
                evidence=_around(look, title) + _slow(act.scene, signature),
            )
        yield from _panic(trial, act.scene)
        yield from _taint(trial, act.scene, set(reported))


def _faults(scene: Scene) -> dict[str, tuple[Look, str, int]]:
    """Each fault once, with the look that brought it first and how often it was reported.

    An oops that a BUG announces is the same event.
    """
    first: dict[str, tuple[Look, str]] = {}
    counts: Counter[str] = Counter()
    for look, line in scene.kernel_log:
        found = fault(line.text) if look.phase is not Phase.BEFORE else None
        if found is not None:
            first.setdefault(found.signature, (look, found.title))
            counts[found.signature] += 1
    crashed = any(signature.partition(":")[0] in CRASHES for signature in first)
    return {
        signature: (*told, counts[signature])
        for signature, told in first.items()
        if not (crashed and signature.partition(":")[0] == "oops")
    }


def early_fault(scene: Scene) -> str:
    """The title of a fault that the kernel reported after the build and before the shortage."""
    for look, line in scene.kernel_log:
        found = fault(line.text) if look.phase is Phase.BEFORE else None
        if found is not None:
            return found.title
    return ""


def _around(look: Look, title: str) -> list[str]:
    lines = [clean(line.text) for line in look.watch.kernel_log]
    at = lines.index(title)
    return lines[at : at + 8]


def _slow(scene: Scene, signature: str) -> list[str]:
    if signature.partition(":")[0] not in STALLS:
        return []
    facts = scene.seen.built.facts if scene.seen.built else {}
    told = ", ".join(f"{name}: {value}" for name, value in sorted(facts.items()))
    return [f"a machine that is slow below the guest can cause this too; the guest has {told}"]


def _panic(trial: Trial, scene: Scene) -> Iterator[Finding]:
    lost = scene.seen.lost
    if lost is None or lost.how != "panicked" or not scene.imposed:
        return
    yield trial.finding(
        Clause.KERNEL_SOUND,
        scene,
        signature="panic",
        expected="no report of a fault of the kernel's own",
        observed=f"the kernel panicked at {lost.step}: {lost.title}",
        step=lost.step,
        evidence=[f"{name}: {text[-2000:]}" for name, text in lost.evidence.items()],
    )


def _taint(trial: Trial, scene: Scene, reported: set[str]) -> Iterator[Finding]:
    looks = scene.looks
    before = [look.watch.taint for look in looks if look.phase is Phase.BEFORE]
    kinds = {signature.partition(":")[0] for signature in reported}
    for look in looks:
        fresh = look.watch.taint & ~looks[0].watch.taint
        letters = [
            letter
            for letter in taints(fresh)
            if not kinds & set(TAINTED_BY.get(letter, ()))
            and not (letter in MODULES and letter in taints(before[-1]))
        ]
        if letters and look.phase is not Phase.BEFORE:
            yield trial.finding(
                Clause.KERNEL_SOUND,
                scene,
                signature=f"taint:{''.join(letters)}",
                expected="no new taint",
                observed=f"the kernel is tainted {''.join(letters)} after {look.where}",
                step=look.where,
            )
            return


def nothing_leaked(trial: Trial) -> Iterator[Finding]:
    """After tear-down the space and the charges are back where they were (NORMS, S4).

    Where the rig failed, it may itself have left what is left.
    """
    for act in trial.acts:
        down = act.scene.seen.torn_down
        if down is None or act.scene.rig_failed:
            continue
        for kind in sorted({stable(name) for name in down.left}):
            names = [name for name in down.left if stable(name) == kind]
            yield trial.finding(
                Clause.NOTHING_LEAKED,
                act.scene,
                signature=f"left:{kind}",
                expected="tear-down leaves nothing behind",
                observed=f"tear-down left {plural(len(names), 'thing')}: {listed(names)}",
                step=TEARDOWN,
            )
        grown = down.shmem_after - down.shmem_before
        if grown > SHMEM_SLACK:
            yield trial.finding(
                Clause.NOTHING_LEAKED,
                act.scene,
                signature="shmem",
                expected="the memory that the backing files took is given back",
                observed=f"{amount(grown)} of shared memory more after tear-down than before",
                step=TEARDOWN,
            )
