"""Which room may know which, read off the source. Imports point one way."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

EFFECTS = frozenset(
    {
        *("asyncio", "multiprocessing", "select", "selectors", "socket", "threading", "urllib"),
        *("glob", "io", "os", "pathlib", "shutil", "sqlite3", "subprocess", "tempfile"),
        *("datetime", "platform", "random", "secrets", "time", "uuid"),
    }
)
"""What a pure module has no use for."""

LIBRARY = (
    "conformance.expand",
    "conformance.library",
    "conformance.parts",
    "conformance.selection",
    "conformance.semantics",
    "conformance.substitution",
    "conformance.yaml_marks",
)

MAY_KNOW: Mapping[str, tuple[str, ...]] = {
    "conformance.model": ("conformance.model",),
    "conformance.oracle": ("conformance.model", "conformance.oracle"),
    "conformance.known": ("conformance.model",),
    "conformance.machine": ("conformance.machine", "conformance.wire"),
    "conformance.wire": (),
    "conformance.planner": ("conformance.model",),
    "conformance.record": ("conformance.model",),
    "conformance.report": (
        "conformance.compare",
        "conformance.known",
        "conformance.model",
        "conformance.report",
    ),
    "conformance.hostside": ("conformance.machine.protocol", "conformance.model"),
    "conformance.runner": (
        "conformance.hostside",
        "conformance.machine.protocol",
        "conformance.model",
        "conformance.oracle",
        "conformance.planner",
    ),
    "conformance.lint": ("conformance.model", *LIBRARY),
    "conformance.schema": ("conformance.model", *LIBRARY),
    **dict.fromkeys(LIBRARY, ("conformance.model", *LIBRARY)),
}
"""What of the project the modules below a name may import."""

PURE = (
    "conformance.expand",
    "conformance.lint",
    "conformance.model",
    "conformance.oracle",
    "conformance.parts",
    "conformance.planner",
    "conformance.selection",
    "conformance.semantics",
    "conformance.substitution",
    "conformance.yaml_marks",
)


@dataclass(frozen=True, kw_only=True)
class Import:
    importer: str
    imported: str
    line: int
    types_only: bool

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}, imports {self.imported}"


def modules(base: Path, package: str) -> dict[str, Path]:
    """Every module below a folder, by its name."""
    found = {}
    for path in sorted((base / package).rglob("*.py")):
        parts = path.relative_to(base).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


HOST = modules(ROOT, "conformance")
GUEST = modules(ROOT / "vm", "agent")


def imports(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[Import]:
    """What a module imports, wherever in it; names that are modules count as modules."""
    tree = ast.parse(path.read_text(), str(path))
    types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [one for one in inner if one in known]
            if len(targets) < len(inner):
                targets.append(str(node.module))
        for target in targets:
            yield Import(
                importer=name,
                imported=target,
                line=getattr(node, "lineno", 0),
                types_only=id(node) in types,
            )


ALL = [one for name, path in HOST.items() for one in imports(name, path, HOST)]
IN_GUEST = [one for name, path in GUEST.items() for one in imports(name, path, {**HOST, **GUEST})]


def below(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("room", MAY_KNOW)
def test_a_room_knows_only_what_it_may(room: str) -> None:
    assert any(below(name, (room,)) for name in HOST), f"there is no {room}"
    wrong = [
        str(one)
        for one in ALL
        if below(one.importer, (room,))
        and below(one.imported, ("conformance",))
        and not below(one.imported, MAY_KNOW[room])
    ]
    assert not wrong


@pytest.mark.parametrize("room", PURE)
def test_a_pure_room_has_no_means_to_an_effect(room: str) -> None:
    wrong = [
        str(one)
        for one in ALL
        if below(one.importer, (room,)) and one.imported.partition(".")[0] in EFFECTS
    ]
    assert not wrong


def test_no_pure_room_opens_a_file() -> None:
    for name, path in HOST.items():
        if below(name, PURE):
            for node in ast.walk(ast.parse(path.read_text())):
                called = node.func if isinstance(node, ast.Call) else None
                opens = isinstance(called, ast.Name) and called.id in ("open", "print", "input")
                assert not opens, f"{path}:{getattr(node, 'lineno', 0)}"


def test_nothing_imports_the_plugin_or_the_command_line() -> None:
    ends = ("conformance.plugin", "conformance.cli")
    wrong = [
        str(one)
        for one in ALL
        if below(one.imported, ends) and one.importer != "conformance.__main__"
    ]
    assert not wrong


def test_the_program_in_the_guest_stands_on_the_standard_library() -> None:
    wrong = [
        str(one)
        for one in IN_GUEST
        if not one.types_only
        and one.imported.partition(".")[0] not in {"agent", *sys.stdlib_module_names}
    ]
    assert IN_GUEST
    assert not wrong


def test_of_the_host_the_program_in_the_guest_knows_only_the_messages() -> None:
    wrong = [
        str(one)
        for one in IN_GUEST
        if below(one.imported, ("conformance",)) and one.imported != "conformance.wire"
    ]
    assert not wrong


def test_the_messages_stand_on_the_standard_library() -> None:
    wrong = [
        str(one)
        for one in ALL
        if one.importer == "conformance.wire"
        and one.imported.partition(".")[0] not in sys.stdlib_module_names
    ]
    assert not wrong


@pytest.mark.parametrize(("known", "found"), [(HOST, ALL), (GUEST, IN_GUEST)])
def test_no_two_modules_import_each_other(known: dict[str, Path], found: list[Import]) -> None:
    graph: dict[str, set[str]] = {name: set() for name in known}
    for one in found:
        if one.imported in known and not one.types_only and one.imported != one.importer:
            graph[one.importer].add(one.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_a_planted_import_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "judge.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import socket\n"
        "def late():\n    from conformance import runner\n    import os.path\n"
    )
    found = {(o.imported, o.line, o.types_only) for o in imports("x", path, HOST)}
    assert found == {
        ("typing", 1, False),
        ("socket", 3, True),
        ("conformance.runner", 5, False),
        ("os.path", 6, False),
    }
