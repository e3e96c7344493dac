"""What scenarios share: workers that are all up, and percentiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from benchmarks import tasks
from benchmarks.contender import Contender

New = Callable[[int], Contender]
WORKERS = 2


def warm(pool: Contender, workers: int) -> list[int]:
    """Have every worker started and used, and return their pids."""
    for seconds in (0.02, 0.1, 0.5):
        pids = set(pool.map(tasks.pid_after, [seconds] * (2 * workers), chunksize=1))
        if len(pids) >= workers:
            break
    return sorted(pids)


def patience(quick: bool) -> float:
    """Return the seconds after which a future counts as one that is never resolved."""
    return 3.0 if quick else 10.0


def started(new: New, workers: int = WORKERS) -> Contender:
    """Return a contender whose workers are up."""
    pool = new(workers)
    warm(pool, workers)
    return pool


def milliseconds_since(began: float) -> float:
    """Return the time since then."""
    return (time.perf_counter() - began) * 1e3


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
