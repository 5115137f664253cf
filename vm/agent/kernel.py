"""System calls and ioctls that the standard library does not have.

Every function raises OSError with the call's errno.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import signal
import stat
import struct
import uuid

_libc = ctypes.CDLL(None, use_errno=True)

MCL_CURRENT = 1
MCL_FUTURE = 2
MCL_ONFAULT = 4
MS_REMOUNT = 32

QUOTA_TYPES = {"user": 0, "group": 1, "project": 2}
_Q_GETQUOTA = 0x800007
_Q_SETQUOTA = 0x800008
_QIF_BLIMITS = 1
_QIF_ILIMITS = 4
_QUOTACTL_FD = 443
# struct if_dqblk of linux/quota.h: 8 words of 64 bits and one of 32. Limits count in KiB, space in
# bytes. XFS answers these calls too: the generic layer translates for it.
_DQBLK = struct.Struct("=8QI4x")

_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
_FSXATTR = struct.Struct("=5I8x")
_FS_XFLAG_PROJINHERIT = 0x200

_BTRFS_FS_INFO = struct.Struct("=QQ16s992x")
_BTRFS_IOC_FS_INFO = 0x8400941F
_BTRFS_INO_LOOKUP = struct.Struct("=QQ4080x")
_BTRFS_IOC_INO_LOOKUP = 0xD0009412
_BTRFS_ROOT = 256
"""include/uapi/linux/btrfs.h; BTRFS_FIRST_FREE_OBJECTID is the inode of a subvolume's root."""

_LOOP_CTL_ADD = 0x4C80
_LOOP_CTL_REMOVE = 0x4C81
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_MAJOR = 7
_BLKGETSIZE64 = 0x80081272
_BLKDISCARD = 0x1277
_BLKZEROOUT = 0x127F
"""include/uapi/linux/fs.h: _IO(0x12, 119) and _IO(0x12, 127)."""
_BLKRESETZONE = 0x40101283
"""include/uapi/linux/blkzoned.h: _IOW(0x12, 131, struct blk_zone_range), which counts in sectors."""
_SECTOR = 512
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE, _WRITE_ZEROES = 0x01, 0x02, 0x10, 0x80
RANGE_MODES = {
    "allocate": 0,
    "zero_range": _ZERO_RANGE,
    "punch_hole": _PUNCH_HOLE | _KEEP_SIZE,
    "write_zeroes": _WRITE_ZEROES,
}
"""Modes of fallocate(2), include/uapi/linux/falloc.h."""

_IO_URING_SETUP = 425
_SEGMENTS = 128
_HUGE = 2 << 20
_MAP_HUGETLB = 0x40000
"""include/uapi/asm-generic/mman-common.h; the default size of a huge page on x86 is 2 MiB."""
_PR_SET_PDEATHSIG = 1
_PR_SET_THP_DISABLE = 41


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def mlockall(flags: int) -> None:
    """Touch and lock all memory: private writable pages become the process's own."""
    _checked(_libc.mlockall(ctypes.c_int(flags)), "mlockall")


def same(one: int, other: int, size: int) -> bool:
    """Whether so many bytes at two addresses are the same. Allocates no memory for it."""
    left, right = ctypes.c_void_p(one), ctypes.c_void_p(other)
    return bool(_libc.memcmp(left, right, ctypes.c_size_t(size)) == 0)


def address(memory: mmap.mmap) -> int:
    """Where a mapping begins, which from then on cannot be closed."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def no_huge_pages() -> None:
    """No transparent huge pages for this process.

    khugepaged would collapse its pages into a huge one, and charge that to the cgroup that the
    process has entered meanwhile: 2 MiB that it never asked for.
    """
    _checked(
        _libc.prctl(ctypes.c_int(_PR_SET_THP_DISABLE), *map(ctypes.c_ulong, (1, 0, 0, 0))),
        "prctl(PR_SET_THP_DISABLE)",
    )


def contiguous_memory(size: int) -> mmap.mmap:
    """Private memory of ``size`` bytes, in huge pages where one of 4 KiB each might be split.

    A bio has at most 256 segments (BIO_MAX_VECS, include/linux/bio.h) and a request as many as its
    queue takes, 128 by default (BLK_MAX_SEGMENTS, include/linux/blkdev.h): a longer request from
    pages that do not lie side by side is split, and that depends on what else used the memory
    before. Huge pages come from a pool that is reserved at boot, and are charged to no cgroup. Where
    there is no such pool, these are ordinary pages.
    """
    if size > _SEGMENTS * mmap.PAGESIZE:
        whole = -(-size // _HUGE) * _HUGE
        with contextlib.suppress(OSError):
            return mmap.mmap(-1, whole, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_HUGETLB)
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE)


def die_with_parent() -> None:
    """SIGKILL for this process when its parent is gone."""
    words = map(ctypes.c_ulong, (signal.SIGKILL, 0, 0, 0))
    _checked(_libc.prctl(ctypes.c_int(_PR_SET_PDEATHSIG), *words), "prctl(PR_SET_PDEATHSIG)")


def mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    """A system call for filesystems whose mounting cannot block: tmpfs, cgroup2."""
    words = [os.fsencode(word) for word in (source, target, kind)]
    call = _libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(data))
    _checked(call, f"mount {kind} on {target}")


def umount(target: str) -> None:
    """Unmount by umount2(2), without flags."""
    _checked(_libc.umount2(os.fsencode(target), ctypes.c_int(0)), f"umount {target}")


def syncfs(fd: int) -> None:
    """Write back the filesystem that an open file lies on; errors since it was opened are told."""
    _checked(_libc.syncfs(ctypes.c_int(fd)), "syncfs")


_WHOLE_RANGE = 1 | 2 | 4
"""SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE and _WAIT_AFTER."""


def sync_file_range(fd: int) -> None:
    """Write a whole file back and wait for it: the one use of the call that could keep data safe."""
    words = ctypes.c_int(fd), ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(_WHOLE_RANGE)
    _checked(_libc.sync_file_range(*words), "sync_file_range")


def _quotactl(
    command: int,
    kind: str,
    device: str,
    ident: int,
    data: ctypes.Array[ctypes.c_char],
) -> None:
    word = ctypes.c_int(((command << 8) | QUOTA_TYPES[kind]) & 0xFFFFFFFF)
    if not os.path.isdir(device):
        _checked(_libc.quotactl(word, os.fsencode(device), ctypes.c_int(ident), data), "quotactl")
        return
    fd = os.open(device, os.O_RDONLY | os.O_DIRECTORY)
    try:
        number = ctypes.c_long(_QUOTACTL_FD)
        call = _libc.syscall(number, ctypes.c_int(fd), word, ctypes.c_int(ident), data)
        _checked(call, "quotactl_fd")
    finally:
        os.close(fd)


def quota_read(device: str, kind: str, ident: int, *, inodes: bool = False) -> tuple[int, int]:
    """(used, hard limit or 0 for none) of one id on a mounted filesystem, in bytes or in inodes.

    ``device`` may be a mount point instead, for filesystems without a device: quotactl_fd(2), since
    Linux 5.14. An id that the filesystem has no record of uses nothing and has no limit.
    """
    data = ctypes.create_string_buffer(_DQBLK.size)
    try:
        _quotactl(_Q_GETQUOTA, kind, device, ident, data)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return 0, 0
        raise
    words = _DQBLK.unpack(data.raw)
    return (words[5], words[3]) if inodes else (words[2], words[0] * 1024)


def quota_limit(device: str, kind: str, ident: int, limit: int, *, inodes: bool = False) -> None:
    """Set a hard limit of one id, in bytes (whole KiB) or in inodes; 0 takes the limit away."""
    kib = limit // 1024
    packed = _DQBLK.pack(kib, kib, 0, 0, 0, 0, 0, 0, _QIF_BLIMITS)
    if inodes:
        packed = _DQBLK.pack(0, 0, 0, limit, limit, 0, 0, 0, _QIF_ILIMITS)
    _quotactl(_Q_SETQUOTA, kind, device, ident, ctypes.create_string_buffer(packed, len(packed)))


def set_project(path: str, project: int, *, inherit: bool = False) -> None:
    """Give a file or directory a project id, and of a directory to what is made in it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        words = list(_FSXATTR.unpack(fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size))))
        words[3] = project
        words[0] |= _FS_XFLAG_PROJINHERIT if inherit else 0
        fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, _FSXATTR.pack(*words))
    finally:
        os.close(fd)


def btrfs_subvolume(path: str) -> tuple[str, int]:
    """(UUID of the filesystem, id of the subvolume) of a directory on btrfs."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        info = fcntl.ioctl(fd, _BTRFS_IOC_FS_INFO, bytes(_BTRFS_FS_INFO.size))
        # Too long for an ioctl with immutable bytes.
        asked = bytearray(_BTRFS_INO_LOOKUP.pack(0, _BTRFS_ROOT))
        fcntl.ioctl(fd, _BTRFS_IOC_INO_LOOKUP, asked)
        number = int(_BTRFS_INO_LOOKUP.unpack(asked)[0])
    finally:
        os.close(fd)
    return str(uuid.UUID(bytes=_BTRFS_FS_INFO.unpack(info)[2])), number


def free_loop() -> int:
    """The number of a loop device that is not in use; its node exists afterwards.

    There is no udev in the guest. devtmpfs makes the node as a rule; where it does not, this does.
    """
    fd = os.open("/dev/loop-control", os.O_RDWR)
    try:
        number = fcntl.ioctl(fd, _LOOP_CTL_GET_FREE)
    finally:
        os.close(fd)
    _loop_node(number)
    return number


def _loop_node(number: int) -> None:
    node = f"/dev/loop{number}"
    if not os.path.exists(node):
        os.mknod(node, stat.S_IFBLK | 0o660, os.makedev(_LOOP_MAJOR, number))


def remove_loop(number: int) -> None:
    """Remove a loop device that is not in use, with its node."""
    _control_loop(_LOOP_CTL_REMOVE, number)


def add_loop(number: int) -> None:
    """Make a loop device of this number, and its node."""
    _control_loop(_LOOP_CTL_ADD, number)
    _loop_node(number)


def _control_loop(request: int, number: int) -> None:
    fd = os.open("/dev/loop-control", os.O_RDWR)
    try:
        fcntl.ioctl(fd, request, number)
    finally:
        os.close(fd)


def device_size(path: str) -> int:
    """Bytes of a block device."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return int(struct.unpack("=Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))[0])
    finally:
        os.close(fd)


def range_op(fd: int, op: str, offset: int, length: int) -> None:
    """A call on a range of an open block device: one of the case language's words for it."""
    if op in RANGE_MODES:
        # posix_fallocate(3) writes where there is no such call.
        words = ctypes.c_int(RANGE_MODES[op]), ctypes.c_int64(offset), ctypes.c_int64(length)
        _checked(_libc.fallocate64(ctypes.c_int(fd), *words), f"fallocate {op}")
        return
    if op == "zone_reset":
        fcntl.ioctl(fd, _BLKRESETZONE, struct.pack("=QQ", offset // _SECTOR, length // _SECTOR))
        return
    request = {"discard": _BLKDISCARD, "zeroout": _BLKZEROOUT}[op]
    fcntl.ioctl(fd, request, struct.pack("=QQ", offset, length))


def io_uring_works() -> str:
    """Nothing if io_uring_setup(2) works, else why not."""
    params = ctypes.create_string_buffer(120)
    fd = _libc.syscall(ctypes.c_long(_IO_URING_SETUP), ctypes.c_uint(2), params)
    if fd >= 0:
        os.close(fd)
        return ""
    return f"io_uring_setup(2): {os.strerror(ctypes.get_errno())}"
