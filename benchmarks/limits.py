"""What the machine itself can do: the figures that no pool on it can beat."""

from __future__ import annotations

import asyncio
import heapq
import os
import pickle
import socket
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future

from benchmarks import tasks
from benchmarks.scenario import Limit
from benchmarks.scenarios import mapping
from benchmarks.scenarios.common import WORKERS


def _ping_pong(read_there: int, write_there: int, read_here: int, write_here: int, quick: bool) -> float:
    """Send a byte to a forked process and take one back, many times; return microseconds each."""
    turns = 2000 if quick else 20_000
    pid = os.fork()
    if pid == 0:
        for _ in range(turns):
            os.write(write_there, os.read(read_there, 1))
        os._exit(0)
    began = time.perf_counter()
    for _ in range(turns):
        os.write(write_here, b"x")
        os.read(read_here, 1)
    took = time.perf_counter() - began
    os.waitpid(pid, 0)
    return took / turns * 1e6


def pipes(quick: bool) -> float:
    """Return the time of a round trip through two pipes, in microseconds."""
    (there, here), (back, away) = os.pipe(), os.pipe()
    return _ping_pong(there, away, back, here, quick)


def sockets(quick: bool) -> float:
    """Return the time of a round trip through a socket pair, in microseconds."""
    here, there = socket.socketpair()
    return _ping_pong(there.fileno(), there.fileno(), here.fileno(), here.fileno(), quick)


def copying(quick: bool) -> float:
    """Return how fast memory is copied, in GB/s."""
    size, turns = 64_000_000, 5 if quick else 20
    origin, copy = bytes(range(250)) * (size // 250), bytearray(size)
    view = memoryview(copy)
    view[:] = origin
    began = time.perf_counter()
    for _ in range(turns):
        view[:] = origin
    return turns * size / (time.perf_counter() - began) / 1e9


def forking(quick: bool) -> float:
    """Return how long a fork, an exit and the wait for it take in this small process, in milliseconds."""
    turns = 50 if quick else 200
    began = time.perf_counter()
    for _ in range(turns):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return (time.perf_counter() - began) / turns * 1e3


def _starting(*arguments: str) -> Callable[[bool], float]:
    def measure(quick: bool) -> float:
        """Return how long an interpreter takes that does nothing, in milliseconds."""
        turns = 5 if quick else 20
        began = time.perf_counter()
        for _ in range(turns):
            pid = os.posix_spawn(sys.executable, [sys.executable, *arguments, "-c", "pass"], os.environ)
            os.waitpid(pid, 0)
        return (time.perf_counter() - began) / turns * 1e3

    return measure


def bookkeeping(quick: bool) -> float:
    """Return what a future and the pickling of a tiny call and its result cost in one process, in microseconds."""
    turns = 5000 if quick else 50_000
    began = time.perf_counter()
    for number in range(turns):
        future: Future[object] = Future()
        function, arguments = pickle.loads(pickle.dumps((tasks.nothing, (number,)), 5))
        future.set_result(pickle.loads(pickle.dumps(function(*arguments), 5)))
        future.result()
    return (time.perf_counter() - began) / turns * 1e6


def gathering(quick: bool) -> float:
    """Return what asyncio takes for a task that awaits a future, many at once, in microseconds each."""
    return asyncio.run(_gather(1000 if quick else 5000))


async def _gather(count: int) -> float:
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[None]] = []

    async def wait() -> None:
        futures.append(loop.create_future())
        await futures[-1]

    took = []
    for _ in range(5):
        futures.clear()
        began = time.perf_counter()
        together = asyncio.gather(*(wait() for _ in range(count)))
        while len(futures) < count:
            await asyncio.sleep(0)
        for future in futures:
            future.set_result(None)
        await together
        took.append(time.perf_counter() - began)
    return statistics.median(took) / count * 1e6


def unequal(quick: bool) -> float:
    """Return how long the unequal tasks take two that fall asleep in turns, each taking the next as it wakes."""
    durations = mapping.durations(quick)
    slept = [0.0] * WORKERS
    for seconds in durations:
        began = time.perf_counter()
        time.sleep(seconds)
        heapq.heapreplace(slept, slept[0] + time.perf_counter() - began)
    return max(slept) / mapping.ideal(durations)


LIMITS: dict[str, Limit] = {
    limit.name: limit
    for limit in (
        Limit("pipes", "a byte to another process and back, by two pipes", "µs", pipes),
        Limit("sockets", "the same by a socket pair", "µs", sockets),
        Limit("copying", "copying memory", "GB/s", copying, more_is_better=True),
        Limit("forking", "fork, exit and wait, from a small process", "ms", forking),
        Limit("start-bare", "`python -S -c pass`", "ms", _starting("-S")),
        Limit("start", "`python -c pass`", "ms", _starting()),
        Limit("bookkeeping", "a Future, and a tiny call and its result pickled and unpickled", "µs", bookkeeping),
        Limit("gathering", "an asyncio task that awaits a future, of many at once", "µs", gathering),
        Limit("unequal", "the unequal tasks slept in their order, by whoever is free first", "x ideal", unequal),
    )
}
