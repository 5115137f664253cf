"""Known deviations: rows outside the cases that tell what a kernel is known to do, and why.

A row never changes a status and never skips a case. It lays a disposition over a FAIL: ``as-known`` if
rows tell of each of its deviations, ``unexpected`` if one is left over, and ``fixed`` where a row
tells of a deviation that was not seen. Strict both ways: a row that does not hold any more is told,
unless it says itself that the deviation depends on chance (``sometimes``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from fnmatch import fnmatchcase

import yaml
from pydantic import Field, ValidationError

from conformance.model import Clause, Disposition, Finding, Status, Value, Verdict, dotted

JUDGED = (Status.PASS, Status.FAIL)
MAX_LENGTH = 1 << 20
"""Characters of a file of rows."""
_BOUND = re.compile(r"(>=|<=|>|<|==)\s*(\d+(?:\.\d+)*)")
_OR = re.compile(r"\s+or\s+")


class KnownError(ValueError):
    """A row that is no row; the text begins with file:line:column."""


class Known(Value):
    """One row: on these kernels, this case deviates from this clause in this way."""

    case: str
    variant: dict[str, str | tuple[str, ...]] = Field(
        default={}, description="only where these values hold; a list means any of it"
    )
    kernel: str = Field(
        description='a range of releases, or several: ">= 6.1, < 6.12.50 or >= 6.13, < 6.15"'
    )
    clause: Clause
    signature: str = Field(min_length=1, description="of the finding; may be a glob")
    reason: str = Field(min_length=1, description="why the kernel does this")
    link: str = Field(min_length=1, description="source, report or commit")
    review_by: date
    sometimes: bool = Field(
        default=False, description="seen in some runs only: not stale where a run does not see it"
    )
    where: str = ""

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes it this row and no other, wherever it stands and however it is explained."""
        values = (f"{axis}={','.join(sorted(_any(held)))}" for axis, held in self.variant.items())
        ranges = (
            ",".join(sorted("".join(part.split()) for part in one.split(",")))
            for one in _OR.split(self.kernel)
        )
        bounds = " or ".join(sorted(ranges)).split(",")
        return (self.case, ";".join(sorted(values)), self.clause.value, self.signature, *bounds)

    def covers(self, verdict: Verdict) -> bool:
        """Whether the row speaks of this case, variant and kernel."""
        return self.of(verdict.case, verdict.values) and in_range(verdict.release, self.kernel)

    def of(self, case: str, values: Mapping[str, str]) -> bool:
        """Whether the row speaks of a variant, on whatever kernel."""
        return self.case == case and all(
            values.get(axis) in _any(held) for axis, held in self.variant.items()
        )

    def tells_of(self, finding: Finding) -> bool:
        """Whether the finding is the one that the row is about."""
        same = finding.clause is self.clause
        return same and fnmatchcase(finding.signature, self.signature)

    def __str__(self) -> str:
        return f"{self.where}: {self.case}: {self.clause.value}: {self.signature}"


def _any(held: str | tuple[str, ...]) -> tuple[str, ...]:
    return (held,) if isinstance(held, str) else held


class _Loader(yaml.SafeLoader):
    """Without aliases: no row has one, and with them a small file can stand for a very large one."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "an alias has no place here", mark)
        return super().compose_node(parent, index)


def parse_known(text: str, file: str) -> tuple[Known, ...]:
    """The rows of a YAML file's text. Raises KnownError, with the place, for the first wrong one."""
    if len(text) > MAX_LENGTH:
        raise KnownError(f"{file}:1:1: longer than {MAX_LENGTH} characters")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        raw = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise KnownError(f"{file}:{at}: {error.problem}") from error
    except RecursionError as error:
        raise KnownError(f"{file}:1:1: nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:  # a control character; a date that is none
        raise KnownError(f"{file}:1:1: {' '.join(str(error).split())}") from error
    if node is None:
        return ()
    if not isinstance(node, yaml.SequenceNode):
        raise KnownError(f"{file}:1:1: known deviations are a list of rows")
    assert raw is not None  # as the node is a list
    rows = []
    for item, value in zip(node.value, raw, strict=True):
        place = f"{file}:{item.start_mark.line + 1}"
        try:
            row = Known.model_validate({**_mapping(value), "where": place})
            parse_range(row.kernel)
        except ValidationError as error:
            first = error.errors()[0]
            name = dotted(first["loc"])
            raise KnownError(f"{place}:{_column(item, name)}: {name}: {first['msg']}") from error
        except ValueError as error:
            raise KnownError(f"{place}:{_column(item, 'kernel')}: {error}") from error
        rows.append(row)
    return tuple(rows)


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError("a row is a mapping")  # noqa: TRY004 - told with its place, as the rest is
    return value


def _column(item: yaml.Node, name: str) -> int:
    """The column at which a key of a row stands, or the row itself."""
    if isinstance(item, yaml.MappingNode):
        for key, _ in item.value:
            if key.value == name.partition(".")[0]:
                return int(key.start_mark.column) + 1
    return int(item.start_mark.column) + 1


_Bound = tuple[str, tuple[int, ...]]


def parse_range(text: str) -> tuple[tuple[_Bound, ...], ...]:
    """Ranges of releases, of which one must hold, by their bounds, which all must.

    A mend that stable series took before a later mainline release had it needs two. Raises ValueError if
    the text says nothing.
    """
    ranges = []
    for one in _OR.split(text):
        bounds = []
        for part in one.split(","):
            match = _BOUND.fullmatch(part.strip())
            if match is None:
                raise ValueError(f"not a range of releases: {text!r} (such as '>= 6.1, < 6.12')")
            bounds.append((match[1], _numbers(match[2])))
        ranges.append(tuple(bounds))
    return tuple(ranges)


def in_range(release: str, text: str) -> bool:
    """Whether a release lies in a range: ``6.12.117+deb13-cloud-amd64`` counts as 6.12.117.

    Raises ValueError if the text is no range.
    """
    leading = re.match(r"\d+(?:\.\d+)*", release)
    have = _numbers(leading[0]) if leading else ()
    return any(all(_holds(have, *bound) for bound in bounds) for bounds in parse_range(text))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _holds(have: tuple[int, ...], sign: str, bound: tuple[int, ...]) -> bool:
    width = max(len(have), len(bound))
    left = have + (0,) * (width - len(have))
    right = bound + (0,) * (width - len(bound))
    return {
        ">=": left >= right,
        "<=": left <= right,
        ">": left > right,
        "<": left < right,
        "==": left == right,
    }[sign]


def settle(verdict: Verdict, rows: Iterable[Known]) -> Verdict:
    """``verdict`` with its disposition and the rows that tell of it. Its status stays."""
    if verdict.status not in JUDGED:
        return verdict
    covering = [row for row in rows if row.covers(verdict)]
    telling = [row for row in covering if any(row.tells_of(f) for f in verdict.deviations)]
    if verdict.status is Status.PASS:
        fixed = any(not row.sometimes for row in covering)
        disposition = Disposition.FIXED if fixed else Disposition.NONE
        return verdict.model_copy(
            update={"disposition": disposition, "known": tuple(row.where for row in covering)}
        )
    all_told = all(any(row.tells_of(f) for row in telling) for f in verdict.deviations)
    return verdict.model_copy(
        update={
            "disposition": Disposition.AS_KNOWN if all_told else Disposition.UNEXPECTED,
            "known": tuple(row.where for row in telling),
        }
    )


def stale(verdicts: Sequence[Verdict], rows: Iterable[Known]) -> tuple[str, ...]:
    """The rows that some judged variant in their range contradicts, each with the first that does.

    A variant that was skipped or broken contradicts nothing: nothing is known of it.
    """
    told = []
    for row in rows:
        if row.sometimes:
            continue
        contradicting = [
            verdict
            for verdict in verdicts
            if verdict.status in JUDGED
            and row.covers(verdict)
            and not any(row.tells_of(finding) for finding in verdict.deviations)
        ]
        if contradicting:
            first = contradicting[0]
            cell = "-".join(first.values.values())
            told.append(f"{row}: not seen in [{cell}] on {first.kernel} ({first.release})")
    return tuple(told)
