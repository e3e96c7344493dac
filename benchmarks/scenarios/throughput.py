"""How many tiny tasks a second, and what the host pays for each; and how that grows with the workers."""

from __future__ import annotations

import resource
import time
from functools import partial

from benchmarks import tasks
from benchmarks.scenario import Group, Metric, Scenario
from benchmarks.scenarios.common import WORKERS, New, milliseconds_since, started, warm

_RATE = Metric("rate", "", "tasks/s", more_is_better=True)
_CPU = Metric("cpu", "host CPU", "µs/task")


def _host_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def submit(workers: int, new: New, quick: bool, count: int = 10_000) -> dict[str, float]:
    """Submit many tasks that do nothing, then take all of the results."""
    count = 3000 if quick else count
    pool = started(new, workers)
    cpu, began = _host_cpu(), time.perf_counter()
    for future in [pool.submit(tasks.nothing, number) for number in range(count)]:
        future.result()
    took, cpu = time.perf_counter() - began, _host_cpu() - cpu
    return {"rate": count / took, "cpu": cpu / count * 1e6}


def objects(new: New, quick: bool) -> dict[str, float]:
    """Do the same with objects of a class as arguments and results."""
    count = 3000 if quick else 10_000
    pool = started(new)
    orders = [tasks.Order(number) for number in range(count)]
    cpu, began = _host_cpu(), time.perf_counter()
    for future in [pool.submit(tasks.ordered, order) for order in orders]:
        future.result()
    took, cpu = time.perf_counter() - began, _host_cpu() - cpu
    return {"rate": count / took, "cpu": cpu / count * 1e6}


def scale(workers: int, new: New, quick: bool) -> dict[str, float]:
    """Start so many workers; give them tasks that sleep, so that one processor would do; then tiny tasks."""
    length, each, count = 0.01, 20, 2000 if quick else 5000
    began = time.perf_counter()
    pool = new(workers)
    for future in [pool.submit(time.sleep, 0.3) for _ in range(workers)]:
        future.result()
    first = milliseconds_since(began) - 300
    warm(pool, workers)
    began = time.perf_counter()
    for future in [pool.submit(time.sleep, length) for _ in range(each * workers)]:
        future.result()
    busy = each * length / (time.perf_counter() - began)
    began = time.perf_counter()
    for future in [pool.submit(tasks.nothing, number) for number in range(count)]:
        future.result()
    return {"first": first, "busy": busy * 100, "rate": count / (time.perf_counter() - began)}


THROUGHPUT = Group(
    "submit",
    "Tiny tasks by submit",
    "10,000 calls of a function that does nothing are submitted, then the results are taken. Host CPU is what the "
    "host's own process used, all threads together. Then 40,000 of them; and 10,000 whose argument and result are "
    "objects of a class with two attributes, a number and a dictionary.",
    (
        *(
            Scenario(
                f"submit-{workers}",
                f"{workers} worker{'s' * (workers > 1)}",
                (_RATE, _CPU),
                partial(submit, workers),
                quick=workers == 2,
                at=workers,
            )
            for workers in (1, 2, 4)
        ),
        Scenario("submit-40k", "40,000, 2 workers", (_RATE, _CPU), partial(submit, WORKERS, count=40_000)),
        Scenario("submit-objects", "objects, 2 workers", (_RATE, _CPU), objects),
    ),
)

SCALE = Group(
    "workers",
    "1 to 64 workers",
    "Start: from the constructor until every worker has given a first result. Kept busy: tasks that sleep for 10 "
    "ms, 20 per worker, all submitted at once; the share of the workers' time in which they sleep. Then 5,000 tiny "
    "tasks.",
    tuple(
        Scenario(
            f"workers-{workers}",
            f"{workers}",
            (
                Metric("first", "start", "ms"),
                Metric("busy", "kept busy", "%", more_is_better=True),
                _RATE,
            ),
            partial(scale, workers),
            at=workers,
        )
        for workers in (1, 4, 16, 64)
    ),
    axis="workers",
)
