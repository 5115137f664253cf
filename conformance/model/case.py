"""A case as its author writes it, and a variant of it with every value filled in.

``Case``, ``Rig`` and ``Procedure`` are the files under cases/ and fixtures/. ``Variant`` is one cell
of a case's matrix, resolved; the planner makes a ``Plan`` of it, which is a variant without its
expectations: the answer key never enters the guest.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from conformance.model.base import CgroupPath, Value, variant_id
from conformance.model.layers import AnyLayer, Name
from conformance.model.shortages import AnyShortage
from conformance.model.steps import AnyStep, Bystander
from conformance.model.vocabulary import Clause, Level

Scalar = str | int | float | bool
Claim = Annotated[str, Field(pattern=r"^S([1-9]|1[0-4])$")]
Errno = Annotated[str, Field(pattern=r"^E[A-Z0-9]+$")]


class Norm(Value):
    """Where the norm stands: the source, and at most two lines of it."""

    source: str
    section: str = ""
    quote: str = Field(default="", max_length=240)


class Requirement(Value):
    """What a variant needs of the kernel or the guest, found out by a probe there, or of the host."""

    need: str = Field(pattern=r"^(module|controller|probe|fs|tool|host):[a-z0-9_.-]+$")
    when: dict[str, Scalar] = Field(default={}, description="only for these values of the matrix")


class Where(Value):
    """Where a part of a file stands, for errors and reports."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Expect(Value):
    """What the case itself claims, besides the starred clauses that hold for every case."""

    clauses: tuple[Clause, ...] = ()
    errno: tuple[Errno, ...] = Field(
        default=("ENOSPC", "EDQUOT"), description="what errno_precise takes, any of them"
    )
    documented_by: dict[Clause, str] = Field(
        default={}, description="kernel documentation that tells of a deviation from the thesis"
    )


class Rig(Value):
    """fixtures/rigs/<name>.yaml: a stack of layers, bottom first, with parameters."""

    title: str
    params: dict[str, Scalar] = {}
    layers: tuple[dict[str, object], ...] = Field(min_length=1)


class Procedure(Value):
    """fixtures/procedures/<name>.yaml: steps that several cases share, with parameters."""

    title: str
    params: dict[str, Scalar] = {}
    steps: tuple[dict[str, object], ...] = Field(min_length=1)


class ArmSpec(Value):
    """One cause of a case that compares causes: what differs from the case's own values."""

    rig: str | None = None
    with_: dict[str, Scalar] = Field(default={}, alias="with")
    shortage: dict[str, object] | None = None


class Case(Value):
    """cases/<family>/<id>.yaml. Values may hold ``${name}``: a matrix axis or a parameter."""

    title: str = Field(max_length=150)
    level: Level
    claims: tuple[Claim, ...] = Field(min_length=1)
    norm: tuple[Norm, ...] = Field(min_length=1)
    rig: str | None = None
    with_: dict[str, Scalar] = Field(
        default={}, alias="with", description="values for parameters of the rig and the procedure"
    )
    requires: tuple[str | Requirement, ...] = ()
    cgroups: tuple[CgroupPath, ...] = ()
    bystanders: tuple[dict[str, object], ...] = ()
    shortage: dict[str, object] | None = None
    arms: dict[Name, ArmSpec] = {}
    matrix: dict[Name, tuple[Scalar, ...]] = {}
    exclude: tuple[dict[str, Scalar], ...] = Field(
        default=(), description="cells of the matrix that have no meaning"
    )
    steps: str | tuple[dict[str, object], ...]
    expect: Expect = Expect()
    notes: str = ""


class Arm(Value):
    """One rig with one shortage and the steps on it, in a guest of its own."""

    name: str = "main"
    layers: tuple[AnyLayer, ...]
    cgroups: tuple[str, ...] = ()
    bystanders: tuple[Bystander, ...] = ()
    shortage: AnyShortage
    steps: tuple[AnyStep, ...] = Field(min_length=1)


class Variant(Value):
    """One cell of a case's matrix with every value filled in: what the oracle judges against."""

    case: str
    family: str
    values: dict[str, str] = {}
    title: str
    level: Level
    claims: tuple[str, ...]
    norm: tuple[Norm, ...]
    requires: tuple[str, ...] = ()
    arms: tuple[Arm, ...] = Field(min_length=1)
    expect: Expect
    where: Where

    @property
    def id(self) -> str:
        """See ``variant_id``."""
        return variant_id(self.case, self.values)


class Plan(Value):
    """What is to be done on one kernel. It has no field for an expectation."""

    case: str
    values: dict[str, str] = {}
    kernel: str
    arms: tuple[Arm, ...] = Field(min_length=1)


class NotApplicable(Value):
    """A variant that a kernel cannot run, with every reason."""

    case: str
    values: dict[str, str] = {}
    kernel: str
    reasons: tuple[str, ...] = Field(min_length=1)
