"""What is refused before a run: a kernel that is no good, or a host on which none would do."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.bench import engine
from conformance.engine import Setup
from conformance.exits import HostLacks, Refused
from conformance.machine.kernel import KernelError
from conformance.machine.protocol import LaunchFailed
from conformance.machine.tool import NoSpaceError, ToolError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KernelError("no kernel x"), Refused),
        (LaunchFailed("it did not boot"), Refused),
        (ToolError("mkfs.erofs is not installed"), HostLacks),
        (NoSpaceError("the disk is full"), HostLacks),
        (OSError("no such file"), HostLacks),
    ],
)
def test_a_kernel_s_fault_is_told_from_the_host_s(
    error: Exception, kind: type[Refused], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setenv("CONFORM_CACHE", str(tmp_path))
    monkeypatch.setattr("conformance.bench.prepare_boot", fails)
    with pytest.raises(Refused) as refused:
        engine(Setup()).prepare("debian/trixie", lambda _: None)
    assert type(refused.value) is kind
    assert str(refused.value) == str(error)
