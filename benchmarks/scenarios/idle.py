"""What a pool costs that has nothing to do: memory, processor time, wake-ups."""

from __future__ import annotations

import os
import time

from benchmarks import processes
from benchmarks.scenario import Group, Metric, Scenario
from benchmarks.scenarios.common import WORKERS, New, warm


def memory(new: New, _quick: bool) -> dict[str, float]:
    """Add up the proportional set sizes of workers, and of whatever else the pool has started."""
    pool = new(WORKERS)
    workers = warm(pool, WORKERS)
    time.sleep(0.2)
    others = [pid for pid in processes.of_the_pool() if pid not in workers]
    return {
        "worker": sum(map(processes.pss, workers)) / len(workers) / 1e6,
        "others": sum(map(processes.pss, others)) / 1e6,
    }


def wakeups(new: New, quick: bool) -> dict[str, float]:
    """Count how often threads were woken, and the processor time they used, while nothing was to be done."""
    seconds = 3 if quick else 10
    pool = new(WORKERS)
    warm(pool, WORKERS)
    time.sleep(1)
    pids = processes.of_the_pool()
    before = _used(pids)
    time.sleep(seconds)
    return {key: (value - before[key]) / seconds for key, value in _used(pids).items()}


def _used(pids: list[int]) -> dict[str, float]:
    return {
        "host": processes.sleeps(os.getpid()),
        "pool": sum(map(processes.sleeps, pids)),
        "cpu": (time.process_time() + sum(map(processes.cpu_seconds, pids))) * 1e3,
    }


IDLE = Group(
    "idle",
    "A pool that is idle",
    "2 workers that have worked. Memory is the proportional set size: shared pages are divided among those that "
    "share them. Others are what the pool has started besides workers: templates, fork servers, resource trackers. "
    "Wake-ups are voluntary context switches of all threads, over 10 s; CPU is that of all processes.",
    (
        Scenario(
            "idle-memory",
            "",
            (Metric("worker", "per worker", "MB"), Metric("others", "others", "MB", compared=False)),
            memory,
            quick=True,
        ),
        Scenario(
            "idle-wakes",
            "",
            (
                Metric("host", "host wakes", "/s", compared=False),
                Metric("pool", "pool's processes wake", "/s", compared=False),
                Metric("cpu", "CPU", "ms/s", compared=False),
            ),
            wakeups,
            quick=True,
            rounds=2,
        ),
    ),
)
