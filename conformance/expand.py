"""A case file with its fixtures becomes variants: the product of its matrix, each value filled in.

Where a parameter's value comes from, later over earlier: the rig's default, the procedure's
default, the case's ``with``, the arm's ``with``, the matrix.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from conformance.model import (
    AnyShortage,
    Arm,
    Bystander,
    Case,
    Level,
    NoShortage,
    Procedure,
    Requirement,
    Rig,
    Value,
    Variant,
)
from conformance.model.base import CgroupPath
from conformance.parts import LAYERS, SHORTAGES, STEPS
from conformance.semantics import ArmParts, check_arm, check_case
from conformance.substitution import (
    Collector,
    Part,
    Scope,
    names_in,
    read_part,
    read_parts,
    substitute,
)
from conformance.yaml_marks import (
    Leaf,
    Listing,
    Node,
    ProblemsError,
    Table,
    at,
    child,
    fail,
    text_of,
    validate,
)

MAX_CELLS = 1000
"""Variants of one case: beyond this it is a mistake."""

_IN_A_NAME = re.compile(r"[A-Za-z0-9_.+]+")
_REQUIREMENT = TypeAdapter(Requirement)
_BYSTANDER = TypeAdapter(Bystander)
_CGROUPS: TypeAdapter[tuple[CgroupPath, ...]] = TypeAdapter(tuple[CgroupPath, ...])

Cell = Mapping[str, Leaf]


@functools.cache
def _adapter(kind: type[Value]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@dataclass(frozen=True, kw_only=True)
class Fixture:
    """A rig or a procedure: parts that several cases share, with parameters."""

    kind: str
    name: str
    value: Rig | Procedure
    root: Table
    parts: tuple[Part, ...]

    @property
    def params(self) -> dict[str, Leaf]:
        """The parameters' defaults."""
        return leaves(self.root, "params")

    @property
    def switches(self) -> dict[str, set[str]]:
        """Parameters that only conditions ask for, with all values that they know."""
        filled = set(names_in(child(self.root, part_list(self.kind))))
        known: dict[str, set[str]] = {}
        for part in self.parts:
            for name, wanted in part.when.items():
                if name in self.params and name not in filled:
                    known.setdefault(name, {text_of(self.params[name].value)}).update(
                        text_of(leaf.value) for leaf in wanted
                    )
        return known


@dataclass(frozen=True, kw_only=True)
class Source:
    """A case with the nodes that it was read from."""

    id: str
    family: str
    case: Case
    root: Table


@dataclass(frozen=True, kw_only=True)
class Fixtures:
    """The fixtures by name. One that is wrong in itself is None: that is told already."""

    rigs: Mapping[str, Fixture | None]
    procedures: Mapping[str, Fixture | None]
    met: dict[tuple[str, str, str], set[str]] = field(default_factory=dict)
    """For a fixture's kind and name, and a name that its conditions ask for: every value met."""


@dataclass(kw_only=True)
class _ArmSource:
    """One arm before a cell of the matrix is chosen."""

    name: str
    rig: Fixture
    procedure: Fixture | None
    steps: list[Part]
    shortage: Node | None
    own: dict[str, Leaf]  # the arm's `with`
    node: Node
    used: set[str] = field(default_factory=set)


def part_list(kind: str) -> str:
    """The key under which a fixture of this kind has its parts."""
    return "layers" if kind == "rig" else "steps"


def leaves(root: Node, key: str = "") -> dict[str, Leaf]:
    """The scalars of a mapping, or of the one that ``key`` names in it; none if it is absent."""
    node = child(root, key) if key else root
    if not isinstance(node, Table) or (key and node is root):
        return {}
    return {name: leaf for name, leaf in node.items.items() if isinstance(leaf, Leaf)}


def read_fixture(
    kind: str, name: str, value: Rig | Procedure, root: Table, problems: Collector
) -> Fixture:
    """A fixture with its parts. What is wrong with it, whatever case uses it, becomes problems."""
    words, what = (LAYERS, "layer") if kind == "rig" else (STEPS, "step")
    field_name = "layer" if kind == "rig" else "verb"
    listing = child(root, part_list(kind))
    parts = tuple(read_parts(listing, words, what, field_name, problems))
    fixture = Fixture(kind=kind, name=name, value=value, root=root, parts=parts)
    asked = set(names_in(listing)).union(*(part.when for part in parts))
    for param, default in fixture.params.items():
        if param not in asked:
            problems.add(at(default, f"no {what} uses the parameter {param!r}"))
        if any(True for _ in names_in(default)):
            problems.add(at(default, "a default cannot name other values"))
    return fixture


class Expansion:
    """One case on its way to its variants."""

    def __init__(self, source: Source, fixtures: Fixtures, problems: Collector) -> None:
        self._source = source
        self._case = source.case
        self._root = source.root
        self._fixtures = fixtures
        self._problems = problems
        self._axes: dict[str, tuple[Leaf, ...]] = {}
        self._with_used: set[str] = set()

    def variants(self) -> tuple[Variant, ...]:
        """The variants, without those that are wrong; what is wrong is with the problems."""
        before = len(self._problems)
        check_case(self._case, self._root, self._problems)
        self._read_matrix()
        requirements = list(self._requirements())
        arms = self._arms()
        if len(self._problems) != before or len(arms) < max(1, len(self._case.arms)):
            return ()
        variants = []
        for cell in self._cells():
            variant = self._variant(cell, requirements, arms)
            if variant is not None:
                variants.append(variant)
        if len(self._problems) == before:
            self._check_uses(arms)
        return tuple(variants)

    # -- the matrix -----------------------------------------------------------------------------

    def _read_matrix(self) -> None:
        matrix = child(self._root, "matrix")
        if not isinstance(matrix, Table) or matrix is self._root:
            return
        for axis, node in matrix.items.items():
            assert isinstance(node, Listing)
            values = tuple(leaf for leaf in node.items if isinstance(leaf, Leaf))
            self._axes[axis] = values
            if len(values) < 2:
                self._problems.add(at(node, f"axis {axis!r} has no two values: it cannot vary"))
            seen: set[str] = set()
            for leaf in values:
                text = text_of(leaf.value)
                if text in seen:
                    self._problems.add(at(leaf, f"{text!r} is twice in axis {axis!r}"))
                if not _IN_A_NAME.fullmatch(text):
                    self._problems.add(
                        at(leaf, f"{text!r} cannot be a part of a variant's name: letters, digits,"
                           " '_', '.' and '+' can")
                    )  # fmt: skip
                seen.add(text)
        for name in (n for n in leaves(self._root, "with") if n in self._axes):
            self._problems.add(at(child(self._root, "with", name), f"{name!r} is a matrix axis"))

    def _cells(self) -> list[Cell]:
        """The product less what is excluded."""
        sizes = [len(values) for values in self._axes.values()]
        total = 1
        for size in sizes:
            total *= size
        matrix = child(self._root, "matrix")
        if total > MAX_CELLS:
            self._problems.add(at(matrix, f"{total} cells; at most {MAX_CELLS} make sense"))
            return []
        cells: list[Cell] = [
            dict(zip(self._axes, values, strict=True))
            for values in itertools.product(*self._axes.values())
        ]
        for number in range(len(self._case.exclude)):
            node = child(self._root, "exclude", number)
            wanted = leaves(node)
            if not self._known_values(wanted, "exclude"):
                continue
            kept = [cell for cell in cells if not _matches(cell, wanted)]
            if len(kept) == len(cells):
                self._problems.add(at(node, "excludes nothing that is not excluded already"))
            cells = kept
        if not cells:
            self._problems.add(at(child(self._root, "exclude"), "every cell is excluded"))
        else:
            for axis, values in self._axes.items():
                for leaf in values:
                    if not any(cell[axis] is leaf for cell in cells):
                        message = f"every cell with {axis}={text_of(leaf.value)} is excluded"
                        self._problems.add(at(leaf, message))
        return cells

    def _known_values(self, wanted: Mapping[str, Leaf], what: str) -> bool:
        """Whether all names are axes and all values theirs; what is not becomes a problem."""
        known = True
        for name, leaf in wanted.items():
            if name not in self._axes:
                self._problems.add(at(leaf, f"{what}: no axis is called {name!r}"))
                known = False
            elif text_of(leaf.value) not in {text_of(v.value) for v in self._axes[name]}:
                message = f"{what}: {text_of(leaf.value)!r} is no value of the axis {name!r}"
                self._problems.add(at(leaf, message))
                known = False
        return known

    # -- what the case asks for -----------------------------------------------------------------

    def _requirements(self) -> Iterator[tuple[str, dict[str, Leaf]]]:
        for number, item in enumerate(self._case.requires):
            node = child(self._root, "requires", number)
            if isinstance(item, Requirement):
                when = leaves(node, "when")
                if self._known_values(when, "when"):
                    yield item.need, when
                continue
            try:
                holder = Table(items={"need": node}, keys={"need": node.where}, where=node.where)
                yield validate(_REQUIREMENT, holder).need, {}
            except ProblemsError as error:
                self._problems.take(error)

    def _arms(self) -> list[_ArmSource]:
        procedure: Fixture | None = None
        steps = child(self._root, "steps")
        inline: list[Part] = []
        if isinstance(self._case.steps, str):
            procedure = self._fixture("procedures", self._case.steps, steps)
            if procedure is None:
                return []
            inline = list(procedure.parts)
        else:
            inline = read_parts(steps, STEPS, "step", "verb", self._problems)
        arms = []
        if self._case.arms:
            for name, spec in self._case.arms.items():
                node = child(self._root, "arms", name)
                shortage = child(node, "shortage") if spec.shortage is not None else None
                arm = self._arm(name, spec.rig, leaves(node, "with"), shortage, node)
                if arm is not None:
                    arms.append(arm)
        else:
            arm = self._arm("main", None, {}, None, self._root)
            if arm is not None:
                arms.append(arm)
        for arm in arms:
            arm.procedure, arm.steps = procedure, inline
        if procedure is None:
            self._check_conditions(inline, arms)
        return arms

    def _arm(
        self, name: str, rig: str | None, own: dict[str, Leaf], shortage: Node | None, node: Node
    ) -> _ArmSource | None:
        place = child(node if rig is not None else self._root, "rig")
        rig = rig if rig is not None else self._case.rig
        if rig is None:
            self._problems.add(at(node, f"{name}: neither the arm nor the case names a rig"))
            return None
        if shortage is None and self._case.shortage is not None:
            shortage = child(self._root, "shortage")
        if shortage is None and self._case.level is not Level.SURVEY:
            message = f"{name}: no shortage; a case that means none says `shortage: {{none: {{}}}}`"
            self._problems.add(at(node, message))
        for clash in (n for n in own if n in self._axes):
            self._problems.add(at(own[clash], f"{clash!r} is a matrix axis"))
        fixture = self._fixture("rigs", rig, place)
        if fixture is None:
            return None
        return _ArmSource(
            name=name, rig=fixture, procedure=None, steps=[], shortage=shortage, own=own, node=node
        )

    def _fixture(self, kind: str, name: str, place: Node) -> Fixture | None:
        known: Mapping[str, Fixture | None] = getattr(self._fixtures, kind)
        if name not in known:
            message = f"no fixture {kind}/{name}.yaml; there are: {', '.join(sorted(known))}"
            self._problems.add(at(place, message))
        return known.get(name)

    def _check_conditions(self, steps: Iterable[Part], arms: Iterable[_ArmSource]) -> None:
        """Conditions of the case's own steps must be able to vary."""
        domain = {axis: {text_of(v.value) for v in values} for axis, values in self._axes.items()}
        mine = leaves(self._root, "with")
        for arm in arms:
            for name in arm.own:
                told = [{**a.rig.params, **mine, **a.own}.get(name) for a in arms]
                domain[name] = {text_of(leaf.value) for leaf in told if leaf is not None}
        for part in steps:
            for name, wanted in part.when.items():
                if name not in domain:
                    message = f"when: no axis is called {name!r}, nor does an arm set it"
                    self._problems.add(at(wanted[0], message))
                    continue
                for leaf in wanted:
                    if text_of(leaf.value) not in domain[name]:
                        message = f"when: {name!r} is never {text_of(leaf.value)!r}"
                        self._problems.add(at(leaf, message))
                if {text_of(leaf.value) for leaf in wanted} >= domain[name]:
                    message = f"when: this holds for every value of {name!r}: it cannot vary"
                    self._problems.add(at(wanted[0], message))

    # -- one cell -------------------------------------------------------------------------------

    def _variant(
        self, cell: Cell, requirements: list[tuple[str, dict[str, Leaf]]], arms: list[_ArmSource]
    ) -> Variant | None:
        values = {axis: text_of(leaf.value) for axis, leaf in cell.items()}
        name = f"{self._source.id}[{'-'.join(values.values())}]" if values else ""
        try:
            built = [self._build(arm, cell, name) for arm in arms]
        except ProblemsError as error:
            self._problems.take(error, name)
            return None
        needs = [need for need, when in requirements if _matches(cell, when)]
        return Variant(
            case=self._source.id,
            family=self._source.family,
            values=values,
            title=self._case.title,
            level=self._case.level,
            claims=self._case.claims,
            norm=self._case.norm,
            requires=tuple(dict.fromkeys(needs)),
            arms=tuple(built),
            expect=self._case.expect,
            where=self._root.where,
        )

    def _build(self, arm: _ArmSource, cell: Cell, variant: str) -> Arm:
        scope = self._scope(arm, cell)
        layers = self._parts(arm.rig.parts, scope, LAYERS)
        steps = self._parts(arm.steps, scope, STEPS)
        shortage_node: Node = arm.node
        shortage: AnyShortage = NoShortage(kind="none")
        if arm.shortage is not None:
            part = read_part(arm.shortage, SHORTAGES, "shortage", "kind")
            shortage_node = substitute(part.body, scope)
            shortage = validate(_adapter(SHORTAGES[part.word]), shortage_node)
        cgroups_node: Node = Listing(items=(), where=self._root.where)
        if self._case.cgroups:
            cgroups_node = substitute(child(self._root, "cgroups"), scope)
        cgroups = validate(_CGROUPS, cgroups_node)
        bystanders = [
            (validate(_BYSTANDER, filled), filled)
            for number in range(len(self._case.bystanders))
            for filled in [substitute(child(self._root, "bystanders", number), scope)]
        ]
        arm.used |= scope.used
        parts = ArmParts(
            name=arm.name,
            layers=layers,
            cgroups=cgroups,
            cgroups_node=cgroups_node,
            bystanders=bystanders,
            shortage=shortage,
            shortage_node=shortage_node,
            steps=steps,
            node=arm.node,
        )
        check_arm(parts, self._case.expect, child(self._root, "expect"), self._problems, variant)
        return Arm(
            name=arm.name,
            layers=tuple(layer for layer, _ in layers),
            cgroups=cgroups,
            bystanders=tuple(bystander for bystander, _ in bystanders),
            shortage=shortage,
            steps=tuple(step for step, _ in steps),
        )

    def _scope(self, arm: _ArmSource, cell: Cell) -> Scope:
        axes = Scope(values=cell)
        mine = {**leaves(self._root, "with"), **arm.own}
        filled = {name: substitute(leaf, axes) for name, leaf in mine.items()}
        self._with_used |= axes.used
        defaults = {**arm.rig.params, **(arm.procedure.params if arm.procedure else {})}
        chosen = {n: leaf for n, leaf in filled.items() if isinstance(leaf, Leaf)}
        values = {**defaults, **chosen, **cell}
        for fixture in filter(None, (arm.rig, arm.procedure)):
            for name in {name for part in fixture.parts for name in part.when} & set(values):
                met = self._fixtures.met.setdefault((fixture.kind, fixture.name, name), set())
                met.add(text_of(values[name].value))
            for name, known in fixture.switches.items():
                text = text_of(values[name].value)
                if text not in known:
                    message = (
                        f"{text!r} is no value of {name!r}, a switch of the {fixture.kind}"
                        f" {fixture.name}: {', '.join(sorted(known))}"
                    )
                    raise fail(values[name].where, message)
        return Scope(values=values)

    def _parts(
        self, parts: Iterable[Part], scope: Scope, kinds: Mapping[str, type[Value]]
    ) -> list[tuple[Any, Table]]:
        """The parts that apply; every one that is wrong is told before the first is raised."""
        made: list[tuple[Any, Table]] = []
        wrong: list[ProblemsError] = []
        for part in parts:
            try:
                if part.applies(scope):
                    body = substitute(part.body, scope)
                    assert isinstance(body, Table)
                    made.append((validate(_adapter(kinds[part.word]), body), body))
            except ProblemsError as error:
                wrong.append(error)
        if wrong:
            raise ProblemsError(tuple(p for error in wrong for p in error.problems))
        return made

    # -- afterwards -----------------------------------------------------------------------------

    def _check_uses(self, arms: list[_ArmSource]) -> None:
        """Every axis and every value of a `with` must have been asked for somewhere."""
        asked = self._with_used.union(*(arm.used for arm in arms))
        for axis in self._axes:
            if axis not in asked:
                node = child(self._root, "matrix", axis)
                self._problems.add(at(node, f"axis {axis!r} is used nowhere"))
        for name, leaf in leaves(self._root, "with").items():
            if not any(name in arm.used and name not in arm.own for arm in arms):
                message = f"neither rig nor procedure nor case uses {name!r}"
                self._problems.add(at(leaf, message))
        for arm in arms:
            for name, leaf in arm.own.items():
                if name not in arm.used:
                    message = f"neither rig nor procedure nor case uses {name!r} in this arm"
                    self._problems.add(at(leaf, message))


def _matches(cell: Cell, wanted: Mapping[str, Leaf]) -> bool:
    return all(text_of(cell[name].value) == text_of(leaf.value) for name, leaf in wanted.items())
