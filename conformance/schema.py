"""The case language as JSON Schema, for editors, and as a page, for people.

``python -m conformance.schema`` writes both; a test asserts that they are fresh. They are made from
the same models that check the cases. What a schema cannot say, the loader checks: which layers
there are, what a ``${name}`` stands for, the order of steps.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from conformance.model import (
    ArmSpec,
    Bystander,
    BystanderIo,
    Case,
    Clause,
    Detach,
    Expect,
    Kill,
    Level,
    Norm,
    Procedure,
    Requirement,
    Rig,
    Role,
    Submit,
    Value,
    parse_size,
)
from conformance.model.calls import parse_script
from conformance.parts import LAYERS, SHORTAGES, STEPS

FILES: Mapping[str, type[Value]] = {
    "cases/case.schema.json": Case,
    "fixtures/rig.schema.json": Rig,
    "fixtures/procedure.schema.json": Procedure,
}
"""Where each schema is kept, relative to the checkout."""
PAGE = "docs/case-language.md"

Json = dict[str, Any]

_SIZE: Json = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+[KMGT]?$"}]
}
_FILLED: Json = {
    "description": "a matrix axis or a parameter",
    "type": "string",
    "pattern": "\\$\\{[a-z][a-z0-9_]*\\}",
}
_SCALAR: Json = {"type": ["string", "number", "boolean"]}
_WHEN: Json = {
    "description": "only for these values; any of a list",
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR}]},
}


_IS_SIZE = "is-size"
"""Stands in generated schemas until a reference to the definition takes its place."""


class _Generator(GenerateJsonSchema):
    """pydantic's generator, which also knows that a size may be written with a unit."""

    def function_before_schema(
        self, schema: core_schema.BeforeValidatorFunctionSchema
    ) -> JsonSchemaValue:
        if schema["function"]["function"] is parse_size:
            return {_IS_SIZE: True}
        if schema["function"]["function"] is parse_script:
            return {"type": "string"}
        return super().function_before_schema(schema)


# -- JSON Schema --------------------------------------------------------------------------------


def schema_for(model: type[Value]) -> Json:
    """The schema of a file: of a ``Case``, a ``Rig`` or a ``Procedure``."""
    schema = _generated(model)
    defs: Json = schema.pop("$defs", {})
    defs |= {"Size": _SIZE, "Filled": _FILLED}
    for kind, words, field in (
        ("layer", LAYERS, "layer"),
        ("shortage", SHORTAGES, "kind"),
        ("step", STEPS, "verb"),
    ):
        defs[kind] = {
            "description": f"a {kind}: one word, and its values",
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": False,
            "properties": {word: {"$ref": f"#/$defs/{kind}.{word}"} for word in words},
        }
        for word, part in words.items():
            defs[f"{kind}.{word}"] = _part(part, field, defs, conditional=kind != "shortage")
    defs["bystander"] = _part(Bystander, "", defs, conditional=False)
    properties = schema["properties"]
    steps = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/step"}}
    if model is Case:
        for holder in (properties, defs["ArmSpec"]["properties"]):
            holder["shortage"] = {"$ref": "#/$defs/shortage"}
        properties["bystanders"] = {"type": "array", "items": {"$ref": "#/$defs/bystander"}}
        properties["cgroups"]["items"] = _filled(properties["cgroups"]["items"])
        for axis in properties["matrix"]["patternProperties"].values():
            axis |= {"minItems": 2, "uniqueItems": True}
        for branch in properties["requires"]["items"]["anyOf"]:
            if branch.get("type") == "string":
                branch["pattern"] = defs["Requirement"]["properties"]["need"]["pattern"]
        properties["steps"] = {"anyOf": [{"type": "string", "pattern": "^[a-z0-9_]+$"}, steps]}
    elif model is Rig:
        properties["layers"]["items"] = {"$ref": "#/$defs/layer"}
    else:
        properties["steps"] = steps
    used = _referenced(schema, defs)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "description": _first_line(model),
        **schema,
        "$defs": {name: defs[name] for name in sorted(used)},
    }


def _generated(model: type[Value]) -> Json:
    """What pydantic makes of a model, tidied; the caller's own copy."""
    return copy.deepcopy(_generated_once(model))


@functools.cache
def _generated_once(model: type[Value]) -> Json:
    schema = TypeAdapter(model).json_schema(by_alias=True, schema_generator=_Generator)
    tidied = _tidied(schema)
    assert isinstance(tidied, dict)
    return tidied


def _tidied(node: object, *, named: bool = False) -> object:
    """Sizes by reference; no titles that pydantic made of names (a property called title stays)."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidied = {
        key: _tidied(item, named=key in ("properties", "$defs", "patternProperties"))
        for key, item in node.items()
        if named or key not in ("title", _IS_SIZE)
    }
    return {"$ref": "#/$defs/Size", **tidied} if _IS_SIZE in node else tidied


def _part(part: type[Value], field: str, defs: Json, *, conditional: bool) -> Json:
    """What stands after a part's word: its fields, each of which may be a ``${name}``."""
    schema = _generated(part)
    for name, inner in schema.pop("$defs", {}).items():
        defs[name] = _fillable(inner)
    properties: Json = {k: v for k, v in schema["properties"].items() if k != field}
    if conditional:
        properties["when"] = _WHEN
    required = [name for name in schema.get("required", []) if name != field]
    return {
        "description": _first_line(part),
        **_fillable({"type": "object", "additionalProperties": False, "properties": properties}),
        **({"required": required} if required else {}),
    }


def _fillable(schema: Json) -> Json:
    """An object's schema with each property fillable; what is no object is as it was."""
    if "properties" not in schema:
        return schema
    properties = {
        name: inner if name == "when" else _filled(inner)
        for name, inner in schema["properties"].items()
    }
    return {**schema, "properties": properties}


def _filled(schema: Json) -> Json:
    """The same, or a text with a ``${name}`` in it."""
    schema = dict(schema)
    about: Json = {key: schema.pop(key) for key in ("description", "default") if key in schema}
    if "items" in schema:
        schema["items"] = _filled(schema["items"])
    return {**about, "anyOf": [schema, {"$ref": "#/$defs/Filled"}]}


def _referenced(node: object, defs: Json) -> set[str]:
    """The names of all definitions that ``node`` needs, however indirectly."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        match waiting.pop():
            case list() as items:
                waiting.extend(items)
            case dict() as items:
                name = str(items.get("$ref", "")).removeprefix("#/$defs/")
                if name and name not in found:
                    found.add(name)
                    waiting.append(defs[name])
                waiting.extend(items.values())
    return found


# -- the page -----------------------------------------------------------------------------------

_MEANINGS: Mapping[tuple[str, str], str] = {
    ("Case", "title"): "one behaviour, in the indicative",
    ("Case", "level"): "only a `must` that does not hold is a FAIL; a `survey` claims nothing",
    ("Case", "claims"): "the claims of [the norm](norm.md) that it covers",
    ("Case", "norm"): "where the norm stands",
    ("Case", "rig"): "a rig, by its name in fixtures/rigs/",
    ("Case", "requires"): "what the kernel or the guest must have, besides what the parts imply",
    ("Case", "cgroups"): "cgroups that are made, parents first",
    ("Case", "bystanders"): "processes that must not pay; one called `outsider` is always there",
    ("Case", "shortage"): "what runs short; `{none: {}}` if nothing does",
    ("Case", "arms"): "causes that are compared, each in a guest of its own",
    ("Case", "matrix"): "axes with two values or more; a variant for each cell",
    ("Case", "steps"): "a list of steps, or a procedure by its name in fixtures/procedures/",
    ("Case", "expect"): "what the case itself claims",
    ("Case", "notes"): "what a reader of a finding should know",
    ("Norm", "source"): "a manual page, or `lkml:`, `linux:`, `posix:` or `https:` and where",
    ("Norm", "section"): "where in the source",
    ("Norm", "quote"): "at most two lines of it",
    (
        "Requirement",
        "need",
    ): "`module:`, `controller:`, `fs:`, `tool:`, `probe:` or `host:` and a name",
    ("Expect", "clauses"): "the clauses that are the case's own; the starred ones always hold",
    ("ArmSpec", "rig"): "in place of the case's",
    ("ArmSpec", "with"): "over the case's",
    ("ArmSpec", "shortage"): "in place of the case's",
    ("Rig", "title"): "what it is",
    ("Rig", "params"): "parameters with their defaults",
    ("Rig", "layers"): "bottom first",
    ("Procedure", "title"): "what it does",
    ("Procedure", "params"): "parameters with their defaults",
    ("Procedure", "steps"): "in order",
    ("SubvolumeLayer", "on"): "a btrfs",
    ("Inodes", "layer"): "whose inodes are taken",
    ("Qgroup", "layer"): "the subvolume",
    ("Qgroup", "limit"): "bytes",
    ("FsLayer", "on"): "a block layer",
    ("FsLayer", "type"): "the filesystem",
    ("FileLayer", "on"): "a mounted layer",
    ("FileLayer", "size"): "its length; sparse, unless `allocate`",
    ("LoopLayer", "on"): "a file or a block layer",
    ("SwapLayer", "on"): "a block layer",
    ("TmpfsSize", "layer"): "a tmpfs",
    ("TmpfsSize", "size"): "what it is remounted to",
    ("MemoryLimit", "cgroup"): "one of the case's",
    ("QuotaLimit", "layer"): "a filesystem made with this quota",
    ("QuotaLimit", "type"): "whose id",
    ("QuotaLimit", "id"): "the id; the file layer's `owner` or `project`",
    ("Quota", "limit"): "the hard block limit",
    ("Hog", "layer"): "a mounted layer",
    ("Bystander", "name"): "what findings call it",
    ("Bystander", "io"): "what it writes, if it does",
    ("BystanderIo", "target"): "a block layer",
    ("BystanderIo", "offset"): "where its region begins",
    ("BystanderIo", "length"): "how long it is",
    ("BystanderIo", "request"): "bytes of one write",
    ("BystanderIo", "submit"): "how it writes",
    ("Write", "target"): "a block layer or a file",
    ("Write", "cgroup"): "whose process writes; empty: the root cgroup",
    ("Write", "submit"): "how the write reaches the kernel",
    ("Write", "offset"): "where the region begins",
    ("Write", "length"): "how long it is",
    ("Write", "request"): "bytes of one request",
    ("Write", "after_error"): "what the writer does after its first error",
    ("Write", "kill"): "the rig's own SIGKILL, which is no finding",
    ("Write", "detach"): "the device is detached meanwhile (the ledger's ways)",
    ("Verify", "target"): "a block layer or a file",
    ("Verify", "offset"): "where the region begins",
    ("Verify", "length"): "how long it is",
    ("Verify", "drop_caches"): "read from the device, not from the page cache",
    ("Calls", "target"): "a block layer or a file",
    ("Calls", "offset"): "where the region that it writes begins",
    ("Calls", "length"): "how long the region is",
    ("Run", "cgroup"): "whose process runs it; empty: the root cgroup",
    ("Run", "argv"): "the words of the command; no shell",
    ("Files", "target"): "a mounted layer",
    ("Files", "cgroup"): "whose process writes; empty: the root cgroup",
    ("Files", "directory"): "below the layer; it is made",
    ("Files", "size"): "bytes of each file",
    ("RangeOp", "target"): "a block layer",
    ("RangeOp", "cgroup"): "whose process asks for it; empty: the root cgroup",
    ("RangeOp", "op"): "which call",
    ("RangeOp", "offset"): "where the range begins",
    ("RangeOp", "length"): "how long it is",
    ("Truncate", "target"): "a file",
    ("Truncate", "size"): "what it is cut to",
    ("Files", "count"): "files at most",
    ("Files", "generation"): "kept in every block that it writes",
    ("Metadata", "target"): "a mounted layer",
    ("Metadata", "cgroup"): "whose process works; empty: the root cgroup",
    ("Metadata", "directory"): "below the layer; it is made",
    ("VerifyFiles", "target"): "a mounted layer",
    ("VerifyFiles", "drop_caches"): "read from the device, not from the page cache",
    ("Unmount", "target"): "a filesystem",
    ("Mount", "target"): "a filesystem",
    ("Check", "target"): "a filesystem",
    ("Trim", "target"): "a filesystem",
    ("Trim", "directory"): "below the layer; what a step `files` made",
    ("Mkfs", "target"): "a filesystem",
    ("Reattach", "target"): "a loop device",
    ("Snapshot", "target"): "a snapshot",
    ("KillKeeper", "target"): "a loop device with a keeper",
    ("RemoveCgroup", "cgroup"): "one of the case's, without children",
    ("Step", "role"): "what the step is for, which decides how it is judged",
}
"""What fields mean that the models do not describe themselves."""

_HEAD = """\
# The case language

Made by `python -m conformance.schema` from the models that check the cases; do not edit.

A case is `cases/<family>/<id>.yaml`. A rig is `fixtures/rigs/<name>.yaml`, a procedure
`fixtures/procedures/<name>.yaml`. Editors take the schemas: `cases/case.schema.json`,
`fixtures/rig.schema.json`, `fixtures/procedure.schema.json`.

- The YAML is narrow: `on`, `off`, `yes` and `no` are text, a key occurs once, there are no tags.
  An unknown key is an error, and so is a value of the wrong type.
- A *size* is a number of bytes, or a number with `K`, `M`, `G` or `T` (binary units). Offsets,
  lengths and requests are multiples of 4096.
- `${name}` stands for a matrix axis or a parameter, in rigs, steps, shortages, bystanders, cgroups
  and `with`. Alone in its string it keeps the value's type; within text it becomes text.
- A value comes from the first of these that has it: the matrix, the arm's `with`, the case's
  `with`, the procedure's `params`, the rig's `params`.
- A layer or a step with `when: {name: value}` is there only for that value, or any of a list.
- Steps come in this order: control, `impose`, provoke and overwrite, `relieve`, recover; reuse
  comes anywhere after `impose`. What was written is read back at the end.
- A process lives in the root cgroup, or in one that has no children (cgroup v2).
"""


def reference_page() -> str:
    """docs/case-language.md."""
    parts = [_HEAD, "## Files\n"]
    for title, model in (
        ("A case", Case),
        ("`norm`", Norm),
        ("`requires`, in its long form", Requirement),
        ("`arms`", ArmSpec),
        ("`expect`", Expect),
        ("A rig", Rig),
        ("A procedure", Procedure),
    ):
        parts.append(_section(title, model, ""))
    for title, words, field, common in (
        ("Layers", LAYERS, "layer", ("name",)),
        ("Shortages", SHORTAGES, "kind", ()),
        ("Steps", STEPS, "verb", ("as", "limit")),
    ):
        parts.append(f"## {title}\n")
        if common:
            first = next(iter(words.values()))
            parts.append("Each of them has:\n\n" + _table(first, common))
        for word, part in words.items():
            parts.append(_section(f"`{word}`", part, field, common))
    parts.append("## Bystanders\n")
    parts.append(_section("A bystander", Bystander, ""))
    parts.append(_section("`io` of a bystander", BystanderIo, ""))
    parts.append("## Further\n")
    parts.append(_section("`kill` of a write", Kill, ""))
    parts.append(_section("`detach` of a write", Detach, ""))
    parts.append("### Words\n\nWhat `level`, `role`, `submit` and `clause` above stand for.\n")
    parts.append("| word | one of |\n|---|---|")
    for words_of in (Level, Role, Submit, Clause):
        values = ", ".join(f"`{word.value}`" for word in words_of)
        parts.append(f"| {words_of.__name__.lower()} | {values} |")
    return "\n".join(parts) + "\n"


def _section(title: str, model: type[Value], field: str, common: tuple[str, ...] = ()) -> str:
    left = (field, *common)
    fields = [name for name in _fields(model) if name not in left]
    table = _table(model, fields) if fields else ""
    about = re.sub(r"\S+/<\S+\.yaml", r"`\g<0>`", _first_paragraph(model)).replace("``", "`")
    return f"### {title}\n\n{about}\n" + (f"\n{table}" if table else "")


def _fields(model: type[Value]) -> Json:
    properties = _generated(model)["properties"]
    assert isinstance(properties, dict)
    return properties


def _table(model: type[Value], names: Sequence[str]) -> str:
    required = _generated(model).get("required", [])
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, schema in _fields(model).items():
        if name in names:
            default = "needed" if name in required else _default(schema.get("default"))
            cells = (f"`{name}`", _kind(schema), default, meaning(model, name))
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def meaning(model: type[Value], name: str) -> str:
    """What a field means: by its own description, or by what is kept of it here.

    Raises KeyError if nobody has said what it means.
    """
    described = _fields(model)[name].get("description")
    if described:
        return str(described)
    for holder in model.__mro__:
        if (holder.__name__, name) in _MEANINGS:
            return _MEANINGS[holder.__name__, name]
    raise KeyError(f"{model.__name__}.{name} has no description")


def _default(value: object) -> str:
    if value in (None, "", [], {}) or isinstance(value, dict):
        return ""
    return f"`{json.dumps(value) if not isinstance(value, str) else value}`"


_TYPES = {
    "string": "text",
    "boolean": "true or false",
    "object": "mapping",
    "integer": "integer",
    "number": "number",
}


def _kind(schema: Json) -> str:
    """A schema in a few words."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        kinds = [_kind(branch) for branch in schema["anyOf"] if branch.get("type") != "null"]
        scalar = ["text", "integer", "number", "true or false"]
        return "scalar" if kinds == scalar else " or ".join(dict.fromkeys(kinds))
    if schema.get("type") == "array":
        return f"list of: {_kind(schema['items'])}"
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix("#/$defs/").lower()
    return _TYPES[schema["type"]]


def _first_paragraph(model: type[Value]) -> str:
    return " ".join((model.__doc__ or "").strip().partition("\n\n")[0].split())


def _first_line(model: type[Value]) -> str:
    return _first_paragraph(model).replace("``", "")


# -- writing ------------------------------------------------------------------------------------


def documents() -> dict[str, str]:
    """Every file that is made here, by its path in the checkout."""
    made = {path: json.dumps(schema_for(model), indent=2) + "\n" for path, model in FILES.items()}
    return {**made, PAGE: reference_page()}


def main(root: Path) -> None:
    """Write all of them. Raises OSError."""
    for path, text in documents().items():
        (root / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(__file__).resolve().parent.parent)
