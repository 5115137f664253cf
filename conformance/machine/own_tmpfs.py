"""A program of its own: makes a tmpfs that nobody else sees, with a file on it, and changes its size.

``python -I -S own_tmpfs.py BYTES`` with a Unix socket as its standard input. It sends the file's
descriptor; after that it reads sizes, in lines, and answers each with a line: nothing, or what went wrong.
The tmpfs is mounted in a mount namespace of the program's own (and a user namespace, where it may not
mount otherwise), so nothing is mounted on the host. It ends with the socket; once the file is closed too,
all is gone. What goes wrong before is one line on standard error, with exit status 1.

Not part of the importing program: a namespace is a process's, and a process with threads cannot enter
a user namespace (unshare(2), EINVAL).
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from pathlib import Path

PLACE = "/tmp"  # noqa: S108 - covered by the new mount before anything is opened there
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_NOSUID = 2
_MS_NODEV = 4
_MS_NOEXEC = 8
_MS_REMOUNT = 32
_MS_REC = 0x4000
_MS_PRIVATE = 1 << 18
_SAFE = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC


def main() -> int:
    """Do it; the exit status."""
    try:
        _enter()
        _mount("tmpfs", PLACE, "tmpfs", _SAFE, f"size={int(sys.argv[1])},mode=0700")
        file = os.open(PLACE, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
        return 1
    with socket.socket(fileno=0) as ours:
        socket.send_fds(ours, [b"file\n"], [file])
        os.close(file)
        with ours.makefile("r", encoding="ascii") as orders:
            for line in orders:
                ours.sendall(f"{_resize(int(line))}\n".encode())
    return 0


def _resize(size: int) -> str:
    """Give the tmpfs another size; what went wrong, or nothing."""
    try:
        _mount("tmpfs", PLACE, "tmpfs", _MS_REMOUNT | _SAFE, f"size={size}")
    except OSError as error:
        return f"no size of {size} bytes: {error.strerror}"
    return ""


def _enter() -> None:
    """Leave the host's namespaces. Raises OSError."""
    user, group = os.getuid(), os.getgid()
    # Who lacks CAP_SYS_ADMIN, root in a container among others, has it in a user namespace of his own.
    if _libc.unshare(_CLONE_NEWNS) != 0:
        _checked("unshare", _libc.unshare(_CLONE_NEWNS | _CLONE_NEWUSER))
        # Who is mapped to nobody cannot make a file. No groups may be dropped: user_namespaces(7).
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {user} 1")
        _write("/proc/self/gid_map", f"0 {group} 1")
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None) -> None:
    words = [None if word is None else word.encode() for word in (source, target, kind, data)]
    result = _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    _checked(f"mount of {kind or target}", result)


def _checked(what: str, result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def _write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="ascii")


_libc = ctypes.CDLL(None, use_errno=True)

if __name__ == "__main__":
    sys.exit(main())
