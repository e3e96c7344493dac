"""Maps with a bound: on the inputs that are taken ahead, and on the time of each call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

from benchmarks import tasks
from benchmarks.scenario import Group, Metric, Scenario
from benchmarks.scenarios.common import New, started

_LONGEST = 3.0  # seconds
_RATE = Metric("rate", "", "items/s", more_is_better=True)


def rate_of(results: Callable[[], Iterable[object]], longest: float = _LONGEST) -> float:
    """Ask for results and take them, all or for so many seconds; return how many came in a second.

    They are asked for here, because many pools have all of them before the first is taken.
    """
    taken = 0
    began = time.perf_counter()
    ends = began + longest
    for _ in results():
        taken += 1
        if time.perf_counter() > ends:
            break
    return taken / (time.perf_counter() - began)


def ahead(most: int, new: New, quick: bool) -> dict[str, float]:
    """Map over an iterator of which only so many items may be taken ahead of the results."""
    pool = started(new)
    # The first call sets up what is kept for the next ones.
    rate_of(lambda: pool.bounded_map(tasks.nothing, iter(range(200)), most))
    count = 20_000 if quick else 200_000
    return {"rate": rate_of(lambda: pool.bounded_map(tasks.nothing, iter(range(count)), most))}


def timed(new: New, quick: bool) -> dict[str, float]:
    """Map tiny calls, each of which would be ended if it took longer than 5 s."""
    pool = started(new)
    count = 2000 if quick else 20_000
    return {"rate": rate_of(lambda: pool.timed_map(tasks.nothing, range(count), 5.0), 30.0)}


AHEAD = Group(
    "bounded",
    "map with few inputs ahead",
    "200,000 tiny calls through an ordered map that takes at most 1, 16 or 1,000 inputs ahead of the results, for "
    "3 s at most, 2 workers. By `map(buffersize=n)` where a pool has that, which the standard one does since Python "
    "3.14; by `max_tasks_active` of mpire and `pre_dispatch` of joblib, one input at a time. Elsewhere by what users "
    "write instead: they keep n futures in a deque, wait for the first, and submit another.",
    tuple(
        Scenario(f"bounded-{most}", f"{most:,}", (_RATE,), partial(ahead, most), quick=most == 1000, at=most)
        for most in (1, 16, 1000)
    ),
    axis="inputs ahead",
)

TIMED = Group(
    "timed",
    "map with a time for each call",
    "20,000 tiny calls, each of which is ended if it takes longer than 5 s, 2 workers. By "
    "`options(timeout=5).map`, Pebble's `map(timeout=5)`, mpire's `map(task_timeout=5)`; Billiard and deadpool have "
    "such a time for single tasks. Ratios are to Pebble.",
    (Scenario("timed-map", "", (_RATE,), timed, quick=True),),
    baseline="pebble",
)
