"""The loader: what a right library becomes, and that each wrong one is told at its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
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
from tests.support.case_tree import TREE, Edit, plant

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

WRONG: dict[str, tuple[str, tuple[Edit, ...]]] = {
    # the file as YAML
    "not YAML": ("not YAML: ", (("case", "claims: [S1, S12]", "claims: [S1, S12«\nx: }"),)),
    "a tab": ("not YAML: ", (("case", "  - source", "  «\t- source"),) * 0 + (
        ("files", "  - source", "«\t- source"),)),
    "a duplicate key": (
        "the key 'title' is there already, at line 1",
        (("case", "level: must", "level: must\n«title: Another"),),
    ),
    "a key that is not text": ("a key that is not text", (("case", "level", "«3: x\nlevel"),)),
    "an unknown anchor": ("no anchor &x", (("case", "rig: stack", "rig: «*x"),)),
    "a tag": ("a tag: !!str", (("case", "rig: stack", "rig: «!!str stack"),)),
    "an octal": ("octal to some", (("case", "generation: 1}", "generation: «01}"),)),
    "infinity": ("not a number", (("case", "generation: 1}", "generation: «.inf}"),)),
    "a huge number": ("too large", (("case", "generation: 1}", "generation: «1e999}"),)),
    "a huge whole number": (
        "too large",
        (("case", "generation: 1}", "generation: «123456789012345678901}"),),
    ),
    "a second document": ("a second document", (("case", "level: must", "«---\nlevel: must"),)),
    "a forbidden character": ("U+0007", (("case", "level: must", "level: «\amust"),)),
    # the file as a case
    "an unknown key": ("unknown key 'lever'", (("case", "level: must", "«lever: must"),)),
    "a key by its Python name": (
        "unknown key 'with_'",
        (("case", "with: {device", "«with_: {}\nwith: {device"),),
    ),
    "an unknown level": ("'musty'", (("case", "level: must", "level: «musty"),)),
    "text where a list belongs": ("must be a list", (("case", "[S1, S12]", "«S1"),)),
    "a list where text belongs": ("must be text", (("case", "rig: stack", "rig: «[stack]"),)),
    "neither steps nor a name": ("must be text or must be a list", (
        ("files", "steps: files_short", "steps: «3"),)),
    "nothing where a scalar belongs": (
        "must be text or must be a whole number or must be a number or must be true or false",
        (("case", "device_size: 12M", "device_size: «null"),),
    ),
    "an unknown claim": ("'S15'", (("case", "[S1, S12]", "[S1, «S15]"),)),
    "an empty list": ("at least 1 item", (("case", "[S1, S12]", "«[]"),)),
    "an unknown clause": ("'error_surfacd'", (("case", "[error_surfaced,", "[«error_surfacd,"),)),
    "an unknown clause as a key": ("'no_oom'", (("case", "{no_oom_kill:", "{«no_oom:"),)),
    "an unknown errno": ("'ENOSPACE' is no errno", (("case", "[ENOSPC,", "[«ENOSPACE,"),)),
    "a clause twice": ("is there twice", (("case", ", reusable]", ", reusable, «reusable]"),)),
    "a clause documented that is not judged": (
        "'bounded_' is" if False else "'attributed' is not judged",
        (("case", '{no_oom_kill: "some', '{attributed: «"some'),),
    ),
    "a requirement of no kind": ("'needs:loop'", (("case", '"module:loop"', '«"needs:loop"'),)),
    "a requirement that is a list": ("must be a mapping", (("case", '"module:loop"', "«[loop]"),)),
    "a requirement with a key too many": (
        "unknown key 'why'",
        (("case", '{need: "probe', '{«why: x, need: "probe'),),
    ),
    "a bad cgroup": ("'Limited'", (("case", "cgroups: [limited,", "cgroups: [«Limited,"),)),
    # the matrix
    "an axis that cannot vary": (
        "axis 'loop_dio' has no two values",
        (("case", '["off", "on"]', '«["on"]'),),
    ),
    "a value twice": ("'direct' is twice", (("case", "direct, fio_libaio]\n  loop",
                                             "direct, «direct]\n  loop"),)),
    "a value that no name can hold": (
        "cannot be a part of a variant's name",
        (("case", "direct, fio_libaio]\n  loop", "direct, «a/b]\n  loop"),),
    ),
    "an axis that with sets": (
        "'submit' is a matrix axis",
        (("case", "with: {", "with: {submit: «direct, "),),
    ),
    "an axis that nothing uses": (
        "axis 'colour' is used nowhere",
        (("case", "matrix:\n", "matrix:\n  colour: «[red, blue]\n"),),
    ),
    "too many cells": (
        "1536 cells",
        (("case", "matrix:\n",
          "matrix:\n  «" + "\n  ".join(f"a{i}: [x, y]" for i in range(8)) + "\n"),),
    ),
    "an exclude that matches nothing more": (
        "excludes nothing that is not excluded already",
        (("case", 'exclude:\n', 'exclude:\n  - {submit: buffered, loop_dio: "on"}\n'),
         ("case", '  - {submit: buffered, loop_dio: "on"}\nsteps',
          '  - «{submit: buffered, loop_dio: "on"}\nsteps')),
    ),
    "an exclude with an unknown axis": (
        "no axis is called 'submitter'",
        (("case", "- {submit: buffered,", "- {submitter: «buffered,"),),
    ),
    "an exclude with an unknown value": (
        "exclude: 'buffred' is no value of the axis 'submit'",
        (("case", "- {submit: buffered,", "- {submit: «buffred,"),),
    ),
    "an exclude that leaves nothing": (
        "every cell is excluded",
        (("case", 'exclude:\n  - {submit: buffered, loop_dio: "on"}', "exclude:\n  «- {}"),),
    ),
    "a value that is excluded everywhere": (
        "every cell with submit=buffered is excluded",
        (("case", '{submit: buffered, loop_dio: "on"}', "{submit: buffered}"),
         ("case", "[buffered, direct, fio_libaio]\n  loop",
          "[«buffered, direct, fio_libaio]\n  loop")),
    ),
    # conditions
    "a requirement's condition on an unknown axis": (
        "when: no axis is called 'dio'",
        (("case", '{loop_dio: "on"}}', '{dio: «"on"}}'),),
    ),
    "a requirement's condition on an unknown value": (
        "'maybe' is no value of the axis 'loop_dio'",
        (("case", '{loop_dio: "on"}}', "{loop_dio: «maybe}}"),),
    ),
    "a step's condition on an unknown axis": (
        "no axis is called 'submitted'",
        (("case", "when: {submit: [", "when: {submitted: [«"),),
    ),
    "a step's condition on an unknown value": (
        "'submit' is never 'mmap'",
        (("case", "[direct, fio_libaio]}", "[direct, «mmap]}"),),
    ),
    "a step's condition that cannot vary": (
        "it cannot vary",
        (("case", "[direct, fio_libaio]}", "[«direct, fio_libaio, buffered]}"),),
    ),
    "an empty condition": ("when: must be a mapping", (("case", "when: {submit: [direct, "
                                                        "fio_libaio]}", "when: «{}"),)),
    "a condition on a list of lists": (
        "needs a value, or a list",
        (("case", "[direct, fio_libaio]}", "«[[direct]]}"),),
    ),
    "a fixture's condition on an unknown name": (
        "no axis or parameter is called 'paded'",
        (("fs_stack", 'when: {padded: "on"}', 'when: {paded: «"on"}'),
         ("fs_stack", ', padded: "off"', ""),
         ("files", ', padded: "on"', "")),
    ),
    "a switch that is set to nothing it knows": (
        "'onn' is no value of 'padded', a switch of the rig fs_stack: off, on",
        (("files", 'padded: "on"', "padded: «onn"),),
    ),
    # names
    "an unknown name": (
        "${devise_size}: no axis or parameter",
        (("case", '"${device_size}"', '«"${devise_size}"'),),
    ),
    "an unknown name in a fixture": (
        "${tmpfs}: no axis or parameter",
        (("stack", 'size: "${tmpfs_size}"', 'size: «"${tmpfs}"'),
         ("stack", "tmpfs_size: 64M, ", "")),
    ),
    "an unknown name in with": (
        "${tmpfs_size}: no axis",
        (("case", "device_size: 12M", 'device_size: «"${tmpfs_size}"'),),
    ),
    "what looks like a name": (
        "a name is written ${name}",
        (("case", '"${device_size}"', '«"${Device}"'),),
    ),
    "a value of with that nothing uses": (
        "neither rig nor procedure nor case uses 'size'",
        (("case", "with: {", "with: {size: «3, "),),
    ),
    "a value of an arm that nothing uses": (
        "neither rig nor procedure nor case uses 'size' in this arm",
        (("files", "with: {quota", "with: {size: «3, quota"),),
    ),
    "an axis that an arm sets": (
        "'count' is a matrix axis",
        (("files", "with: {count: 3}", "matrix: {count: [3, 4]}"),
         ("files", "with: {quota", "with: {count: «3, quota")),
    ),
    "a parameter that a fixture does not use": (
        "no layer uses the parameter 'colour'",
        (("stack", "params: {", "params: {colour: «red, "),),
    ),
    "a default that names a value": (
        "a default cannot name other values",
        (("stack", "device_size: 8M", 'device_size: «"${tmpfs_size}"'),),
    ),
    # parts
    "an unknown step": ("unknown step 'wryte'", (("case", "- write: {as: fill",
                                                  "- «wryte: {as: fill"),)),
    "an unknown layer": ("unknown layer 'ramfs'", (("stack", "- tmpfs", "- «ramfs"),)),
    "an unknown shortage": ("unknown shortage 'thin'", (("case", "{tmpfs_size: {layer",
                                                         "{«thin: {layer"),)),
    "a step with two words": (
        "a step is one word and its values",
        (("case", "- impose: {as: impose}", "- «impose: {as: impose}\n    relieve: {as: r}"),),
    ),
    "a step without values": (
        "the values of 'impose' must be a mapping",
        (("case", "- impose: {as: impose}", "- impose: «now"),),
    ),
    "a step that says its verb twice": (
        "unknown key 'verb'",
        (("case", "- impose: {as: impose}", "- impose: {as: impose, «verb: impose}"),),
    ),
    "a step with an unknown key": (
        "unknown key 'lenght'",
        (("case", "length: 8M,", "length: 8M, «lenght: 3,"),),
    ),
    "a step without a key": ("'as' is missing", (("case", "{as: impose}", "«{}"),)),
    "a step's name by its Python name": (
        "unknown key 'name'",
        (("case", "{as: impose}", "{as: impose, «name: impose}"),),
    ),
    "a size that is none": ("not a size: '8MB'", (("case", "length: 8M,", "length: «8MB,"),)),
    "text where a number belongs": (
        "must be a whole number",
        (("case", "generation: 2,", 'generation: «"2",'),),
    ),
    "a number out of range": ("less than or equal to 255, not 256", (
        ("case", "generation: 2,", "generation: «256,"),)),
    "text where a switch belongs": (
        "must be true or false",
        (("fs_stack", "allocate: true", "allocate: «yes"),),
    ),
    "an end that is none": (
        "not a size: 'never'",
        (("case", "sync_every: 1M", "sync_every: 1M, kill: {after: «never}"),),
    ),
    "a value from the matrix that does not fit": (
        "(used at cases/loop/write_full.yaml:",
        (("case", "[buffered, direct, fio_libaio]\n  loop", "[buffered, direct, «dirct]\n  loop"),
         ("case", "[direct, fio_libaio]}", "[direct]}")),
    ),
    "a value from with that does not fit": (
        "not a size: '12MB' (a whole number, with K, M, G or T for binary units) (used at "
        "fixtures/rigs/stack.yaml:5:42)",
        (("case", "device_size: 12M", "device_size: «12MB"),),
    ),
    # the rig
    "a layer on nothing": ("on: no layer 'imag' here; there are: back, image", (
        ("stack", "on: image", "on: «imag"),)),
    "a layer on a later one": ("no layer 'image' here", (
        ("stack", "on: back, size", "on: «image, size"),)),
    "a file on a device": ("'device' is a loop device, not a tmpfs or a filesystem", (
        ("stack", '"${loop_dio}"}', '"${loop_dio}"}\n  - file: {name: f, on: «device, size: 1M}'),)),
    "a loop device on a tmpfs": ("'back' is a tmpfs, not a file or the disk or a loop device", (
        ("stack", "on: image", "on: «back"),)),
    "a filesystem on a file": ("'image' is a file, not the disk or a loop device", (
        ("fs_stack", 'device, type: "${fs}", when: {quota: "off"}',
         '«image, type: "${fs}", when: {quota: "off"}'),)),
    "a layer's name twice": ("a layer is called 'back' already", (
        ("stack", "name: image", "name: «back"), ("stack", "on: image", "on: back"))),
    "an unknown filesystem": ("'ext9'", (("fs_stack", "fs: ext4", "fs: «ext9"),)),
    # cgroups and bystanders
    "a cgroup without its parent": ("its parent 'limited' must be listed before", (
        ("case", "[limited, limited/writer, other]", "[«limited/writer, other]"),)),
    "a cgroup twice": ("'other' is there twice", (
        ("case", "limited/writer, other]", "limited/writer, other, «other]"),)),
    "the root as a cgroup": ("the root cgroup is always there", (
        ("case", "limited/writer, other]", 'limited/writer, other, «""]'),)),
    "a process in a cgroup with children": ("'limited' has children", (
        ("case", "{name: busy, cgroup: other", "{name: busy, cgroup: «limited"),)),
    "a process in no cgroup of the case": ("'elsewhere' is not among the case's cgroups", (
        ("case", "{name: busy, cgroup: other", "{name: busy, cgroup: «elsewhere"),)),
    "a step in a cgroup with children": ("'limited' has children", (
        ("case", "role: provoke, cgroup: \"${cgroup}\"", "role: provoke, cgroup: «limited"),)),
    "a bystander's name twice": ("a bystander is called 'idle' already", (
        ("case", "name: busy", "name: «idle"),)),
    "a bystander on no device": ("'back' is a tmpfs, not the disk or a loop device", (
        ("case", "io: {target: device", "io: {target: «back"),)),
    "a bystander past the end": ("the region ends at 13M, past 'device' of 12M", (
        ("case", "offset: 11M, length: 64K", "offset: 11M, length: «2M"),)),
    # the shortage
    "a shortage of no layer": ("no layer 'bakc'", (("case", "layer: back", "layer: «bakc"),)),
    "a tmpfs shortage of a file": ("'image' is a file, not a tmpfs", (
        ("case", "layer: back", "layer: «image"),)),
    "a tmpfs shortage that is none": ("no less than the 64M", (
        ("case", "layer: back, size: 4M", "layer: back, size: «64M"),)),
    "a quota that is not there": ("'fs' is not made with group quota", (
        ("files", "type: user", "type: «group"),)),
    "a hog of a device": ("'device' is a loop device, not a tmpfs or a filesystem", (
        ("files", "{hog: {layer: back", "{hog: {layer: «device"),)),
    "a memory limit of no cgroup": ("'limitd' is not among the case's cgroups", (
        ("files", "{memcg: {cgroup: limited", "{memcg: {cgroup: «limitd"),)),
    "no shortage": ("main: no shortage", (
        ("case", "shortage: {tmpfs_size: {layer: back, size: 4M}}\n", ""),
        ("case", "title: A", "«title: A"))),
    # steps
    "a step's name twice": ("a step is called 'fill' already", (
        ("case", "as: look", "as: «fill"),)),
    "a generation twice": ("generation: 'fill' writes 2 already", (
        ("case", "generation: 3", "generation: «2"),)),
    "a write to a filesystem": ("target: 'back' is a tmpfs", (
        ("case", "{as: fill,", "{as: fill, target: «back,"),)),
    "a default target that is not there": ("target: no layer 'device' here", (
        ("stack", "loop: {name: device", "loop: {name: dev"),
        ("case", "target: device", "target: dev"),
        ("case", '"{device}"', '"{dev}"'),
        ("case", "reattach: {as", "reattach: {target: dev, as"),
        ("case", "- verify: {as", "- verify: {target: dev, as"),
        ("case", "- write: {as: twice", "- write: {target: dev, as: twice"),
        ("case", "- write: {as: control", "- write: {target: dev, as: control"),
        ("case", "- write: {as: fill", "- write: «{as: fill"))),
    "files on a device": ("'device' is a loop device, not a tmpfs or a filesystem", (
        ("procedure", "{as: read,", "{as: read, target: «device,"),)),
    "a check of a tmpfs": ("'back' is a tmpfs, not a filesystem", (
        ("procedure", "{as: check,", "{as: check, target: «back,"),)),
    "a reattached tmpfs": ("'back' is a tmpfs, not a loop device", (
        ("case", "{as: reattach,", "{as: reattach, target: «back,"),)),
    "an argument that names no layer": ("{devise}: no layer of that name", (
        ("case", '"{device}"', '«"{devise}"'),)),
    "a region past the end": ("the region ends at 13M, past 'device' of 12M", (
        ("case", "offset: 10M, length: 1M", "offset: 10M, length: «3M"),)),
    "an offset in a block": ("offset: 100 is no multiple of 4096", (
        ("case", "offset: 10M", "offset: «100"),)),
    "a length of part of a block": ("length: 8193 is no multiple of 4096", (
        ("case", "length: 8M", "length: «8193"),)),
    "a length of nothing": ("length: nothing", (
        ("case", 'length: "${device_size}"', "length: «0"),)),
    "a request of part of a block": ("request: 512 is no multiple of 4096", (
        ("case", "request: 4K", "request: «512"),)),
    "a request of nothing": ("request: nothing", (("case", "request: 4K", "request: «0"),)),
    "a request larger than the region": ("request: larger than the whole region", (
        ("case", "request: 4K", "request: «128K"),)),
    "a sync in the middle of a block": ("sync_every: 1000 is no multiple", (
        ("case", "sync_every: 1M", "sync_every: «1000"),)),
    "no shortage step": ("main: 0 steps `impose`, where one is needed", (
        ("case", "  - impose: {as: impose}\n", ""), ("case", "title: A", "«title: A"))),
    "two shortage steps": ("main: 2 steps `impose`", (
        ("case", "- impose: {as: impose}", "- impose: {as: impose}\n  - impose: {as: again}"),
        ("case", "title: A", "«title: A"))),
    "no relief": ("main: 0 steps `relieve`", (
        ("case", "  - relieve: {as: relieve}\n", ""), ("case", "title: A", "«title: A"))),
    "relief before the shortage": ("relief comes before the shortage", (
        ("case", "- impose: {as: impose}", "- relieve: {as: «impose}"),
        ("case", "- relieve: {as: relieve}", "- impose: {as: relieve}"))),
    "nothing that provokes": ("main: no step has the role provoke", (
        ("case", "as: fill, role: provoke", "as: fill, role: observe"),
        ("case", "title: A", "«title: A"))),
    "no control": ("no step with the role control comes before the shortage", (
        ("case", "role: control", "role: setup"),
        ("case", "- impose: {as: impose}", "- impose: {as: «impose}"))),
    "a control during the shortage": ("control step 'look' must come before the shortage", (
        ("case", "{as: look, role: observe", "{as: «look, role: control"),)),
    "a provocation after the relief": ("provoke step 'read' must come during the shortage", (
        ("case", "{as: read, role: observe", "{as: «read, role: provoke"),)),
    "a recovery during the shortage": ("recover step 'look' must come after the relief", (
        ("case", "{as: look, role: observe", "{as: «look, role: recover"),)),
    "a reuse before the shortage": ("reuse step 'early' must come after the shortage began", (
        ("case", "  - impose: {as", "  - run: {as: «early, role: reuse, argv: [x]}\n"
         "  - impose: {as"),)),
    "nothing that reads back": ("main: after the last write to 'device' nothing reads it back", (
        ("case", '  - verify: {as: read, role: observe, length: "${device_size}"}\n', ""),
        ("case", "title: A", "«title: A"))),
    # clauses
    "equivalence of one arm": ("the clause 'equivalent' needs two arms or more", (
        ("case", "reusable]", "«equivalent]"),)),
    "an overwrite that is not made": (
        "the clause 'overwrite_in_place' needs a step with the role overwrite "
        "[in write_full[buffered-off]]",
        (("case", "reusable]", "«overwrite_in_place]"),)),
    "a reuse that is not made": ("the clause 'reusable' needs a step with the role reuse", (
        ("case", "role: recover", "role: observe"),
        ("case", "reusable]", "«reusable]"))),
    "a filesystem that is not checked": (
        "the clause 'filesystem_consistent' needs a mount and a check after the relief",
        (("procedure", "  - check: {as: check, role: recover}\n", ""),
         ("files", "filesystem_consistent,", "«filesystem_consistent,"))),
    "an error without a shortage": ("the clause 'error_surfaced' needs a shortage", (
        ("case", "{tmpfs_size: {layer: back, size: 4M}}", "{none: {}}"),
        ("case", "[error_surfaced", "[«error_surfaced"))),
    # fixtures
    "no such rig": ("no fixture rigs/stak.yaml; there are: fs_stack, stack", (
        ("case", "rig: stack", "rig: «stak"),)),
    "no such procedure": ("no fixture procedures/files.yaml; there are: files_short", (
        ("files", "steps: files_short", "steps: «files"),)),
    "no rig at all": ("main: neither the arm nor the case names a rig", (
        ("case", "rig: stack\n", ""), ("case", "title: A", "«title: A"))),
    "a rig that is wrong in itself": ("unknown key 'layer'", (
        ("stack", "- loop: {", "- loop: {«layer: loop, "),)),
    "a rig with an unknown key": ("unknown key 'laiers'", (
        ("stack", "layers:", "«laiers: 3\nlayers:"),)),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_told_at_its_place(wrong: str, here: Path) -> None:
    message, edits = WRONG[wrong]
    place = plant(here, *edits)
    assert place
    with pytest.raises(LibraryErrors) as caught:
        load_library([here / "cases"], here / "fixtures")
    told = str(caught.value).splitlines()
    assert [line for line in told if line.startswith(f"{place}: ") and message in line], told
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
        "cases/files/files_whole.yaml:21:8",
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


@given(NAMES, ATOMS)
def test_a_whole_string_becomes_the_value_with_type_and_place(
    name: str, value: str | int | bool
) -> None:
    scope = Scope(values={name: Leaf(value=value, where=THERE)})
    filled = substitute(leaf(f"${{{name}}}"), scope)
    assert filled == Leaf(value=value, where=THERE, via=HERE)
    assert type(filled.value) is type(value)
    assert scope.used == {name}


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


@given(nodes())
def test_what_names_nothing_stays_as_it_is(node: Node) -> None:
    assert substitute(node, Scope(values={})) == node
    assert plain(substitute(node, Scope(values={}))) == plain(node)


@given(NAMES, PLAIN)
def test_an_unknown_name_is_never_left_as_it_is(name: str, around: str) -> None:
    with pytest.raises(ProblemsError, match=r"x\.yaml:3:4: .*no axis or parameter"):
        substitute(leaf(f"{around}${{{name}}}{around}"), Scope(values={}))
