"""A Tornado loop that runs child processes of its own and a pool. Prints as JSON what came of it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tornado.ioloop import IOLoop
from tornado.process import Subprocess

from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor

CODES = [0, 1, 3, 7, 77, 255]


async def child(code: int) -> int:
    process = Subprocess(["sh", "-c", f"sleep 0.05; exit {code}"])
    return await process.wait_for_exit(raise_error=False)


async def together(pool: Any) -> object:
    """Run children while the pool works."""
    loop = IOLoop.current()
    doubles = [loop.run_in_executor(pool, tasks.double, number) for number in range(20)]
    return [await asyncio.gather(*map(child, CODES)), await asyncio.gather(*doubles)]


async def crashes(pool: Any) -> object:
    """Run children while workers of the pool die; the pool goes on, and the children's ends are their own."""
    loop = IOLoop.current()
    ends, told, doubles = [], 0, []
    for code in CODES:
        end = asyncio.ensure_future(child(code))
        crash = (tasks.leave, code) if code % 2 else (tasks.die, signal.SIGKILL)
        try:
            await loop.run_in_executor(pool, *crash)
        except BrokenProcessPool:
            told += 1
        ends.append(await end)
        doubles.append(await loop.run_in_executor(pool, tasks.double, code))
    return [ends, told, doubles]


async def run(story: str) -> None:
    Subprocess.initialize()
    with ProcessPoolExecutor(2) as pool:
        try:
            told = await globals()[story](pool)
        except Exception as error:
            told = {"error": f"{type(error).__name__}: {error}"}
    Subprocess.uninitialize()
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
