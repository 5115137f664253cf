"""What the parts of an arm must be to each other: a case that breaks this could not be judged."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from conformance.model import (
    ABILITIES,
    BLOCK,
    BY_FIO,
    STARRED,
    Ability,
    AnyLayer,
    AnyShortage,
    AnyStep,
    Bystander,
    Calls,
    Case,
    Check,
    Clause,
    Expect,
    Files,
    Impose,
    Layer,
    Metadata,
    Mount,
    NoShortage,
    RangeKind,
    RangeOp,
    Relieve,
    RemoveCgroup,
    Role,
    Run,
    Verify,
    VerifyFiles,
    Write,
    format_size,
)
from conformance.model.calls import STORES, wrong_with
from conformance.substitution import Collector
from conformance.yaml_marks import Listing, Node, Table, at, child

_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")

_NEEDS_SHORTAGE = frozenset(
    {
        Clause.ERROR_SURFACED,
        Clause.ERRNO_PRECISE,
        Clause.LIMIT_ENFORCED,
        Clause.OVERWRITE_IN_PLACE,
        Clause.EQUIVALENT,
        Clause.RESOLVED_BY_WAITING,
        Clause.INDEPENDENT_PROGRESS,
        Clause.REPORTED_ONCE,
    }
)

_CHANGING = (Write, Calls, RangeOp, Files, Metadata)
"""Steps after which the layer in their field ``target`` has to be read back."""

Tell = Callable[[Node, str], None]


@dataclass(frozen=True, kw_only=True)
class ArmParts:
    """An arm's values, each with the node that an error in it is told at."""

    name: str
    layers: Sequence[tuple[AnyLayer, Table]]
    cgroups: tuple[str, ...]
    cgroups_node: Node
    bystanders: Sequence[tuple[Bystander, Node]]
    shortage: AnyShortage
    shortage_node: Node
    steps: Sequence[tuple[AnyStep, Table]]
    node: Node


def check_case(case: Case, root: Table, problems: Collector) -> None:
    """What can be said of a case before any of its variants."""
    names = set(errno.errorcode.values())
    for number, name in enumerate(case.expect.errno):
        if name not in names:
            node = child(root, "expect", "errno", number)
            problems.add(at(node, f"{name!r} is no errno of Linux"))
    judged = STARRED.union(case.expect.clauses)
    told = child(root, "expect", "documented_by")
    for clause in case.expect.documented_by:
        if clause not in judged:
            message = f"documented_by: {clause.value!r} is not judged in this case"
            problems.add(at(child(told, clause.value), message))
    seen: set[object] = set()
    for number, clause in enumerate(case.expect.clauses):
        if clause in seen:
            node = child(root, "expect", "clauses", number)
            problems.add(at(node, f"{clause.value!r} is there twice"))
        seen.add(clause)
    if Clause.EQUIVALENT in case.expect.clauses and len(case.arms) < 2:
        _tell_clause(child(root, "expect"), Clause.EQUIVALENT, "two arms or more", problems)


def check_arm(
    arm: ArmParts, expect: Expect, expect_node: Node, problems: Collector, variant: str
) -> None:
    """Everything in one arm of one variant. What is wrong goes to ``problems``."""

    def tell(node: Node, message: str) -> None:
        problems.add(at(node, message), variant)

    rig = _check_layers(arm, tell)
    _check_cgroups(arm, tell)
    _check_bystanders(arm, rig, tell)
    _check_shortage(arm, rig, tell)
    _check_steps(arm, rig, tell)
    _check_order(arm, tell)
    _check_clauses(arm, expect, expect_node, problems, variant)


# -- the rig ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Rig:
    """Layers by name, and the sizes of block layers in bytes."""

    layers: dict[str, Layer]
    sizes: dict[str, int]

    def wanted(
        self, node: Node, key: str, name: str, able: frozenset[Ability], tell: Tell
    ) -> Layer | None:
        """The layer of that name, if it can do one of these; else a problem and None."""
        layer = self.layers.get(name)
        if layer is None:
            there = ", ".join(self.layers) or "none"
            tell(child(node, key), f"{key}: no layer {name!r} here; there are: {there}")
            return None
        if not layer.CAN & able:
            right = " or ".join(ABILITIES[ability] for ability in ABILITIES if ability in able)
            tell(child(node, key), f"{key}: {name!r} is {layer.SORT}, not {right}")
            return None
        return layer

    def region(
        self,
        node: Node,
        name: str,
        offset: int,
        length: int,
        tell: Tell,
        *,
        past_end: bool = False,
    ) -> None:
        """A region of a block layer: whole blocks, not empty, inside the device if it has to be."""
        for key, value in (("offset", offset), ("length", length)):
            _whole_blocks(node, key, value, tell)
        if length == 0:
            tell(child(node, "length"), "length: nothing")
        size = self.sizes.get(name)
        if size is not None and offset + length > size and not past_end:
            end, whole = format_size(offset + length), format_size(size)
            tell(child(node, "length"), f"the region ends at {end}, past {name!r} of {whole}")


def _whole_blocks(node: Node, key: str, value: int, tell: Tell) -> None:
    if value % BLOCK:
        tell(child(node, key), f"{key}: {value} is no multiple of {BLOCK}")


def _check_layers(arm: ArmParts, tell: Tell) -> _Rig:
    rig = _Rig(layers={}, sizes={})
    for layer, node in arm.layers:
        if layer.name in rig.layers:
            tell(child(node, "name"), f"a layer is called {layer.name!r} already")
        for key, name in layer.supports():
            rig.wanted(node, key, name, layer.STANDS_ON[key], tell)
        for key, message in layer.wrong(rig.layers):
            tell(child(node, key), f"{key}: {message}")
        _check_member(arm, node, getattr(layer, "cgroup", ""), tell)
        size = layer.device_size(rig.sizes)
        if size is not None:
            rig.sizes[layer.name] = size
        rig.layers[layer.name] = layer
    return rig


# -- cgroups ------------------------------------------------------------------------------------


def _check_cgroups(arm: ArmParts, tell: Tell) -> None:
    for number, path in enumerate(arm.cgroups):
        node = child(arm.cgroups_node, number)
        if not path:
            tell(node, "the root cgroup is always there")
        parent = path.rpartition("/")[0]
        if parent and parent not in arm.cgroups[:number]:
            tell(node, f"its parent {parent!r} must be listed before {path!r}")
        if path in arm.cgroups[:number]:
            tell(node, f"{path!r} is there twice")


def _check_member(arm: ArmParts, node: Node, path: str, tell: Tell) -> None:
    """A process may live in ``path``: it is the root, or declared and without children."""
    if not path:
        return
    place = child(node, "cgroup")
    if path not in arm.cgroups:
        tell(place, f"cgroup: {path!r} is not among the case's cgroups")
    elif any(other.startswith(f"{path}/") for other in arm.cgroups):
        tell(place, f"cgroup: {path!r} has children, so that no process can be in it (cgroup v2)")


def _check_bystanders(arm: ArmParts, rig: _Rig, tell: Tell) -> None:
    seen: set[str] = set()
    for bystander, node in arm.bystanders:
        if bystander.name in seen:
            tell(child(node, "name"), f"a bystander is called {bystander.name!r} already")
        seen.add(bystander.name)
        _check_member(arm, node, bystander.cgroup, tell)
        if bystander.io is not None:
            io, place = bystander.io, child(node, "io")
            if rig.wanted(place, "target", io.target, frozenset({"block"}), tell):
                rig.region(place, io.target, io.offset, io.length, tell)
            _check_request(place, io.request, io.length, tell)


# -- shortage and steps ---------------------------------------------------------------------------


def _check_shortage(arm: ArmParts, rig: _Rig, tell: Tell) -> None:
    node, shortage = arm.shortage_node, arm.shortage
    if shortage.OF:
        rig.wanted(node, "layer", getattr(shortage, "layer"), shortage.OF, tell)  # noqa: B009
    for key, message in shortage.wrong(rig.layers):
        tell(child(node, key), f"{key}: {message}")
    cgroup = shortage.binds
    if cgroup is not None and cgroup not in arm.cgroups:
        tell(child(node, "cgroup"), f"cgroup: {cgroup!r} is not among the case's cgroups")


def _check_request(node: Node, request: int, length: int, tell: Tell) -> None:
    _whole_blocks(node, "request", request, tell)
    if request == 0:
        tell(child(node, "request"), "request: nothing")
    elif request > length:
        tell(child(node, "request"), "request: larger than the whole region")


def _check_steps(arm: ArmParts, rig: _Rig, tell: Tell) -> None:
    names: set[str] = set()
    generations: dict[int, str] = {}
    for step, node in arm.steps:
        if step.name in names:
            tell(child(node, "as"), f"a step is called {step.name!r} already")
        names.add(step.name)
        if isinstance(step, Run):
            _check_argv(step, node, rig, tell)
        elif step.TARGET and not isinstance(step, (Impose, Relieve, RemoveCgroup)):
            found = rig.wanted(node, "target", step.target, step.TARGET, tell)
            if found is not None and isinstance(step, (Write, Calls, Verify, RangeOp)):
                past = isinstance(step, Write) and step.past_end
                rig.region(node, step.target, step.offset, step.length, tell, past_end=past)
        if isinstance(step, RangeOp):
            _check_range(step, node, rig, tell)
        if isinstance(step, Write):
            _check_write(step, node, rig, tell)
        if isinstance(step, Calls):
            _check_script(step, node, tell)
        if isinstance(step, Files):
            _whole_blocks(node, "size", step.size, tell)
        if isinstance(step, (Write, RangeOp, Files, Metadata, Run, RemoveCgroup)):
            _check_member(arm, node, step.cgroup, tell)
        if isinstance(step, (Write, Calls, Files)):
            first = generations.setdefault(step.generation, step.name)
            if first != step.name:
                message = f"generation: {first!r} writes {step.generation} already"
                tell(child(node, "generation"), message)


def _check_range(step: RangeOp, node: Table, rig: _Rig, tell: Tell) -> None:
    if step.op is RangeKind.ZONE_RESET:
        rig.wanted(node, "target", step.target, frozenset({"zones"}), tell)
    if step.request is not None:
        _check_request(node, step.request, step.length, tell)


def _check_write(step: Write, node: Table, rig: _Rig, tell: Tell) -> None:
    _check_request(node, step.request, step.length, tell)
    _whole_blocks(node, "sync_every", step.sync_every or 0, tell)
    for key in ("depth", "order"):
        if step.submit not in BY_FIO and getattr(step, key) not in (1, "sequential"):
            tell(child(node, key), f"{key}: only for fio's ways to submit")
    for key in ("detach", "file_limit"):
        if step.submit in BY_FIO and getattr(step, key) is not None:
            tell(child(node, key), f"{key}: not for fio's ways to submit")
    if step.detach is not None:
        rig.wanted(node, "target", step.target, frozenset({"reattach"}), tell)
        if step.kill is not None:
            tell(child(node, "detach"), "detach: not together with kill")


def _check_script(step: Calls, node: Node, tell: Tell) -> None:
    wrong = wrong_with(step.script)
    if wrong:
        tell(child(node, "script"), f"script: {wrong}")
    for call in step.script:
        length = step.length if call.length is None else call.length
        if call.do not in STORES:
            continue
        if call.offset % BLOCK or length % BLOCK or not length:
            tell(child(node, "script"), f"script: {call}: no whole blocks of {BLOCK} bytes")
        elif call.offset + length > step.length:
            tell(child(node, "script"), f"script: {call}: past the step's region")


def _check_argv(step: Run, node: Node, rig: _Rig, tell: Tell) -> None:
    for number, word in enumerate(step.argv):
        for name in _PLACEHOLDER.findall(word):
            if name not in rig.layers:
                there = ", ".join(rig.layers)
                message = f"{{{name}}}: no layer of that name; there are: {there}"
                tell(child(node, "argv", number), message)


def _check_order(arm: ArmParts, tell: Tell) -> None:
    """Control, impose, provoke, relieve, recover: what makes an observation mean something."""
    if isinstance(arm.shortage, NoShortage):
        return
    steps = [step for step, _ in arm.steps]
    imposes = [i for i, step in enumerate(steps) if isinstance(step, Impose)]
    relieves = [i for i, step in enumerate(steps) if isinstance(step, Relieve)]
    provokes = [i for i, step in enumerate(steps) if step.role is Role.PROVOKE]
    if len(imposes) != 1 or len(relieves) != 1 or not provokes:
        for word, count in (("impose", len(imposes)), ("relieve", len(relieves))):
            if count != 1:
                tell(arm.node, f"{arm.name}: {count} steps `{word}`, where one is needed")
        if not provokes:
            tell(arm.node, f"{arm.name}: no step has the role provoke")
        return
    [impose], [relieve] = imposes, relieves
    nodes = [child(node, "as") for _, node in arm.steps]
    if not any(step.role is Role.CONTROL for step in steps[:impose]):
        tell(nodes[impose], "no step with the role control comes before the shortage")
    if relieve < impose:
        tell(nodes[relieve], "relief comes before the shortage")
    right = {
        Role.CONTROL: (range(impose), "before the shortage"),
        Role.PROVOKE: (range(impose, relieve), "during the shortage"),
        Role.OVERWRITE: (range(impose, relieve), "during the shortage"),
        Role.REUSE: (range(impose, len(steps)), "after the shortage began"),
        Role.RECOVER: (range(relieve, len(steps)), "after the relief"),
    }
    for index, step in enumerate(steps):
        places, told = right.get(step.role, (range(len(steps)), ""))
        if index not in places:
            tell(nodes[index], f"{step.role.value} step {step.name!r} must come {told}")


# -- clauses --------------------------------------------------------------------------------------


def _tell_clause(
    expect: Node, clause: Clause, need: str, problems: Collector, variant: str = ""
) -> None:
    listing = child(expect, "clauses")
    place = next(
        (
            item
            for item in (listing.items if isinstance(listing, Listing) else ())
            if not isinstance(item, (Listing, Table)) and item.value == clause.value
        ),
        listing,
    )
    problems.add(at(place, f"the clause {clause.value!r} needs {need}"), variant)


def _check_clauses(
    arm: ArmParts, expect: Expect, node: Node, problems: Collector, variant: str
) -> None:
    """Each of the case's own clauses has in this arm what it is judged by."""
    steps = [step for step, _ in arm.steps]
    roles = {step.role for step in steps}
    relieve = next((i for i, step in enumerate(steps) if isinstance(step, Relieve)), 0)
    after = steps[relieve:]
    for clause in expect.clauses:
        need = ""
        if clause in _NEEDS_SHORTAGE and isinstance(arm.shortage, NoShortage):
            need = "a shortage"
        elif clause is Clause.OVERWRITE_IN_PLACE and Role.OVERWRITE not in roles:
            need = "a step with the role overwrite"
        elif clause is Clause.REPORTED_ONCE and not any(
            isinstance(step, Calls) and step.role is Role.PROVOKE for step in steps
        ):
            need = "a step calls with the role provoke"
        elif clause is Clause.REUSABLE and not roles & {Role.REUSE, Role.RECOVER}:
            need = "a step with the role reuse or recover"
        elif clause is Clause.INDEPENDENT_PROGRESS and not any(b.io for b, _ in arm.bystanders):
            need = "a bystander with I/O"
        elif clause is Clause.FILESYSTEM_CONSISTENT and not (
            any(isinstance(step, Check) for step in after)
            and any(isinstance(step, Mount) for step in after)
        ):
            need = "a mount and a check after the relief"
        if need:
            _tell_clause(node, clause, need, problems, variant)
    for target in dict.fromkeys(s.target for s in steps if isinstance(s, _CHANGING)):
        if not _read_back(steps, target):
            message = f"{arm.name}: after the last write to {target!r} nothing reads it back"
            problems.add(at(arm.node, message), variant)


def _read_back(steps: Sequence[AnyStep], target: str) -> bool:
    """Whether a reading step on ``target`` follows the last step that writes there."""
    for step in reversed(steps):
        if isinstance(step, (Verify, VerifyFiles)) and step.target == target:
            return True
        if isinstance(step, _CHANGING) and step.target == target:
            return False
    return False
