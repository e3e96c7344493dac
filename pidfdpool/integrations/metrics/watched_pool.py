"""One pool under a name.

A pool is referred to weakly. What counts for it hangs on the pool, and refers to nothing else.
"""

from __future__ import annotations

import math
import weakref
from itertools import pairwise
from typing import TYPE_CHECKING

from pidfdpool import checks
from pidfdpool.integrations.metrics.catalogue import Reading
from pidfdpool.integrations.metrics.task_counts import TaskCounts
from pidfdpool.integrations.metrics.watched_set import checked_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pidfdpool import PidfdPoolExecutor
    from pidfdpool.integrations.metrics.task_counts import Sample

DEFAULT_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0,
)  # fmt: skip
_NEEDED = ("stats", "workers", "observe")


class WatchedPool:
    """A pool, its name, and what is counted of it."""

    def __init__(
        self,
        pool: PidfdPoolExecutor,
        name: str,
        *,
        buckets: Iterable[float] = DEFAULT_BUCKETS,
        max_functions: int = 0,
        samples: int = 0,
    ) -> None:
        """Begin to count. samples: durations of tasks to keep for `TaskCounts.take_samples` at most.

        Raises:
            TypeError, ValueError: an argument makes no sense.
        """
        checked_name(name)
        checks.integer("max_functions", max_functions, least=0)
        if isinstance(pool, type) or not all(callable(getattr(pool, method, None)) for method in _NEEDED):
            raise TypeError(
                f"pool must be a PidfdPoolExecutor, not {checks.short_repr(pool)}; of a view with options, give the "
                "pool that it was made of"
            )
        self.name = name
        self.bounds = checked_buckets(buckets)
        self.counts = TaskCounts(self.bounds, max_functions, samples)
        self._pool = weakref.ref(pool)
        self._end: Callable[[], None] | None = pool.observe(self.counts)

    @property
    def is_alive(self) -> bool:
        """Whether there is something to show: it is not closed, and its executor is there."""
        return self._end is not None and self._pool() is not None

    @property
    def is_in_use(self) -> bool:
        """Whether no other pool may take its name: it is alive, and accepts tasks."""
        pool = self._pool()
        return self._end is not None and pool is not None and pool.stats().state in ("IDLE", "OPEN")

    def read(self) -> Reading | None:
        """Return the pool's present numbers; None: it is gone. Starts nothing."""
        pool = self._pool() if self._end is not None else None
        if pool is None:
            return None
        pool.stats()  # so that what has happened by now is counted
        tasks, waits, runs, deaths = self.counts.read()
        memory = sum(worker.rss or 0 for worker in pool.workers())
        # Last, so that no more tasks are over than were submitted.
        return Reading(self.name, pool.stats(), memory, tasks, waits, runs, deaths, self.counts.max_functions > 0)

    def take_samples(self) -> list[Sample]:
        """Return durations of tasks that have ended since the last call, as `TaskCounts.take_samples` does."""
        pool = self._pool()
        if pool is not None:
            pool.stats()  # as in `read`
        return self.counts.take_samples()

    def close(self) -> None:
        """Stop counting."""
        end, self._end = self._end, None
        if end is not None:
            end()

    def __repr__(self) -> str:
        return f"pool {self.name!r}: {self._pool()!r}"


def checked_buckets(buckets: Iterable[float]) -> tuple[float, ...]:
    """Return the bounds of buckets as floats, without infinity, which is always there.

    Raises:
        TypeError, ValueError: they are no ascending numbers.
    """
    wrong = f"buckets must be ascending numbers of seconds, not {checks.short_repr(buckets)}"
    try:
        bounds = tuple(map(float, buckets))
    except (TypeError, ValueError):
        raise TypeError(wrong) from None
    if bounds and bounds[-1] == math.inf:
        bounds = bounds[:-1]
    if not bounds or not all(map(math.isfinite, bounds)) or any(a >= b for a, b in pairwise(bounds)):
        raise ValueError(wrong)
    return bounds
