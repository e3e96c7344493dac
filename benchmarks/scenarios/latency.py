"""How long one task takes, there and back, while nothing else is going on."""

from __future__ import annotations

import time
from functools import partial

from benchmarks import tasks
from benchmarks.scenario import Group, Metric, Scenario
from benchmarks.scenarios.common import New, percentile, started

_LONGEST = 4.0  # seconds
_METRICS = (Metric("p50", "p50", "µs"), Metric("p99", "p99", "µs"))


def round_trips(gap: float, new: New, quick: bool) -> dict[str, float]:
    """Call one task after the other, with a pause in between; fewer of them if each takes long."""
    pool = started(new)
    times: list[float] = []
    ends = time.perf_counter() + _LONGEST
    while len(times) < (500 if quick else 2000) and time.perf_counter() < ends:
        if gap:
            time.sleep(gap)
        began = time.perf_counter()
        pool.call(tasks.nothing, None)
        times.append((time.perf_counter() - began) * 1e6)
    return {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}


LATENCY = Group(
    "latency",
    "Latency of one task",
    "`submit(...).result()` of a function that does nothing, 2,000 times one after the other; then with a pause of "
    "1 ms before each; fewer, if they take longer than 4 s. 2 workers.",
    (
        Scenario("latency-steady", "steady", _METRICS, partial(round_trips, 0.0), quick=True),
        Scenario("latency-gaps", "1 ms gaps", _METRICS, partial(round_trips, 0.001), quick=True),
    ),
)
