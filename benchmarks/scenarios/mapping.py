"""map over many tiny items: by default, with the best chunk size, lazily; and over items of very unequal length."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks import processes, tasks
from benchmarks.scenario import Group, Metric, Scenario
from benchmarks.scenarios.common import WORKERS, New, started

_RATE = Metric("rate", "", "items/s", more_is_better=True)


def _timed_map(pool: object, count: int, chunksize: int | None) -> float:
    began = time.perf_counter()
    for _ in pool.map(abs, range(count), chunksize=chunksize):  # type: ignore[attr-defined]
        pass
    return count / (time.perf_counter() - began)


def default(count: int, new: New, quick: bool) -> dict[str, float]:
    """Map with no argument but function and items."""
    return {"rate": _timed_map(started(new), count // 10 if quick else count, None)}


def chunked(new: New, quick: bool) -> dict[str, float]:
    """Map with several chunk sizes, and keep the best."""
    count = 100_000 if quick else 1_000_000
    pool = started(new)
    return {"rate": max(_timed_map(pool, count, size) for size in (1000, 5000, 25_000))}


def lazy(new: New, quick: bool) -> dict[str, float]:
    """Map over a generator that counts what was taken of it."""
    count = 20_000 if quick else 200_000
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(count):
            taken += 1
            yield number

    pool = started(new)
    processes.forget_peak()
    before, began = processes.rss(), time.perf_counter()
    results = iter(pool.lazy_map(tasks.echo, items(), count))
    next(results)
    taken_at_first = taken
    for _ in results:
        pass
    took = time.perf_counter() - began
    return {
        "growth": max(0, processes.peak_rss() - before) / 1e6,
        "taken": taken_at_first / count * 100,
        "rate": count / took,
    }


def durations(quick: bool) -> list[float]:
    """Return seconds: most are short, a few long, one in a hundred very long."""
    source = random.Random(7)
    longest = 0.1 if quick else 0.3
    return [
        longest if number % 100 == 57 else min(longest, source.lognormvariate(-6.5, 1.2))
        for number in range(200 if quick else 600)
    ]


def ideal(lengths: Sequence[float]) -> float:
    """Return the seconds below which nobody can get through with tasks of so many seconds each."""
    return max(sum(lengths) / WORKERS, *lengths)


def skewed(way: str, new: New, quick: bool) -> dict[str, float]:
    """Sleep for so long in tasks, and compare with the least time that is possible."""
    lengths = durations(quick)
    pool = started(new)
    began = time.perf_counter()
    if way == "map":
        for _ in pool.map(time.sleep, lengths):
            pass
    else:
        for future in [pool.submit(time.sleep, seconds) for seconds in lengths]:
            future.result()
    return {"makespan": (time.perf_counter() - began) / ideal(lengths)}


MAPS = Group(
    "map",
    "map over tiny items",
    "`map(abs, range(n))`, 2 workers. Default: no argument but function and items. "
    "Best: the best of chunk sizes 1,000, 5,000 and 25,000.",
    (
        Scenario("map-100k", "100,000, default", (_RATE,), partial(default, 100_000), bound=40, quick=True, rounds=3),
        Scenario("map-1m", "1,000,000, default", (_RATE,), partial(default, 1_000_000), bound=12, rounds=3),
        Scenario("map-chunked", "1,000,000, best", (_RATE,), chunked, bound=30, rounds=3),
    ),
)

LAZY = Group(
    "lazy",
    "A lazy map",
    "200,000 items of a generator through the laziest ordered map that a pool has, 2 workers. What the host's memory "
    "grew by at most, and how much of the input had been taken when the first result came.",
    (
        Scenario(
            "lazy-map",
            "",
            (
                Metric("growth", "host grows by", "MB"),
                Metric("taken", "taken at first result", "%", compared=False),
                _RATE,
            ),
            lazy,
            bound=45,
            rounds=1,
        ),
    ),
)

SKEWED = Group(
    "skewed",
    "Tasks of unequal length",
    "600 tasks that sleep: a log-normal distribution around 1.5 ms, and one in a hundred 300 ms. The time for all of "
    "them over the least possible with 2 workers; 1 is perfect.",
    tuple(
        Scenario(f"skewed-{way}", way, (Metric("makespan", "", "x ideal"),), partial(skewed, way), quick=way == "map")
        for way in ("submit", "map")
    ),
)
