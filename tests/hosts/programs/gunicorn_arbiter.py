"""A configuration of gunicorn that uses a pool in the arbiter, once the server is ready.

POOL_EXIT_CODE says what a pool worker exits with in the middle of a task. What came of it is written to POOL_REPORT.
"""

from __future__ import annotations

import json
import os
from concurrent.futures.process import BrokenProcessPool

from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor

_pools = []  # as long as the arbiter lives


def when_ready(_server):
    """Use a pool, have one of its workers crash, and tell."""
    pool = ProcessPoolExecutor(1)
    _pools.append(pool)
    report = {"pid": os.getpid(), "sum": sum(pool.map(tasks.double, range(20))), "error": None}
    try:
        pool.submit(tasks.leave, int(os.environ["POOL_EXIT_CODE"])).result()
    except BrokenProcessPool as error:
        report["error"] = type(error).__name__
    path = os.environ["POOL_REPORT"]
    with open(f"{path}.part", "w") as file:
        json.dump(report, file)
    os.rename(f"{path}.part", path)
