"""Hosts that have something to do themselves: a main thread that computes, an event loop."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks import computing, tasks
from benchmarks.contender import Contender, UnsupportedError
from benchmarks.scenario import Group, Metric, Scenario
from benchmarks.scenarios.common import WORKERS, New, percentile, started

_CLIENTS = 50


def busy(length: float, new: New, quick: bool) -> dict[str, float]:
    """Queue tasks behind a gate, open it, compute in the main thread, and see what the worker did meanwhile."""
    window = 1.0 if quick else 2.0
    alone = _computed(0.5) / 0.5
    with tempfile.TemporaryDirectory() as folder:
        gate, total = os.path.join(folder, "gate"), os.path.join(folder, "total")
        computing.new_total(total)
        pool = started(new, 1)
        count = int(1.2 * window / length)
        if count >= pool.most_pending:
            raise UnsupportedError(f"submit blocks after {pool.most_pending} tasks")
        pool.submit(tasks.wait_for, gate)
        for _ in range(count):
            pool.submit(computing.spin, length, total)
        time.sleep(0.2)  # what the pool does ahead, it has done
        Path(gate).touch()
        turns = _computed(window)
        return {"share": computing.spun(total) / window * 100, "host": turns / window / alone * 100}


def _computed(seconds: float) -> int:
    """Compute for so long and return how often."""
    turns, ends = 0, time.perf_counter() + seconds
    while time.perf_counter() < ends:
        for _ in range(100):
            pass
        turns += 1
    return turns


def event_loop(native: bool, new: New, quick: bool) -> dict[str, float]:
    """Serve requests from an event loop, all at once and then a few at a time, and watch the loop's delay."""
    return asyncio.run(_serve(started(new), native, 1000 if quick else 5000))


async def _serve(pool: Contender, native: bool, count: int) -> dict[str, float]:
    call = pool.native_awaitable if native else pool.awaitable
    began = time.perf_counter()
    await asyncio.gather(*(call(tasks.nothing, number) for number in range(count)))
    burst = count / (time.perf_counter() - began)

    steadily = 4 * count  # so many that the 99th percentile of the delays is not the longest of them

    async def client() -> None:
        for number in range(steadily // _CLIENTS):
            await call(tasks.nothing, number)

    late: list[float] = []
    watcher = asyncio.create_task(_watch(late))
    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    steady = steadily / (time.perf_counter() - began)
    watcher.cancel()
    return {"burst": burst, "steady": steady, "late": percentile(late, 0.99) * 1e3}


async def _watch(late: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append(time.perf_counter() - began - 0.001)


BUSY = Group(
    "busy",
    "A host that computes",
    "Tasks that compute for 50 µs or 1 ms are queued for 1 worker; then the host's main thread computes in Python "
    "for 2 s. The share of that time in which the worker computed, and the host's speed compared with that alone.",
    tuple(
        Scenario(
            f"busy-{name}",
            title,
            (
                Metric("share", "worker busy", "%", more_is_better=True),
                Metric("host", "host's speed", "%", more_is_better=True),
            ),
            partial(busy, length),
            bound=90,
            rounds=3,
        )
        for name, title, length in (("50us", "50 µs", 50e-6), ("1ms", "1 ms", 1e-3))
    ),
)

_LOOP_METRICS = (
    Metric("burst", "burst", "/s", more_is_better=True),
    Metric("steady", "steady", "/s", more_is_better=True),
    Metric("late", "loop delay p99", "ms"),
)

ASYNCIO = Group(
    "asyncio",
    "asyncio",
    "5,000 tiny tasks awaited at once, then 20,000 by 50 clients, one at a time each, with the delay of the event "
    f"loop during that. By run_in_executor, or by what a pool has instead; native: by its own support. {WORKERS} "
    "workers.",
    (
        Scenario("asyncio-executor", "", _LOOP_METRICS, partial(event_loop, False), quick=True),
        Scenario("asyncio-native", "native", _LOOP_METRICS, partial(event_loop, True)),
    ),
)
