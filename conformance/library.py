"""The cases on disk: cases/<family>/<id>.yaml and the fixtures they name, as variants.

Everything that is wrong is told at once, each at ``file:line:column``.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from pydantic import TypeAdapter

from conformance.expand import Expansion, Fixture, Fixtures, Source, read_fixture
from conformance.model import Case, Procedure, Rig, Variant, Where
from conformance.selection import SelectionError, select
from conformance.substitution import Collector
from conformance.yaml_marks import Problem, ProblemsError, Table, fail, parse, validate

__all__ = ["Library", "LibraryErrors", "SelectionError", "load_library", "select"]

V = TypeVar("V")

SUFFIX = ".yaml"
_NAME = re.compile(r"[a-z0-9_]+")
_CASE = TypeAdapter(Case)
_FIXTURE_KINDS: Mapping[str, tuple[str, TypeAdapter[Rig | Procedure]]] = {
    "rigs": ("rig", TypeAdapter(Rig)),
    "procedures": ("procedure", TypeAdapter(Procedure)),
}


class LibraryErrors(Exception):
    """All that is wrong with the cases and fixtures: a line ``file:line:column: message`` each."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


@dataclass(frozen=True, kw_only=True)
class Library:
    """Everything that can be run."""

    variants: tuple[Variant, ...]
    cases: Mapping[str, tuple[Case, Where]]
    sources: Mapping[str, Source]
    """Each case with its places."""
    fixtures: tuple[Fixture, ...]
    met: Mapping[tuple[str, str, str], set[str]]
    """For a fixture's kind and name, and a name that its conditions ask for: every value met."""
    texts: Mapping[str, str]
    """Every file that was read, by its name as errors show it."""
    sha256: str
    """Over the names and contents of all files: which cases a record was made with."""


@dataclass(frozen=True, kw_only=True)
class _File:
    path: Path
    shown: str
    key: str  # its name for the hash: the same in every checkout

    @property
    def where(self) -> Where:
        return Where(file=self.shown)


def load_library(case_dirs: Sequence[Path], fixtures_dir: Path) -> Library:
    """Read all cases of ``case_dirs`` with the fixtures of ``fixtures_dir``.

    Raises LibraryErrors with everything that is wrong; no case at all is wrong, too.
    """
    problems = Collector()
    texts: dict[str, str] = {}
    digest = hashlib.sha256()
    fixtures: dict[str, dict[str, Fixture | None]] = {}
    for folder, (kind, adapter) in _FIXTURE_KINDS.items():
        fixtures[folder] = {}
        for file in _listed(fixtures_dir / folder, f"fixtures/{folder}", problems):
            root = _read(file, texts, digest, problems)
            value = _valid(adapter, root, problems)
            before = len(problems)
            fixture = None
            if root is not None and value is not None:
                fixture = read_fixture(kind, file.path.stem, value, root, problems)
            fixtures[folder][file.path.stem] = fixture if len(problems) == before else None
    known = Fixtures(rigs=fixtures["rigs"], procedures=fixtures["procedures"])
    sources: dict[str, Source] = {}
    first: dict[str, _File] = {}
    variants: list[Variant] = []
    for file in _case_files(case_dirs, problems):
        name = file.path.stem
        root = _read(file, texts, digest, problems)
        if name in first:
            message = f"the id {name!r} is taken by {first[name].shown}"
            problems.add(Problem.at(file.where, message))
            continue
        first[name] = file
        case = _valid(_CASE, root, problems)
        if root is None or case is None:
            continue
        sources[name] = Source(id=name, family=file.path.parent.name, case=case, root=root)
        variants.extend(Expansion(sources[name], known, problems).variants())
    if len(problems):
        raise LibraryErrors(problems.problems)
    if not variants:
        places = ", ".join(_shown(folder) for folder in case_dirs) or "no folder"
        raise LibraryErrors((Problem.at(Where(file=places), "no case was found"),))
    return Library(
        variants=tuple(variants),
        cases=MappingProxyType({n: (s.case, s.root.where) for n, s in sources.items()}),
        sources=MappingProxyType(sources),
        fixtures=tuple(f for kind in fixtures.values() for f in kind.values() if f is not None),
        met=MappingProxyType(known.met),
        texts=MappingProxyType(texts),
        sha256=digest.hexdigest(),
    )


def _shown(path: Path) -> str:
    """``path`` as a user would type it: relative if it is below the current folder."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - links stay as they are written
    here = Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def _listed(folder: Path, key: str, problems: Collector) -> Iterator[_File]:
    """The YAML files of one folder, by name. Others are mistakes, unless they are hidden."""
    if not folder.is_dir():
        problems.add(Problem.at(Where(file=_shown(folder)), "there is no such folder"))
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        file = _File(path=path, shown=_shown(path), key=f"{key}/{path.name}")
        if path.is_dir():
            problems.add(Problem.at(file.where, "a folder in a folder of YAML files"))
        elif path.suffix != SUFFIX:
            problems.add(Problem.at(file.where, f"only files with the ending {SUFFIX} belong here"))
        elif not _NAME.fullmatch(path.stem):
            message = "a name is made of small letters, digits and '_'"
            problems.add(Problem.at(file.where, message))
        else:
            yield file


def _case_files(case_dirs: Sequence[Path], problems: Collector) -> Iterator[_File]:
    for case_dir in case_dirs:
        if not case_dir.is_dir():
            problems.add(Problem.at(Where(file=_shown(case_dir)), "there is no such folder"))
            continue
        for family in sorted(case_dir.iterdir()):
            where = Where(file=_shown(family))
            if family.name.startswith((".", "__")):
                continue
            if family.is_dir():
                if not _NAME.fullmatch(family.name):
                    message = "a family's name is made of small letters, digits and '_'"
                    problems.add(Problem.at(where, message))
                yield from _listed(family, f"cases/{family.name}", problems)
            elif family.suffix in (".yaml", ".yml"):
                problems.add(Problem.at(where, "a case belongs into the folder of its family"))


def _read(
    file: _File, texts: dict[str, str], digest: hashlib._Hash, problems: Collector
) -> Table | None:
    """The mapping that a file holds; None if it holds none, which is then among the problems."""
    try:
        data = file.path.read_bytes()
    except OSError as error:
        problems.add(Problem.at(file.where, f"cannot be read: {error.strerror}"))
        return None
    digest.update(f"{file.key}\0{len(data)}\0".encode())
    digest.update(data)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = Where(file=file.shown, line=line)
        problems.add(Problem.at(where, f"not UTF-8: byte {error.start}"))
        return None
    texts[file.shown] = text
    try:
        root = parse(text, file.shown)
        if not isinstance(root, Table):
            raise fail(root.where, "the file must be a mapping")
    except ProblemsError as error:
        problems.take(error)
        return None
    return root


def _valid(adapter: TypeAdapter[V], root: Table | None, problems: Collector) -> V | None:
    if root is None:
        return None
    try:
        return validate(adapter, root)
    except ProblemsError as error:
        problems.take(error)
        return None
