"""Rules for cases that load, and could still be better: their words, their sources, their order.

What makes a case impossible to judge is an error of the loader; a rule here is about readers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from conformance.expand import Source
from conformance.library import Library
from conformance.model import CLAIMS, STARRED, Level, Where
from conformance.yaml_marks import child, text_of

MAX_TITLE = 120
MAX_NOTE_LINE = 100
MAX_ID = 48
"""Characters: a variant's id is a folder's name, a JUnit name and a word on a command line."""

_SOURCE = re.compile(r"[a-z0-9_.+-]+\([1-9][a-z]*\)|(lkml|linux|posix|https):\S.*")
_UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|TBD)\b")

Said = tuple[Where, str]


class KnownRow(Protocol):
    """What a rule must know of a known deviation."""

    @property
    def case(self) -> str:
        """The id of the case that it tells of."""

    @property
    def variant(self) -> Mapping[str, str | tuple[str, ...]]:
        """The values of which it tells alone, by axis; a tuple means any of them."""

    @property
    def where(self) -> object:
        """Its place; text of the form ``file:line`` or a ``Where``."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One thing to look for, and what to do about it."""

    id: str
    description: str
    to_fix: str
    check: Callable[[Library], Iterator[Said]]


@dataclass(frozen=True, kw_only=True)
class Remark:
    """What a rule says of a place."""

    rule: str
    place: str
    message: str
    to_fix: str

    def __str__(self) -> str:
        return f"{self.place}: {self.rule} {self.message}; {self.to_fix}"


def lint(library: Library, known: Iterable[KnownRow] = ()) -> tuple[Remark, ...]:
    """What the rules say, in the order of files and lines; nothing is good."""
    found = [
        (where.file, where.line, where.column, rule, message)
        for rule in RULES
        for where, message in rule.check(library)
    ]
    found.sort(key=lambda one: (*one[:3], one[3].id))
    remarks = [
        Remark(rule=rule.id, place=f"{file}:{line}:{column}", message=message, to_fix=rule.to_fix)
        for file, line, column, rule, message in found
    ]
    remarks += [
        Remark(
            rule=KNOWN_ROW.id,
            place=str(row.where),
            message=message,
            to_fix=KNOWN_ROW.to_fix,
        )
        for row in known
        for message in _untold(row, library)
    ]
    return tuple(remarks)


def _untold(row: KnownRow, library: Library) -> Iterator[str]:
    """What a row tells of that no variant is. Kernels are left alone: they come and go."""
    if row.case not in library.cases:
        yield f"there is no case {row.case!r}"
        return
    cells = [variant.values for variant in library.variants if variant.case == row.case]
    asked = {axis: (held,) if isinstance(held, str) else held for axis, held in row.variant.items()}
    strange = False
    for axis, wanted in asked.items():
        there = {cell[axis] for cell in cells if axis in cell}
        if not there:
            strange = True
            yield f"{row.case} has no {axis!r}"
        for value in wanted:
            if there and value not in there:
                strange = True
                yield f"{row.case} has no {axis} {value!r}"
    if strange or any(all(cell[axis] in asked[axis] for axis in asked) for cell in cells):
        return
    yield f"{row.case} has each of these values, and no variant with all"


def _at(source: Source, *path: str | int) -> Where:
    return child(source.root, *path).where


def _titles(complaint: Callable[[str], str]) -> Callable[[Library], Iterator[Said]]:
    """A rule on the titles of cases and fixtures: what is wrong with one, or nothing."""

    def check(library: Library) -> Iterator[Said]:
        titled = [(s.case.title, _at(s, "title")) for s in library.sources.values()]
        titled += [(f.value.title, child(f.root, "title").where) for f in library.fixtures]
        for title, where in titled:
            message = complaint(title)
            if message:
                yield where, message

    return check


def _norm_is_cited(library: Library) -> Iterator[Said]:
    for source in library.sources.values():
        cited = any(norm.quote or norm.section for norm in source.case.norm)
        if source.case.level is Level.MUST and not cited:
            yield _at(source, "norm"), "a must without a quote or a section of any source"


def _sources_can_be_found(library: Library) -> Iterator[Said]:
    for source in library.sources.values():
        for number, norm in enumerate(source.case.norm):
            if not _SOURCE.fullmatch(norm.source):
                where = _at(source, "norm", number, "source")
                yield where, f"{norm.source!r} is no source that a reader could find"


def _quotes_are_short(library: Library) -> Iterator[Said]:
    for source in library.sources.values():
        for number, norm in enumerate(source.case.norm):
            lines = len(norm.quote.strip().splitlines())
            if lines > 2:
                yield _at(source, "norm", number, "quote"), f"a quote of {lines} lines"


def _claims_are_in_order(library: Library) -> Iterator[Said]:
    order = list(CLAIMS)
    for source in library.sources.values():
        claims = source.case.claims
        if list(claims) != sorted(set(claims), key=order.index):
            yield _at(source, "claims"), "claims that are out of order, or there twice"


def _nothing_is_unfinished(library: Library) -> Iterator[Said]:
    for file, text in library.texts.items():
        for number, line in enumerate(text.splitlines(), 1):
            for match in _UNFINISHED.finditer(line):
                where = Where(file=file, line=number, column=match.start() + 1)
                yield where, f"unfinished: {match[0]}"


def _ids_are_short(library: Library) -> Iterator[Said]:
    for name, source in library.sources.items():
        if len(name) > MAX_ID:
            yield source.root.where, f"an id of {len(name)} characters"


def _ids_say_what_is_tested(library: Library) -> Iterator[Said]:
    for name, source in library.sources.items():
        if {"test", "case"} & set(name.split("_")):
            yield source.root.where, f"{name!r} says that it is a test, which it is anyway"


def _notes_can_be_read(library: Library) -> Iterator[Said]:
    for source in library.sources.values():
        longest = max(map(len, source.case.notes.splitlines()), default=0)
        if longest > MAX_NOTE_LINE:
            yield _at(source, "notes"), f"a line of {longest} characters"


def _fixtures_are_used(library: Library) -> Iterator[Said]:
    used = set()
    for case, _ in library.cases.values():
        used |= {("rig", case.rig), *(("rig", arm.rig) for arm in case.arms.values())}
        used.add(("procedure", case.steps if isinstance(case.steps, str) else None))
    for fixture in library.fixtures:
        if (fixture.kind, fixture.name) not in used:
            yield fixture.root.where, f"no case uses the {fixture.kind} {fixture.name!r}"


def _conditions_are_met(library: Library) -> Iterator[Said]:
    for fixture in library.fixtures:
        for name, wanted in (item for part in fixture.parts for item in part.when.items()):
            met = library.met.get((fixture.kind, fixture.name, name))
            if met is not None and not met & {text_of(leaf.value) for leaf in wanted}:
                values = " or ".join(text_of(leaf.value) for leaf in wanted)
                yield wanted[0].where, f"in no case is {name!r} {values}"


def _claims_something(library: Library) -> Iterator[Said]:
    for source in library.sources.values():
        if source.case.level is Level.MUST and not source.case.expect.clauses:
            yield source.root.where, "a must that has no clause of its own"


def _surveys_claim_nothing(library: Library) -> Iterator[Said]:
    for source in library.sources.values():
        if source.case.level is Level.SURVEY and source.case.expect.clauses:
            yield _at(source, "expect", "clauses"), "a survey with clauses of its own"


def _own_clauses_are_own(library: Library) -> Iterator[Said]:
    for source in library.sources.values():
        for number, clause in enumerate(source.case.expect.clauses):
            if clause in STARRED:
                where = _at(source, "expect", "clauses", number)
                yield where, f"{clause.value!r} holds for every case"


def _cgroups_are_used(library: Library) -> Iterator[Said]:
    used: dict[str, set[str]] = {}
    declared: dict[str, set[str]] = {}
    for variant in library.variants:
        for arm in variant.arms:
            declared.setdefault(variant.case, set()).update(arm.cgroups)
            paths = {getattr(step, "cgroup", "") for step in arm.steps}
            paths |= {getattr(layer, "cgroup", "") for layer in arm.layers}
            paths |= {bystander.cgroup for bystander in arm.bystanders}
            if arm.shortage.binds is not None:
                paths.add(arm.shortage.binds)
            used.setdefault(variant.case, set()).update(paths)
    for name, source in library.sources.items():
        for path in sorted(declared[name]):
            if not any(u == path or u.startswith(f"{path}/") for u in used[name]):
                yield _at(source, "cgroups"), f"nothing is in the cgroup {path!r}"


def _modal(title: str) -> str:
    found = re.search(r"\b(should|shall|ought)\b", title, re.IGNORECASE)
    return f"a title that says {found[0]!r}" if found else ""


def _imperative(title: str) -> str:
    found = re.match(r"(test|check|verify|ensure)s?\b", title, re.IGNORECASE)
    return f"a title that begins with {found[0]!r}" if found else ""


def _long(title: str) -> str:
    return f"a title of {len(title)} characters" if len(title) >= MAX_TITLE else ""


def _dotted(title: str) -> str:
    return "a title with a full stop" if title.endswith(".") else ""


def _small(title: str) -> str:
    return "a title that begins small" if title[:1].islower() or not title.strip() else ""


def _titles_differ(library: Library) -> Iterator[Said]:
    first: dict[str, str] = {}
    for name, source in library.sources.items():
        title = source.case.title.casefold()
        if title in first:
            yield _at(source, "title"), f"{first[title]!r} has the same title"
        first.setdefault(title, name)


RULES: tuple[Rule, ...] = (
    Rule(
        id="L001",
        description="A title is in the indicative.",
        to_fix="say what a conforming kernel does",
        check=_titles(_modal),
    ),
    Rule(
        id="L002",
        description="A title tells of a behaviour, and not of a test.",
        to_fix="begin with what behaves: 'A write past ... fails with ...'",
        check=_titles(_imperative),
    ),
    Rule(
        id="L003",
        description=f"A title has fewer than {MAX_TITLE} characters.",
        to_fix="leave to the notes what does not name the behaviour",
        check=_titles(_long),
    ),
    Rule(
        id="L004",
        description="A title is a headline: no full stop.",
        to_fix="take it off",
        check=_titles(_dotted),
    ),
    Rule(
        id="L005",
        description="A title begins with a capital or a figure.",
        to_fix="begin it so",
        check=_titles(_small),
    ),
    Rule(
        id="L006",
        description="No two cases have the same title.",
        to_fix="say in each what the other does not",
        check=_titles_differ,
    ),
    Rule(
        id="L010",
        description="A must rests on a quote or a section of its norm.",
        to_fix="quote at most two lines, or name the section",
        check=_norm_is_cited,
    ),
    Rule(
        id="L011",
        description="A source is a manual page, or begins with lkml:, linux:, posix: or https:.",
        to_fix="write it so: fsync(2), lkml:MESSAGE-ID, linux:PATH",
        check=_sources_can_be_found,
    ),
    Rule(
        id="L012",
        description="A quote has at most two lines.",
        to_fix="quote the sentence that decides",
        check=_quotes_are_short,
    ),
    Rule(
        id="L013",
        description="Claims are listed once each, in their order.",
        to_fix="sort them",
        check=_claims_are_in_order,
    ),
    Rule(
        id="L020",
        description="Nothing is unfinished: no TODO, FIXME, XXX or TBD.",
        to_fix="finish it, or leave it out",
        check=_nothing_is_unfinished,
    ),
    Rule(
        id="L021",
        description=f"An id has at most {MAX_ID} characters.",
        to_fix="name the behaviour by fewer words",
        check=_ids_are_short,
    ),
    Rule(
        id="L022",
        description="An id names a behaviour; 'test' and 'case' tell nothing.",
        to_fix="leave the word out",
        check=_ids_say_what_is_tested,
    ),
    Rule(
        id="L023",
        description=f"The notes have lines of at most {MAX_NOTE_LINE} characters.",
        to_fix="break the lines",
        check=_notes_can_be_read,
    ),
    Rule(
        id="L030",
        description="Every fixture is used.",
        to_fix="use it in a case, or delete it",
        check=_fixtures_are_used,
    ),
    Rule(
        id="L031",
        description="Every cgroup of a case has somebody in it, or a limit on it.",
        to_fix="leave it out",
        check=_cgroups_are_used,
    ),
    Rule(
        id="L032",
        description="What a fixture has under a condition is there in some case.",
        to_fix="correct the value, or delete what nobody uses",
        check=_conditions_are_met,
    ),
    Rule(
        id="L040",
        description="A must has a clause of its own.",
        to_fix="name in expect.clauses what the case is about, or make it a survey",
        check=_claims_something,
    ),
    Rule(
        id="L041",
        description="A survey claims nothing.",
        to_fix="take the clauses off, or say must",
        check=_surveys_claim_nothing,
    ),
    Rule(
        id="L042",
        description="A case's own clauses are its own: those of every case go without saying.",
        to_fix="leave it out",
        check=_own_clauses_are_own,
    ),
)
"""The rules on cases and fixtures. The one on known deviations is ``KNOWN_ROW``."""

KNOWN_ROW = Rule(
    id="L050",
    description="A known deviation tells of a case, and of variants, that exist.",
    to_fix="delete the row, or correct it",
    check=lambda _: iter(()),
)
