"""Cancelling what waits: one by one, and all at once as the pool ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks import tasks
from benchmarks.contender import Contender, UnsupportedError
from benchmarks.scenario import Group, Metric, Scenario
from benchmarks.scenarios.common import WORKERS, New, milliseconds_since, started

_MOST = 1_000_000
_ON_THEIR_WAY = 1000  # so many of the first may have been sent already


def waiting(count: int, new: New, quick: bool) -> tuple[Contender, list[Any]]:
    """Return a pool whose workers are occupied, and the futures of tasks that wait for them."""
    count = count // 10 if quick else count
    pool = started(new)
    if count >= pool.most_pending:
        raise UnsupportedError(f"submit blocks after {pool.most_pending} tasks")
    occupied = [pool.submit(time.sleep, 600) for _ in range(WORKERS)]
    if not hasattr(occupied[0], "cancel"):
        raise UnsupportedError("a task cannot be cancelled")
    futures = [pool.submit(tasks.nothing, None) for _ in range(count)]
    time.sleep(0.2)
    return pool, futures


def one_by_one(count: int, new: New, quick: bool) -> dict[str, float]:
    """Cancel each in the order in which they were submitted."""
    _, futures = waiting(count, new, quick)
    began = time.perf_counter()
    cancelled = sum(future.cancel() for future in futures)
    took = time.perf_counter() - began
    assert cancelled >= len(futures) - _ON_THEIR_WAY
    return {"each": took / len(futures) * 1e6}


def by_the_end(count: int, new: New, quick: bool) -> dict[str, float]:
    """End the pool without waiting: how soon that returns, and when all are cancelled."""
    pool, futures = waiting(count, new, quick)
    began = time.perf_counter()
    pool.drop()
    returned = milliseconds_since(began)
    return {"returned": returned, "all": max(returned, (_last_done(futures[_ON_THEIR_WAY:]) - began) * 1e3)}


def _last_done(futures: Sequence[Any]) -> float:
    """Return when the last of them was done. To look at all of them takes time, which is not counted."""
    seen = time.perf_counter()
    for future in reversed(futures):
        while not future.done():
            time.sleep(0.001)
            seen = time.perf_counter()
    return seen


CANCEL = Group(
    "cancel",
    "Cancelling what waits",
    "200,000 or 1,000,000 tiny tasks wait behind two long ones, 2 workers. They are cancelled one by one; or by "
    "`shutdown(wait=False, cancel_futures=True)`: until it returns, and until all are cancelled but for the first "
    "1,000, which may be on their way. "
    "A million: only by ours, because submitting them takes others minutes.",
    tuple(
        scenario
        for count, title in ((200_000, "200,000"), (_MOST, "1,000,000"))
        for scenario in (
            Scenario(
                f"cancel-{count // 1000}k",
                f"{title} one by one",
                (Metric("each", "", "µs each"),),
                partial(one_by_one, count),
                bound=180,
                quick=count == 200_000,
                rounds=3,
                contenders=("ours", "ours-fork") if count == _MOST else None,
            ),
            Scenario(
                f"drop-{count // 1000}k",
                f"{title} by shutdown",
                (Metric("returned", "returned", "ms"), Metric("all", "all cancelled", "ms")),
                partial(by_the_end, count),
                bound=180,
                quick=count == 200_000,
                rounds=3,
                contenders=("ours", "ours-fork") if count == _MOST else None,
            ),
        )
    ),
)
