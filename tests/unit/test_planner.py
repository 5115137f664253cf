"""Plans: what a variant needs, why it cannot run, and that no expectation reaches the guest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conformance.library import load_library
from conformance.model import (
    AnyLayer,
    AnyShortage,
    Arm,
    Bystander,
    Calls,
    Clause,
    FileLayer,
    FsLayer,
    Level,
    LoopLayer,
    Memcg,
    NoShortage,
    NotApplicable,
    Plan,
    Role,
    Submit,
    TmpfsLayer,
    Variant,
    Write,
    as_json,
)
from conformance.model.layers import BindfsLayer, NfsLayer, OverlayLayer
from conformance.planner import Target, as_asked, plan, requirements
from tests.support.results import variant as any_variant

LIBRARY = load_library(
    [Path(__file__).parents[2] / "cases"], Path(__file__).parents[2] / "fixtures"
)

BACK = TmpfsLayer(name="back", layer="tmpfs", size=1 << 20)
IMAGE = FileLayer(name="image", layer="file", on="back", size=1 << 20)
DEVICE = LoopLayer(name="device", layer="loop", on="image")
DIRECT = LoopLayer(name="device", layer="loop", on="image", direct_io="on")
OVERLAY = OverlayLayer(name="over", layer="overlay", on="back")
ON_OVER = FileLayer(name="image", layer="file", on="over", size=1 << 20)
NONE = NoShortage(kind="none")


def write(submit: Submit = Submit.DIRECT) -> Write:
    return Write(
        name="fill",
        role=Role.PROVOKE,
        verb="write",
        submit=submit,
        length=4096,
        request=4096,
        generation=1,
    )


def variant(
    *layers: AnyLayer,
    shortage: AnyShortage = NONE,
    submit: Submit = Submit.DIRECT,
    requires: tuple[str, ...] = (),
    bystanders: tuple[Bystander, ...] = (),
) -> Variant:
    arm = Arm(layers=layers, shortage=shortage, steps=(write(submit),), bystanders=bystanders)
    return any_variant().model_copy(update={"arms": (arm,), "requires": requires})


def calling(script: str) -> Variant:
    step = Calls.model_validate(
        {
            "as": "lose",
            "role": "provoke",
            "verb": "calls",
            "length": 4096,
            "generation": 1,
            "script": script,
        }
    )
    arm = Arm(layers=(BACK,), shortage=NONE, steps=(step,))
    return any_variant().model_copy(update={"arms": (arm,), "requires": ()})


def target(**facts: str) -> Target:
    return Target(kernel="debian/trixie", release="6.12", facts=facts)


def met(of: Variant, **but: str) -> Target:
    facts = {
        **dict.fromkeys(requirements(of), ""),
        **{k.replace("__", ":"): v for k, v in but.items()},
    }
    return Target(kernel="debian/trixie", release="6.12", facts=facts)


@pytest.mark.parametrize(
    ("of", "needs"),
    [
        (variant(BACK), ()),
        (variant(BACK, IMAGE, DEVICE), ("module:loop",)),
        (variant(BACK, IMAGE, DIRECT), ("module:loop", "probe:tmpfs_direct_io")),
        (
            variant(BACK, IMAGE, DEVICE, FsLayer(name="fs", layer="fs", on="device", type="xfs")),
            ("module:loop", "fs:xfs"),
        ),
        (
            variant(FsLayer(name="fs", layer="fs", on="disk", type="ext4", quota=("user",))),
            ("fs:ext4", "probe:quota_ext4"),
        ),
        (
            variant(FsLayer(name="back", layer="fs", on="disk", type="ext4"), IMAGE, DIRECT),
            ("fs:ext4", "module:loop"),
        ),
        (
            variant(BACK, shortage=Memcg(kind="memcg", cgroup="limited", limit=4096)),
            ("controller:memory", "controller:io"),
        ),
        (variant(BACK, submit=Submit.FIO_IO_URING), ("tool:fio", "probe:io_uring")),
        (calling("open a; write a; fsync a"), ()),
        (calling("open a; write a; uring_fsync a"), ("probe:io_uring",)),
        (
            variant(BACK, submit=Submit.FIO_IO_URING_IOPOLL),
            ("tool:fio", "probe:io_uring", "probe:io_uring_iopoll"),
        ),
        (
            variant(BACK, OVERLAY, ON_OVER, DIRECT),
            ("fs:overlay", "module:loop", "probe:tmpfs_direct_io"),
        ),
        (variant(BACK, OVERLAY, ON_OVER, DEVICE), ("fs:overlay", "module:loop")),
        (
            variant(FsLayer(name="back", layer="fs", on="disk", type="xfs"), OVERLAY, DIRECT),
            ("fs:xfs", "fs:overlay", "module:loop"),
        ),
        (
            variant(BACK, BindfsLayer(name="over", layer="bindfs", on="back"), ON_OVER, DIRECT),
            ("fs:fuse", "tool:bindfs", "module:loop"),
        ),
        (
            variant(BACK, NfsLayer(name="over", layer="nfs", on="back"), ON_OVER, DIRECT),
            ("module:nfsd", "fs:nfs4", "tool:rpc.mountd", "module:loop"),
        ),
        (
            variant(BACK, IMAGE, DEVICE, requires=("probe:loop_charges_memcg", "module:loop")),
            ("probe:loop_charges_memcg", "module:loop"),
        ),
    ],
)
def test_what_the_parts_imply_is_required(of: Variant, needs: tuple[str, ...]) -> None:
    assert requirements(of) == needs


def test_every_reason_is_told() -> None:
    of = variant(BACK, IMAGE, DIRECT, submit=Submit.FIO_IO_URING)
    found = plan(of, met(of, module__loop="no module loop", tool__fio="no program fio"))
    assert found == NotApplicable(
        case=of.case,
        kernel="debian/trixie",
        reasons=("module:loop: no module loop", "tool:fio: no program fio"),
    )


def test_what_was_never_probed_is_the_callers_mistake() -> None:
    of = variant(BACK, IMAGE, DIRECT)
    with pytest.raises(KeyError, match=r"nobody has probed probe:tmpfs_direct_io"):
        plan(of, target(**{"module:loop": ""}))


def test_an_outsider_stands_by_in_every_arm() -> None:
    own = Bystander(name="outsider", memory=4096)
    idle = Bystander(name="idle")
    for bystanders, wanted in [
        ((), (Bystander(name="outsider"),)),
        ((idle,), (idle, Bystander(name="outsider"))),
        ((own, idle), (own, idle)),
    ]:
        of = variant(BACK, bystanders=bystanders)
        found = plan(of, met(of))
        assert isinstance(found, Plan)
        assert found.arms[0].bystanders == wanted


def test_what_was_observed_is_judged_by_what_its_plan_asked() -> None:
    now, then = variant(BACK, IMAGE), variant(BACK)
    old = plan(then, met(then))
    assert isinstance(old, Plan)
    assert as_asked(now, old) == now.model_copy(update={"arms": old.arms})


def test_where_nothing_was_asked_a_variant_stays_what_it_is() -> None:
    of = variant(BACK, IMAGE, DEVICE)
    none = plan(of, met(of, module__loop="no module loop"))
    assert isinstance(none, NotApplicable)
    assert as_asked(of, none) == of
    assert as_asked(of, None) == of


def strings(value: Any) -> set[str]:
    """Every text in a JSON value, keys too."""
    match value:
        case dict():
            return set(value).union(*map(strings, value.values()))
        case list():
            return set().union(*map(strings, value))
        case str():
            return {value}
    return set()


@pytest.mark.parametrize("of", LIBRARY.variants, ids=lambda v: v.id)
def test_the_answer_key_never_enters_a_plan(of: Variant) -> None:
    found = plan(of, met(of))
    assert isinstance(found, Plan)
    told = strings(as_json(found))
    assert not told & {"expect", "level", "claims", "norm", "clauses", "errno", "documented_by"}
    assert not told & {clause.value for clause in Clause}
    assert not told & {level.value for level in Level}
    assert not told & {*of.claims, *of.expect.errno, of.title}
    assert not told & {n.source for n in of.norm} - {""}
    assert not told & {n.quote for n in of.norm} - {""}
    assert not told & set(of.expect.documented_by.values())


def test_a_plan_does_what_its_variant_says() -> None:
    for of in LIBRARY.variants:
        found = plan(of, met(of))
        assert isinstance(found, Plan)
        assert (found.case, found.values) == (of.case, of.values)
        for planned, meant in zip(found.arms, of.arms, strict=True):
            assert planned.model_copy(update={"bystanders": meant.bystanders}) == meant
            assert [b.name for b in planned.bystanders].count("outsider") == 1
