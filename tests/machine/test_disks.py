"""The helper behind a short file, when it does not do its part: what is told, and that nothing is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conformance.machine import disks, own_tmpfs
from conformance.machine.disks import ShortFile

_SENDS = """
import os, socket, sys
with socket.socket(fileno=0) as ours:
    file = os.open({place!r}, os.O_RDWR)
    socket.send_fds(ours, [b"file\\n"], [file])
    orders = ours.makefile("r")
    for line in orders:
        {then}
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of the helper."""
    program = tmp_path / "helper.py"
    monkeypatch.setattr(own_tmpfs, "__file__", str(program))
    return program


def sending(helper: Path, then: str) -> None:
    file = helper.with_name("file")
    file.touch()
    helper.write_text(_SENDS.format(place=str(file), then=then))


def test_what_keeps_a_helper_from_it_is_one_line(helper: Path) -> None:
    helper.write_text(
        "import sys; sys.stderr.write('noise\\nunshare: not permitted\\n'); sys.exit(1)"
    )
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="^unshare: not permitted$"):
        ShortFile(1 << 20)
    assert set(os.listdir("/proc/self/fd")) == before
    told = disks.lacks()
    assert told.endswith("on this host: unshare: not permitted")
    assert "\n" not in told


def test_a_helper_that_says_nothing_is_told_of_by_its_status(helper: Path) -> None:
    helper.write_text("import sys; sys.exit(3)")
    with pytest.raises(OSError, match="its helper ended with status 3"):
        ShortFile(1 << 20)


def test_a_size_that_is_refused_is_told(helper: Path) -> None:
    sending(helper, 'ours.sendall(b"no size of that: busy\\n")')
    file = ShortFile(1 << 43)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="no size of that: busy"):
        file.squeeze(4096)
    assert file.reading().room is None
    file.close()
    assert set(os.listdir("/proc/self/fd")) < before


def test_a_helper_that_is_gone_is_told(helper: Path) -> None:
    sending(helper, "sys.exit(0)")
    file = ShortFile(1 << 43)
    with pytest.raises(OSError, match="the helper of the disk's file is gone"):
        file.squeeze(4096)
    file.close()
