"""What a reader needs to compare two runs: swap, huge pages, memory, the kernel."""

from __future__ import annotations

import os

from agent.basics import chosen, read_text


def facts() -> dict[str, str]:
    """Facts of the guest, as text."""
    huge = "/sys/kernel/mm/transparent_hugepage"
    memory = read_text("/proc/meminfo").split("\n", 1)[0].split()
    swaps = read_text("/proc/swaps").splitlines()[1:]
    name = os.uname()
    return {
        "release": name.release,
        "version": name.version,
        "machine": name.machine,
        "cpus": str(os.cpu_count() or 1),
        "memory_kib": memory[1] if len(memory) > 1 else "",
        "swap": f"{len(swaps)} areas" if swaps else "off",
        "thp": chosen(read_text(f"{huge}/enabled", "absent")),
        "thp_shmem": chosen(read_text(f"{huge}/shmem_enabled", "absent")),
        "clocksource": read_text(
            "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        ),
        "hung_task_timeout": read_text("/proc/sys/kernel/hung_task_timeout_secs", "absent"),
        "command_line": read_text("/proc/cmdline"),
    }
