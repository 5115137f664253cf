"""A variant as one shell script: what it sets up, does and judges, with dd in place of the suite's writer.

The script stands on POSIX sh, coreutils, util-linux and the filesystems' own tools. It says PASS (0),
FAIL (1), or that it cannot tell (77). What a plain script cannot do is refused, and named.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Sequence

from conformance.drawing import stack
from conformance.model import (
    STARRED,
    AnyStep,
    Arm,
    Check,
    Clause,
    DiskLayer,
    FileLayer,
    Files,
    FsLayer,
    Impose,
    LoopLayer,
    Mount,
    Reattach,
    Relieve,
    RemoveCgroup,
    Role,
    Run,
    Snapshot,
    Submit,
    SwapLayer,
    Trim,
    Truncate,
    Unmount,
    Variant,
    Verify,
    VerifyFiles,
    Write,
)
from conformance.model.layers.memory import ZramLayer
from conformance.model.layers.snapshot import DmSnapshotLayer
from conformance.model.layers.thin import ThinPoolLayer
from conformance.planner import requirements
from conformance.reproduce.devices import BLOCK
from conformance.reproduce.functions import chosen
from conformance.reproduce.rig import CHECK, DISK, FLAGS, Rig
from conformance.reproduce.shortage import Inexpressible, imposed

JUDGED = frozenset(
    {
        Clause.ACKNOWLEDGED_READABLE,
        Clause.ERROR_SURFACED,  # what was neither stored nor told is acknowledged, and reads wrong
        Clause.LIMIT_ENFORCED,
        Clause.NO_OOM_KILL,
        Clause.SUBMITTER_SURVIVES,
        Clause.BYSTANDERS_UNHARMED,
        Clause.OVERWRITE_IN_PLACE,
        Clause.REUSABLE,
        Clause.BOUNDED,
        Clause.RESOLVED_BY_WAITING,
        Clause.FILESYSTEM_CONSISTENT,
        Clause.KERNEL_SOUND,
    }
)
"""Clauses that a script judges, as far as a shell can see."""

SHOWN_BY_RUNNING = frozenset(
    {"probe:loop_charges_memcg", "probe:tmpfs_direct_io", "probe:tmpfs_huge_pages"}
)
"""Requirements that need no probe of their own: without them the script cannot tell, and says so."""

_LARGE = 1 << 20
"""From so many bytes on a request is in one segment only if it is in a huge page, as the suite's is."""

_WIDTH = 96
_SLOWER = 4
"""How many times longer than on the reference machine a step may take."""


def script(variant: Variant, *, arm: str = "", seen: Sequence[str] = ()) -> str:
    """The script of a variant, or of one of its arms; ``seen``: lines on what it showed before.

    Raises Inexpressible for the first part that a plain script cannot do.
    """
    arms = {one.name: one for one in variant.arms}
    if not arm and len(arms) > 1:
        why = f"it compares {', '.join(arms)}, each in a machine of its own; --arm names one"
        raise Inexpressible("arms", why)
    if arm and arm not in arms:
        raise Inexpressible(f"arm {arm}", f"there is none of that name: {', '.join(arms)}")
    return _Script(variant, arms[arm] if arm else variant.arms[0]).text(seen)


class _Script:
    def __init__(self, variant: Variant, arm: Arm) -> None:
        self._variant = variant
        self._arm = arm
        self._rig = Rig(arm)
        self._relieved = False
        self._stuck = 0
        self._switches = {"spared": False, "goes_on": False}
        self._limit = _seconds(max(step.limit for step in arm.steps))
        if self._waits():
            self._rig.used.add("patience")

    def _waits_for_ever(self) -> bool:
        """Whether nothing but relief ends the wait for space."""
        return any(
            isinstance(x, ThinPoolLayer) and x.no_space == "queue" and not x.timeout
            for x in self._arm.layers
        )

    def _waits(self) -> bool:
        """Whether something may wait that no signal ends."""
        queues = any(
            isinstance(x, ThinPoolLayer) and x.no_space == "queue" for x in self._arm.layers
        )
        return queues or any(isinstance(step, Files) for step in self._arm.steps)

    def text(self, seen: Sequence[str]) -> str:
        """The whole script."""
        shortage = imposed(self._arm.shortage, self._rig.path, self._rig.layers)
        self._rig.used |= set(shortage.functions)
        self._rig.tools |= dict.fromkeys(shortage.tools)
        limit = self._limit
        rig = self._rig.lines()
        steps: list[str] = []
        for step in self._arm.steps:
            match step:
                case Impose():
                    steps += [f"step {step.name}", *shortage.impose]
                case Relieve():
                    self._relieved = True
                    steps += [f"step {step.name}", *shortage.relieve]
                case _:
                    steps += self._limited(step)
                    steps.append(self._step(step))
        needs = list(self._needs())
        resolves = "yes" if Clause.RESOLVED_BY_WAITING in self._variant.expect.clauses else "no"
        parts = [
            "#!/bin/sh",
            *self._header(seen),
            "# shellcheck disable=SC2317 # functions are called by the trap, and by names in variables",
            "# shellcheck disable=SC2016 # what is undone later",
            "set -u",
            "export LC_ALL=C",
            '[ "$(id -u)" = 0 ] || { echo "CANNOT TELL: this needs root"; exit 77; }',
            'work=$(mktemp -d) || { echo "CANNOT TELL: no temporary directory"; exit 77; }',
            "groups=/sys/fs/cgroup/reproduce.$$",
            f"limit={limit} number=0 arrived=no own=no bystanders='' current=",
            *((f"spared=no goes_on=no resolves={resolves}",) if "write" in self._rig.used else ()),
            *(("request=''",) if "request" in "".join(shortage.gauge) else ()),
            ': >"$work/synced"',
            "",
            *(f"{text}" for text in chosen(self._rig.used)),
            *shortage.gauge,
            "cleanup() {",
            "    trap - EXIT",
            "    # To its end, and in silence: whoever read this may be gone.",
            "    trap '' HUP INT PIPE TERM",
            "    exec >/dev/null",
            '    for one in $bystanders; do kill -9 "${one#*:}" 2>/dev/null; done',
            '    eval "$undo"',
            '    rm -rf "$work"',
            "}",
            "trap cleanup EXIT",
            "trap 'exit 77' HUP INT PIPE TERM",
            "",
            *needs,
            "",
            "# -- the rig",
            *(["huge_pages"] if "huge" in self._rig.used else []),
            *rig,
            "",
            "# -- the steps",
            *steps,
            "finish",
        ]
        return "\n".join(parts) + "\n"

    def _limited(self, step: AnyStep) -> Iterator[str]:
        """A line, if this step's limit is not the last one's."""
        seconds = _seconds(step.limit)
        if isinstance(step, Write) and step.role is Role.PROVOKE and self._waits_for_ever():
            self._stuck = seconds
        elif self._stuck and not self._relieved:
            # What waits behind the writer waits as long as he does: no use in more patience.
            seconds = min(seconds, self._stuck)
        if seconds != self._limit:
            self._limit = seconds
            yield f"limit={seconds}"

    # -- the beginning --------------------------------------------------------------------------

    def _header(self, seen: Sequence[str]) -> Iterator[str]:
        variant = self._variant
        arm = f", arm {self._arm.name}" if len(variant.arms) > 1 else ""
        yield f"# {variant.id}{arm}"
        yield from _comment(variant.title)
        yield "#"
        for norm in variant.norm:
            section = f", {norm.section}" if norm.section else ""
            quote = f': "{" ".join(norm.quote.split())}"' if norm.quote else ""
            yield from _comment(f"{norm.source}{section}{quote}")
        yield "#"
        for line in stack(self._arm):
            yield f"# {line}".rstrip()
        yield "#"
        clauses = [c for c in Clause if c in STARRED or c in variant.expect.clauses]
        yield from _comment(f"Judged: {', '.join(c for c in clauses if c in JUDGED)}.")
        left = ", ".join(c for c in clauses if c not in JUDGED)
        if left:
            yield from _comment(f"Not judged by this script: {left}.")
        for clause, where in variant.expect.documented_by.items():
            yield from _comment(f"The contrary of {clause} is documented: {where}")
        for line in seen:
            yield from _comment(line)
        yield "#"
        yield from _comment(
            "Run it as root in a throwaway virtual machine. It ends with PASS (exit status 0),"
            " FAIL (1), or says why it cannot tell (77)."
        )
        if any(isinstance(layer, DiskLayer) for layer in self._arm.layers):
            yield from _comment(
                f"DISK=/dev/vdX names a disk to be overwritten; without it a sparse file of {DISK}"
                " stands for one."
            )

    def _needs(self) -> Iterator[str]:
        for need in requirements(self._variant):
            kind, _, name = need.partition(":")
            if kind == "module":
                yield f"modprobe -q {name} || [ -d /sys/module/{name} ] || unable 'no module {name}'"
            elif kind == "fs":
                yield f"modprobe -q {name}"
                yield f"grep -qw {name} /proc/filesystems || unable 'no filesystem {name}'"
            elif kind == "tool":
                self._rig.tools[name] = None
            elif kind == "controller" or need in SHOWN_BY_RUNNING or name.startswith("quota_"):
                continue
            else:
                raise Inexpressible(f"requires {need}", "a script would have to probe for it")
        yield f"need {' '.join(self._rig.tools)}"

    # -- the steps ------------------------------------------------------------------------------

    def _step(self, step: AnyStep) -> str:
        match step:
            case Write():
                return self._write(step)
            case Files() | VerifyFiles() | Mount() | Unmount() | Check() | Trim():
                return self._on_filesystem(step)
            case Snapshot():
                return self._snapshot(step)
            case Verify():
                self._rig.block(f"step {step.name}", step.target)
                self._rig.used.add("verify")
                target = self._rig.path(step.target)
                below = "".join(f' "{self._rig.path(name)}"' for name in self._below(step.target))
                line = f'verify {step.name} "{target}" {step.offset} {step.length}{below}'
                if any(isinstance(layer, SwapLayer) for layer in self._arm.layers):
                    self._rig.used.add("from_swap")
                    line += f"\nfrom_swap {'relieved' if self._relieved else 'short'}"
                if step.role is not Role.REUSE:
                    return line
                # Reading needs no space: what was never written can be read too.
                self._rig.used.add("readable")
                return f'{line}\nreadable {step.name} "{target}" {step.offset} {step.length}'
            case Run():
                return self._run(step)
            case Reattach():
                return self._reattach(step)
            case RemoveCgroup():
                self._rig.used.add("remove_cgroup")
                return f"remove_cgroup {step.name} {step.cgroup}"
            case Truncate():
                target = self._rig.path(step.target)
                return f'step {step.name}\ntruncate -s {step.size} "{target}"'
            case _:
                raise Inexpressible(f"step {step.name}", f"the verb {step.verb}")

    def _below(self, name: str) -> Iterator[str]:
        """The files and devices below a layer, whose page cache may hide what was stored."""
        for _, other in self._rig.layers[name].supports():
            if isinstance(self._rig.layers[other], FileLayer | LoopLayer | DiskLayer):
                yield other
            yield from self._below(other)

    def _on_filesystem(self, step: Files | VerifyFiles | Mount | Unmount | Check | Trim) -> str:
        place = self._rig.path(step.target)
        match step:
            case Files():
                return self._files(step)
            case VerifyFiles():
                self._rig.used.add("verify_files")
                return f'verify_files {step.name} "{place}"'
            case Trim():
                self._rig.tools["fstrim"] = None
                gone = f'sed -i "\\, {step.directory}/,d" "$work/synced"'
                trim = f'rm -rf "{place}/{step.directory}" && sync -f "{place}" && fstrim "{place}"'
                return f"step {step.name}\n{gone}\n{{ {trim}; }} 2>&1 | sed 's/^/  /'"
            case _:
                return self._filesystem(step)

    def _snapshot(self, step: Snapshot) -> str:
        layer = self._rig.layers[step.target]
        if not isinstance(layer, DmSnapshotLayer):
            raise Inexpressible(f"step {step.name}", f"{layer.SORT} taken anew")
        self._rig.used.add("take")
        origin, mine = self._rig.path(layer.on), self._rig.path(layer.name)
        return f'take {step.name} {layer.name} "{origin}" "{mine}"'

    def _files(self, step: Files) -> str:
        if step.submit is Submit.MMAP:
            raise Inexpressible(f"step {step.name}", "dd does not submit by mmap")
        if step.owner:
            raise Inexpressible(f"step {step.name}", "a writer without privileges")
        self._rig.used.add("files")
        flags = "direct" if step.submit is Submit.DIRECT else "''"
        what = f'"{self._rig.path(step.target)}" {step.directory} {step.size} {step.count}'
        how = f"{flags} {step.sync} {shlex.quote(step.cgroup)}"
        return f"files {step.name} {self._role(step)} {what} {how}"

    def _filesystem(self, step: Mount | Unmount | Check) -> str:
        layer = self._rig.layers[step.target]
        if not isinstance(layer, FsLayer):
            raise Inexpressible(f"step {step.name}", f"its target is {layer.SORT}")
        self._rig.used.add("filesystem")
        match step:
            case Mount():
                command = f"mount_{layer.name}"
            case Unmount():
                command = f'umount "{self._rig.path(layer.name)}"'
            case _:
                check = CHECK[layer.type]
                self._rig.tools[check[0]] = None
                command = f'{shlex.join(check)} "{self._rig.path(layer.on)}"'
        must = self._relieved and (step.role is Role.RECOVER or not isinstance(step, Unmount))
        return f"filesystem {step.name} {'relieved' if must else 'short'} {command}"

    def _write(self, step: Write) -> str:
        self._rig.block(f"step {step.name}", step.target)
        # At its first error a script's writer stops: of an overwrite that goes on, that is enough.
        goes_on = step.after_error == "continue" and step.role is not Role.OVERWRITE
        checks: list[tuple[bool, str]] = [
            (step.submit not in FLAGS, f"dd does not submit by {step.submit}"),
            (step.depth > 1 or step.order != "sequential", "dd has one request in flight"),
            (step.detach is not None, "the device is detached under the writer"),
            (step.file_limit is not None, "the writer's RLIMIT_FSIZE"),
            # Of page cache that is clean there is some to reclaim for it.
            (
                step.unkillable and step.submit is not Submit.BUFFERED,
                "at a limit where nobody can be killed dd faults for its own pages for ever",
            ),
        ]
        for wrong, why in checks:
            if wrong:
                raise Inexpressible(f"step {step.name}", why)
        self._rig.used.add("write")
        kill = "''" if step.kill is None else str(step.kill.after)
        if step.submit is Submit.DIRECT and step.request >= _LARGE:
            self._rig.used.add("huge")
        words = [
            "write",
            step.name,
            self._role(step),
            f'"{self._rig.path(step.target)}"',
            FLAGS[step.submit],
            str(step.offset),
            str(step.length),
            str(step.request),
            str(step.generation),
            str(step.sync_every or 0),
            shlex.quote(step.cgroup),
            kill,
        ]
        wanted = {"spared": step.unkillable, "goes_on": goes_on and step.kill is None}
        turned = {name: on for name, on in wanted.items() if on != self._switches[name]}
        self._switches |= turned
        turns = " ".join(f"{name}={'yes' if on else 'no'}" for name, on in turned.items())
        return "\n".join((*([turns] if turns else ()), " ".join(words)))

    def _run(self, step: Run) -> str:
        self._rig.used.add("run")
        self._rig.tools[step.argv[0]] = None
        words = []
        for word in step.argv:
            filled = shlex.quote(word)
            for name in self._rig.layers:
                if f"{{{name}}}" in word:
                    filled = '"' + word.replace(f"{{{name}}}", self._rig.path(name)) + '"'
            words.append(filled)
        return f"run {step.name} {self._role(step)} {shlex.quote(step.cgroup)} {' '.join(words)}"

    def _role(self, step: Files | Run | Write) -> str:
        """What is no claim of the case is no deviation in its script either."""
        needs = {
            Role.OVERWRITE: Clause.OVERWRITE_IN_PLACE,
            Role.RECOVER: Clause.REUSABLE,
        }.get(step.role)
        claimed = needs is None or needs in self._variant.expect.clauses
        return (step.role if claimed else Role.OBSERVE).value

    def _reattach(self, step: Reattach) -> str:
        layer = self._rig.layers[step.target]
        if step.remove:
            raise Inexpressible(f"step {step.name}", "no command removes a loop device")
        if isinstance(layer, BLOCK) and not isinstance(layer, ZramLayer):
            self._rig.used.add("again")
            return self._paused(f"again {step.name} {layer.name}")
        if not isinstance(layer, LoopLayer):
            raise Inexpressible(f"step {step.name}", f"attaching {layer.SORT} again")
        self._rig.used.add("reattach")
        return self._paused(f"reattach {step.name} {self._rig.attached(layer)}")

    def _paused(self, line: str) -> str:
        """Bystanders close their device before it goes, as the suite's do."""
        if "busy" not in self._rig.used:
            return line
        return f'touch "$work/pause"\nsleep 1\n{line}\nrm "$work/pause"'


def _seconds(limit: float) -> int:
    return round(limit * _SLOWER)


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH, break_on_hyphens=False)]
