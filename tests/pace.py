"""How quick a pool takes its tasks to be, on which it depends how many it sends ahead of the one that runs."""

from __future__ import annotations

from pidfdpool import PidfdPoolExecutor
from tests.conditions import eventually


def seem_quick(pool: PidfdPoolExecutor) -> None:
    """Have the pool take its tasks for quick ones: on a busy machine even an empty one may take 10 ms."""
    with pool._pool.core.lock:
        pool._pool.machine.prefetcher.pace = 1e-5


def send_ahead(pool: PidfdPoolExecutor, count: int) -> None:
    """Have what waits sent to the worker, though it is little, and however quick or slow the tasks before were.

    A few short tasks may wait in the queue until there is another reason to decide, such as an answer of a worker's.
    While a test holds that up, only a timer brings a decision, such as that of idle segments, after 5 s.
    """
    seem_quick(pool)
    pool.resize(1)  # any decision will do
    eventually(lambda: len(pool._pool.machine.prefetched) == count, "it is ahead")
