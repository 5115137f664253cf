"""The mutants of a module: cosmic-ray's operators, each of which changes one thing in its source.

Of cosmic-ray's replacements of one operator by each other those are taken that the rest follow from (whoever
tells ``<`` from ``<=`` and from ``>=`` tells it from ``==`` too); types are left alone, as they are not run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator

ROOT: Final = Path(__file__).parents[2]

_COMPARISONS: Final = (
    ("Eq", "NotEq"),
    ("NotEq", "Eq"),
    ("Lt", "LtE"),
    ("Lt", "GtE"),
    ("LtE", "Lt"),
    ("LtE", "Gt"),
    ("Gt", "GtE"),
    ("Gt", "LtE"),
    ("GtE", "Gt"),
    ("GtE", "Lt"),
    ("Is", "IsNot"),
    ("IsNot", "Is"),
)
_ARITHMETIC: Final = (
    ("Add", "Sub"),
    ("Sub", "Add"),
    ("Mul", "FloorDiv"),
    ("FloorDiv", "Mul"),
    ("Mod", "Add"),
    ("BitOr", "BitAnd"),
    ("BitAnd", "BitOr"),
    ("BitXor", "BitOr"),
    ("LShift", "RShift"),
    ("RShift", "LShift"),
)


class ReplaceMembership(Operator):  # type: ignore[misc]  # cosmic-ray has no types
    """``in`` for ``not in``, and the other way round, which cosmic-ray has no operator for."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """Where a node can be changed."""
        if node.type == "comparison":
            for sign in node.children[1::2]:
                if _words(sign) in (["in"], ["not", "in"]):
                    yield sign.start_pos, sign.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """The node with its ``index``-th position changed."""
        places = [n for n, c in enumerate(node.children) if n % 2 and "in" in _words(c)]
        place = places[index]
        other = "not in" if _words(node.children[place]) == ["in"] else "in"
        node.children[place] = parso.parse(f" {other}")
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        """None: these are for cosmic-ray's own tests."""
        return ()


def _words(node: Any) -> list[str]:
    return str(node.get_code()).split()


def _operators() -> dict[str, Operator]:
    names = [f"ReplaceComparisonOperator_{a}_{b}" for a, b in _COMPARISONS]
    names += [f"ReplaceBinaryOperator_{a}_{b}" for a, b in _ARITHMETIC]
    names += ["ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Delete_USub"]
    names += ["AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue"]
    names += ["ReplaceAndWithOr", "ReplaceOrWithAnd"]
    names += ["ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ZeroIterationForLoop"]
    names += ["ExceptionReplacer", "NumberReplacer", "RemoveDecorator"]
    return {
        **{name: get_operator(f"core/{name}")() for name in names},
        "ReplaceMembership": ReplaceMembership(),
    }


OPERATORS: Final = _operators()


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change of one module."""

    module: str  # its file, from the tree's root
    operator: str
    occurrence: int
    first: int  # line
    last: int
    function: str  # the innermost that it is in, with its class; nothing outside of one
    node: Any = field(repr=False)  # of the module's tree
    index: int  # of the places that the operator finds in the node

    @property
    def name(self) -> str:
        """What it is called where it is told of."""
        return f"{self.module}:{self.first}: {self.operator}[{self.occurrence}]"

    def mutate(self) -> str:
        """The module's source with the change. The tree is changed: one mutant for each process.

        As cosmic_ray.mutating does, but for parsing the module anew and walking through all of it.
        """
        node, root = self.node, self.node.get_root_node()
        changed = OPERATORS[self.operator].mutate(node, self.index)
        if changed is not node:
            siblings = node.parent.children
            place = next(n for n, one in enumerate(siblings) if one is node)
            siblings[place : place + 1] = [] if changed is None else [changed]
        return str(root.get_code())


def mutants(module: str) -> list[Mutant]:
    """All of a module, in the order of its lines."""
    source = (ROOT / module).read_text()
    tree = ast.parse(source)
    types = list(_types(tree))
    functions = list(_functions(tree, ""))
    nodes = list(ast_nodes(get_ast(source)))
    found = []
    for name, operator in OPERATORS.items():
        places = [
            (node, index, *place)
            for node in nodes
            for index, place in enumerate(operator.mutation_positions(node))
        ]
        for occurrence, (node, index, start, end) in enumerate(places):
            if any(begin <= start < until for begin, until in types):
                continue
            around = [f for begin, until, f in functions if begin <= start < until]
            found.append(
                Mutant(
                    module=module,
                    operator=name,
                    occurrence=occurrence,
                    first=start[0],
                    last=end[0],
                    function=around[-1] if around else "",
                    node=node,
                    index=index,
                )
            )
    return sorted(found, key=lambda m: (m.first, m.operator, m.occurrence))


_Place = tuple[int, int]


def _types(tree: ast.AST) -> Iterator[tuple[_Place, _Place]]:
    for node in ast.walk(tree):
        for place in ("annotation", "returns"):
            kind = getattr(node, place, None)
            if isinstance(kind, ast.expr):
                assert kind.end_lineno is not None
                assert kind.end_col_offset is not None
                begin = (kind.lineno, kind.col_offset)
                yield begin, (kind.end_lineno, kind.end_col_offset)


def _functions(node: ast.AST, within: str) -> Iterator[tuple[_Place, _Place, str]]:
    """Each function's body, outer before inner: where it begins, where it ends, its name."""
    for child in ast.iter_child_nodes(node):
        name = within
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            name = f"{within}.{child.name}".lstrip(".")
        if isinstance(child, ast.FunctionDef):
            assert child.end_lineno is not None
            assert child.end_col_offset is not None
            begin = (child.body[0].lineno, child.body[0].col_offset)
            yield begin, (child.end_lineno, child.end_col_offset), name
        yield from _functions(child, name)


def changed_lines(source: str, mutated: str) -> tuple[str, str]:
    """What stood there, and what stands there in the mutant: the lines that differ, stripped."""
    old, new = source.splitlines(), mutated.splitlines()
    while old and new and old[0] == new[0]:
        del old[0], new[0]
    while old and new and old[-1] == new[-1]:
        del old[-1], new[-1]
    return _one(old), _one(new)


def _one(lines: list[str]) -> str:
    return " ".join(" ".join(line.split()) for line in lines)
