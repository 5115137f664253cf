"""A small library on disk that is right, and edits that make it wrong in one place.

An edit replaces one text by another; in the new text ``«`` stands before the place where the error
must be told, and is taken off before the file is written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

MARK = "«"

CASE = """\
title: A write past the space of a full backing tmpfs fails with an error
level: must
claims: [S1, S12]
norm:
  - {source: "write(2)", section: ERRORS}
rig: stack
with: {device_size: 12M, cgroup: limited/writer}
requires:
  - "module:loop"
  - {need: "probe:tmpfs_direct_io", when: {loop_dio: "on"}}
cgroups: [limited, limited/writer, other]
bystanders:
  - {name: idle, cgroup: "${cgroup}"}
  - {name: busy, cgroup: other, io: {target: device, offset: 11M, length: 64K}}
shortage: {tmpfs_size: {layer: back, size: 4M}}
matrix:
  submit: [buffered, direct, fio_libaio]
  loop_dio: ["off", "on"]
exclude:
  - {submit: buffered, loop_dio: "on"}
steps:
  - write: {as: control, role: control, submit: "${submit}", offset: 10M, length: 1M,
            request: 64K, generation: 1}
  - impose: {as: impose}
  - write: {as: fill, role: provoke, cgroup: "${cgroup}", submit: "${submit}", length: 8M,
            request: 64K, generation: 2, sync_every: 1M}
  - write: {as: twice, role: overwrite, submit: direct, length: 64K, request: 4K, generation: 3,
            when: {submit: [direct, fio_libaio]}}
  - run: {as: look, role: observe, argv: [blockdev, --getsize64, "{device}"]}
  - relieve: {as: relieve}
  - reattach: {as: reattach, role: recover}
  - verify: {as: read, role: observe, length: "${device_size}"}
expect:
  clauses: [error_surfaced, reusable]
  errno: [ENOSPC, EDQUOT]
  documented_by: {no_oom_kill: "some page"}
"""

FILES_CASE = """\
title: Files whose fsync succeeded are whole
level: should
claims: [S5, S7]
norm:
  - source: fsync(2)
with: {count: 3}
cgroups: [limited]
arms:
  full:
    rig: fs_stack
    shortage: {hog: {layer: back, leave: 1M}}
  quota:
    rig: fs_stack
    with: {quota: user, padded: "on"}
    shortage: {quota: {layer: fs, type: user, id: 1000, limit: 1M}}
  memcg:
    rig: fs_stack
    with: {cgroup: limited}
    shortage: {memcg: {cgroup: limited, limit: 8M}}
steps: files_short
expect:
  clauses: [equivalent, filesystem_consistent, reusable]
"""

STACK = """\
title: A loop device over a sparse file on tmpfs
params: {tmpfs_size: 64M, device_size: 8M, loop_dio: "off"}
layers:
  - tmpfs: {name: back, size: "${tmpfs_size}"}
  - file: {name: image, on: back, size: "${device_size}"}
  - loop: {name: device, on: image, direct_io: "${loop_dio}"}
"""

FS_STACK = """\
title: A filesystem on a loop device
params: {fs: ext4, quota: "off", padded: "off"}
layers:
  - tmpfs: {name: back, size: 64M}
  - file: {name: pad, on: back, size: 300K, allocate: true, when: {padded: "on"}}
  - file: {name: image, on: back, size: 32M}
  - loop: {name: device, on: image}
  - fs: {name: fs, on: device, type: "${fs}", when: {quota: "off"}}
  - fs: {name: fs, on: device, type: "${fs}", quota: ["${quota}"], when: {quota: [user, group]}}
"""

FILES_SHORT = """\
title: Files to exhaustion, relief, a check and reading back
params: {count: 40, cgroup: ""}
steps:
  - files: {as: control, role: control, directory: control, size: 500K, count: 1, generation: 1}
  - impose: {as: impose}
  - files: {as: fill, role: provoke, cgroup: "${cgroup}", directory: fill, size: 500K,
            count: "${count}", generation: 2}
  - relieve: {as: relieve}
  - unmount: {as: unmount, role: recover}
  - check: {as: check, role: recover}
  - mount: {as: mount, role: recover}
  - verify_files: {as: read, role: observe}
"""

TREE = {
    "cases/loop/write_full.yaml": CASE,
    "cases/files/files_whole.yaml": FILES_CASE,
    "fixtures/rigs/stack.yaml": STACK,
    "fixtures/rigs/fs_stack.yaml": FS_STACK,
    "fixtures/procedures/files_short.yaml": FILES_SHORT,
}

NAMES = {
    "case": "cases/loop/write_full.yaml",
    "files": "cases/files/files_whole.yaml",
    "stack": "fixtures/rigs/stack.yaml",
    "fs_stack": "fixtures/rigs/fs_stack.yaml",
    "procedure": "fixtures/procedures/files_short.yaml",
}
"""What the edits call the files."""

Edit = tuple[str, str, str]
"""(which file, the text in it, what takes its place)"""


def plant(root: Path, *edits: Edit) -> str:
    """Write the library to ``root`` with the edits made.

    The marked place is the answer, as ``file:line:column``; nothing if no edit marks one.
    """
    tree = dict(TREE)
    for which, old, new in edits:
        name = NAMES[which]
        assert tree[name].count(old) == 1, f"{old!r} is {tree[name].count(old)} times in {name}"
        tree[name] = tree[name].replace(old, new)
    place = ""
    for name, text in tree.items():
        if MARK in text:
            before = text[: text.index(MARK)]
            line = before.count("\n") + 1
            place = f"{name}:{line}:{len(before) - before.rfind(chr(10))}"
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(MARK, ""))
    return place


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """Edits that make the library wrong, and what must be told."""

    title: str
    told: str
    edits: tuple[Edit, ...]


def read_wrong(path: Path) -> list[Wrong]:
    """The blocks of a file of wrong libraries; its head says how they are written."""
    found: list[Wrong] = []
    for block in re.split(r"\n\n+", re.sub(r"(?m)^#.*\n", "", path.read_text()).strip()):
        title, told, *lines = block.split("\n")
        edits = []
        for line in lines:
            which, _, change = line.removeprefix("  ").partition(" | ")
            old, _, new = change.partition(" =>")
            edits.append((which, _unescaped(old), _unescaped(new.removeprefix(" "))))
        found.append(Wrong(title=title[1:-1], told=told, edits=tuple(edits)))
    return found


def _unescaped(text: str) -> str:
    return text.replace("\\n", "\n").replace("\\t", "\t").replace("\\a", "\a")
