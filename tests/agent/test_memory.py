"""The limits on memory: what is written into cgroup files, and what their gauges read."""

from __future__ import annotations

from pathlib import Path

import pytest
from agent.basics import Json, RigError, chosen
from agent.cgroups import Tree, TreeV1
from agent.layers import Site
from agent.shortages.memcg import Memcg, MemcgV1
from agent.workloads.pattern import Pattern

from conformance.model import MemoryEvents, Reading

PATTERN = Pattern(b"memory!!")
KIB = 1024


class Here(Tree):
    """Cgroups that are plain folders."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = str(root)


def put(folder: Path, **files_of: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in files_of.items():
        (folder / name.replace("__", ".")).write_text(text)


def spec(**values: object) -> Json:
    return {"kind": "memcg", "cgroup": "limited", "limit": 4096 * KIB, **values}


def test_a_limit_with_swap_and_a_group_is_put_in_force_and_taken_away(tmp_path: Path) -> None:
    folder = tmp_path / "limited"
    put(folder, memory__max="", memory__swap__max="", memory__oom__group="")
    memcg = Memcg(spec(swap=KIB, oom_group="on"), {}, Here(tmp_path))
    memcg.impose()
    assert (folder / "memory.max").read_text() == str(4096 * KIB)
    assert (folder / "memory.swap.max").read_text() == str(KIB)
    assert (folder / "memory.oom.group").read_text() == "1"
    put(folder, memory__max="")
    memcg.relieve()
    assert (folder / "memory.max").read_text() == "max"


@pytest.mark.parametrize("knob", ["max", "high"])
def test_the_gauge_is_of_the_knob_that_is_set(tmp_path: Path, knob: str) -> None:
    put(
        tmp_path / "limited",
        memory__max="8192",
        memory__high="4096",
        memory__current="100",
        memory__events="low 0\nhigh 3\nmax 5\noom 0\noom_kill 0\n",
    )
    reading = Reading.model_validate(Memcg(spec(knob=knob), {}, Here(tmp_path)).reading())
    assert (reading.used, reading.limit, reading.hits) == (
        (100, 8192, 5) if knob == "max" else (100, 4096, 3)
    )


def test_a_kernel_without_the_knob_is_the_rig_s_problem(tmp_path: Path) -> None:
    put(tmp_path / "limited")
    with pytest.raises(RigError, match=r"memory\.high"):
        Memcg(spec(knob="high"), {}, Here(tmp_path)).impose()


def test_the_gauge_of_cgroup_v1_knows_no_limit_when_it_sees_one(tmp_path: Path) -> None:
    put(
        tmp_path / "limited",
        memory__limit_in_bytes="9223372036854771712",
        memory__usage_in_bytes="4096",
        memory__failcnt="7",
    )
    memcg = MemcgV1(spec(kind="memcg_v1"), {}, Here(tmp_path))
    assert memcg.reading() == {"kind": "memcg_v1", "used": 4096, "limit": None, "hits": 7}
    put(tmp_path / "limited", memory__limit_in_bytes="8192")
    assert memcg.reading()["limit"] == 8192


def test_what_cgroup_v1_tells_has_the_form_of_the_host_s(tmp_path: Path) -> None:
    put(
        tmp_path / "limited",
        memory__stat="cache 30\nrss 10\nshmem 20\n",
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        memory__usage_in_bytes="40",
        memory__failcnt="7",
    )
    tree = TreeV1("memory+blkio")
    tree.root = str(tmp_path)
    events = MemoryEvents.model_validate(tree.events("limited"))
    assert events == MemoryEvents(max=7, oom_kill=2, current=40, anon=10, shmem=20, file=30)
    assert tree.anonymous("limited") == 10
    assert tree.anonymous("") is None


def test_a_cgroup_that_is_not_empty_stays_and_says_why(tmp_path: Path) -> None:
    tree = Here(tmp_path)
    put(tmp_path / "limited", some="")
    tree.paths = ["limited"]
    assert "not empty" in tree.remove("limited")
    assert tree.paths == ["limited"]
    (tmp_path / "limited" / "some").unlink()
    assert tree.remove("limited") == ""
    assert tree.paths == []


def test_a_layer_can_only_be_set_up_from_a_cgroup_of_the_case() -> None:
    assert Site().procs("") == ""
    with pytest.raises(RigError, match="no cgroup limited"):
        Site().run(["true"], cgroup="limited")


def test_the_choice_of_a_setting_is_the_one_in_brackets() -> None:
    assert chosen("always within_size advise [never] deny force") == "never"
    assert chosen("absent") == "absent"
