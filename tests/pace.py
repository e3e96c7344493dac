"""How quick a pool takes its tasks to be, on which it depends how many it sends ahead of the one that runs."""

from __future__ import annotations

from pidfdpool import PidfdPoolExecutor


def seem_quick(pool: PidfdPoolExecutor) -> None:
    """Have the pool take its tasks for quick ones: on a busy machine even an empty one may take 10 ms."""
    with pool._pool.core.lock:
        pool._pool.machine.prefetcher.pace = 1e-5
