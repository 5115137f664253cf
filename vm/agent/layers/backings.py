"""Filesystems over another mounted layer: overlayfs, FUSE by bindfs, NFS by a server in the guest."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Mapping

from agent import kernel
from agent.basics import Json, RigError, one_line, read_text
from agent.layers.base import Fact, Layer, Site, mounts_at
from agent.processes import Child, Output, fork_exec

_NFSD = "/proc/fs/nfsd"
_NFSD_THREADS = 4
_NFS_PORT = 2049
_NFS_STATE = ("/var/lib/nfs/v4recovery", "/run/rpc_pipefs")
_GRACE = 10
"""Seconds of the server's grace period, the least that it takes; it is ended at once."""
_MOUNTD_LIMIT = 20.0
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_IFREQ = struct.Struct("16sH14x")


class OverMounted(Layer):
    """What they have in common: ``path`` is a mount point, ``source`` a directory of the layer below."""

    def __init__(self, spec: Json, rig: Mapping[str, Layer], site: Site) -> None:
        super().__init__(spec, rig, site)
        self.source = ""

    def _places(self) -> None:
        self.path = self.site.directory(self.name)
        self.source = f"{self.base().path}/{self.name}.d"
        try:
            os.makedirs(self.source)
        except OSError as error:
            raise RigError(f"cannot make the directory for {self.name}: {error}") from error

    def down(self) -> list[Json]:
        """Take it away."""
        if not self.mounted:
            return []
        command = self.site.run(["umount", self.path], 60)
        self.mounted = mounts_at(self.path)
        return [command]

    def facts(self) -> dict[str, Fact]:
        """What is in force."""
        room = os.statvfs(self.path)
        return {
            "path": self.path,
            "size": room.f_blocks * room.f_frsize,
            "options": mounted_with(self.path),
        }

    def left(self) -> list[str]:
        """What is still there of it."""
        return [f"mount {self.path}"] if self.path and mounts_at(self.path) else []


class Overlay(OverMounted):
    """The upper and the work directory are on the layer below; the lower one is empty."""

    def up(self) -> None:
        """Make it."""
        self._places()
        lower = self.site.directory(f"{self.name}.lower")
        upper, work = f"{self.source}/upper", f"{self.source}/work"
        os.mkdir(upper)
        os.mkdir(work)
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        try:
            kernel.mount("rig", self.path, "overlay", 0, options)
        except OSError as error:
            raise RigError(str(error)) from error
        self.mounted = True


class Bindfs(OverMounted):
    """The server is bindfs, which goes when its filesystem is unmounted."""

    def up(self) -> None:
        """Make it."""
        self._places()
        if not os.path.exists("/sys/module/fuse"):
            self.site.must(["modprobe", "fuse"])
        self.site.must(["bindfs", self.source, self.path])
        self.mounted = mounts_at(self.path)
        if not self.mounted:
            raise RigError(f"bindfs did not mount {self.path}")


class Nfs(OverMounted):
    """The server is the guest's own kernel with rpc.mountd; there is one such layer in a rig.

    NFSv4 alone needs neither rpcbind nor statd.
    """

    _mountd: Child | None = None

    def up(self) -> None:
        """Make it."""
        self._places()
        loopback_up()
        self.site.must(["modprobe", "nfsd"])
        self._serve()
        # Hard, as by default: an error is the server's and never a timeout's.
        words = ["-o", "vers=4.2,proto=tcp,hard", "127.0.0.1:/"]
        self.site.must(["mount", "-t", "nfs4", *words, self.path], 60)
        self.mounted = True

    def _serve(self) -> None:
        for directory in _NFS_STATE:
            os.makedirs(directory, exist_ok=True)
        try:
            if not mounts_at(_NFSD):
                kernel.mount("nfsd", _NFSD, "nfsd", 0, "")
            # Of a server that runs already neither can be set.
            for name in ("nfsv4gracetime", "nfsv4leasetime"):
                _tell(name, str(_GRACE))
            _tell("versions", "-2 -3 +4 +4.1 +4.2")
            self._export()
            with socket.create_server(("127.0.0.1", _NFS_PORT)) as listening:
                _tell("portlist", str(listening.fileno()))
            _tell("threads", str(_NFSD_THREADS))
            self._end_grace()
        except OSError as error:
            raise RigError(f"the NFS server does not come up: {error}") from error

    def _end_grace(self) -> None:
        """There is no client from before that might reclaim anything."""
        try:
            _tell("v4_end_grace", "Y")
        except OSError as error:
            # A kernel that keeps no record of clients (CONFIG_NFSD_LEGACY_CLIENT_TRACKING is off)
            # refuses; the first file that is opened waits for the end then.
            if error.errno != errno.EBUSY:
                raise

    def _export(self) -> None:
        words = ["rpc.mountd", "-F", "--no-nfs-version", "2", "--no-nfs-version", "3"]
        output = Output()
        self._mountd = fork_exec(words, output.fd)
        # fsid: a tmpfs has no device that could identify it. sync: the server answers a COMMIT when
        # the filesystem below has.
        options = "rw,no_root_squash,sync,fsid=0,no_subtree_check,insecure"
        self.site.must(["exportfs", "-i", "-o", options, f"127.0.0.1:{self.source}"])
        # It answers the kernel's questions from the moment that it has this file open.
        if not self.site.poll(self._answers, _MOUNTD_LIMIT):
            raise RigError(f"rpc.mountd does not come up: {one_line(output.take())}")

    def _answers(self) -> bool:
        if self._mountd is None or self._mountd.look():
            return False
        folder = f"/proc/{self._mountd.pid}/fd"
        try:
            targets = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
        except OSError:
            return False
        return any(target.endswith("nfsd.export/channel") for target in targets)

    def down(self) -> list[Json]:
        """Take it away: first the client, then the server with all that it has open."""
        commands = super().down()
        if self._mountd is None:
            return commands
        commands.append(self.site.run(["exportfs", "-ua"]))
        try:
            _tell("threads", "0")
        except OSError as error:
            commands.append(
                {"argv": ["threads", "0"], "ended": {"exit_code": 1}, "output": one_line(error)}
            )
        commands.append(self.site.run(["exportfs", "-f"]))
        self._mountd.kill(tick=self.site.tick)
        self._mountd = None
        return commands

    def left(self) -> list[str]:
        """What is still there of it."""
        running = read_text(f"{_NFSD}/threads", "0") != "0"
        return [*super().left(), *(["nfsd"] if running else [])]


def _tell(name: str, text: str) -> None:
    """Write a control file of nfsd's. Raises OSError."""
    fd = os.open(f"{_NFSD}/{name}", os.O_WRONLY)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)


def loopback_up() -> None:
    """Bring the interface ``lo`` up, as ip(8) would. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name, flags = _IFREQ.unpack(fcntl.ioctl(any_socket, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0)))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, _IFREQ.pack(name, flags | _IFF_UP))


def mounted_with(path: str) -> str:
    """The options of the filesystem that is mounted at ``path``."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.split()
            if words[4] == path:
                return words[-1]
    return ""
