"""What the asynchronous web applications of these tests answer: as `web.answer`, without blocking the event loop."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from urllib.parse import parse_qs

from tests.hosts.programs import tasks


async def answer(pool: Executor, path: str, query: str = "") -> object:
    """Answer a request; the paths are those of `web.answer`."""
    loop = asyncio.get_running_loop()
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    if path == "/ready":
        return {"pid": os.getpid()}
    if path == "/":
        doubles = await asyncio.gather(*(loop.run_in_executor(pool, tasks.double, number) for number in range(20)))
        return {"pid": os.getpid(), "sum": sum(doubles), "worker": await loop.run_in_executor(pool, tasks.pid)}
    if path == "/crash":
        try:
            await loop.run_in_executor(pool, tasks.leave, int(asked["code"]))
        except BrokenProcessPool as error:
            return {"pid": os.getpid(), "error": type(error).__name__, "text": str(error)}
        return {"pid": os.getpid(), "error": None}
    if path == "/sleep":
        seconds = float(asked["seconds"])
        worker = await loop.run_in_executor(pool, tasks.touch_and_sleep, asked["path"], seconds)
        return {"pid": os.getpid(), "worker": worker}
    if path == "/spin":
        pool.submit(tasks.touch_and_spin, asked["path"])
        return {"pid": os.getpid()}
    if path == "/background":
        pool.submit(tasks.touch_and_sleep, asked["path"], float(asked["seconds"]))
        return {"pid": os.getpid()}
    raise LookupError(path)
