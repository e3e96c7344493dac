"""Pools of hundreds of workers: until all are up, what they weigh, and until all are gone."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from functools import partial

from benchmarks import processes, tasks
from benchmarks.scenario import Group, Metric, Scenario
from benchmarks.scenarios.common import New, milliseconds_since

_MOST = 1000
_RECORD = len(tasks.record_of(0))


def many(workers: int, new: New, quick: bool) -> dict[str, float]:
    """Hold each worker by one task until all have told that they are up; then weigh them, and end the pool."""
    workers = workers // 10 if quick else workers
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        ready, gate = os.path.join(folder, "ready"), os.path.join(folder, "gate")
        os.mkfifo(ready)
        os.mkfifo(gate)
        reader = os.open(ready, os.O_RDWR)  # so it has a writer at any time, and no end
        began = time.perf_counter()
        pool = new(workers)
        futures = [pool.submit(tasks.hold, ready, gate) for _ in range(workers)]
        pids = told_by(reader, workers)
        figures = {"ready": milliseconds_since(began)}
        of_all = sum(map(processes.pss, processes.of_the_pool()))
        figures["worker"] = sum(map(processes.pss, pids)) / workers / 1e6
        figures["each"] = of_all / workers / 1e6
        opened = os.open(gate, os.O_RDWR)
        for future in futures:
            future.result()
        os.close(opened)
        began = time.perf_counter()
        pool.close()
        return {**figures, "closed": milliseconds_since(began)}


def told_by(reader: int, count: int) -> set[int]:
    """Read the pids of so many processes from a pipe, each written at once."""
    pids: set[int] = set()
    while len(pids) < count:
        pids.add(int(os.read(reader, _RECORD)))
    return pids


MANY = Group(
    "many",
    "100 to 1,000 workers",
    "As many tasks as workers, each of which holds its worker. Ready: from the constructor until all of them run. "
    "Memory is the proportional set size, of workers alone and with all else that the pool has started. Shutdown: of "
    "the idle pool, until it returns. The limit of open files is raised to what the machine allows. "
    f"{_MOST:,} workers take some pools minutes, so only ours and the two of Python that fork the host "
    "are asked for them.",
    tuple(
        Scenario(
            f"many-{workers}",
            f"{workers:,}",
            (
                Metric("ready", "ready", "ms"),
                Metric("worker", "per worker", "MB"),
                Metric("each", "all per worker", "MB"),
                Metric("closed", "shutdown", "ms"),
            ),
            partial(many, workers),
            bound=180,
            quick=workers == 100,
            at=workers,
            rounds=3,
            contenders=("ours", "ours-fork", "standard", "mp-pool") if workers == _MOST else None,
            always=("ours-fork",),
        )
        for workers in (100, 300, _MOST)
    ),
    axis="workers",
)
