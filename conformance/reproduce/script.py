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
    Clause,
    DiskLayer,
    FileLayer,
    FsLayer,
    Impose,
    Layer,
    LoopLayer,
    Reattach,
    Relieve,
    RemoveCgroup,
    Run,
    Submit,
    TmpfsLayer,
    Truncate,
    Variant,
    Verify,
    Write,
)
from conformance.planner import requirements
from conformance.reproduce.functions import chosen
from conformance.reproduce.shortage import Inexpressible, imposed

FLAGS = {
    Submit.BUFFERED: "''",
    Submit.DIRECT: "direct,",
    Submit.DSYNC: "dsync,",
    Submit.DIRECT_DSYNC: "direct,dsync,",
}
"""Ways to submit that dd has, each with its oflag."""

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
        Clause.KERNEL_SOUND,
    }
)
"""Clauses that a script judges, as far as a shell can see."""

SHOWN_BY_RUNNING = frozenset({"probe:loop_charges_memcg", "probe:tmpfs_direct_io"})
"""Requirements that need no probe of their own: without them the script cannot tell, and says so."""

DISK = "1G"
"""Of the sparse file that stands for the guest's disk, unless the user names a disk."""

MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "--nodiscard"),
    "f2fs": ("mkfs.f2fs", "-q", "-f", "-t", "0"),
}
"""As the guest's program makes them; a test holds the two against each other."""
MOUNT = {"ext4": ("noinit_itable",)}
_GENERIC = {"user": "usrquota", "group": "grpquota", "project": "prjquota"}
QUOTA_OPTION = {
    "ext4": _GENERIC,
    "f2fs": _GENERIC,
    "xfs": {"user": "uquota", "group": "gquota", "project": "pquota"},
}
_RESERVED = frozenset({"PATH", "HOME", "IFS", "ENV", "PWD", "TMPDIR", "DISK", "LC_ALL"})
_WIDTH = 96
_SLOWER = 4
"""How many times longer than on the reference machine a step may take."""


def script(variant: Variant, *, seen: Sequence[str] = ()) -> str:
    """The script of a variant; ``seen``: lines on what it showed before.

    Raises Inexpressible for the first part that a plain script cannot do.
    """
    if len(variant.arms) > 1:
        names = ", ".join(arm.name for arm in variant.arms)
        raise Inexpressible("arms", f"it compares {names}, each in a machine of its own")
    return _Script(variant, variant.arms[0]).text(seen)


class _Script:
    def __init__(self, variant: Variant, arm: Arm) -> None:
        self._variant = variant
        self._arm = arm
        self._layers: dict[str, Layer] = {layer.name: layer for layer in arm.layers}
        self._used = {"say", "unable", "need", "finish", "deviates", "step"}
        self._undo: list[str] = []
        self._tools: dict[str, None] = dict.fromkeys(("dmesg", "timeout", "cmp"))

    def text(self, seen: Sequence[str]) -> str:
        """The whole script."""
        shortage = imposed(self._arm.shortage, self._path)
        self._used |= set(shortage.functions)
        self._tools |= dict.fromkeys(shortage.tools)
        rig = [line for layer in self._arm.layers for line in self._layer(layer)]
        groups = list(self._cgroups())
        people = list(self._bystanders())
        steps: list[str] = []
        for step in self._arm.steps:
            match step:
                case Impose():
                    steps += [f"step {step.name}", *shortage.impose]
                case Relieve():
                    steps += [f"step {step.name}", *shortage.relieve]
                case _:
                    steps.append(self._step(step))
        needs = list(self._needs())
        limit = max(step.limit for step in self._arm.steps) * _SLOWER
        parts = [
            "#!/bin/sh",
            *self._header(seen),
            "set -u",
            "export LC_ALL=C",
            '[ "$(id -u)" = 0 ] || { echo "CANNOT TELL: this needs root"; exit 77; }',
            "work=$(mktemp -d) groups=/sys/fs/cgroup/reproduce.$$",
            f"limit={limit:.0f} number=0 arrived=no own=no bystanders='' current=",
            ': >"$work/acknowledged"',
            "",
            *(f"{text}" for text in chosen(self._used)),
            *shortage.gauge,
            "# shellcheck disable=SC2317 # the trap calls it",
            "cleanup() {",
            "    trap - EXIT",
            '    for one in $bystanders; do kill -9 "${one#*:}" 2>/dev/null; done',
            *(f"    {line}" for line in reversed(self._undo)),
            '    rm -rf "$work"',
            "}",
            "trap cleanup EXIT",
            "trap 'exit 77' INT TERM",
            "",
            *needs,
            "",
            "# -- the rig",
            *rig,
            *groups,
            *people,
            "",
            "# -- the steps",
            *steps,
            "finish",
        ]
        return "\n".join(parts) + "\n"

    # -- the beginning --------------------------------------------------------------------------

    def _header(self, seen: Sequence[str]) -> Iterator[str]:
        variant = self._variant
        yield f"# {variant.id}"
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
                self._tools[name] = None
            elif kind == "controller" or need in SHOWN_BY_RUNNING or name.startswith("quota_"):
                continue
            else:
                raise Inexpressible(f"requires {need}", "a script would have to probe for it")
        yield f"need {' '.join(self._tools)}"

    # -- the rig --------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        """The shell's word for where a layer is."""
        upper = name.upper()
        return f"${upper}_" if upper in _RESERVED else f"${upper}"

    def _layer(self, layer: Layer) -> Iterator[str]:
        variable = self._path(layer.name).removeprefix("$")
        match layer:
            case TmpfsLayer():
                yield from self._tmpfs(layer, variable)
            case DiskLayer():
                yield from self._disk(variable)
            case FsLayer():
                yield from self._fs(layer, variable)
            case FileLayer():
                yield from self._file(layer, variable)
            case LoopLayer():
                yield from self._loop(layer, variable)
            case _:
                raise Inexpressible(f"layer {layer.name}", f"{layer.SORT} is not supported")

    def _tmpfs(self, layer: TmpfsLayer, variable: str) -> Iterator[str]:
        if layer.quota:
            raise Inexpressible(f"layer {layer.name}", "no command sets a quota on a tmpfs")
        if layer.huge == "force":
            raise Inexpressible(f"layer {layer.name}", "huge=force holds for the whole machine")
        huge = "" if layer.huge == "never" else f",huge={layer.huge}"
        inodes = f",nr_inodes={layer.inodes}" if layer.inodes else ""
        yield f'{variable}=$work/{layer.name} && mkdir "${variable}"'
        self._undo.append(f'umount "${variable}"')
        yield (
            f'mount -t tmpfs -o size={layer.size}{huge}{inodes} none "${variable}" ||'
            f" unable 'no such tmpfs'"
        )

    def _disk(self, variable: str) -> Iterator[str]:
        self._tools["losetup"] = None
        yield f"{variable}=${{DISK-}}"
        yield f'if [ -z "${variable}" ]; then'
        yield f'    truncate -s {DISK} "$work/disk"'
        yield f'    {variable}=$(losetup -f --show "$work/disk") || unable "no loop device"'
        yield "fi"
        self._undo.append(f'if [ -z "${{DISK-}}" ]; then losetup -d "${variable}"; fi')

    def _fs(self, layer: FsLayer, variable: str) -> Iterator[str]:
        if layer.project or layer.sysfs:
            raise Inexpressible(f"layer {layer.name}", "project ids of directories, and sysfs")
        if layer.quota and layer.type not in QUOTA_OPTION:
            raise Inexpressible(f"layer {layer.name}", f"quota on {layer.type}")
        mkfs = [*MKFS[layer.type], *_quota_words(layer), *layer.mkfs_options]
        options = [*MOUNT.get(layer.type, ())]
        options += [QUOTA_OPTION[layer.type][kind] for kind in layer.quota]
        options += [layer.mount_options] if layer.mount_options else []
        chosen_options = f"-o {shlex.quote(','.join(options))} " if options else ""
        below = self._path(layer.on)
        self._tools[mkfs[0]] = None
        yield f'{variable}=$work/{layer.name} && mkdir "${variable}"'
        yield f'{shlex.join(mkfs)} "{below}" >/dev/null || unable "{mkfs[0]} failed"'
        self._undo.append(f'umount "${variable}"')
        yield (
            f'mount -t {layer.type} {chosen_options}"{below}" "${variable}" ||'
            f" unable 'it cannot be mounted'"
        )

    def _file(self, layer: FileLayer, variable: str) -> Iterator[str]:
        yield f"{variable}={self._path(layer.on)}/{layer.name}"
        yield f': >"${variable}"'
        if layer.owner or layer.group:
            yield f'chown {layer.owner}:{layer.group} "${variable}"'
        if layer.project:
            self._tools["chattr"] = None
            yield f'chattr -p {layer.project} "${variable}" || unable "no project ids here"'
        make = "fallocate -l" if layer.allocate else "truncate -s"
        yield f'{make} {layer.size} "${variable}" || unable "no such file"'

    def _loop(self, layer: LoopLayer, variable: str) -> Iterator[str]:
        if layer.keeper == "on":
            raise Inexpressible(f"layer {layer.name}", "a process that keeps the device open")
        if layer.cgroup:
            raise Inexpressible(f"layer {layer.name}", "it is set up from a cgroup")
        self._used.add("attach")
        self._tools["losetup"] = None
        yield f'{variable}=$(losetup -f) || unable "no loop device"'
        self._undo.append(f'losetup -d "${variable}"')
        yield f'attach {self._attached(layer)} || unable "losetup failed"'

    def _attached(self, layer: LoopLayer) -> str:
        return f'"{self._path(layer.name)}" "{self._path(layer.on)}" {layer.direct_io} \'\''

    def _cgroups(self) -> Iterator[str]:
        paths: dict[str, None] = {}
        for path in self._arm.cgroups:
            parts = path.split("/")
            paths |= dict.fromkeys("/".join(parts[: n + 1]) for n in range(len(parts)))
        if paths:
            self._used.add("cgroups")
            yield f"cgroups {' '.join(paths)}"
            self._undo.append('rmdir "$groups"')
            self._undo += [f'rmdir "$groups/{path}" 2>/dev/null' for path in paths]

    def _bystanders(self) -> Iterator[str]:
        self._used.add("bystander")
        for one in self._arm.bystanders:
            if one.io is not None or one.memory:
                what = "its own I/O" if one.io is not None else "memory of its own"
                raise Inexpressible(f"bystander {one.name}", what)
            yield f"bystander {one.name} {shlex.quote(one.cgroup)}"
        yield "bystander outsider ''"

    # -- the steps ------------------------------------------------------------------------------

    def _step(self, step: AnyStep) -> str:
        match step:
            case Write():
                return self._write(step)
            case Verify():
                self._device(step.name, step.target)
                self._used.add("verify")
                target = self._path(step.target)
                below = "".join(f' "{self._path(name)}"' for name in self._below(step.target))
                return f'verify {step.name} "{target}" {step.offset} {step.length}{below}'
            case Run():
                return self._run(step)
            case Reattach():
                return self._reattach(step)
            case RemoveCgroup():
                self._used.add("remove_cgroup")
                return f"remove_cgroup {step.name} {step.cgroup}"
            case Truncate():
                target = self._path(step.target)
                return f'step {step.name}\ntruncate -s {step.size} "{target}"'
            case _:
                raise Inexpressible(f"step {step.name}", f"the verb {step.verb}")

    def _below(self, name: str) -> Iterator[str]:
        """The files and devices below a layer, whose page cache may hide what was stored."""
        for _, other in self._layers[name].supports():
            if isinstance(self._layers[other], FileLayer | LoopLayer | DiskLayer):
                yield other
            yield from self._below(other)

    def _device(self, step: str, target: str) -> None:
        layer = self._layers[target]
        if not isinstance(layer, LoopLayer | DiskLayer):
            raise Inexpressible(f"step {step}", f"its target is {layer.SORT}")

    def _write(self, step: Write) -> str:
        self._device(step.name, step.target)
        checks: list[tuple[bool, str]] = [
            (step.submit not in FLAGS, f"dd does not submit by {step.submit}"),
            (step.depth > 1 or step.order != "sequential", "dd has one request in flight"),
            (step.detach is not None, "the device is detached under the writer"),
            (step.file_limit is not None, "the writer's RLIMIT_FSIZE"),
            (step.unkillable, "a writer that the OOM killer must spare"),
            (step.after_error == "continue" and step.kill is None, "a writer that goes on"),
        ]
        for wrong, why in checks:
            if wrong:
                raise Inexpressible(f"step {step.name}", why)
        self._used.add("write")
        kill = "''" if step.kill is None else str(step.kill.after)
        words = [
            "write",
            step.name,
            step.role.value,
            f'"{self._path(step.target)}"',
            FLAGS[step.submit],
            str(step.offset),
            str(step.length),
            str(step.request),
            str(step.generation),
            str(step.sync_every or 0),
            shlex.quote(step.cgroup),
            kill,
        ]
        return " ".join(words)

    def _run(self, step: Run) -> str:
        self._used.add("run")
        self._tools[step.argv[0]] = None
        words = []
        for word in step.argv:
            filled = shlex.quote(word)
            for name in self._layers:
                if f"{{{name}}}" in word:
                    filled = '"' + word.replace(f"{{{name}}}", self._path(name)) + '"'
            words.append(filled)
        role = step.role.value
        return f"run {step.name} {role} {shlex.quote(step.cgroup)} {' '.join(words)}"

    def _reattach(self, step: Reattach) -> str:
        layer = self._layers[step.target]
        if step.remove:
            raise Inexpressible(f"step {step.name}", "no command removes a loop device")
        if not isinstance(layer, LoopLayer):
            raise Inexpressible(f"step {step.name}", f"attaching {layer.SORT} again")
        self._used.add("reattach")
        return f"reattach {step.name} {self._attached(layer)}"


def _quota_words(layer: FsLayer) -> tuple[str, ...]:
    """What mkfs has to be told of quotas; xfs takes it all by its mount options."""
    if layer.quota and layer.type == "ext4":
        types = ":".join(QUOTA_OPTION["ext4"][kind] for kind in layer.quota)
        return ("-O", "quota,project", "-E", f"quotatype={types}")
    if layer.quota and layer.type == "f2fs":
        return ("-O", "extra_attr,quota,project_quota")
    return ()


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH, break_on_hyphens=False)]
