"""What a report in the kernel log is read as, field by field, and what a fault is called."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.oracle.kernel_log import (
    Invocation,
    Killed,
    fault,
    invocations,
    lockdep_full,
    taints,
    task_name,
)

INVOKED = "kworker/u2:1 invoked oom-killer: gfp_mask=0xc00(GFP_NOIO), order=0, oom_score_adj=0"
CPU = "CPU: 0 PID: 24 Comm: kworker/u2:1 Not tainted 6.1.0 #1"
QUEUE = "Workqueue: loop0 loop_workfn [loop]"
CONSTRAINT = (
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
    "oom_memcg=/case/limited,task_memcg=/case/limited/sibling,task=dd,pid=141,uid=0"
)
KILLED = "Memory cgroup out of memory: Killed process 141 (dd) total-vm:1kB, anon-rss:1kB"


def report(*lines: str) -> Invocation:
    """The one report that these lines are, where each but the first may be any line of the log."""
    (one,) = invocations(lines)
    return one


# -- reports of the OOM killer ----------------------------------------------------------------------


def test_a_report_is_read_field_by_field() -> None:
    log = [
        "loop0: detected capacity change from 0 to 32768",
        INVOKED,
        CPU,
        QUEUE,
        "Call Trace:",
        " <TASK>",
        " mem_cgroup_out_of_memory+0x134/0x150",
        " ? shmem_alloc_folio+0x82/0xd0",
        " lo_write_bvec.constprop.0+0x97/0x160 [loop]",
        " kthread+0xda/0x100",
        " </TASK>",
        "memory: usage 8192kB, limit 8192kB, failcnt 22",
        CONSTRAINT,
        KILLED,
    ]
    assert report(*log) == Invocation(
        invoker="kworker/u2:1",
        pid=24,
        gfp="GFP_NOIO",
        workqueue="loop0 loop_workfn [loop]",
        trace=("mem_cgroup_out_of_memory", "lo_write_bvec", "kthread"),
        constraint="CONSTRAINT_MEMCG",
        memcg="/case/limited",
        killed=(Killed(pid=141, comm="dd", memcg="/case/limited/sibling"),),
        at=1,
        lines=(
            INVOKED,
            CPU,
            QUEUE,
            "lo_write_bvec.constprop.0+0x97/0x160 [loop]",
            CONSTRAINT,
            KILLED,
        ),
    )


def test_a_kill_without_a_report_is_all_that_is_known() -> None:
    kill = report("loop0: fine", KILLED)
    assert kill == Invocation(killed=(Killed(pid=141, comm="dd"),), at=1, lines=(KILLED,))


def test_the_invoker_is_on_the_first_processor_that_is_named() -> None:
    other = "CPU: 1 PID: 999 Comm: swapper Not tainted 6.1.0 #1"
    read = report(INVOKED, CPU, other)
    assert (read.pid, read.lines) == (24, (INVOKED, CPU))


def test_of_a_report_without_flags_none_are_told() -> None:
    assert report("dd invoked oom-killer: order=0").gfp == ""


@pytest.mark.parametrize(
    ("fields", "memcg"),
    [("oom_memcg=/a,task_memcg=/a/b", "/a/b"), ("oom_memcg=/a", "/a"), ("task_memcg=/b", "/b")],
)
def test_who_was_killed_was_in_its_own_cgroup_or_the_one_that_was_full(
    fields: str, memcg: str
) -> None:
    read = report(INVOKED, f"oom-kill:constraint=CONSTRAINT_MEMCG,{fields}", KILLED)
    assert [one.memcg for one in read.killed] == [memcg]


@pytest.mark.parametrize("ends", ["Mem-Info:", "memory: usage 8192kB, limit 8192kB, failcnt 22"])
def test_a_function_is_on_the_stack_only_within_the_trace(ends: str) -> None:
    frame = " loop_process_work+0x518/0xab0 [loop]"
    outside = report(INVOKED, frame, "Call Trace:", " vfs_write+0x239/0x3d0", ends, frame)
    assert outside.trace == ("vfs_write",)
    assert outside.lines == (INVOKED,)


@pytest.mark.parametrize(
    ("read", "by_worker"),
    [
        (Invocation(invoker="kswapd0", at=0), True),
        (Invocation(invoker="some_thread", workqueue="dm-thin do_worker", at=0), True),
        (Invocation(invoker="some_thread", trace=("vfs_write", "kthread"), at=0), True),
        (Invocation(invoker="some_thread", trace=("lo_rw_aio",), at=0), True),
        (Invocation(invoker="dd", trace=("vfs_write",), at=0), False),
        (Invocation(at=0), False),
    ],
    ids=["by-name", "by-queue", "by-where-its-stack-ends", "by-loop", "a-process", "nobody"],
)
def test_each_sign_alone_settles_that_a_kernel_thread_invoked_it(
    read: Invocation, by_worker: bool
) -> None:
    assert read.by_kernel_worker is by_worker


def test_of_several_functions_of_the_worker_the_most_telling_is_named() -> None:
    trace = ("do_req_filebacked", "lo_write_bvec", "loop_process_work", "kthread")
    assert Invocation(trace=trace, at=0).where == "loop_process_work"


FOUR = tuple(
    Killed(pid=pid, comm=comm, memcg=f"/{comm}") for pid, comm in enumerate("abcd", start=1)
)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "somebody invoked the OOM killer"),
        (
            {
                "invoker": "kworker/u2:1",
                "gfp": "GFP_NOIO",
                "trace": ("loop_process_work",),
                "killed": (Killed(pid=9, comm="dd", memcg="/case/limited"),),
                "memcg": "/case",
            },
            "kworker/u2:1 invoked the OOM killer (GFP_NOIO) in loop_process_work; "
            "killed dd (pid 9) in /case/limited",
        ),
        (
            {"invoker": "dd", "killed": FOUR},
            "dd invoked the OOM killer; killed a (pid 1), b (pid 2), c (pid 3) in /a",
        ),
        (
            {"invoker": "dd", "killed": (Killed(pid=9, comm="dd"),), "memcg": "/case"},
            "dd invoked the OOM killer; killed dd (pid 9) in /case",
        ),
        (
            {"invoker": "dd", "killed": (Killed(pid=9, comm="dd"),)},
            "dd invoked the OOM killer; killed dd (pid 9)",
        ),
    ],
    ids=["nothing", "everything", "four-victims", "the-full-cgroup", "no-cgroup"],
)
def test_a_report_in_one_sentence(fields: dict[str, Any], words: str) -> None:
    assert Invocation(**fields, at=0).text == words


# -- faults -----------------------------------------------------------------------------------------

SIGNATURES = {
    "Kernel panic - not syncing: VFS: Unable to mount root fs": "panic:VFS:-Unable-to-mount-root-fs",
    "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [kworker/u2:1:24]": "soft-lockup",
    "NMI watchdog: Watchdog detected hard LOCKUP on cpu 0": "hard-lockup",
    "INFO: task kworker/u2:1:24 blocked for more than 120 seconds.": "hung-task:kworker",
    "INFO: task jbd2/loop0-8:205 blocked for more than 120 seconds.": "hung-task:jbdN/loopN-N",
    "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:": "rcu-stall",
    "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 38s!": "workqueue-lockup",
    "BUG: KASAN: slab-use-after-free in lo_rw_aio_complete+0x4a/0x90 [loop]": (
        "kasan:lo_rw_aio_complete:slab-use-after-free"
    ),
    "BUG: KMSAN: uninit-value in lo_write.constprop.0+0x4a/0x90": "kmsan:lo_write:uninit-value",
    "BUG: KCSAN: data-race in blk_mq_a / blk_mq_b": "kcsan:blk_mq_a:data-race",
    "BUG: KFENCE: invalid free": "kfence:invalid-free",
    "UBSAN: array-index-out-of-bounds in drivers/block/loop.c:412:18": (
        "ubsan:drivers/block/loop.c:array-index-out-of-bounds"
    ),
    "WARNING: possible circular locking dependency detected": (
        "lockdep:possible-circular-locking-dependency-detected"
    ),
    "INFO: possible recursive locking detected": "lockdep:possible",
    "DEBUG_LOCKS_WARN_ON(lock->magic != lock)": "lockdep",
    "WARNING: CPU: 0 PID: 24 at fs/buffer.c:1125 mark_buffer_dirty+0xd8/0xe0": (
        "warning:mark_buffer_dirty"
    ),
    "WARNING: CPU: 0 PID: 24 at fs/buffer.c:1125 mark_dirty.isra.0.cold+0xd8/0xe0": (
        "warning:mark_dirty"
    ),
    "WARNING: fs/iomap/buffered-io.c:1042 at iomap_write.constprop.0+0x1a2/0x2b0, CPU#0: dd/9": (
        "warning:iomap_write"
    ),
    "WARNING: kernel stack frame pointer has bad value": (
        "warning:kernel-stack-frame-pointer-has-bad-value"
    ),
    "kernel BUG at fs/ext4/inode.c:2721!": "kernel-bug:fs/extN/inode.c",
    "general protection fault, probably for non-canonical address 0xdead: 0000 [#1]": (
        "general-protection-fault"
    ),
    "Oops: 0000 [#1] PREEMPT SMP NOPTI": "oops",
    "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000008": (
        "oops:NULL-pointer-dereference"
    ),
    "Unable to handle kernel paging request": "oops:paging-request",
    "BUG: kernel NULL pointer dereference, address: 0000000000000008": (
        "bug:kernel-NULL-pointer-dereference"
    ),
    "BUG: unable to handle page fault for address: ffffb8f0c0a3d000": (
        "bug:unable-to-handle-page-fault-for"
    ),
    "BUG: Bad page state in process dd  pfn:11d40": "bug:Bad-page-state",
    "BUG: scheduling while atomic: dd/9/0x00000002": "bug:scheduling-while-atomic",
    "BUG: MAX_LOCK_DEPTH too low!": "bug:MAX_LOCK_DEPTH-too-low",
    "list_del corruption. prev->next should be ffff, but was dead": "list-corruption",
    "refcount_t: underflow; use-after-free.": "refcount:underflow-use-after-free.",
}


@pytest.mark.parametrize("line", SIGNATURES)
def test_a_fault_has_a_name_that_is_the_same_in_each_run_and_build(line: str) -> None:
    found = fault(f"<4>[   12.345678] {line}")
    assert found is not None
    assert (found.signature, found.title) == (SIGNATURES[line], line)


@pytest.mark.parametrize(
    "line",
    [
        "BUG: MAX_LOCKDEP_ENTRIES too low!",
        "BUG: MAX_LOCKDEP_CHAIN_HLOCKS too low!",
        "BUG: MAX_STACK_TRACE_ENTRIES too low!",
    ],
)
def test_a_checker_whose_tables_are_full_is_no_fault_of_what_it_checks(line: str) -> None:
    assert fault(f"<4>[   12.345678] {line}") is None
    assert lockdep_full(f"<4>[   12.345678] {line}")


def test_what_only_speaks_of_a_full_table_is_none() -> None:
    assert not lockdep_full("dd: BUG: MAX_LOCKDEP_ENTRIES too low!")


@pytest.mark.parametrize(("length", "kept"), [(76, 76), (77, 76)])
def test_a_name_has_eighty_characters_at_most(length: int, kept: int) -> None:
    found = fault(f"BUG: {'x' * length}")
    assert found is not None
    assert found.signature == f"bug:{'x' * kept}"


@pytest.mark.parametrize(
    ("comm", "name"),
    [("kworker/u2:1", "kworker"), ("kworker/0:0H", "kworker"), ("dd", "dd"), ("loop12", "loopN")],
)
def test_a_task_s_name_has_no_number(comm: str, name: str) -> None:
    assert task_name(comm) == name


# -- taint: Documentation/admin-guide/tainted-kernels.rst -------------------------------------------

BITS = "PFSRMBUDAWCIOELKXTN"


@pytest.mark.parametrize("bit", range(19))
def test_a_taint_bit_has_the_letter_of_the_documentation(bit: int) -> None:
    assert taints(1 << bit) == (BITS[bit],)


def test_a_taint_bit_without_a_letter_is_a_question() -> None:
    assert taints(1 << 19) == taints(1 << 21) == ("?",)
    assert taints(1 << 0 | 1 << 18 | 1 << 20) == ("P", "N", "?")
