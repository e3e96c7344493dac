"""Counts the CPUs that this process may use: the default number of workers. Holds no state; any thread.

Called in the host by `executor`, when somebody makes a pool without a number of workers. The number is the smallest
of two: the CPUs that the scheduler may place this process on (sched_getaffinity(2)), and the processor time that its
cgroups may take, in CPUs. Containers are mostly limited in the second way (`docker run --cpus`, limits of Kubernetes,
CPUQuota of systemd), which neither `os.cpu_count` nor `os.process_cpu_count` looks at. A pool with more workers than
that is stopped by the kernel for most of each period, all workers at the same time.

Whoever has told Python a number (PYTHON_CPU_COUNT, -X cpu_count) gets that, as from `os.process_cpu_count`.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from pidfdpool.process import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def usable(root: str = "") -> int:
    """Return how many CPUs this process may use, at least 1. root: the folder that takes the place of /."""
    told = _told_to_python()
    if told is not None:
        return told
    count = _placed_on()
    if count == 1:
        return 1
    quota = cpu_quota(root)
    return count if quota is None else max(1, min(count, quota))


def cpu_quota(root: str = "") -> int | None:
    """Return the CPUs whose time the cgroups of this process may take, rounded up. None: there is no limit."""
    membership = cgroups.read(f"{root}/proc/self/cgroup")
    if not membership:
        return None
    found = []
    for version, folders in cgroups.folders_of("cpu", membership, cgroups.read(f"{root}/proc/self/mountinfo")):
        for folder in folders:
            text = (
                cgroups.read(f"{root}{folder}/cpu.max")
                if version == cgroups.V2
                else f"{cgroups.read(f'{root}{folder}/cpu.cfs_quota_us')} "
                f"{cgroups.read(f'{root}{folder}/cpu.cfs_period_us')}"
            )
            if (limit := _parsed(text)) is not None:
                found.append(limit)
    return min(found, default=None)


def _parsed(text: str) -> int | None:
    """Return the CPUs of a quota and a period, in microseconds, rounded up. None: they are no limit.

    Version 2 writes "max" where there is no quota, version 1 writes -1.
    """
    fields = text.split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields):
        return None
    quota, period = map(int, fields)
    return -(-quota // period) if quota and period else None


def _placed_on() -> int:
    """Return how many CPUs the scheduler may place this process on."""
    with suppress(AttributeError, OSError):  # not on this system; refused by a sandbox
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _told_to_python() -> int | None:
    """Return the number that Python was told to take for that of the CPUs. None: none, or this Python takes none."""
    configured: Any = getattr(sys, "_get_cpu_count_config", None)  # since Python 3.13; `os` asks it, too
    told = -1 if configured is None else configured()
    return told if told > 0 else None
