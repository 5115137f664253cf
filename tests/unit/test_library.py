"""The loader: what a right library becomes, and that each wrong one is told at its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.library import Library, LibraryErrors, load_library
from conformance.model import (
    FileLayer,
    FsLayer,
    LoopLayer,
    Memcg,
    Submit,
    TmpfsSize,
    Variant,
    Where,
    Write,
)
from conformance.substitution import Scope, substitute
from conformance.yaml_marks import Leaf, Listing, Node, ProblemsError, Table, plain, text_of
from tests.support.case_tree import TREE, Edit, Wrong, plant, read_wrong

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(root: Path, *edits: Edit) -> Library:
    plant(root, *edits)
    return load_library([root / "cases"], root / "fixtures")


def errors(root: Path, *edits: Edit) -> list[str]:
    with pytest.raises(LibraryErrors) as caught:
        load(root, *edits)
    return str(caught.value).splitlines()


def variant(library: Library, name: str) -> Variant:
    return next(v for v in library.variants if v.id == name)


# -- what is right ------------------------------------------------------------------------------


def test_the_matrix_less_what_is_excluded_becomes_variants(here: Path) -> None:
    library = load(here)
    assert [v.id for v in library.variants] == [
        "files_whole",
        "write_full[buffered-off]",
        "write_full[direct-off]",
        "write_full[direct-on]",
        "write_full[fio_libaio-off]",
        "write_full[fio_libaio-on]",
    ]
    assert library.variants[-1].values == {"submit": "fio_libaio", "loop_dio": "on"}
    assert library.variants[-1].family == "loop"
    assert library.variants[-1].where == Where(file="cases/loop/write_full.yaml", line=1, column=1)
    case, where = library.cases["write_full"]
    assert case.title == library.variants[-1].title
    assert where == library.variants[-1].where


def test_values_are_filled_in_with_their_types(here: Path) -> None:
    arm = variant(load(here), "write_full[direct-on]").arms[0]
    assert arm.name == "main"
    image, device = arm.layers[1], arm.layers[2]
    assert isinstance(image, FileLayer)
    assert image.size == 12 << 20  # the case's value over the rig's default
    assert isinstance(device, LoopLayer)
    assert device.direct_io == "on"  # the matrix over the rig's default; text, not a boolean
    fill = next(step for step in arm.steps if step.name == "fill")
    assert isinstance(fill, Write)
    assert (fill.submit, fill.cgroup, fill.length) == (Submit.DIRECT, "limited/writer", 8 << 20)
    assert arm.shortage == TmpfsSize(kind="tmpfs_size", layer="back", size=4 << 20)
    assert [bystander.cgroup for bystander in arm.bystanders] == ["limited/writer", "other"]


def test_a_part_with_a_condition_is_there_only_for_its_values(here: Path) -> None:
    library = load(here)
    names = {
        v.id: {step.name for step in v.arms[0].steps}
        for v in library.variants
        if v.case == "write_full"
    }
    assert "twice" not in names["write_full[buffered-off]"]
    assert "twice" in names["write_full[direct-off]"]
    assert "twice" in names["write_full[fio_libaio-on]"]
    full, quota, _ = variant(library, "files_whole").arms
    assert "pad" not in {layer.name for layer in full.layers}
    assert "pad" in {layer.name for layer in quota.layers}
    assert isinstance(quota.layers[-1], FsLayer)
    assert quota.layers[-1].quota == ("user",)
    assert len([layer for layer in full.layers if layer.name == "fs"]) == 1


def test_a_requirement_with_a_condition_holds_only_for_its_values(here: Path) -> None:
    library = load(here)
    assert variant(library, "write_full[direct-off]").requires == ("module:loop",)
    assert variant(library, "write_full[direct-on]").requires == (
        "module:loop",
        "probe:tmpfs_direct_io",
    )


def test_arms_have_their_own_rig_shortage_and_values(here: Path) -> None:
    arms = variant(load(here), "files_whole").arms
    assert [arm.name for arm in arms] == ["full", "quota", "memcg"]
    assert [getattr(arm.steps[2], "cgroup", None) for arm in arms] == ["", "", "limited"]
    assert [getattr(arm.steps[2], "count", None) for arm in arms] == [3, 3, 3]
    assert arms[2].shortage == Memcg(kind="memcg", cgroup="limited", limit=8 << 20)


def test_a_step_of_the_case_may_depend_on_what_an_arm_sets(here: Path) -> None:
    steps = TREE["fixtures/procedures/files_short.yaml"].partition("steps:\n")[2]
    steps = steps.replace("role: observe}", 'role: observe, when: {padded: "on"}}')
    steps += "  - verify_files: {as: read_all, role: observe}\n"
    library = load(
        here,
        ("files", "steps: files_short\n", f"steps:\n{steps}"),
        ("files", "with: {cgroup: limited}\n", "with: {cgroup: limited, count: 2}\n"),
        (
            "files",
            "full:\n    rig: fs_stack\n",
            'full:\n    rig: fs_stack\n    with: {cgroup: ""}\n',
        ),
        ("files", "with: {quota: user,", 'with: {cgroup: "", quota: user,'),
    )
    last = [[step.name for step in arm.steps][-2:] for arm in library.variants[0].arms]
    assert last == [["mount", "read_all"], ["read", "read_all"], ["mount", "read_all"]]


def test_a_value_of_with_may_name_an_axis(here: Path) -> None:
    library = load(here, ("case", "device_size: 12M", 'device_size: "${megabytes}M"'),
                   ("case", "matrix:\n", "matrix:\n  megabytes: [12, 13]\n"))  # fmt: skip
    image = variant(library, "write_full[13-direct-off]").arms[0].layers[1]
    assert isinstance(image, FileLayer)
    assert image.size == 13 << 20


def test_words_that_old_yaml_takes_for_booleans_are_text(here: Path) -> None:
    plant(here)
    (here / "cases/loop/write_full.yaml").write_text(
        (here / "cases/loop/write_full.yaml")
        .read_text()
        .replace('loop_dio: ["off", "on"]', "loop_dio: [off, on]")
        .replace('loop_dio: "on"', "loop_dio: on")
    )
    library = load_library([here / "cases"], here / "fixtures")
    assert variant(library, "write_full[direct-on]").values["loop_dio"] == "on"


def test_aliases_stand_for_what_they_name(here: Path) -> None:
    library = load(
        here,
        ("files", "with: {count: 3}", "with: &all {count: 3}"),
        ("files", "with: {cgroup: limited}", "with: {cgroup: limited, count: &few 2}"),
        ("files", 'padded: "on"}', 'padded: "on", count: 2}'),
    )
    assert [getattr(arm.steps[2], "count", None) for arm in library.variants[0].arms] == [3, 2, 2]


def test_a_survey_needs_no_shortage(here: Path) -> None:
    library = load(
        here,
        ("case", "level: must", "level: survey"),
        ("case", "shortage: {tmpfs_size: {layer: back, size: 4M}}\n", ""),
        ("case", "[error_surfaced, reusable]", "[reusable]"),
        ("case", "  - impose: {as: impose}\n", ""),
        ("case", "  - relieve: {as: relieve}\n", ""),
    )
    assert variant(library, "write_full[direct-off]").arms[0].shortage.kind == "none"


def test_the_hash_is_over_every_file_and_no_place_on_the_disk(tmp_path: Path) -> None:
    hashes = {load(tmp_path / name).sha256 for name in ("one", "two")}
    assert len(hashes) == 1
    for which in ("case", "stack", "procedure"):
        hashes.add(load(tmp_path / which, (which, "title: ", "title:  ")).sha256)
    assert len(hashes) == 4


def test_errors_are_told_with_absolute_places_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    [error] = errors(tmp_path, ("case", "level: must", "level: musty"))
    assert error.startswith(f"{tmp_path}/cases/loop/write_full.yaml:2:8: ")


def test_the_projects_own_cases_load() -> None:
    library = load_library([ROOT / "cases"], ROOT / "fixtures")
    assert len(library.variants) >= len(library.cases) > 0
    assert len({v.id for v in library.variants}) == len(library.variants)


# -- what is wrong ------------------------------------------------------------------------------

WRONG = read_wrong(ROOT / "tests/data/wrong_cases.txt")


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.title)
def test_what_is_wrong_is_told_at_its_place(wrong: Wrong, here: Path) -> None:
    place = plant(here, *wrong.edits)
    assert place
    with pytest.raises(LibraryErrors) as caught:
        load_library([here / "cases"], here / "fixtures")
    told = str(caught.value).splitlines()
    assert [line for line in told if line.startswith(f"{place}: ") and wrong.told in line], told
    assert len({line.partition(" ")[0] for line in told}) == len(told), "two lines for one place"


def test_everything_that_is_wrong_is_told_at_once(here: Path) -> None:
    told = errors(
        here,
        ("case", "level: must", "level: musty"),
        ("case", "[S1, S12]", "[S99]"),
        ("files", "steps: files_short", "steps: files"),
        ("stack", "- tmpfs", "- ramfs"),
    )
    assert [line.partition(": ")[0] for line in told] == [
        "cases/files/files_whole.yaml:20:8",
        "cases/loop/write_full.yaml:2:8",
        "cases/loop/write_full.yaml:3:10",
        "fixtures/rigs/stack.yaml:4:5",
    ]


def test_a_problem_of_several_variants_is_told_once(here: Path) -> None:
    told = errors(here, ("case", "offset: 10M, length: 1M", "offset: 10M, length: 3M"))
    assert len(told) == 1
    assert told[0].endswith("[in write_full[buffered-off]]")


# -- files and folders --------------------------------------------------------------------------


def rename(root: Path, old: str, new: str) -> None:
    plant(root)
    (root / new).parent.mkdir(parents=True, exist_ok=True)
    (root / old).rename(root / new)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("cases/loop/Write.yaml", "a name is made of small letters, digits and '_'"),
        ("cases/loop/write-full.yaml", "a name is made of small letters"),
        ("cases/loop/write_full.yml", "only files with the ending .yaml belong here"),
        ("cases/loop/deep/write_full.yaml", "a folder in a folder of YAML files"),
        ("cases/write_full.yaml", "a case belongs into the folder of its family"),
        ("cases/Loop-1/write_full.yaml", "a family's name is made of small letters"),
    ],
)
def test_files_out_of_place_are_told(new: str, message: str, here: Path) -> None:
    rename(here, "cases/loop/write_full.yaml", new)
    with pytest.raises(LibraryErrors, match=message):
        load_library([here / "cases"], here / "fixtures")


def test_an_id_in_two_folders_names_both(here: Path) -> None:
    plant(here)
    plant(here / "mine", ("files", "level: should", "level: must"))
    for path in (here / "mine/cases/files").iterdir():
        path.unlink()
    with pytest.raises(LibraryErrors) as caught:
        load_library([here / "cases", here / "mine/cases"], here / "fixtures")
    assert str(caught.value) == (
        "mine/cases/loop/write_full.yaml:1:1: the id 'write_full' is taken by "
        "cases/loop/write_full.yaml"
    )


def test_a_folder_of_ones_own_is_loaded_beside(here: Path) -> None:
    plant(here)
    own = here / "mine" / "loop"
    own.mkdir(parents=True)
    (own / "another.yaml").write_text(TREE["cases/loop/write_full.yaml"])
    library = load_library([here / "cases", here / "mine"], here / "fixtures")
    assert library.cases["another"][1].file == "mine/loop/another.yaml"


def test_no_case_is_an_error(here: Path) -> None:
    plant(here)
    (here / "empty").mkdir()
    with pytest.raises(LibraryErrors, match="empty:1:1: no case was found"):
        load_library([here / "empty"], here / "fixtures")


@pytest.mark.parametrize(("cases", "fixtures"), [("nowhere", "fixtures"), ("cases", "nowhere")])
def test_a_folder_that_is_not_there_is_an_error(cases: str, fixtures: str, here: Path) -> None:
    plant(here)
    with pytest.raises(LibraryErrors, match=r"nowhere.*there is no such folder"):
        load_library([here / cases], here / fixtures)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "write_full.yaml:1:1: the file is empty"),
        (b"title: x\nlevel: \xff\n", "write_full.yaml:2:1: not UTF-8: byte 16"),
        (b"- a\n", "write_full.yaml:1:1: the file must be a mapping"),
        (b"a: " + b"x" * 300_000, "the file is larger than 256 KiB"),
        (b"a: " + b"[" * 100_000, "nested deeper than 16 levels"),
        (
            b"a: &a [x, x, x, x, x, x, x, x, x, x]\n"
            + b"".join(b"%c: &%c [%s]\n" % (c + 1, c + 1, b", ".join([b"*%c" % c] * 10))
                       for c in range(ord("a"), ord("h"))),
            "more than 20000 values",
        ),
        (b"a: &a [*a]\n", "write_full.yaml:1:8: no anchor &a is complete"),
    ],
    ids=["empty", "not UTF-8", "a list", "large", "deep", "a billion laughs", "a circle"],
)  # fmt: skip
def test_files_that_are_no_case_at_all_are_told(data: bytes, message: str, here: Path) -> None:
    plant(here)
    (here / "cases/loop/write_full.yaml").write_bytes(data)
    with pytest.raises(LibraryErrors) as caught:
        load_library([here / "cases"], here / "fixtures")
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read_is_told(here: Path) -> None:
    plant(here)
    (here / "cases/loop/write_full.yaml").unlink()
    (here / "cases/loop/write_full.yaml").symlink_to("nowhere")
    with pytest.raises(LibraryErrors, match=r"write_full.yaml:1:1: cannot be read: No such file"):
        load_library([here / "cases"], here / "fixtures")


# -- substitution -------------------------------------------------------------------------------

HERE = Where(file="x.yaml", line=3, column=4)
THERE = Where(file="x.yaml", line=9, column=2)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)
ATOMS = st.one_of(st.booleans(), st.integers(), st.text(st.characters(exclude_characters="$")))
PLAIN = st.text(st.characters(exclude_characters="$"), max_size=8)


def leaf(value: str | int | bool) -> Leaf:
    return Leaf(value=value, where=HERE)


@settings(deadline=None)
@given(NAMES, ATOMS)
def test_a_whole_string_becomes_the_value_with_type_and_place(
    name: str, value: str | int | bool
) -> None:
    scope = Scope(values={name: Leaf(value=value, where=THERE)})
    filled = substitute(leaf(f"${{{name}}}"), scope)
    assert filled == Leaf(value=value, where=THERE, via=HERE)
    assert type(filled.value) is type(value)
    assert scope.used == {name}


@settings(deadline=None)
@given(st.lists(st.tuples(PLAIN, NAMES), min_size=1), PLAIN, st.dictionaries(NAMES, ATOMS))
def test_within_text_names_become_text(
    parts: list[tuple[str, str]], end: str, others: dict[str, str | int | bool]
) -> None:
    values = {**others, **{name: len(name) for _, name in parts}}
    scope = Scope(values={name: Leaf(value=v, where=THERE) for name, v in values.items()})
    text = "".join(f"{before}${{{name}}}" for before, name in parts) + end + "!"
    wanted = "".join(f"{before}{text_of(values[name])}" for before, name in parts) + end + "!"
    assert substitute(leaf(text), scope) == leaf(wanted)
    assert scope.used == {name for _, name in parts}


def nodes() -> st.SearchStrategy[Node]:
    return st.recursive(
        ATOMS.map(leaf),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4).map(lambda i: Listing(items=tuple(i), where=HERE)),
            st.dictionaries(PLAIN, inner, max_size=4).map(
                lambda items: Table(items=items, keys=dict.fromkeys(items, HERE), where=HERE)
            ),
        ),
        max_leaves=12,
    )


@settings(deadline=None)
@given(nodes())
def test_what_names_nothing_stays_as_it_is(node: Node) -> None:
    assert substitute(node, Scope(values={})) == node
    assert plain(substitute(node, Scope(values={}))) == plain(node)


@settings(deadline=None)
@given(NAMES, PLAIN)
def test_an_unknown_name_is_never_left_as_it_is(name: str, around: str) -> None:
    with pytest.raises(ProblemsError, match=r"x\.yaml:3:4: .*no axis or parameter"):
        substitute(leaf(f"{around}${{{name}}}{around}"), Scope(values={}))
