"""What is to be done for a variant on a kernel, or every reason why it cannot be done there.

A plan is a variant without its expectations: the answer key stays on the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field

from conformance.model import (
    BY_FIO,
    BY_IO_URING,
    Arm,
    Bystander,
    Calls,
    Layer,
    NotApplicable,
    Plan,
    Submit,
    Value,
    Variant,
    Write,
)
from conformance.model.calls import BY_RING

OUTSIDER = Bystander(name="outsider")
"""The bystander of every arm: a process in the root cgroup that has nothing to do with the I/O."""


class Target(Value):
    """A kernel that is there to be tested, with what was found out about it."""

    kernel: str
    release: str
    facts: Mapping[str, str] = Field(
        description="for each requirement nothing if it is met, else the reason why not"
    )


def requirements(variant: Variant) -> tuple[str, ...]:
    """Everything that the variant needs: what its case declares, then what its parts imply."""
    implied = (need for arm in variant.arms for need in _implied(arm))
    return tuple(dict.fromkeys((*variant.requires, *implied)))


def plan(variant: Variant, target: Target) -> Plan | NotApplicable:
    """The plan for ``variant`` on ``target``, or each requirement that is not met there.

    Raises KeyError if a requirement was never probed: that is the caller's mistake.
    """
    needs = requirements(variant)
    unknown = [need for need in needs if need not in target.facts]
    if unknown:
        raise KeyError(f"{variant.id} on {target.kernel}: nobody has probed {', '.join(unknown)}")
    reasons = tuple(f"{need}: {target.facts[need]}" for need in needs if target.facts[need])
    if reasons:
        return NotApplicable(
            case=variant.case, values=variant.values, kernel=target.kernel, reasons=reasons
        )
    return Plan(
        case=variant.case,
        values=variant.values,
        kernel=target.kernel,
        arms=planned_arms(variant),
    )


def planned_arms(variant: Variant) -> tuple[Arm, ...]:
    """What a plan for the variant asks, on any kernel."""
    return tuple(_with_outsider(arm) for arm in variant.arms)


def as_asked(variant: Variant, plan: Plan | NotApplicable | None) -> Variant:
    """The variant as an old plan asked it: by that alone can be judged what was observed then."""
    if not isinstance(plan, Plan):
        return variant
    return variant.model_copy(update={"arms": plan.arms})


def _with_outsider(arm: Arm) -> Arm:
    if any(bystander.name == OUTSIDER.name for bystander in arm.bystanders):
        return arm
    return arm.model_copy(update={"bystanders": (*arm.bystanders, OUTSIDER)})


def _implied(arm: Arm) -> Iterator[str]:
    below: dict[str, Layer] = {}
    for layer in arm.layers:
        yield from layer.needs(below)
        below[layer.name] = layer
    yield from arm.shortage.NEEDS
    ways = {step.submit for step in arm.steps if isinstance(step, Write)}
    if ways & BY_FIO:
        yield "tool:fio"
    calls = {call.do for step in arm.steps if isinstance(step, Calls) for call in step.script}
    if ways & BY_IO_URING or calls & BY_RING:
        yield "probe:io_uring"
    if Submit.FIO_IO_URING_IOPOLL in ways:
        yield "probe:io_uring_iopoll"
