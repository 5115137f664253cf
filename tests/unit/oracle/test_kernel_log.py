"""What the judge reads in a kernel log: the wording is that of kernels 5.10 to 7.3."""

from __future__ import annotations

import pytest

from conformance.oracle.kernel_log import clean, fault, invocations, taints

KWORKER = """\
[  123.456789] kworker/u2:1 invoked oom-killer: gfp_mask=0xc00(GFP_NOIO), order=0, oom_score_adj=0
[  123.456790] CPU: 0 PID: 24 Comm: kworker/u2:1 Not tainted 6.1.0-56-cloud-amd64 #1  Debian
[  123.456791] Workqueue: loop0 loop_workfn [loop]
[  123.456792] Call Trace:
[  123.456793]  <TASK>
[  123.456794]  dump_stack_lvl+0x44/0x5c
[  123.456795]  mem_cgroup_out_of_memory+0x134/0x150
[  123.456796]  ? shmem_alloc_folio+0x82/0xd0
[  123.456797]  loop_process_work+0x518/0xab0 [loop]
[  123.456798]  kthread+0xda/0x100
[  123.456799]  </TASK>
[  123.456800] memory: usage 8192kB, limit 8192kB, failcnt 22
[  123.456801] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,\
oom_memcg=/case/limited,task_memcg=/case/limited/sibling,task=python3,pid=141,uid=0
[  123.456802] Memory cgroup out of memory: Killed process 141 (python3) total-vm:503544kB, \
anon-rss:14676kB, file-rss:21668kB, shmem-rss:17956kB, UID:0 pgtables:256kB oom_score_adj:0
""".splitlines()

NEWER_KWORKER = """\
kworker/u4:0 invoked oom-killer: gfp_mask=0xc00(GFP_NOIO), order=0, oom_score_adj=0
CPU: 0 UID: 0 PID: 31 Comm: kworker/u4:0 Not tainted 6.12.117+deb13-cloud-amd64 #1 PREEMPT(lazy)
Workqueue: loop0 loop_workfn [loop]
Memory cgroup out of memory: Killed process 143 (python3) total-vm:1kB, anon-rss:1kB
""".splitlines()

SUBMITTER = """\
dd invoked oom-killer: gfp_mask=0x101c00(GFP_NOFS|__GFP_WRITE), order=0, oom_score_adj=0
CPU: 0 PID: 141 Comm: dd Not tainted 6.1.0-56-cloud-amd64 #1  Debian 6.1.192-2
Call Trace:
 mem_cgroup_out_of_memory+0x134/0x150
 __filemap_add_folio+0x3a0/0x4e0
 blkdev_write_iter+0xf3/0x260
 vfs_write+0x239/0x3d0
Memory cgroup out of memory: Killed process 141 (dd) total-vm:3kB, anon-rss:1kB, file-rss:1kB
""".splitlines()

JOURNAL = """\
jbd2/loop0-8 invoked oom-killer: gfp_mask=0xc00(GFP_NOIO), order=0, oom_score_adj=0
CPU: 0 PID: 205 Comm: jbd2/loop0-8 Not tainted 6.1.0 #1
Memory cgroup out of memory: Killed process 9 (python3) total-vm:1kB
""".splitlines()

IO_URING = """\
iou-wrk-141 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
CPU: 0 PID: 144 Comm: iou-wrk-141 Not tainted 6.1.0 #1
Call Trace:
 mem_cgroup_out_of_memory+0x134/0x150
 io_wqe_worker+0x2e8/0x3a0
 ret_from_fork+0x22/0x30
Memory cgroup out of memory: Killed process 141 (fio) total-vm:1kB
""".splitlines()

GLOBAL = """\
python3 invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0
Mem-Info:
oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,\
task_memcg=/,task=python3,pid=77,uid=0
Out of memory: Killed process 77 (python3) total-vm:1kB, anon-rss:1kB, file-rss:0kB
""".splitlines()


def test_a_worker_of_the_loop_device_is_named_with_its_function_and_its_victim() -> None:
    (report,) = invocations(KWORKER)
    assert report.by_kernel_worker
    assert (report.invoker, report.pid, report.gfp) == ("kworker/u2:1", 24, "GFP_NOIO")
    assert report.where == "loop_process_work"
    assert report.constraint == "CONSTRAINT_MEMCG"
    assert report.memcg == "/case/limited"
    assert [(one.pid, one.comm, one.memcg) for one in report.killed] == [
        (141, "python3", "/case/limited/sibling")
    ]
    assert "kworker/u2:1 invoked the OOM killer (GFP_NOIO)" in report.text


def test_frames_that_the_unwinder_doubts_are_no_part_of_the_trace() -> None:
    (report,) = invocations(KWORKER)
    assert "shmem_alloc_folio" not in report.trace


@pytest.mark.parametrize(
    ("log", "by_worker"),
    [
        (KWORKER, True),
        (NEWER_KWORKER, True),
        (JOURNAL, True),
        (SUBMITTER, False),
        (IO_URING, False),
        (GLOBAL, False),
    ],
    ids=["kworker-6.1", "kworker-6.12", "jbd2", "dd-in-write", "io-wq", "global"],
)
def test_a_kernel_worker_is_told_from_a_process(log: list[str], by_worker: bool) -> None:
    (report,) = invocations(log)
    assert report.by_kernel_worker is by_worker
    assert len(report.killed) == 1


def test_two_reports_are_two_and_keep_their_own_victims() -> None:
    first, second = invocations([*KWORKER, "loop0: detected capacity change", *SUBMITTER])
    assert [one.pid for one in first.killed] == [141]
    assert first.by_kernel_worker
    assert second.invoker == "dd"
    assert not second.by_kernel_worker


ANOTHER = "Memory cgroup out of memory: Killed process 142 (sleep)"
GROUP = "Tasks in /case/limited are going to be killed due to memory.oom.group set"


def test_one_report_may_kill_a_group() -> None:
    (report,) = invocations([*KWORKER, GROUP, ANOTHER])
    assert [one.pid for one in report.killed] == [141, 142]


def test_who_is_neither_the_victim_nor_of_its_group_was_killed_for_another_report() -> None:
    """The kernel prints no header when it has printed ten in five seconds."""
    first, second, third = invocations([*KWORKER, ANOTHER, *SUBMITTER])
    assert (first.invoker, [one.pid for one in first.killed]) == ("kworker/u2:1", [141])
    assert (second.invoker, [one.pid for one in second.killed]) == ("", [142])
    assert third.invoker == "dd"


def test_of_a_report_that_names_no_victim_the_first_kill_is_taken_for_its_own() -> None:
    nameless = [line for line in KWORKER if not line.startswith("oom-kill:")]
    first, second = invocations([*nameless, ANOTHER])
    assert ([one.pid for one in first.killed], second.invoker) == ([141], "")
    other = [line.replace("pid=141", "pid=") for line in KWORKER]
    assert [one.pid for one in invocations(other)[0].killed] == [141]


@pytest.mark.parametrize(
    "gap", ["[7014 lines of the kernel log left out]", "[kernel log overrun: lines lost]"]
)
def test_a_report_ends_where_lines_are_missing(gap: str) -> None:
    first, second = invocations([*KWORKER[:-1], gap, KWORKER[-1]])
    assert (first.invoker, first.killed) == ("kworker/u2:1", ())
    assert (second.invoker, [one.pid for one in second.killed]) == ("", [141])
    (whole,) = invocations([*KWORKER[:-1], f"loop0: {gap}", KWORKER[-1]])
    assert len(whole.killed) == 1


def test_a_kill_whose_report_was_rate_limited_stands_alone() -> None:
    (report,) = invocations([KWORKER[-1]])
    assert report.invoker == ""
    assert not report.by_kernel_worker
    assert [one.pid for one in report.killed] == [141]


def test_a_report_without_a_kill_is_a_report() -> None:
    (report,) = invocations(KWORKER[:-1])
    assert report.killed == ()


FAULTS = {
    "WARNING: CPU: 0 PID: 24 at fs/buffer.c:1125 mark_buffer_dirty+0xd8/0xe0": "warning",
    "WARNING: fs/iomap/buffered-io.c:1042 at iomap_write_end+0x1a2/0x2b0, CPU#0: dd/9": "warning",
    "kernel BUG at fs/ext4/inode.c:2721!": "kernel-bug",
    "BUG: kernel NULL pointer dereference, address: 0000000000000008": "bug",
    "BUG: unable to handle page fault for address: ffffb8f0c0a3d000": "bug",
    "Oops: 0000 [#1] PREEMPT SMP NOPTI": "oops",
    "general protection fault, probably for non-canonical address 0xdead: 0000 [#1]": (
        "general-protection-fault"
    ),
    "INFO: task kworker/u2:1:24 blocked for more than 120 seconds.": "hung-task",
    "INFO: task fio:141 blocked in I/O wait for more than 120 seconds.": "hung-task",
    "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [kworker/u2:1:24]": "soft-lockup",
    "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:": "rcu-stall",
    "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 38s!": (
        "workqueue-lockup"
    ),
    "BUG: KASAN: slab-use-after-free in lo_rw_aio_complete+0x4a/0x90 [loop]": "kasan",
    "UBSAN: array-index-out-of-bounds in drivers/block/loop.c:412:18": "ubsan",
    "WARNING: possible circular locking dependency detected": "lockdep",
    "WARNING: inconsistent lock state": "lockdep",
    "INFO: possible recursive locking detected": "lockdep",
    "refcount_t: underflow; use-after-free.": "refcount",
    "list_del corruption. prev->next should be ffff, but was dead": "list-corruption",
    "Kernel panic - not syncing: Fatal exception": "panic",
}


@pytest.mark.parametrize("line", FAULTS)
def test_a_fault_of_the_kernel_s_own_is_known(line: str) -> None:
    for prefix in ("", "[   12.345678] ", "<4>[   12.345678] "):
        found = fault(prefix + line)
        assert found is not None
        assert found.signature.partition(":")[0] == FAULTS[line]


@pytest.mark.parametrize(
    "line",
    [
        "loop0: detected capacity change from 0 to 32768",
        "loop: Write error at byte offset 3145728, length 4096.",
        "I/O error, dev loop0, sector 6144 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 2",
        "blk_update_request: I/O error, dev loop0, sector 6144 op 0x1:(WRITE)",
        "Buffer I/O error on dev loop0, logical block 1, lost async page write",
        "EXT4-fs error (device loop0): ext4_journal_check_start:83: comm python3: aborted journal",
        "EXT4-fs (loop0): Remounting filesystem read-only",
        "EXT4-fs (loop0): This should not happen!! Data will be lost",
        "JBD2: Detected IO errors while flushing file data on loop0-8",
        "XFS (loop0): log I/O error -5",
        "XFS (loop0): Metadata I/O Error (0x1) detected at xfs_buf_ioend. Shutting down filesystem.",
        "BTRFS error (device loop0): bdev /dev/loop0 errs: wr 1, rd 0, flush 0, corrupt 0, gen 0",
        "BTRFS warning (device loop0): lost page write due to IO error on /dev/loop0 (-5)",
        "kworker/u2:1 invoked oom-killer: gfp_mask=0xc00(GFP_NOIO), order=0, oom_score_adj=0",
        "Memory cgroup out of memory: Killed process 141 (python3) total-vm:1kB",
        "oom_reaper: reaped process 141 (fio), now anon-rss:0kB, file-rss:4kB, shmem-rss:17964kB",
        "Command line: console=ttyS0 panic=-1 BUG: WARNING: Oops",
        "systemd[1]: WARNING of a service",
        "random: crng init done",
        "",
    ],
)
def test_what_storage_says_when_it_runs_short_is_no_fault(line: str) -> None:
    assert fault(line) is None


def test_a_signature_is_the_same_in_each_run() -> None:
    one = fault("WARNING: CPU: 0 PID: 24 at fs/buffer.c:1125 mark_buffer_dirty+0xd8/0xe0")
    other = fault("WARNING: CPU: 3 PID: 991 at fs/buffer.c:1131 mark_buffer_dirty+0xd0/0xf0")
    assert one is not None
    assert other is not None
    assert one.signature == other.signature
    first = fault("INFO: task kworker/u2:1:24 blocked for more than 120 seconds.")
    second = fault("INFO: task kworker/u4:0:31 blocked for more than 241 seconds.")
    assert first is not None
    assert second is not None
    assert first.signature == second.signature


def test_prefixes_of_readers_and_kernels_are_taken_off() -> None:
    assert clean("<6>[    1.000000][   T24] loop: module loaded") == "loop: module loaded"


def test_taint_bits_have_letters() -> None:
    assert taints(0) == ()
    assert taints(1 << 9) == ("W",)
    assert taints(1 << 7 | 1 << 12) == ("D", "O")
