"""What type checkers say of a program that uses the pool. Checked by them, never run."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar, Unpack, assert_type

import pidfdpool
from pidfdpool import (
    CurrentTask,
    Death,
    Future,
    Options,
    Outcome,
    PidfdPoolExecutor,
    PoolBroken,
    PoolOptions,
    Stats,
    TaskOptions,
    TaskTimeout,
    WorkerCrashed,
    WorkerInfo,
    WorkerName,
)
from pidfdpool.pidfd import ExitStatus

T = TypeVar("T")


def length(text: str, *, least: int = 0) -> int:
    return max(len(text), least)


def standard(executor: concurrent.futures.Executor) -> concurrent.futures.Future[int]:
    return executor.submit(length, "text")


def calls(pool: PidfdPoolExecutor) -> None:
    future = pool.submit(length, "text", least=3)
    assert_type(future, Future[int])
    assert_type(future.result(), int)
    assert_type(future.exception(), BaseException | None)
    assert_type(future.worker, WorkerName | None)
    assert_type(future.started_at, float | None)
    assert_type(future.kill(), bool)
    pool.submit(length, 5)  # type: ignore[arg-type]
    pool.submit(length, "text", lest=3)  # type: ignore[call-arg]
    assert_type(pool.map(length, ["a", "b"]), Iterator[int])
    assert_type(pool.map_unordered(length, ["a", "b"], chunksize=1), Iterator[int])
    assert_type(list(pool.map(length, ["a"], timeout=3)), list[int])
    assert_type(pool.map(length, [("a",)], star=True, return_exceptions=False), Iterator[int])
    for outcome in pool.map(length, ["a"], return_exceptions=True):
        assert_type(outcome, Outcome[int])
        assert_type(outcome.index, int)
        assert_type(outcome.value, int | None)
        assert_type(outcome.error, BaseException | None)
        assert_type(outcome.ok, bool)
        assert_type(outcome.result(), int)
    for done in pidfdpool.as_completed([future]):
        assert_type(done.result(), int)
    finished, waiting = pidfdpool.wait([future], return_when=pidfdpool.FIRST_COMPLETED)
    assert_type(finished, set[concurrent.futures.Future[int]])
    assert_type(waiting, set[concurrent.futures.Future[int]])
    assert_type(pool.stats(), Stats)
    assert_type(pool.workers(), tuple[WorkerInfo, ...])
    assert_type(pool.subscribe(print), Callable[[], None])
    with pool as same:
        assert_type(same, PidfdPoolExecutor)


def views(pool: PidfdPoolExecutor) -> None:
    view = pool.options(timeout=5, retries=2)
    assert_type(view, Options)
    assert_type(view.options(priority=1).submit(length, "text"), Future[int])
    assert_type(view.map(length, ["a"]), Iterator[int])
    assert_type(view.map_unordered(length, ["a"], return_exceptions=True), Iterator[Outcome[int]])
    assert_type(standard(view), concurrent.futures.Future[int])
    assert_type(standard(pool), concurrent.futures.Future[int])
    pool.options(timeuot=5)  # type: ignore[call-arg]
    pool.options(max_pending=5)  # type: ignore[call-arg]
    pool.options(retries="2")  # type: ignore[arg-type]


def made_with(**options: Unpack[PoolOptions]) -> PidfdPoolExecutor:
    rules: TaskOptions = {"timeout": 3, "cancel_kills": True}
    PidfdPoolExecutor(2, **rules)
    return PidfdPoolExecutor(2, preload="numpy", **options)


async def asynchronous(pool: PidfdPoolExecutor) -> None:
    assert_type(await pool.run(length, "text"), int)
    assert_type(await pool.options(timeout=1).run(length, "text"), int)
    assert_type(await asyncio.gather(pool.run(length, "a"), pool.run(str.upper, "b")), tuple[int, str])
    results = pool.amap(length, ["a", "b"])
    assert_type(results, AsyncIterator[int])
    async for result in results:
        assert_type(result, int)
    assert_type(pool.amap_unordered(length, results, ["b"]), AsyncIterator[int])
    assert_type(pool.amap(length, results, return_exceptions=True), AsyncIterator[Outcome[int]])
    async with pool as same:
        assert_type(same, PidfdPoolExecutor)
    async with pool.options(timeout=1) as view:
        assert_type(view, Options)
    assert_type(await pool.aclose(cancel_futures=True), None)
    assert_type(await asyncio.wrap_future(pool.submit(length, "text")), int)
    loop = asyncio.get_running_loop()
    assert_type(await loop.run_in_executor(pool.options(timeout=1), length, "text"), int)


def errors(crash: WorkerCrashed, timeout: TaskTimeout, broken: PoolBroken) -> None:
    for error in (crash, timeout):
        assert_type(error.death, Death | None)
        assert_type(error.deaths, tuple[Death, ...])
        assert_type(error.task, str)
        assert_type(error.task_id, int)
        assert_type(error.attempt, int)
        assert_type(error.pid, int | None)
        assert_type(error.exit_status, ExitStatus | None)
        assert_type(error.stack, str | None)
        assert_type(error.stderr, tuple[str, ...] | None)
    crash.pdi  # type: ignore[attr-defined]  # noqa: B018
    assert_type(broken.deaths, tuple[Death, ...])
    assert_type(crash.deaths[0].exit_status.signal, int | None)


def in_a_task() -> None:
    assert_type(pidfdpool.current_task(), CurrentTask | None)
    assert_type(pidfdpool.heartbeat(), None)
