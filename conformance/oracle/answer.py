"""Whether an observation answers its variant, and whether the rig did its part.

Everything here makes a verdict BROKEN. *Fatal* reasons leave nothing to be trusted: the observation
is of something else, the control failed, the shortage never arrived. *Cut short* means that what
was seen until then stands, so that a deviation that was proven stays one (DESIGN: FAIL > BROKEN).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest

from conformance.model import (
    AnyStep,
    Arm,
    ArmSeen,
    Calls,
    Command,
    Ended,
    Extent,
    FileLayer,
    Files,
    Metadata,
    Observation,
    Op,
    RangeOp,
    Run,
    StepSeen,
    Submit,
    Submitter,
    Variant,
    Verify,
    VerifyFiles,
    Write,
)
from conformance.oracle.files import FILE_SYNCS, WHOLE_SYNCS
from conformance.oracle.kernel_log import OVERRUN, lockdep_full
from conformance.oracle.scene import (
    FIO,
    SIGBUS,
    SIGKILL,
    TORN_DOWN,
    Phase,
    Scene,
    Taken,
    failed_ops,
    program,
    short_writes,
    windows,
)
from conformance.oracle.text import amount, merge, op_line, plural, signal_name

BY_COMMANDS = frozenset({"unmount", "mount", "check", "trim", "mkfs", "reattach", "remove_cgroup"})
"""Steps that are commands, so that an answer without one is none."""

_MOMENTS = {"first_error": "at its first error", "first_sync": "in its first sync"}
_IN_FLIGHT = re.compile(r"in flight: (\w+) of ")
"""How records tell of an unfinished call that have no field for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why nothing, or nothing more, is known."""

    text: str
    fatal: bool = True


def unanswered(variant: Variant, observation: Observation) -> list[str]:
    """How the observation fails to be one of this variant; nothing if it is one."""
    if observation.case != variant.case or observation.values != variant.values:
        return ["the observation is of another variant"]
    asked = [arm.name for arm in variant.arms]
    seen = [arm.name for arm in observation.arms]
    if asked != seen:
        return [f"the arms seen are {seen}, and those asked for {asked}"]
    return list(chain.from_iterable(map(_unanswered_arm, variant.arms, observation.arms)))


def _unanswered_arm(arm: Arm, seen: ArmSeen) -> Iterator[str]:
    of = f"arm {arm.name}: "
    if seen.built is None:
        if seen.steps:
            yield f"{of}steps were taken on a rig that was not built"
        elif not seen.problem and seen.lost is None:
            yield f"{of}the rig was not built, and nobody said why"
        return
    asked = [(step.name, step.verb) for step in arm.steps]
    taken = [(step.name, step.verb) for step in seen.steps]
    if taken != asked[: len(taken)]:
        name, verb = next(t for t, a in zip_longest(taken, asked) if t != a)
        yield f"{of}step {name} ({verb}) is not the one that was asked for there"
    elif len(taken) < len(asked) and not _cut_short(seen):
        yield f"{of}{len(taken)} steps were seen of {len(asked)}, and nobody said why"
    if any(step.problem for step in seen.steps[:-1]):
        yield f"{of}steps were taken after one that the rig could not do"
    for step, answer in zip(arm.steps, seen.steps, strict=False):
        if _beyond(step, answer):
            yield f"{of}step {step.name} tells of bytes that it was not asked for"
    if seen.torn_down is None and seen.lost is None:
        yield f"{of}no tear-down was seen"


def _beyond(step: AnyStep, seen: StepSeen) -> bool:
    """Whether a step tells of bytes outside of its region. Each block that is told of is looked at: a guest
    must not choose how many there are.
    """
    told: Iterable[Op | Extent] = ()
    if isinstance(step, Verify):
        told = seen.extents
    elif isinstance(step, Write | RangeOp) and seen.submitter is not None:
        told = (op for op in seen.submitter.ops if op.placed)
    else:
        return False
    end = step.offset + step.length
    return any(
        one.length < 0 or one.offset < step.offset or one.offset + one.length > end for one in told
    )


def _cut_short(seen: ArmSeen) -> bool:
    return seen.lost is not None or bool(seen.problem) or any(step.problem for step in seen.steps)


def rig_reasons(scene: Scene) -> Iterator[Reason]:
    """What went wrong with the rig, the agent, the guest, or the steps that have to work."""
    of = f"arm {scene.name}: "
    if scene.seen.problem:
        yield Reason(text=f"{of}{scene.seen.problem}", fatal=not scene.imposed)
    yield from _lost(scene)
    for taken in scene.taken:
        yield from _of_step(taken, scene)
    down = scene.seen.torn_down
    if down is not None and down.problem:
        yield Reason(text=f"{of}tear-down: {down.problem}", fatal=False)
    yield from _bystanders(scene)
    yield from _not_gone_round(scene)
    for look, line in scene.kernel_log:
        if line.text == OVERRUN:
            yield Reason(text=f"{of}{look.where}: lines of the kernel's log were lost", fatal=False)
            return
        if lockdep_full(line.text):
            yield Reason(text=f"{of}{look.where}: lockdep is off: its tables are full", fatal=False)
            return


def _of_step(taken: Taken, scene: Scene) -> Iterator[Reason]:
    of = f"arm {scene.name}: step {taken.name}: "
    if taken.seen.problem:
        # No step was taken after this one.
        yield Reason(text=f"{of}{taken.seen.problem}", fatal=not scene.imposed)
    elif unread := _reader_ended(taken):
        # The kernel kept the reader, not the rig: `bounded` tells of it.
        yield Reason(text=f"{of}{unread}", fatal=taken.phase is Phase.BEFORE)
    else:
        yield from (Reason(text=f"{of}{text}") for text in _incomplete(taken, scene))
        if missed := _kill_missed(taken):
            yield Reason(text=f"{of}{missed}", fatal=False)
        if taken.must_work:
            of = f"arm {scene.name}: {taken.step.role.value} step {taken.name}: "
            yield from (Reason(text=f"{of}{text}") for text in _not_working(taken, scene))


def _reader_ended(taken: Taken) -> str:
    """How the reader of a verification ended, if it had to be ended."""
    if not isinstance(taken.step, Verify | VerifyFiles):
        return ""
    for command in taken.seen.commands:
        if command.ended.timed_out or command.ended.signal is not None:
            return "the reader did not come to an end"
    return ""


def _lost(scene: Scene) -> Iterator[Reason]:
    lost = scene.seen.lost
    if lost is None:
        return
    where = f"at {lost.step}: {lost.how}: {lost.title}"
    if scene.imposed:
        yield Reason(text=f"arm {scene.name}: the guest was lost {where}", fatal=False)
    else:
        text = f"arm {scene.name}: the guest was lost before the shortage was imposed, {where}"
        yield Reason(text=text)


def _bystanders(scene: Scene) -> Iterator[Reason]:
    """Those that the case names, and any that the planner adds, are looked at each time."""
    of = f"arm {scene.name}: "
    wanted = {one.name for one in scene.arm.bystanders}
    # Tear-down ends them.
    looks = [look for look in scene.looks if look.where != TORN_DOWN]
    for look in looks:
        names = [one.name for one in look.watch.bystanders]
        at_first = sorted(one.name for one in looks[0].watch.bystanders)
        if sorted(names) != at_first or not wanted <= set(names) or len(set(names)) < len(names):
            yield Reason(text=f"{of}{look.where}: not every bystander was looked at")
            return
        troubled = [
            o.name for o in look.watch.bystanders if not o.alive or o.io_errors or o.io_wrong
        ]
        if look.phase is Phase.BEFORE and troubled:
            text = f"bystander {troubled[0]} was in trouble before the shortage was imposed"
            yield Reason(text=f"{of}{text}")
            return


def _not_gone_round(scene: Scene) -> Iterator[Reason]:
    """Who does I/O has gone round its region before the shortage: its I/O works, and has its space."""
    rounds = {one.name: one.io.operations for one in scene.arm.bystanders if one.io is not None}
    for window in windows(scene):
        of = f"arm {scene.name}: step {window.impose.name}: "
        # The first look is that of the rig as built: a step's place is that of the look before it.
        for one in scene.looks[window.impose.index].watch.bystanders:
            if one.name in rounds and one.io_done < rounds[one.name]:
                most = plural(rounds[one.name], "operation")
                text = f"bystander {one.name} had done {one.io_done} of {most} before it"
                yield Reason(text=f"{of}{text}")


# -- steps whose answer has to be whole ---------------------------------------------------------


def _incomplete(taken: Taken, scene: Scene) -> Iterator[str]:
    """How a step's answer is less than what the step does."""
    match taken.step:
        case Write():
            yield from _incomplete_write(taken.step, taken, scene)
        case RangeOp():
            yield from _incomplete_range(taken.step, taken.seen)
        case Run() if taken.seen.submitter is None:
            yield "no submitter was seen"
        case Calls():
            yield from _incomplete_calls(taken.step, taken.seen, scene)
        case Files() | Metadata():
            yield from _incomplete_files(taken.step, taken.seen)
        case Verify():
            yield from _incomplete_verify(taken.step, taken.seen, scene)
        case VerifyFiles() if len({f.path for f in taken.seen.files}) != len(taken.seen.files):
            yield "a file was classified twice"
        case _:
            pass
    detached = isinstance(taken.step, Write) and taken.step.detach is not None
    if (taken.step.verb in BY_COMMANDS or detached) and not taken.seen.commands:
        yield "no command was seen"


def _incomplete_write(step: Write, taken: Taken, scene: Scene) -> Iterator[str]:
    submitter = taken.seen.submitter
    if submitter is None:
        yield "no submitter was seen"
        return
    if submitter.ended.signal is not None or submitter.ended.timed_out:
        return
    if not submitter.ended.killable:
        # It outlived its planned kill: `bounded` tells of it.
        return
    if submitter.ended.exit_code is None:
        yield "the submitter did not end, and nobody said why"
        return
    if any(op.result < 0 for op in submitter.ops) or short_writes(submitter.ops):
        return
    if step.submit in FIO and submitter.ended.exit_code != 0:
        # fio stops at the first error, which it may not have logged as an operation.
        return
    end = step.offset + step.length
    size = scene.device_size(step.target)
    if size is not None:
        end = min(end, size)
    done = merge((op.offset, op.offset + op.result) for op in submitter.ops if op.kind == "write")
    if end > step.offset and (step.offset, end) not in {
        (max(a, step.offset), min(b, end)) for a, b in done
    }:
        yield "the ledger has no error, and yet not every block was written"
    elif submitter.ended.exit_code != 0:
        yield f"the submitter ended with status {submitter.ended.exit_code} and told of no error"
    elif step.submit in (Submit.BUFFERED, Submit.DIRECT, Submit.MMAP) and not _synced(submitter):
        yield "the ledger has no error, and yet does not end with a sync"


def _kill_missed(taken: Taken) -> str:
    """How a writer that was to be killed was not, or not at its moment: then nothing was used after a kill.

    Who killed it is no matter (S4: "by whatever means"): the OOM killer's victim is as dead. So is who
    stored into a mapping and was ended by SIGBUS; but that is an error first, and at the moment only where
    the moment was to be the first error.
    """
    step, submitter = taken.step, taken.seen.submitter
    if not isinstance(step, Write) or step.kill is None or submitter is None:
        return ""
    ended, after = submitter.ended, step.kill.after
    if ended.timed_out or not ended.killable:
        return ""  # which `bounded` tells of
    if ended.signal is None:
        how = "ended by itself"
    elif ended.signal != SIGKILL and (ended.signal, after) != (SIGBUS, "first_error"):
        how = f"was ended by {signal_name(ended.signal)}"
    elif any(op.kind == "close" for op in submitter.ops):
        how = "had closed the device by then"
    elif after == "first_sync" and any(op.kind == "sync" for op in submitter.ops):
        how = "had come out of it by then"
    elif after == "first_sync" and _in_flight(submitter) != "sync":
        how = "was in none"
    else:
        return ""
    moment = f"after {amount(after)}" if isinstance(after, int) else _MOMENTS[after]
    return f"the writer was to be killed {moment}, and {how}"


def _in_flight(submitter: Submitter) -> str:
    """The kind of the call that had not returned when a submitter ended, or nothing."""
    if submitter.in_flight is not None:
        return submitter.in_flight.kind
    told = _IN_FLIGHT.search(submitter.output)
    return told[1] if told else ""


def _incomplete_calls(step: Calls, seen: StepSeen, scene: Scene) -> Iterator[str]:
    submitter = seen.submitter
    if submitter is None:
        yield "no submitter was seen"
        return
    kinds = [op.kind for op in seen.file_ops]
    asked: list[str] = [call.do for call in step.script]
    of_file = any(
        layer.name == step.target and isinstance(layer, FileLayer) for layer in scene.arm.layers
    )
    wanted = [*asked, *(["create"] if of_file else [])]
    ended = submitter.ended
    if ended.signal is not None or ended.timed_out:
        wanted = wanted[: len(kinds)]
    elif ended.exit_code != 0:
        yield f"the submitter ended with status {ended.exit_code}"
    if kinds != wanted:
        yield f"the calls seen are not those of the script: {' '.join(kinds) or 'none'}"


def _incomplete_range(step: RangeOp, seen: StepSeen) -> Iterator[str]:
    submitter = seen.submitter
    if submitter is None:
        yield "no submitter was seen"
        return
    if submitter.ended.signal is not None or submitter.ended.timed_out:
        return
    if any(op.result < 0 for op in submitter.ops):
        return
    done = merge((op.offset, op.offset + op.length) for op in submitter.ops if op.kind == step.op)
    if done != ((step.offset, step.offset + step.length),):
        yield "no error was seen, and yet not the whole range was asked for"
    elif submitter.ended.exit_code != 0:
        yield f"the submitter ended with status {submitter.ended.exit_code} and told of no error"
    elif [op.kind for op in submitter.ops if op.kind != "close"][-1] != "sync":
        yield "no error was seen, and yet no sync at the end"


def _synced(submitter: Submitter) -> bool:
    kinds = [op.kind for op in submitter.ops if op.kind in ("write", "sync")]
    return bool(kinds) and kinds[-1] == "sync"


def _incomplete_verify(step: Verify, seen: StepSeen, scene: Scene) -> Iterator[str]:
    end = step.offset + step.length
    size = scene.device_size(step.target)
    if size is not None:
        end = min(end, size)
    ranges = [(extent.offset, extent.offset + extent.length) for extent in seen.extents]
    at = step.offset
    for start, stop in sorted(ranges):
        if start != at or stop <= start:
            break
        at = stop
    else:
        if at == end:
            return
    yield f"the extents do not add up to bytes {step.offset} to {end - 1}"


def _incomplete_files(step: Files | Metadata, seen: StepSeen) -> Iterator[str]:
    if any(op.result < 0 for op in seen.file_ops):
        return
    if seen.submitter is None:
        yield "no submitter was seen"
        return
    ended = seen.submitter.ended
    if ended.signal is not None or ended.timed_out:
        return
    if ended.exit_code != 0:
        yield f"the submitter ended with status {ended.exit_code} and told of no error"
    elif not seen.file_ops:
        yield "no operation was seen"
    elif isinstance(step, Files):
        whole = any(op.kind in WHOLE_SYNCS for op in seen.file_ops)
        kinds = {"create"} if whole else FILE_SYNCS
        synced = {op.path for op in seen.file_ops if op.kind in kinds}
        if len(synced) != step.count:
            yield f"no error, and yet {len(synced)} files were synced of {step.count}"


# -- steps that have to work --------------------------------------------------------------------


def _not_working(taken: Taken, scene: Scene) -> Iterator[str]:
    """What failed in a step that has to work: nothing was short yet, or it is the rig's own."""
    submitter = taken.seen.submitter
    if submitter is not None:
        yield from _bad_end(submitter.ended)
    failed = failed_ops(taken, scene)
    if failed:
        yield op_line(failed[0])
    if submitter is not None and not failed and short_writes(submitter.ops):
        yield "a write was short"
    bad = [op for op in taken.seen.file_ops if op.result < 0]
    if bad:
        yield f"{bad[0].kind} {bad[0].path} failed"
    for one in failed_commands(taken.seen.commands):
        said = one.output[-200:].strip() or ", ".join(_bad_end(one.ended))
        yield f"{program(one.argv)} failed: {said}"
    wrong = [one for one in taken.seen.files if one.state != "whole"]
    if wrong:
        yield f"file {wrong[0].path} is {wrong[0].state}"


def _bad_end(ended: Ended) -> Iterator[str]:
    if ended.timed_out:
        yield "it ran over its limit"
    elif ended.signal is not None:
        yield f"its process was ended by {signal_name(ended.signal)}"
    elif ended.exit_code:
        yield f"its process ended with status {ended.exit_code}"


def failed_commands(commands: Iterable[Command]) -> tuple[Command, ...]:
    """The commands that did not end with status 0."""
    return tuple(one for one in commands if one.ended.exit_code != 0 or one.ended.timed_out)
