"""Start, end and death: the first result, shutdown, and what a killed worker costs."""

from __future__ import annotations

import time
from typing import Any

from benchmarks import tasks
from benchmarks.contender import Contender, UnsupportedError
from benchmarks.scenario import Group, HangsError, Metric, Scenario
from benchmarks.scenarios.common import New, milliseconds_since, patience, started

_FIRST = Metric("first", "", "ms")


def first_result(new: New, _quick: bool) -> dict[str, float]:
    """Time the way from the constructor to a result, and how soon the host goes on; modules are imported already."""
    began = time.perf_counter()
    pool = new(2)
    try:
        future = pool.submit(tasks.nothing, None)
    except UnsupportedError:
        pool.call(tasks.nothing, None)
        return {"first": milliseconds_since(began)}
    submitted = milliseconds_since(began)
    future.result()
    return {"submitted": submitted, "first": milliseconds_since(began)}


def first_result_of_large_host(new: New, quick: bool) -> dict[str, float]:
    """Do the same in a host with many objects; then see what the host pays for having been forked, if it was."""
    heap = [bytes(1000) for _ in range(100_000 if quick else 1_000_000)]
    began = time.perf_counter()
    _touch(heap)
    alone = time.perf_counter() - began
    figures = first_result(new, quick)
    began = time.perf_counter()
    _touch(heap)
    return {**figures, "touched": max(0.0, milliseconds_since(began) - alone * 1e3)}


def _touch(heap: list[bytes]) -> None:
    """Write to every object: its reference count changes, and a page that a fork shares is copied."""
    for _ in heap:
        pass


def shutdown(new: New, _quick: bool) -> dict[str, float]:
    """End a pool that is idle."""
    pool = started(new)
    began = time.perf_counter()
    pool.close()
    return {"idle": milliseconds_since(began)}


def kill(new: New, _quick: bool) -> dict[str, float]:
    """End a pool whose workers have long to go."""
    pool = started(new)
    for _ in range(2):
        pool.submit(time.sleep, 600)
    time.sleep(0.2)
    began = time.perf_counter()
    pool.kill()
    return {"busy": milliseconds_since(began)}


def _error_of(future: Any, seconds: float) -> Exception | None:
    """Return what a future failed with. TimeoutError: it was not resolved in time."""
    try:
        future.result(seconds)
    except Exception as error:
        return error
    return None


def crash(new: New, quick: bool) -> dict[str, float]:
    """Kill a worker by its own task; then get a good result, from a new pool if this one is broken."""
    pool = started(new)
    began = time.perf_counter()
    error = _error_of(pool.submit(tasks.kill_self), patience(quick))
    told = milliseconds_since(began)
    if error is None or isinstance(error, TimeoutError):
        raise HangsError(f"the future of a killed task is not resolved within {patience(quick):g} s")
    try:
        if _error_of(pool.submit(tasks.nothing, None), patience(quick)) is not None:
            raise error
    except Exception:
        new(2).call(tasks.nothing, None)
    return {"told": told, "next": milliseconds_since(began)}


def collateral(new: New, quick: bool) -> dict[str, float]:
    """Submit ten tasks around one that kills its worker, and count those of the ten that come to nothing."""
    pool = started(new)
    futures = [pool.submit(time.sleep, 0.1)]
    fatal = pool.submit(tasks.kill_self)
    lost = 0
    for _ in range(9):
        lost += not _submitted(pool, futures)
    deadline = time.monotonic() + patience(quick)
    for future in (*futures, fatal):
        try:
            future.result(max(0.01, deadline - time.monotonic()))
        except Exception:
            lost += future is not fatal
    return {"lost": lost}


def _submitted(pool: Contender, futures: list[Any]) -> bool:
    try:
        futures.append(pool.submit(time.sleep, 0.1))
    except Exception:
        return False  # the pool broke so soon that it takes no more
    return True


START = Group(
    "start",
    "Start",
    "From the constructor to a first result, modules imported before, 2 workers; in a small host and in one with a "
    "million objects of 1 KB. Submitted: until constructor and submit have returned, which is how long a host waits "
    "that does not want the result yet. Touched afterwards: what reading all of those objects once takes the host "
    "longer than before, because a page that was shared by a fork is copied.",
    (
        Scenario(
            "first-result", "small host", (_FIRST, Metric("submitted", "submitted", "ms")), first_result, quick=True
        ),
        Scenario(
            "first-result-1gb",
            "1 GB",
            (_FIRST, Metric("touched", "touched afterwards", "ms", compared=False)),
            first_result_of_large_host,
            bound=30,
            rounds=2,
        ),
    ),
)

END = Group(
    "shutdown",
    "Shutdown",
    "Until the call that ends the pool returns, 2 workers: of an idle pool; by force, of one whose tasks are long.",
    (
        Scenario("shutdown-idle", "idle", (Metric("idle", "", "ms"),), shutdown, bound=20, quick=True),
        Scenario("shutdown-forced", "by force", (Metric("busy", "", "ms"),), kill, bound=20),
    ),
)

CRASH = Group(
    "crash",
    "A killed worker",
    "A task kills its worker by SIGKILL: until its future fails, and until the next good result, for which a new "
    "pool is made if this one is broken. Then ten good tasks around such a task: how many of the ten came to nothing "
    f"(within {patience(False):g} s). 2 workers.",
    (
        Scenario(
            "crash-told",
            "",
            (Metric("told", "until told", "ms"), Metric("next", "until next result", "ms")),
            crash,
            bound=30,
            quick=True,
        ),
        Scenario(
            "crash-lost",
            "",
            (Metric("lost", "lost", "of 10", compared=False),),
            collateral,
            bound=40,
            quick=True,
            rounds=1,
        ),
    ),
)
