"""Saboteurs: each deviates in one way, in a real guest, from a kernel that conforms but for it.

Two kinds. A server of the suite's own that lies is a value of its layer's ``behaviour``; the cases beside
this module have those. All others are shell scripts that the guest runs before or after a step, of
which neither case, plan, record nor judge know (``machine.py``). What a saboteur violates is said
here from the norm, clause by clause, and never from what a run showed.

Menders, which are the reverse, are in ``menders.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from conformance.model import Clause

BOOKWORM: Final = "debian/bookworm"
TRIXIE: Final = "debian/trixie"


@dataclass(frozen=True, kw_only=True)
class Act:
    """A script that runs right before, or right after, a step. ``{layer}`` is that layer's path.

    It runs as a child of the agent, as root, in the root cgroup; what it leaves in the background
    stays. ``rewrite``: the module of tests/module/rewrite.c is loaded first, in this mode.
    """

    step: str
    script: str = ""
    after: bool = False
    rewrite: str = ""


@dataclass(frozen=True, kw_only=True)
class Saboteur:
    """Who deviates, how, in which variant; and what the judge must say, and nothing else.

    ``clauses`` are those that it violates, at the level ``must`` or, in ``should``, below it. ``first``
    is the one that the report's first line names. ``broken`` are words of the reason for which there must
    be no verdict. ``mends``: clauses that the kernel alone violates in this variant, and that hold with
    it; the verdict is PASS. ``conforming``: with the loop.ko that meets the norm (tests/module), which is
    6.1's. ``only``: why it is not on all kernels that ``kernels`` could name.
    """

    name: str
    does: str
    variant: str
    kernels: tuple[str, ...] = (BOOKWORM, TRIXIE)
    only: str = ""
    acts: tuple[Act, ...] = ()
    clauses: frozenset[Clause] = frozenset()
    should: frozenset[Clause] = frozenset()
    first: Clause | None = None
    broken: str = ""
    mends: frozenset[Clause] = frozenset()
    conforming: bool = False
    why: str = ""


_UBLK: Final = "bookworm's kernel has no ublk"
_CONFORMING: Final = "the loop.ko of tests/module is made of 6.1's"

LOOP: Final = "loop_enospc_tmpfs_full[direct-off]"
MEMCG: Final = "loop_enospc_memcg_limit[direct-off]"
FS: Final = "fs_on_loop_fsynced_files[xfs]"
LINEAR: Final = "stack_full[linear-direct]"

# A child of the agent that was not there before is the writer of the step that follows ($PPID is the
# agent). It is caught when it has written so many bytes. Builtins only: a fork takes too long.
_CATCH_WRITER: Final = r"""
agent=$PPID
known=" $(tr -s ' ' <"/proc/$agent/task/$agent/children") $$ "
export agent known
setsid sh -c '
  while :; do
    read -r children <"/proc/$agent/task/$agent/children"
    for pid in $children; do
      case "$known" in *" $pid "*) continue ;; esac
      while read -r key count; do
        case "$key" in write_bytes:) [ "$count" -gt BYTES ] && kill -SIGNAL "$pid" && exit ;; esac
      done <"/proc/$pid/io"
    done
  done' >/dev/null 2>&1 </dev/null &
"""


# The device mapper's own means to lie: for the time of a step the device has another table.
_RELOAD: Final = (
    'dmsetup reload device --table "$table" && dmsetup suspend device && dmsetup resume device'
)
_OTHER_TABLE: Final = f"""
dmsetup table device >/tmp/honest
read -r start length _ below at </tmp/honest
table="TABLE"
{_RELOAD}
"""
_HONEST_TABLE: Final = f"table=$(cat /tmp/honest); {_RELOAD}"


def _table(text: str, step: str) -> tuple[Act, ...]:
    """Another table for one step: ``$start``, ``$length``, ``$below``, ``$at`` are the honest one's."""
    return (
        Act(step=step, script=_OTHER_TABLE.replace("TABLE", text)),
        Act(step=step, script=_HONEST_TABLE, after=True),
    )


_TAINT: Final = "a module of ours taints the kernel, which is told too"


SPACE: Final = 3 << 20
"""Bytes that there is space for. Whoever submitted more waits for a late server's answer."""


def _caught(signal: str, after: int) -> str:
    """A script that sends the next writer a signal once it has written more than so many bytes."""
    return _CATCH_WRITER.replace("SIGNAL", signal).replace("BYTES", str(after))


_KILL_BYSTANDER: Final = "kill -9 $(pgrep -o -P $PPID)"
_WARNING: Final = (
    "echo '<4>WARNING: CPU: 0 PID: 24 at fs/buffer.c:1125 mark_buffer_dirty+0xd8/0xe0' >/dev/kmsg"
)

# In Python, since a loss must fall between two syncs of a few milliseconds.
_LOSE_ON: Final = """
cat >/tmp/loser.py <<'END'
import os
fd = os.open("{subject}", os.O_WRONLY)
while True:
    os.pwrite(fd, b"x" * 4096, 900 * 4096)
    try:
        os.fsync(fd)
    except OSError:
        pass
END
setsid python3 /tmp/loser.py >/dev/null 2>&1 </dev/null &
echo $! >/tmp/loser
sleep 1
"""

SABOTEURS: Final = (
    Saboteur(
        name="nobody (nbd)",
        does="an honest nbd server",
        variant="planted_nbd_server[honest]",
    ),
    Saboteur(
        name="ack and drop (nbd)",
        does="the server says that it stored what it had no space for",
        variant="planted_nbd_server[ack_and_drop]",
        clauses=frozenset({Clause.ERROR_SURFACED, Clause.ACKNOWLEDGED_READABLE}),
        first=Clause.ERROR_SURFACED,
        why="a write that is not stored and not told of is not there when it is read: one fault, two clauses",
    ),
    Saboteur(
        name="torn write (nbd)",
        does="the server stores all but the last block of a request, and says that it stored all",
        variant="planted_nbd_server[tear]",
        clauses=frozenset({Clause.ERROR_SURFACED, Clause.ACKNOWLEDGED_READABLE}),
        first=Clause.ERROR_SURFACED,
        why="as above, for a block of each request",
    ),
    Saboteur(
        name="corrupt read (nbd)",
        does="one byte of each block is wrong whenever it is read",
        variant="planted_nbd_server[corrupt_read]",
        clauses=frozenset({Clause.ACKNOWLEDGED_READABLE, Clause.NO_FOREIGN_DATA}),
        first=Clause.ACKNOWLEDGED_READABLE,
        why="data that nobody wrote stands where acknowledged data stood, and where nothing did",
    ),
    Saboteur(
        name="no answer (nbd)",
        does="the server does not answer a request that it has no space for",
        variant="planted_nbd_server[never_answer]",
        clauses=frozenset({Clause.BOUNDED}),
        first=Clause.BOUNDED,
    ),
    Saboteur(
        name="late answer (nbd)",
        does="the server answers with its error three seconds late",
        variant="planted_nbd_server[late]",
        why="late is not wrong",
    ),
    Saboteur(
        name="nobody (ublk)",
        does="an honest ublk server",
        variant="planted_ublk_server[honest]",
        kernels=(TRIXIE,),
        only=_UBLK,
    ),
    Saboteur(
        name="wrong errno (ublk)",
        does="the server names EPERM where it has no space",
        variant="planted_ublk_server[wrong_errno]",
        kernels=(TRIXIE,),
        only=_UBLK,
        should=frozenset({Clause.ERRNO_PRECISE}),
        first=Clause.ERRNO_PRECISE,
    ),
    Saboteur(
        name="ack and drop (ublk)",
        does="the server says that it stored what it had no space for",
        variant="planted_ublk_server[ack_and_drop]",
        kernels=(TRIXIE,),
        only=_UBLK,
        clauses=frozenset({Clause.ERROR_SURFACED, Clause.ACKNOWLEDGED_READABLE}),
        first=Clause.ERROR_SURFACED,
    ),
    Saboteur(
        name="nobody (virtio_blk)",
        does="QEMU reports what the host cannot store",
        variant="planted_machine_disk[virtio_blk-report]",
    ),
    Saboteur(
        name="a host that ignores errors (virtio_blk)",
        does="QEMU says that it stored what the host had no space for (werror=ignore)",
        variant="planted_machine_disk[virtio_blk-ignore]",
        clauses=frozenset({Clause.ERROR_SURFACED, Clause.ACKNOWLEDGED_READABLE}),
        first=Clause.ERROR_SURFACED,
        why="as with a server that acknowledges and drops",
    ),
    Saboteur(
        name="nobody (virtio_scsi)",
        does="QEMU reports what the host cannot store",
        variant="planted_machine_disk[virtio_scsi-report]",
    ),
    Saboteur(
        name="a host that ignores errors (virtio_scsi)",
        does="QEMU says that it stored what the host had no space for (werror=ignore)",
        variant="planted_machine_disk[virtio_scsi-ignore]",
        clauses=frozenset({Clause.ERROR_SURFACED, Clause.ACKNOWLEDGED_READABLE}),
        first=Clause.ERROR_SURFACED,
        why="as with a server that acknowledges and drops",
    ),
    Saboteur(
        name="nobody (loop)",
        does="the kernel alone",
        variant=LOOP,
        kernels=(TRIXIE,),
        only="6.1's loop driver makes EIO of every error, which is an advisory (errno_precise)",
    ),
    Saboteur(
        name="the writer is killed",
        does="SIGKILL to the writer while it meets the shortage",
        variant="planted_nbd_server[late]",
        acts=(Act(step="fill", script=_caught("KILL", SPACE - 1)),),
        clauses=frozenset({Clause.SUBMITTER_SURVIVES}),
        first=Clause.SUBMITTER_SURVIVES,
    ),
    Saboteur(
        name="a bystander is killed",
        does="SIGKILL to a process that has nothing to do with the device",
        variant=LOOP,
        acts=(Act(step="fill", script=_KILL_BYSTANDER, after=True),),
        clauses=frozenset({Clause.BYSTANDERS_UNHARMED}),
        first=Clause.BYSTANDERS_UNHARMED,
    ),
    Saboteur(
        name="a kernel warning",
        does="the kernel log has a warning in it, while the device is short",
        variant=LOOP,
        acts=(Act(step="fill", script=_WARNING, after=True),),
        clauses=frozenset({Clause.KERNEL_SOUND}),
        first=Clause.KERNEL_SOUND,
    ),
    Saboteur(
        name="the relief is eaten",
        does="somebody else's file takes what was given, at once",
        variant=LOOP,
        acts=(
            Act(
                step="relieve",
                after=True,
                script="fallocate -l $(df --output=avail -B1 {back} | tail -1) {back}/eaten",
            ),
        ),
        broken="relieved too little",
        why="where there was no relief, nothing is known of what a kernel does after it",
    ),
    Saboteur(
        name="no write after relief",
        does="the device is set read-only for the first write after relief",
        variant=LOOP,
        acts=(
            Act(step="again", script="blockdev --setro {device}"),
            Act(step="again", script="blockdev --setrw {device}", after=True),
        ),
        clauses=frozenset({Clause.REUSABLE}),
        first=Clause.REUSABLE,
    ),
    Saboteur(
        name="the device cannot be let go of",
        does="a process keeps the device open when all is over",
        variant=LOOP,
        acts=(
            Act(
                step="read_reattached",
                after=True,
                script="setsid sh -c 'exec 3<{device}; sleep 600' >/dev/null 2>&1 </dev/null &\nsleep 0.3",
            ),
        ),
        clauses=frozenset({Clause.NOTHING_LEAKED}),
        first=Clause.NOTHING_LEAKED,
    ),
    Saboteur(
        name="space is lost",
        does="a file that nobody has a name for keeps space of the tmpfs when all is over",
        variant=LOOP,
        acts=(
            Act(
                step="read_reattached",
                after=True,
                script="setsid sh -c 'exec 3<>{back}/lost; rm {back}/lost; "
                "dd if=/dev/zero of=/proc/self/fd/3 bs=1M count=2; sleep 600' "
                ">/dev/null 2>&1 </dev/null &\nsleep 0.5",
            ),
        ),
        clauses=frozenset({Clause.NOTHING_LEAKED}),
        first=Clause.NOTHING_LEAKED,
    ),
    Saboteur(
        name="what has space is read-only",
        does="the device is set read-only while what has space is overwritten",
        variant=LOOP,
        acts=(
            Act(step="overwrite", script="blockdev --setro {device}"),
            Act(step="overwrite", script="blockdev --setrw {device}", after=True),
        ),
        clauses=frozenset({Clause.OVERWRITE_IN_PLACE}),
        should=frozenset({Clause.ERRNO_PRECISE}),
        first=Clause.OVERWRITE_IN_PLACE,
        why="EPERM is what no shortage is called",
    ),
    Saboteur(
        name="acknowledged blocks are overwritten",
        does="a process writes zeros over what was acknowledged",
        variant=LOOP,
        acts=(
            Act(
                step="relieve",
                after=True,
                script="dd if=/dev/zero of={device} bs=64k seek=32 count=1 oflag=direct conv=fsync",
            ),
        ),
        clauses=frozenset({Clause.ACKNOWLEDGED_READABLE}),
        first=Clause.ACKNOWLEDGED_READABLE,
    ),
    Saboteur(
        name="foreign data",
        does="a process writes where nobody of the case ever wrote",
        variant=LOOP,
        acts=(
            Act(
                step="relieve",
                after=True,
                script="head -c 65536 /dev/urandom | "
                "dd of={device} bs=64k seek=152 count=1 iflag=fullblock oflag=direct conv=fsync",
            ),
        ),
        clauses=frozenset({Clause.NO_FOREIGN_DATA}),
        first=Clause.NO_FOREIGN_DATA,
    ),
    Saboteur(
        name="the writer is stopped",
        does="SIGSTOP to the writer, and nobody lets it go on",
        variant="planted_nbd_server[late]",
        acts=(Act(step="fill", script=_caught("STOP", SPACE - 1)),),
        clauses=frozenset({Clause.BOUNDED}),
        first=Clause.BOUNDED,
    ),
    Saboteur(
        name="a filesystem that is not consistent",
        does="the count of free blocks in the superblock is off by eight after it was unmounted",
        variant=FS,
        acts=(
            Act(
                step="check",
                script="free=$(xfs_db -r -c 'sb 0' -c 'print fdblocks' {device} | cut -d' ' -f3)\n"
                'xfs_db -x -c "sb 0" -c "write fdblocks $((free + 8))" {device}',
            ),
        ),
        clauses=frozenset({Clause.FILESYSTEM_CONSISTENT}),
        first=Clause.FILESYSTEM_CONSISTENT,
    ),
    Saboteur(
        name="more than there is (nbd)",
        does="the server stores what is beyond its limit, and says so",
        variant="planted_nbd_server[overcommit]",
        clauses=frozenset({Clause.LIMIT_ENFORCED}),
        first=Clause.LIMIT_ENFORCED,
    ),
    Saboteur(
        name="nobody (equivalence)",
        does="two honest servers",
        variant="planted_equivalence[honest]",
    ),
    Saboteur(
        name="one of two tells nobody",
        does="of two servers that run short, one says that it stored all",
        variant="planted_equivalence[ack_and_drop]",
        clauses=frozenset({Clause.EQUIVALENT, Clause.ERROR_SURFACED, Clause.ACKNOWLEDGED_READABLE}),
        first=Clause.ERROR_SURFACED,
        why="the loss itself is a fault too, with or without a device to compare with",
    ),
    Saboteur(
        name="nobody (a loop.ko that fails the allocation)",
        does="a loop driver in which a charge that fails becomes ENOSPC",
        variant=MEMCG,
        conforming=True,
        kernels=(BOOKWORM,),
        only=_CONFORMING,
    ),
    Saboteur(
        name="the OOM killer",
        does="Debian's own loop driver, whose worker invokes the OOM killer",
        variant=MEMCG,
        clauses=frozenset({Clause.NO_OOM_KILL, Clause.SUBMITTER_SURVIVES}),
        first=Clause.NO_OOM_KILL,
        why="the writer is whom it kills",
    ),
    Saboteur(
        name="no wait for what would resolve it",
        does="the pool's queue is turned off, so that a write fails that somebody is about to make room for",
        variant="thin_queue_extended[direct]",
        acts=(
            Act(
                step="fill",
                script="set -- $(dmsetup table pool)\n"
                "dmsetup reload pool --table "
                '"$1 $2 $3 $4 $5 $6 $7 1 error_if_no_space" && dmsetup suspend --noflush pool '
                "&& dmsetup resume pool",
            ),
        ),
        clauses=frozenset({Clause.RESOLVED_BY_WAITING}),
        first=Clause.RESOLVED_BY_WAITING,
    ),
    Saboteur(
        name="a neighbour has to wait",
        does="a device that is not short is suspended for ten seconds",
        variant="thin_neighbour_goes_on[direct-true]",
        acts=(
            Act(
                step="fill",
                script="setsid sh -c 'sleep 1; dmsetup suspend other_device; sleep 9; "
                "dmsetup resume other_device' >/dev/null 2>&1 </dev/null &",
            ),
        ),
        clauses=frozenset({Clause.INDEPENDENT_PROGRESS}),
        first=Clause.INDEPENDENT_PROGRESS,
    ),
    Saboteur(
        name="a loss is reported anew",
        does="somebody else goes on losing writes on the same device",
        variant="planted_syncs",
        acts=(
            Act(
                step="lose",
                script=_LOSE_ON,
            ),
            Act(step="lose", script="kill $(cat /tmp/loser)", after=True),
        ),
        clauses=frozenset({Clause.REPORTED_ONCE}),
        first=Clause.REPORTED_ONCE,
    ),
    Saboteur(
        name="an error for who has space",
        does="the device is set read-only while a cgroup writes that is not short",
        # By O_DIRECT: through the page cache an error of the first writer's is told late, and the kernel
        # does by itself what is planted here.
        variant="loop_reuse_from_another_cgroup[direct]",
        conforming=True,
        kernels=(BOOKWORM,),
        only=_CONFORMING,
        acts=(
            Act(step="new_space_other", script="blockdev --setro {device}"),
            Act(step="new_space_other", script="blockdev --setrw {device}", after=True),
        ),
        clauses=frozenset({Clause.ATTRIBUTED}),
        first=Clause.ATTRIBUTED,
    ),
    Saboteur(
        name="nobody (dm-linear)",
        does="dm-linear over a thin device",
        variant=LINEAR,
    ),
    Saboteur(
        name="dm-flakey, drop_writes",
        does="dm-flakey says of overwrites that they were stored, and drops them",
        variant=LINEAR,
        acts=_table("$start $length flakey $below $at 0 3600 1 drop_writes", "overwrite"),
        clauses=frozenset(
            {Clause.ERROR_SURFACED, Clause.ACKNOWLEDGED_READABLE, Clause.OVERWRITE_IN_PLACE}
        ),
        first=Clause.ERROR_SURFACED,
        why="the old content stands where the new was acknowledged, which is what an overwrite is not to do",
    ),
    Saboteur(
        name="dm-flakey, error_writes",
        does="dm-flakey fails writes to blocks that have their space",
        variant=LINEAR,
        acts=_table("$start $length flakey $below $at 0 3600 1 error_writes", "overwrite"),
        clauses=frozenset({Clause.OVERWRITE_IN_PLACE}),
        should=frozenset({Clause.ERRNO_PRECISE}),
        first=Clause.OVERWRITE_IN_PLACE,
        why="EIO is not what this device calls a shortage",
    ),
    Saboteur(
        name="dm-flakey, corrupt_bio_byte",
        does="dm-flakey changes a byte of each read, the last time that the device is read",
        variant=LINEAR,
        acts=_table(
            "$start $length flakey $below $at 0 3600 5 corrupt_bio_byte 32 r 1 0", "read_reattached"
        ),
        clauses=frozenset({Clause.ACKNOWLEDGED_READABLE, Clause.NO_FOREIGN_DATA}),
        first=Clause.ACKNOWLEDGED_READABLE,
        why="as with the server that corrupts what is read",
    ),
    Saboteur(
        name="dm-error",
        does="the device is dm-error for the first write after relief",
        variant=LINEAR,
        acts=_table("$start $length error", "again"),
        clauses=frozenset({Clause.REUSABLE}),
        first=Clause.REUSABLE,
    ),
    Saboteur(
        name="dm-delay",
        does="dm-delay holds each overwrite back for 300 ms",
        variant=LINEAR,
        acts=_table("$start $length delay $below $at 0 $below $at 300", "overwrite"),
        why="late is not wrong",
    ),
    Saboteur(
        name="success in place of an error (kprobe)",
        does="a failed write of a loop device is completed as done, in the kernel",
        variant=LOOP,
        acts=(Act(step="fill", rewrite="success"),),
        clauses=frozenset(
            {Clause.ERROR_SURFACED, Clause.ACKNOWLEDGED_READABLE, Clause.KERNEL_SOUND}
        ),
        first=Clause.ERROR_SURFACED,
        why=_TAINT,
    ),
    Saboteur(
        name="another error (kprobe)",
        does="a failed write of a loop device is completed as timed out, in the kernel",
        variant=LOOP,
        acts=(Act(step="fill", rewrite="other"),),
        clauses=frozenset({Clause.KERNEL_SOUND}),
        should=frozenset({Clause.ERRNO_PRECISE}),
        first=Clause.KERNEL_SOUND,
        why=f"ETIMEDOUT in place of the kernel's own EIO; {_TAINT}",
    ),
    Saboteur(
        name="no end (kprobe)",
        does="a failed write of a loop device is never completed, in the kernel",
        variant=LOOP,
        acts=(Act(step="fill", rewrite="never"),),
        clauses=frozenset(
            {Clause.BOUNDED, Clause.REUSABLE, Clause.NOTHING_LEAKED, Clause.KERNEL_SOUND}
        ),
        first=Clause.BOUNDED,
        why=f"a device with a request that never ends is not detached; {_TAINT}",
    ),
    Saboteur(
        name="a warning (kprobe)",
        does="the kernel warns when a write of a loop device fails",
        variant=LOOP,
        acts=(Act(step="fill", rewrite="warn"),),
        clauses=frozenset({Clause.KERNEL_SOUND}),
        first=Clause.KERNEL_SOUND,
    ),
)
"""One row of the table each."""
