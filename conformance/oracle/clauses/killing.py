"""Clauses on who pays: ``no_oom_kill``, ``submitter_survives``, ``bystanders_unharmed``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from conformance.model import BystanderState, Clause, Finding, Level, Run, Verify, VerifyFiles
from conformance.oracle.oom import Invoker, Kill
from conformance.oracle.scene import SIGKILL, Look, Phase, Taken, program
from conformance.oracle.text import errno_name, plural, signal_name
from conformance.oracle.trial import Act, Trial

NO_KILL: Final = "an I/O error to the submitter; no OOM kill"

KILL_LEVEL: Final = {
    Invoker.WORKER: Level.MUST,
    Invoker.UNKNOWN: Level.MUST,
    Invoker.SUBMITTER: Level.SHOULD,
    Invoker.OTHER: Level.SHOULD,
}
"""NORMS, "Who invoked the OOM killer": a kernel worker in the device's write path means that the
shortage was reported by a kill; a process inside its own call was starved of memory to live in."""

STALL_US: Final = 60_000_000
"""One operation of a bystander that takes a minute is stalled, on any machine."""

WENT_WRONG: Final = {
    "data": ("io-wrong", "read other data than it had stored"),
    "short-read": ("io-short", "read less than it had asked for"),
    "short-write": ("io-short", "wrote less than it had asked for"),
}
"""What a bystander's operation without an error can be charged with: a signature, and in words."""


def no_oom_kill(trial: Trial) -> Iterator[Finding]:
    """The OOM killer did not kill for the I/O, nor did a kernel worker set it off in vain; a finding
    for each kind of invoker (NORMS, S1).
    """
    for act in trial.acts:
        told = (*act.kills.logged, *act.kills.vain)
        for invoker in Invoker:
            mine = [kill for kill in told if kill.invoker is invoker]
            if mine and (invoker is not Invoker.UNKNOWN or act.kills.untold):
                yield _invoked(trial, act, invoker, mine)
            elif invoker is Invoker.UNKNOWN and act.kills.untold:
                yield _counted(trial, act)


def _invoked(trial: Trial, act: Act, invoker: Invoker, mine: list[Kill]) -> Finding:
    first = mine[0]
    killed = sum(len(kill.report.killed) for kill in mine)
    in_log = sum(len(kill.report.killed) for kill in act.kills.logged)
    text = first.report.text
    if killed > 1:
        text += f" (the first of {plural(killed, 'kill')})"
    if not killed:
        text += f", which found nobody left to kill ({plural(len(mine), 'time')})"
    if act.kills.counted > in_log:
        text += f"; {plural(act.kills.counted - in_log, 'kill')} more that the log does not tell of"
    return trial.finding(
        Clause.NO_OOM_KILL,
        act.scene,
        level=KILL_LEVEL[invoker],
        signature=invoker.value,
        expected=NO_KILL,
        observed=text,
        step=first.look.where,
        evidence=[line for kill in mine for line in kill.report.lines],
    )


def _counted(trial: Trial, act: Act) -> Finding:
    told = f"{plural(act.kills.untold, 'OOM kill')} by the kernel's counters, of which its log tells nothing"
    return trial.finding(
        Clause.NO_OOM_KILL,
        act.scene,
        level=KILL_LEVEL[Invoker.UNKNOWN],
        signature=Invoker.UNKNOWN.value,
        expected=NO_KILL,
        observed=told,
        step=act.kills.grew_at[0].where if act.kills.grew_at else "",
    )


def submitter_survives(trial: Trial) -> Iterator[Finding]:
    """The submitter ended by its own will, not by a signal that nobody declared (NORMS, S1 S6 S12). So did
    a tool that makes, mounts or checks a filesystem: it submits I/O as any other.
    """
    for act in trial.acts:
        told: dict[tuple[str, Level], list[Taken]] = {}
        for taken in act.scene.taken:
            if taken.signal is not None and not taken.must_work:
                key = (death(act, taken), _death_level(act, taken))
                told.setdefault(key, []).append(taken)
        for (signature, level), members in told.items():
            yield trial.finding(
                Clause.SUBMITTER_SURVIVES,
                act.scene,
                level=level,
                signature=signature,
                expected="the submitter is told of an error and ends by its own will",
                observed=", ".join(_died(act, taken) for taken in members),
                step=members[0].name,
                evidence=_deaths(act, members),
            )
        yield from _tools_killed(trial, act)


def _tools_killed(trial: Trial, act: Act) -> Iterator[Finding]:
    told: set[str] = set()
    for taken in act.scene.taken:
        # The command of a run is the submitter, and the reader of a verification answers to `bounded`.
        if taken.must_work or isinstance(taken.step, Run | Verify | VerifyFiles):
            continue
        for one in taken.seen.commands:
            name, signal = program(one.argv), one.ended.signal
            if signal is None or one.ended.timed_out or not one.ended.killable or name in told:
                continue
            told.add(name)
            oom = signal == SIGKILL and any(g.where == taken.name for g in act.kills.grew_at)
            how = "killed-by-oom" if oom else f"signal-{signal}"
            yield trial.finding(
                Clause.SUBMITTER_SURVIVES,
                act.scene,
                signature=f"{name}:{how}",
                expected="a tool is told of an error and ends by its own will",
                observed=f"{name} in step {taken.name} was ended by "
                f"{'the OOM killer' if oom else signal_name(signal)}",
                step=taken.name,
            )


def death(act: Act, taken: Taken) -> str:
    """How a submitter died, as a signature: by the OOM killer, or by a signal."""
    return "killed-by-oom" if _by_oom(act, taken) else f"signal-{taken.signal}"


def _by_oom(act: Act, taken: Taken) -> bool:
    submitter = taken.seen.submitter
    if submitter is None or taken.signal != SIGKILL:
        return False
    if submitter.pid in act.kills.victims:
        return True
    return any(look.where == taken.name for look in act.kills.grew_at)


def _death_level(act: Act, taken: Taken) -> Level:
    """``must``, unless the submitter was killed by the OOM killer that it had invoked itself, and no
    kernel worker invoked it in the whole arm: who of the two comes first is chance.
    """
    return Level.MUST if act.kills.by_worker else death_level(act, taken)


def death_level(act: Act, taken: Taken) -> Level:
    """``must``, unless the submitter was killed by the OOM killer that it had invoked itself."""
    submitter = taken.seen.submitter
    if submitter is None or not _by_oom(act, taken):
        return Level.MUST
    kill = act.kills.of(submitter.pid)
    if kill is None:
        kill = next((k for k in act.kills.logged if k.look.where == taken.name), None)
    own = kill is not None and kill.invoker is Invoker.SUBMITTER
    return Level.SHOULD if own else Level.MUST


def _died(act: Act, taken: Taken) -> str:
    submitter = taken.seen.submitter
    assert submitter is not None
    assert taken.signal is not None
    how = "the OOM killer" if _by_oom(act, taken) else signal_name(taken.signal)
    return f"{taken.name} (pid {submitter.pid}) was ended by {how}"


def _deaths(act: Act, members: list[Taken]) -> list[str]:
    pids = {t.seen.submitter.pid for t in members if t.seen.submitter}
    return [
        line
        for kill in act.kills.logged
        if any(victim.pid in pids for victim in kill.report.killed)
        for line in kill.report.lines
    ]


def bystanders_unharmed(trial: Trial) -> Iterator[Finding]:
    """Each bystander lives, its own I/O succeeds, and it reads what it has stored (NORMS, S11 S14)."""
    for act in trial.acts:
        told: dict[str, Finding] = {}
        for look in act.scene.looks:
            if look.phase is Phase.BEFORE:
                continue
            for one in look.watch.bystanders:
                for signature, observed in _harm(act, look, one):
                    if signature not in told:
                        told[signature] = trial.finding(
                            Clause.BYSTANDERS_UNHARMED,
                            act.scene,
                            signature=signature,
                            expected="who did not submit the I/O lives, and its own I/O succeeds",
                            observed=observed,
                            step=look.where,
                            evidence=_lines(act, one.pid),
                        )
        yield from told.values()


def _harm(act: Act, look: Look, one: BystanderState) -> Iterator[tuple[str, str]]:
    where = f"in {one.cgroup or 'the root cgroup'}"
    if not one.alive:
        killed = one.pid in act.kills.victims or (
            one.signal == SIGKILL and any(g.where == look.where for g in act.kills.grew_at)
        )
        if killed:
            yield f"oom-killed:{one.name}", f"bystander {one.name} {where} was OOM-killed"
        elif one.signal is not None:
            text = f"bystander {one.name} {where} was ended by {signal_name(one.signal)}"
            yield f"killed:{one.name}:{signal_name(one.signal)}", text
        else:
            yield f"ended:{one.name}", f"bystander {one.name} {where} is gone"
    for code in sorted({errno_name(error.errno) for error in one.io_errors}):
        yield (
            f"io-error:{one.name}:{code}",
            f"bystander {one.name} {where} got {code} for its own I/O",
        )
    for wrong in one.io_wrong:
        signature, what = WENT_WRONG[wrong.kind]
        text = f"bystander {one.name} {where} {what}, at byte {wrong.offset}"
        yield f"{signature}:{one.name}", text
    if one.io_stall_us >= STALL_US:
        yield (
            f"io-stalled:{one.name}",
            f"an operation of bystander {one.name} {where} took {one.io_stall_us // 1000000} s",
        )


def _lines(act: Act, pid: int) -> list[str]:
    kill = act.kills.of(pid)
    return list(kill.report.lines) if kill else []
