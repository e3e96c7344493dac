"""What is timed: each case takes a fresh or a warm executor and returns a figure, in the unit that it names."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

WORKERS = 2


@dataclass(frozen=True)
class Case:
    """One thing to time. Of a rate, more is better; of a time, less."""

    name: str
    unit: str
    measure: Callable[[Callable[[], Executor]], float]

    @property
    def is_rate(self) -> bool:
        """Whether more is better."""
        return self.unit.endswith("/s")


def nothing(value: object) -> None:
    """Take an argument and return nothing: what is left is the pool's own cost."""


def echo(value: object) -> object:
    """Send the payload back."""
    return value


def start_to_first_result(new: Callable[[], Executor]) -> float:
    """Time the way from the constructor to a result, with the modules imported already."""
    began = time.perf_counter()
    with new() as pool:
        pool.submit(nothing, None).result()
        return (time.perf_counter() - began) * 1e3


def round_trip(new: Callable[[], Executor]) -> float:
    """Return the median time from submit to result, one task at a time."""
    with new() as pool:
        _warm(pool)
        times = []
        for _ in range(1000):
            began = time.perf_counter()
            pool.submit(nothing, None).result()
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def submitted(new: Callable[[], Executor]) -> float:
    """Count tiny tasks per second, all submitted at once."""
    with new() as pool:
        _warm(pool)
        began = time.perf_counter()
        for future in [pool.submit(nothing, number) for number in range(5000)]:
            future.result()
        return 5000 / (time.perf_counter() - began)


def mapped(new: Callable[[], Executor]) -> float:
    """Count tiny items per second through map in chunks of 100."""
    with new() as pool:
        _warm(pool)
        began = time.perf_counter()
        for _ in pool.map(nothing, range(100_000), chunksize=100):
            pass
        return 100_000 / (time.perf_counter() - began)


def megabytes(new: Callable[[], Executor]) -> float:
    """Count payloads of 1 MB there and back, per second, four at a time."""
    payload = bytes(1_000_000)
    with new() as pool:
        _warm(pool)
        began = time.perf_counter()
        for _ in range(25):
            for future in [pool.submit(echo, payload) for _ in range(4)]:
                future.result()
        return 100 / (time.perf_counter() - began)


def _warm(pool: Executor) -> None:
    for future in [pool.submit(time.sleep, 0.05) for _ in range(2 * WORKERS)]:
        future.result()


CASES = (
    Case("start to first result", "ms", start_to_first_result),
    Case("round trip of a tiny task", "µs", round_trip),
    Case("tiny tasks, submitted", "/s", submitted),
    Case("tiny items, map(chunksize=100)", "/s", mapped),
    Case("1 MB there and back", "/s", megabytes),
)
