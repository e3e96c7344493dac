"""A configuration of gunicorn that uses a pool in the arbiter, once the server is ready.

POOL_EXIT_CODE says what the pool's workers exit with, all of them at a time, in the middle of a task. What came of it
is written to POOL_REPORT.
"""

from __future__ import annotations

import json
import os
import time

from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor

WORKERS = 4  # several, because the arbiter and the standard pool compete for each one's exit status

_pools = []  # as long as the arbiter lives


def leave_at(when: float, code: int) -> None:
    time.sleep(max(0.0, when - time.time()))
    os._exit(code)


def when_ready(_server):
    """Use a pool, have its workers crash, and tell."""
    pool = ProcessPoolExecutor(WORKERS)
    _pools.append(pool)
    report = {"pid": os.getpid(), "sum": sum(pool.map(tasks.double, range(20)))}
    when = time.time() + 0.5
    futures = [pool.submit(leave_at, when, int(os.environ["POOL_EXIT_CODE"])) for _ in range(WORKERS)]
    report["errors"] = [type(future.exception()).__name__ for future in futures]
    path = os.environ["POOL_REPORT"]
    with open(f"{path}.part", "w") as file:
        json.dump(report, file)
    os.rename(f"{path}.part", path)
