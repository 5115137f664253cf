"""Clauses on time and on sameness: ``bounded``, ``resolved_by_waiting``, ``equivalent`` and more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from conformance.model import BystanderState, Clause, Ended, Finding, Role
from conformance.oracle.clauses.answers import answer_of, limit_enforced
from conformance.oracle.kernel_log import task_name
from conformance.oracle.scene import TEARDOWN, Look, Phase, Scene, Taken, program
from conformance.oracle.text import op_line, unreturned
from conformance.oracle.trial import Act, Trial

IN_TIME = "every operation, kill, unmount and detach ends within its limit"
ANSWERS = ("kill", "silent_loss", "no_limit", "blocked", "error", "none")
"""Classes of answer to a shortage, the one that counts first."""


def bounded(trial: Trial) -> Iterator[Finding]:
    """Each operation, unmount and detach ends within its limit; no task stays in D state (S13).

    The agent ends what runs over its limit, which it scales by the machine's speed; the judge does not
    measure. A task that is in uninterruptible sleep at one look and not at the next was merely busy; so
    was a bystander that did an operation of its own meanwhile, or whose operation is not slow yet. At the
    last look, when all is taken down, the agent waits longer for who sleeps.
    """
    for act in trial.acts:
        told: dict[str, Finding] = {}
        for step, signature, observed, evidence in _late(act.scene):
            if signature not in told:
                told[signature] = trial.finding(
                    Clause.BOUNDED,
                    act.scene,
                    signature=signature,
                    expected=IN_TIME,
                    observed=observed,
                    step=step,
                    evidence=[line for line in evidence if line],
                )
        yield from told.values()


Late = tuple[str, str, str, list[str]]


def _late(scene: Scene) -> Iterator[Late]:
    for taken in scene.taken:
        if taken.must_work and taken.phase is Phase.BEFORE:
            continue
        yield from _over(taken)
    yield from _over_in_tear_down(scene)
    yield from _stuck(scene)
    lost = scene.seen.lost
    if lost is not None and lost.how == "hung" and scene.imposed:
        evidence = [f"{name}: {text[-2000:]}" for name, text in lost.evidence.items()]
        text = f"the guest answered no more at {lost.step}: {lost.title}"
        yield lost.step, "guest-hung", text, evidence


def _over(taken: Taken) -> Iterator[Late]:
    submitter, where = taken.seen.submitter, f"in step {taken.name}"
    if submitter is not None:
        what, call = f"the submitter {where}", unreturned(submitter)
        yield from _not_by_itself(taken.name, taken.step.verb, what, submitter.ended, call)
    if taken.step.verb != "run":  # whose command is the submitter
        for one in taken.seen.commands:
            name = program(one.argv)
            yield from _not_by_itself(taken.name, name, f"{name} {where}", one.ended)


def _over_in_tear_down(scene: Scene) -> Iterator[Late]:
    down = scene.seen.torn_down
    if down is None or not scene.imposed:
        return
    for one in down.commands:
        name = program(one.argv)
        yield from _not_by_itself(TEARDOWN, name, f"{name} in tear-down", one.ended)


def _not_by_itself(where: str, name: str, what: str, end: Ended, call: str = "") -> Iterator[Late]:
    evidence = [f"state {end.state}" if end.state else "", end.stack]
    if not end.killable:
        text = f"{what} did not end within its limit, nor by SIGKILL{call}"
        yield where, f"unkillable:{name}", text, evidence
    elif end.timed_out:
        text = f"{what} did not end within its limit{call}"
        yield where, f"timed-out:{name}", text, evidence


def _stuck(scene: Scene) -> Iterator[Late]:
    looks = [look for look in scene.looks if look.phase is not Phase.BEFORE]
    names = {b.pid: b.name for look in scene.looks for b in look.watch.bystanders}
    for place, look in enumerate(looks):
        following = looks[place + 1] if place + 1 < len(looks) else None
        for one in look.watch.blocked:
            if following is None:
                # Of a guest that the rig lost nobody knows who would have gone on.
                stays = scene.seen.lost is None or scene.lost_by_kernel
            else:
                stays = any(o.pid == one.pid for o in following.watch.blocked)
            if not stays or (one.pid in names and _goes_on(one.pid, look, following)):
                continue
            who, what = task_name(one.comm), one.comm
            if one.pid in names:
                who, what = names[one.pid], f"bystander {names[one.pid]}"
            text = f"{what} (pid {one.pid}) stays in uninterruptible sleep"
            yield look.where, f"blocked:{who}", text, [one.stack]


def _goes_on(pid: int, look: Look, following: Look | None) -> bool:
    """Whether a bystander that is asleep at two looks may be so for I/O of its own that goes on."""
    before, after = _bystander(pid, look), _bystander(pid, following)
    if before is None or after is None:
        return True
    # Whoever does no I/O has no longest operation, and nothing to sleep for.
    return _did(before) != _did(after) or 0 < after.io_stall_us < SLOW_US


def _bystander(pid: int, look: Look | None) -> BystanderState | None:
    states = look.watch.bystanders if look is not None else ()
    return next((one for one in states if one.pid == pid), None)


def _did(one: BystanderState) -> tuple[int, int, int]:
    return one.io_done, len(one.io_errors), len(one.io_wrong)


def resolved_by_waiting(trial: Trial) -> Iterator[Finding]:
    """A write whose shortage the kernel can resolve by itself (dirty pages that can be written back,
    pages that can be swapped out, a throttle) waits for that, and succeeds (NORMS, S13).
    """
    for act in trial.acts:
        for taken in act.scene.taken:
            if taken.step.role is not Role.PROVOKE or taken.phase is not Phase.SHORT:
                continue
            answer = answer_of(taken)
            if answer != "none":
                yield trial.finding(
                    Clause.RESOLVED_BY_WAITING,
                    act.scene,
                    signature=f"{act.scene.name}:{answer}",
                    expected="the write waits until there is room again, and succeeds",
                    observed=f"{taken.name} {_RESOLUTION[answer]}",
                    step=taken.name,
                    evidence=[op_line(op) for op in taken.ops if op.result < 0],
                )


_RESOLUTION = {
    "kill": "was killed, although room could be made",
    "blocked": "did not end within its limit",
    "error": "was told of an error, although room could be made",
}
SLOWER: Final = 20
"""How many times longer than ever before an operation of somebody else may take."""
SLOW_US: Final = 5_000_000
"""What nobody calls slow: one processor is shared by all, and emulated."""


def independent_progress(trial: Trial) -> Iterator[Finding]:
    """The I/O of somebody whose cgroup is not short goes on about as before (NORMS, S14).

    What is compared is the longest operation of each bystander, with its own longest before the
    shortage.
    """
    for act in trial.acts:
        longest: Counter[str] = Counter()
        told: set[str] = set()
        for look in act.scene.looks:
            for one in look.watch.bystanders:
                if look.phase is Phase.BEFORE:
                    longest[one.name] = one.io_stall_us
                    continue
                most = max(SLOW_US, SLOWER * longest[one.name])
                bound = act.scene.arm.shortage.binds is not None
                if one.name in told or (bound and act.scene.limited(one.cgroup)):
                    continue
                if look.phase is Phase.SHORT and one.io_stall_us > most:
                    told.add(one.name)
                    yield trial.finding(
                        Clause.INDEPENDENT_PROGRESS,
                        act.scene,
                        signature=f"io-slowed:{one.name}",
                        expected="the I/O of who is not short goes on about as before",
                        observed=f"an operation of bystander {one.name} took "
                        f"{one.io_stall_us / 1e6:.1f} s, and none more than "
                        f"{longest[one.name] / 1e6:.3f} s before the shortage",
                        step=look.where,
                    )


def equivalent(trial: Trial) -> Iterator[Finding]:
    """The class of answer is the same for every cause that the case names (NORMS, S10).

    An arm that the rig cut short before all was done that provokes has no class.
    """
    beyond = {finding.arm for finding in limit_enforced(trial)}
    classes = {
        act.scene.name: _class(act, past=act.scene.name in beyond)
        for act in trial.acts
        if _provoked(act.scene)
    }
    if len(set(classes.values())) < 2:
        return
    told = ", ".join(f"{arm}: {answer}" for arm, answer in classes.items())
    yield trial.finding(
        Clause.EQUIVALENT,
        None,
        signature=",".join(f"{arm}={answer}" for arm, answer in sorted(classes.items())),
        expected="one class of answer, whatever the cause of the shortage",
        observed=told,
    )


def _provoked(scene: Scene) -> bool:
    """Whether all was done that provokes, or the kernel is why it was not."""
    if scene.lost_by_kernel:
        return True
    done = {taken.name for taken in scene.taken if not taken.seen.problem}
    return all(step.name in done for step in scene.arm.steps if step.role is Role.PROVOKE)


def _class(act: Act, *, past: bool) -> str:
    provoking = [taken for taken in act.scene.taken if taken.step.role is Role.PROVOKE]
    answers = {answer_of(taken) for taken in provoking if taken.phase is Phase.SHORT}
    provoked = {taken.name for taken in provoking}
    if any(kill.look.where in provoked for kill in act.kills.logged) or any(
        look.where in provoked for look in act.kills.grew_at
    ):
        answers.add("kill")
    indices = {taken.index for taken in provoking}
    lost = [one for loss in act.losses if loss.lasting for one in loss.found]
    if any(one.ack.step in indices for one in lost):
        answers.add("silent_loss")
    if past:
        answers.add("no_limit")
    if act.scene.lost_by_kernel:
        answers.add("blocked")
    return next((answer for answer in ANSWERS if answer in answers), "none")
