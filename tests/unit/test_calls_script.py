"""The text of a script, and what is wrong with one."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from conformance.model import Call, Calls, as_json
from conformance.model.calls import wrong_with


def step(script: object) -> Calls:
    return Calls.model_validate(
        {
            "as": "some",
            "role": "control",
            "verb": "calls",
            "length": "64K",
            "generation": 1,
            "script": script,
        }
    )


def test_a_script_is_calls_with_their_descriptors() -> None:
    text = "open a direct_dsync; dup a b; write b 4K 8K dsync; store a; fsync a; sync; close b;"
    found = step(text)
    assert found.script == (
        Call(do="open", fd="a", how=("direct", "dsync")),
        Call(do="dup", fd="a", to="b"),
        Call(do="write", fd="b", how=("dsync",), offset=4096, length=8192),
        Call(do="store", fd="a"),
        Call(do="fsync", fd="a"),
        Call(do="sync"),
        Call(do="close", fd="b"),
    )
    assert [str(call) for call in found.script[:3]] == [
        "open a direct dsync",
        "dup a b",
        "write b dsync",
    ]


def test_a_script_survives_the_wire() -> None:
    found = step("open a plain; write a plain; fsync a")
    assert step(as_json(found)["script"]) == found


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("", "at least 1"),
        ("read a", "no call 'read'"),
        ("open", "needs the name of a descriptor"),
        ("dup a", "of a descriptor and of another"),
        ("open a quick", "open takes no 'quick'"),
        ("fsync a dsync", "fsync takes no 'dsync'"),
        ("write a 4K", "write takes no '4K'"),
        ("sync a", "sync takes no 'a'"),
        ("open A", "pattern"),
        ("write a 4K much", "not a size"),
    ],
)
def test_what_is_no_script_is_refused(script: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        step(script)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("open a; write a; fsync a", ""),
        ("open a; dup a b; close a; open a; write b; close b", ""),
        ("write a", "write a: 'a' is not open"),
        ("open a; close a; fsync a", "fsync a: 'a' is not open"),
        ("open a; open a", "open a: 'a' is open already"),
        ("open a; dup a a", "dup a a: 'a' is open already"),
        ("open a; fork b c", "fork b c: 'b' is not open"),
        ("open a; fsync a; evict", "nothing is written"),
    ],
)
def test_a_script_uses_descriptors_that_are_open(script: str, message: str) -> None:
    assert wrong_with(step(script).script) == message
