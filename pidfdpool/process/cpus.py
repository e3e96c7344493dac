"""Counts the CPUs that this process may use: the default number of workers. Any thread; valid after a fork, too.

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

_NAMES = {cgroups.V1: ("cpu.cfs_quota_us", "cpu.cfs_period_us"), cgroups.V2: ("cpu.max",)}
_known: tuple[str, str, list[tuple[str, ...]]] = ("", "", [])  # what was found last, for which root and which cgroups


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
    limits = [_parsed(" ".join(map(cgroups.read, files))) for files in _limit_files(root)]
    return min((limit for limit in limits if limit is not None), default=None)


def _limit_files(root: str) -> list[tuple[str, ...]]:
    """Return the files that have quota and period: one file with both (version 2), or one for each (version 1).

    Where hierarchies are mounted does not change, in practice. To read that takes twice as long as all else, so it is
    looked up again only for a process that is in other cgroups than before.
    """
    global _known  # noqa: PLW0603  to look twice does no harm
    membership = cgroups.read(f"{root}/proc/self/cgroup")
    if _known[:2] != (root, membership):
        found = cgroups.folders_of("cpu", membership, cgroups.read(f"{root}/proc/self/mountinfo"))
        files = [
            tuple(f"{root}{folder}/{name}" for name in _NAMES[version])
            for version, folders in found
            for folder in folders
        ]
        _known = root, membership, files
    return _known[2]


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
