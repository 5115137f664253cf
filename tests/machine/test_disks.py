"""The helper behind a short file, when it does not do its part: what is told, and that nothing is left."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
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


MIB = 1 << 20
# All that the helper imports comes first: whoever it becomes need not be able to read it.
_BECOMES = """
import codecs, ctypes, os, socket, sys
from pathlib import Path
codecs.lookup("ascii")
_prctl = ctypes.CDLL(None).prctl
if os.getuid() == 0:
    {how}
"""
NOBODY = """
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    _prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: as who never was root, it owns its files in /proc
"""
MAY_NOT_MOUNT = """
    caps = (ctypes.c_uint32 * 6)()
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    libc = ctypes.CDLL(None)
    libc.capget(header, caps)
    for word in (0, 1):  # effective and permitted, without CAP_SYS_ADMIN
        caps[word] &= ~(1 << 21)
    assert libc.capset(header, caps) == 0
"""


def fill(file: int) -> tuple[int, int | None]:
    """Bytes that it took, and the error that ended it."""
    taken = 0
    try:
        while taken < 8 * MIB:
            taken += os.pwrite(file, bytes(65536), taken)
    except OSError as error:
        return taken, error.errno
    return taken, None


def as_who(how: str, program: str) -> list[str]:
    """A command that becomes somebody else, and then runs a program's text."""
    text = _BECOMES.format(how=how.strip()) + program.replace("from __future__", "#")
    return [sys.executable, "-I", "-S", "-c", text, str(MIB)]


@pytest.mark.parametrize("how", [NOBODY, MAY_NOT_MOUNT], ids=["nobody", "root-in-a-container"])
def test_who_may_not_mount_has_a_tmpfs_in_a_user_namespace(how: str) -> None:
    """Where such a namespace is refused to him, he is told in one line."""
    tried = "sys.exit(ctypes.CDLL(None).unshare(0x10020000) != 0)  # CLONE_NEWUSER | CLONE_NEWNS"
    allowed = subprocess.run(as_who(how, tried), check=False).returncode == 0
    with contextlib.ExitStack() as stack:
        ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
        ours.settimeout(30)
        helper = subprocess.Popen(
            as_who(how, Path(own_tmpfs.__file__).read_text()),
            stdin=theirs.fileno(),
            stderr=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(helper)
        stack.callback(helper.kill)
        theirs.close()
        _, files, _, _ = socket.recv_fds(ours, 64, 1)
        assert bool(files) == allowed
        if not files:
            assert helper.communicate()[1].count("\n") == 1
            assert helper.returncode == 1
            return
        (file,) = files
        stack.callback(os.close, file)
        assert fill(file) == (MIB, errno.ENOSPC)
        ours.sendall(f"{4 * MIB}\n".encode())
        assert ours.recv(64) == b"\n"
        assert fill(file) == (4 * MIB, errno.ENOSPC)
        ours.close()
        _, complaint = helper.communicate(timeout=30)
        assert (helper.returncode, complaint) == (0, "")
