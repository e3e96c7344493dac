"""What a pool costs that has nothing to do: memory, processor time, wake-ups."""

from __future__ import annotations

import os
import time
from functools import partial

from benchmarks import processes
from benchmarks.scenario import Group, Metric, Scenario
from benchmarks.scenarios.common import WORKERS, New, warm


def memory(count: int, new: New, _quick: bool) -> dict[str, float]:
    """Add up the proportional set sizes of workers, and of whatever else the pool has started; count what is held."""
    alone = processes.threads()
    pool = new(count)
    workers = warm(pool, count)
    time.sleep(0.2)
    others = [pid for pid in processes.of_the_pool() if pid not in workers]
    of_workers, of_others = sum(map(processes.pss, workers)) / 1e6, sum(map(processes.pss, others)) / 1e6
    return {
        "worker": of_workers / len(workers),
        "others": of_others,
        "each": (of_workers + of_others) / len(workers),
        "threads": processes.threads() - alone,
        "fds": sum(map(processes.descriptors, workers)) / len(workers),
    }


def wakeups(new: New, quick: bool) -> dict[str, float]:
    """Count how often threads were woken, and the processor time they used, while nothing was to be done."""
    seconds = 3 if quick else 10
    pool = new(WORKERS)
    warm(pool, WORKERS)
    time.sleep(0.5)
    pids = processes.of_the_pool()
    before = _used(pids)
    time.sleep(seconds)
    return {key: (value - before[key]) / seconds for key, value in _used(pids).items()}


def _used(pids: list[int]) -> dict[str, float]:
    return {
        "host": processes.sleeps(os.getpid(), but=os.getpid()),  # the main thread sleeps here
        "pool": sum(map(processes.sleeps, pids)),
        "cpu": (time.process_time() + sum(map(processes.cpu_seconds, pids))) * 1e3,
    }


IDLE = Group(
    "idle",
    "A pool that is idle",
    "2 or 4 workers that have worked. Memory is the proportional set size: shared pages are divided among those "
    "that share them. Others are what the pool has started besides workers: templates, fork servers, resource "
    "trackers. Threads are those that the host has more than before. Wake-ups are voluntary context switches of all "
    "threads but the main thread, over 10 s, 2 workers; CPU is that of all processes.",
    (
        *(
            Scenario(
                f"idle-memory{suffix}",
                f"{count} workers",
                (
                    Metric("worker", "per worker", "MB"),
                    Metric("others", "others", "MB", compared=False),
                    Metric("each", "all per worker", "MB"),
                    Metric("threads", "threads", "in the host", compared=False),
                    Metric("fds", "descriptors", "per worker", compared=False),
                ),
                partial(memory, count),
                quick=count == WORKERS,
            )
            for count, suffix in ((WORKERS, ""), (4, "-4"))
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
            rounds=1,
        ),
    ),
)
