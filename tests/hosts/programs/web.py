"""What every web application of these tests answers, whatever server and framework it runs under.

`answer(pool, path, query)` is called in the application's worker, with a pool to use, and returns what is to be sent
as JSON.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from urllib.parse import parse_qs

from tests.hosts.programs import tasks


def answer(pool: Executor, path: str, query: str = "") -> object:
    """Answer a request.

    /            pids of this process and of a pool worker, and a sum that the pool has computed
    /crash?code= has a pool worker exit with this code; tells which exception came of it
    /sleep?seconds=&path=  has a pool worker write its pid to the path, then sleep
    /spin?path=  the same, but it spins for ever and is not waited for
    """
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    if path == "/ready":
        return {"pid": os.getpid()}
    if path == "/":
        doubles = list(pool.map(tasks.double, range(20)))
        return {"pid": os.getpid(), "sum": sum(doubles), "worker": pool.submit(tasks.pid).result()}
    if path == "/crash":
        try:
            pool.submit(tasks.leave, int(asked["code"])).result()
        except BrokenProcessPool as error:
            return {"pid": os.getpid(), "error": type(error).__name__, "text": str(error)}
        return {"pid": os.getpid(), "error": None}
    if path == "/sleep":
        return {
            "pid": os.getpid(),
            "worker": pool.submit(tasks.touch_and_sleep, asked["path"], float(asked["seconds"])).result(),
        }
    if path == "/spin":
        pool.submit(tasks.touch_and_spin, asked["path"])
        return {"pid": os.getpid()}
    raise LookupError(path)


SUM = sum(2 * number for number in range(20))
