"""What programs with an event loop of their own have in common: asking a pool, and having its workers crash."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor


def ask(pool: Executor, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
    return asyncio.get_running_loop().run_in_executor(pool, function, *arguments)


async def doubles(pool: Executor) -> None:
    """Have the pool compute something, and check it."""
    assert await asyncio.gather(*(ask(pool, tasks.double, n) for n in range(20))) == list(range(0, 40, 2))


async def crash(pool: Executor) -> Executor:
    """Have a worker exit with 3; return a pool that works: another one if this one is broken, as users do."""
    try:
        await ask(pool, tasks.leave, 3)
    except BrokenProcessPool:
        pass
    else:
        raise AssertionError("the crash is not told")
    try:
        await doubles(pool)
    except BrokenProcessPool:
        pool.shutdown()
        pool = ProcessPoolExecutor(2)
        await doubles(pool)
    return pool
