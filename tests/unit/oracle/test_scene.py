"""How a run is put side by side with what was asked for: phases, windows, looks, layers.

A shortage lasts from the step that imposes it to the one that relieves it, whose own outcome still
belongs to it.
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from conformance.model import (
    BLOCK,
    AnyLayer,
    AnyShortage,
    FileLayer,
    LoopLayer,
    Memcg,
    NoShortage,
    Reading,
    Role,
    TmpfsLayer,
    TornDown,
    Watch,
)
from conformance.model.layers.nbd import QemuNbdLayer
from conformance.model.layers.stack import DmCacheLayer, DmLinearLayer
from conformance.oracle import scene as module
from conformance.oracle.scene import Scene, next_phase, scenes, windows
from tests.support.builders import Act, Story, imposed, log, ran, read, relieved

NONE = NoShortage(kind="none")


def looked(name: str, role: Role = Role.OBSERVE) -> Act:
    """A step that only looks."""
    return read(name, "..", role)


LONG = (looked("a"), imposed(), looked("b"), looked("c"), relieved(), looked("d"))


def seen(*acts: Act, **circumstances: Any) -> Scene:
    """The scene of some acts."""
    story = Story(acts=acts, **circumstances)
    return scenes(story.variant, story.observation)[0]


def changed(scene: Scene, **seen: Any) -> Scene:
    """The same scene, of whose arm something else was seen."""
    there = scene.seen.model_copy(update=seen)
    return Scene(arm=scene.arm, seen=there, taken=scene.taken)


@pytest.mark.parametrize("name", ["Taken", "Look", "Scene", "Window"])
def test_what_was_seen_is_built_by_keyword_and_stays_as_it_is(name: str) -> None:
    cls = getattr(module, name)
    blank = object.__new__(cls)
    first = fields(cls)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(blank, first, None)
    assert not hasattr(blank, "__dict__")
    with pytest.raises(TypeError):
        cls(*range(len(fields(cls))))


# -- phases and windows -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("acts", "shortage", "expected"),
    [
        (LONG, None, "before before short short short after"),
        ((looked("a"), looked("b")), NONE, "after after"),
        ((looked("a"), looked("b")), None, "before before"),
        ((imposed(), relieved(), imposed(), looked("a")), None, "before short after short"),
    ],
)
def test_a_shortage_lasts_until_it_was_relieved(
    acts: tuple[Act, ...], shortage: AnyShortage | None, expected: str
) -> None:
    scene = seen(*acts, **({"shortage": shortage} if shortage else {}))
    assert [t.phase.value for t in scene.taken] == expected.split()
    assert [t.index for t in scene.taken] == list(range(len(acts)))
    assert scene.name == "main"


@pytest.mark.parametrize(
    ("taken", "phase"), [(0, "before"), (1, "before"), (2, "short"), (4, "short"), (5, "after")]
)
def test_what_comes_after_the_steps_taken_stands_where_the_last_has_led(
    taken: int, phase: str
) -> None:
    scene = seen(*LONG)
    assert next_phase(scene.arm, scene.taken[:taken]).value == phase


def test_nothing_is_short_before_the_first_step_even_if_that_imposes_the_shortage() -> None:
    scene = seen(imposed(), relieved())
    assert next_phase(scene.arm, ()).value == "before"


def test_each_stretch_of_the_shortage_is_a_window() -> None:
    found = windows(
        seen(relieved(), looked("a"), *LONG[1:], imposed(), looked("e").watching(reading=HALF))
    )
    told = [
        (w.impose.index, [t.name for t in w.during], w.relieve and w.relieve.index) for w in found
    ]
    assert told == [(2, ["b", "c"], 5), (7, ["e"], None)]
    assert found[1].readings == (HALF,)


HALF = Reading(kind="tmpfs_size", used=16384, limit=32768)


def test_an_arm_that_was_cut_short_has_the_steps_that_it_came_to() -> None:
    story = Story(acts=LONG)
    whole = story.observation.arms[0]
    cut = whole.model_copy(update={"steps": whole.steps[:3]})
    (scene,) = scenes(story.variant, story.observation.model_copy(update={"arms": (cut,)}))
    assert [t.name for t in scene.taken] == ["a", "impose", "b"]
    (window,) = windows(scene)
    assert ([t.name for t in window.during], window.relieve) == (["b"], None)


def test_an_arm_too_few_is_an_error_and_no_shorter_list() -> None:
    story = Story(acts=LONG)
    with pytest.raises(ValueError):
        scenes(story.variant, story.observation.model_copy(update={"arms": ()}))


@pytest.mark.parametrize(
    ("acts", "shortage", "expected"),
    [
        (LONG, None, True),
        ((looked("a"),), None, False),
        ((looked("a"),), NONE, True),
        ((looked("a"), Act(step=imposed().step, seen={"problem": "no mount"})), None, False),
    ],
)
def test_a_shortage_is_in_force_when_it_was_imposed_or_there_is_none(
    acts: tuple[Act, ...], shortage: AnyShortage | None, *, expected: bool
) -> None:
    assert seen(*acts, **({"shortage": shortage} if shortage else {})).imposed is expected


@pytest.mark.parametrize(
    ("acts", "expected"),
    [
        (LONG, True),
        (LONG[:-1], False),
        ((*LONG[:-1], ran("true", Role.RECOVER, ["true"])), False),
    ],
)
def test_blocks_are_to_be_read_after_the_shortage_or_not(
    acts: tuple[Act, ...], *, expected: bool
) -> None:
    assert seen(*acts).plans_after_look is expected


@pytest.mark.parametrize(
    ("role", "must"),
    [(Role.SETUP, True), (Role.CONTROL, True), (Role.PROVOKE, False), (Role.RECOVER, False)],
)
def test_what_prepares_or_controls_must_work(role: Role, *, must: bool) -> None:
    assert seen(looked("a", role)).taken[0].must_work is must


# -- looks ------------------------------------------------------------------------------------------

AT_THE_END = Watch(t_us=9, reading=HALF, oom_kill=0, kernel_log=log("last"))
ALL_DOWN = Watch(t_us=10, reading=HALF, oom_kill=0, kernel_log=log("down"))


def told(scene: Scene) -> str:
    return " ".join(f"{look.where}:{look.phase.value}" for look in scene.looks)


def test_watchers_look_when_the_rig_stands_after_each_step_and_when_it_is_gone() -> None:
    down = TornDown(watch=AT_THE_END)
    scene = seen(looked("a"), imposed(), looked("b"), torn_down=down)
    assert told(scene) == "build:before a:before impose:before b:short teardown:short"
    assert scene.looks[-1].watch is AT_THE_END
    down = TornDown(watch=AT_THE_END, after=ALL_DOWN)
    scene = seen(looked("a"), imposed(), relieved(), torn_down=down)
    assert (
        told(scene)
        == "build:before a:before impose:before relieve:short teardown:after torn-down:after"
    )
    assert [look.watch for look in scene.looks[-2:]] == [AT_THE_END, ALL_DOWN]
    assert told(seen(imposed(), torn_down=TornDown(after=ALL_DOWN))) == (
        "build:before impose:before torn-down:short"
    )
    assert told(seen(looked("a"))) == "build:before a:before"
    assert told(changed(seen(looked("a")), torn_down=None)) == "build:before a:before"
    assert told(changed(seen(looked("a")), built=None)) == "a:before"


def test_a_rig_that_was_taken_down_before_the_first_step_was_looked_at_before_the_shortage() -> (
    None
):
    scene = seen(imposed(), looked("a"), relieved(), torn_down=TornDown(watch=AT_THE_END))
    nothing = Scene(arm=scene.arm, seen=scene.seen, taken=())
    assert told(nothing) == "build:before teardown:before"


def test_the_kernel_log_begins_when_the_rig_stands() -> None:
    scene = seen(
        looked("a").watching(kernel_log=log("one", "two")),
        looked("b").watching(kernel_log=log("three")),
        torn_down=TornDown(watch=AT_THE_END, after=ALL_DOWN),
    )
    built = scene.seen.built
    assert built is not None
    booted = built.watch.model_copy(update={"kernel_log": log("booted")})
    scene = changed(scene, built=built.model_copy(update={"watch": booted}))
    assert [(look.where, line.text) for look, line in scene.kernel_log] == [
        ("a", "one"),
        ("a", "two"),
        ("b", "three"),
        ("teardown", "last"),
        ("torn-down", "down"),
    ]


# -- layers -----------------------------------------------------------------------------------------


def over(*layers: AnyLayer) -> Scene:
    """A scene on other layers."""
    scene = seen(looked("a"))
    arm = scene.arm.model_copy(update={"layers": layers})
    return Scene(arm=arm, seen=scene.seen, taken=scene.taken)


MEMORY = TmpfsLayer(name="back", layer="tmpfs", size=64 << 20)
IMAGE = FileLayer(name="image", layer="file", on="back", size=65536)
LOOP = LoopLayer(name="loop", layer="loop", on="image")
NBD = QemuNbdLayer(name="nbd", layer="qemu_nbd", on="image")
LINEAR = DmLinearLayer(name="linear", layer="dm_linear", on="nbd")


def cache(on: str, cache: str) -> DmCacheLayer:
    return DmCacheLayer(name="top", layer="dm_cache", on=on, cache=cache, cache_size=BLOCK)


@pytest.mark.parametrize(
    ("layers", "target", "expected"),
    [
        ((MEMORY, IMAGE, LOOP), "loop", True),
        ((MEMORY, IMAGE, NBD), "nbd", False),
        ((MEMORY, IMAGE, NBD, LINEAR), "linear", False),
        ((MEMORY, IMAGE, LOOP, NBD), "loop", True),
        ((MEMORY, IMAGE, LOOP, NBD, cache("nbd", "loop")), "top", False),
        ((MEMORY, IMAGE, NBD, cache("nbd", "elsewhere")), "top", False),
        ((MEMORY, IMAGE, NBD), "elsewhere", True),
    ],
)
def test_enospc_comes_up_where_all_below_can_carry_it(
    layers: tuple[AnyLayer, ...], target: str, *, expected: bool
) -> None:
    assert over(*layers).carries_errno(target) is expected


@pytest.mark.parametrize(
    ("target", "below", "expected"),
    [
        ("top", "back", True),
        ("top", "loop", True),
        ("top", "linear", True),
        ("loop", "loop", True),
        ("loop", "nbd", False),
        ("image", "loop", False),
        ("elsewhere", "back", False),
        ("elsewhere", "elsewhere", False),
    ],
)
def test_a_layer_stands_on_what_is_below_it(target: str, below: str, *, expected: bool) -> None:
    whole = over(MEMORY, IMAGE, LOOP, NBD, LINEAR, cache("linear", "loop"))
    assert whole.stands_on(target, below) is expected


@pytest.mark.parametrize(
    ("target", "zeros"), [("image", True), ("loop", True), ("back", False), ("elsewhere", False)]
)
def test_a_loop_over_a_new_file_starts_as_zeros(target: str, *, zeros: bool) -> None:
    assert over(MEMORY, IMAGE, LOOP).starts_as_zeros(target) is zeros


@pytest.mark.parametrize(
    ("facts", "size"),
    [({"size": 8192}, 8192), ({"size": "8K"}, None), ({"size": True}, None), ({}, None)],
)
def test_a_size_is_a_number_of_bytes_or_not_known(facts: dict[str, Any], size: int | None) -> None:
    scene = seen(looked("a"))
    assert scene.seen.built is not None
    built = scene.seen.built.model_copy(update={"layers": {"device": facts}})
    assert changed(scene, built=built).device_size("device") == size
    assert changed(scene, built=built).device_size("another") is None
    assert changed(scene, built=None).device_size("device") is None


@pytest.mark.parametrize(
    ("cgroup", "limited"),
    [("a/b", True), ("a/b/c", True), ("a", False), ("a/bc", False), ("", False)],
)
def test_a_limit_binds_its_cgroup_and_those_below(cgroup: str, *, limited: bool) -> None:
    scene = seen(looked("a"), shortage=Memcg(kind="memcg", cgroup="a/b", limit=BLOCK))
    assert scene.limited(cgroup) is limited


def test_a_shortage_of_space_binds_whoever_submits() -> None:
    assert seen(looked("a")).limited("")
