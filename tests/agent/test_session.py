"""The guest's session: what it leaves for the host when a rig cannot be built."""

from __future__ import annotations

from pathlib import Path

import pytest
from agent import session
from agent.basics import RigError
from agent.watchers import blocked


@pytest.mark.parametrize(("unkillable", "told"), [([object()], ["told"]), ([], [])])
def test_a_rig_that_hangs_has_the_kernel_list_what_is_blocked(
    monkeypatch: pytest.MonkeyPatch, unkillable: list[object], told: list[str]
) -> None:
    lists: list[str] = []

    def fail(*_: object) -> None:
        raise RigError("mkfs hangs")

    monkeypatch.setattr("agent.session.Rig.build", fail)
    monkeypatch.setattr(session, "UNKILLABLE", unkillable)
    monkeypatch.setattr(blocked, "tell", lambda: lists.append("told"))
    with pytest.raises(RigError, match="mkfs hangs"):
        session.Session().build({})
    assert lists == told


def test_the_list_is_asked_for_by_sysrq(tmp_path: Path) -> None:
    trigger = tmp_path / "sysrq-trigger"
    blocked.tell(str(trigger))
    assert trigger.read_text() == "w"
    blocked.tell(str(tmp_path / "no" / "such"))
