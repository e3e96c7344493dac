"""A Celery application whose tasks use a pool, over a broker and a result backend that are folders.

POOL says when it is made: "made per task"; "kept", by the process that first needs it; or "made at worker_init", in
the worker's main process, which uses it before its own pool's processes are forked.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded
from celery import Celery
from celery.signals import worker_init

from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor

FOLDER = os.environ["CELERY_FOLDER"]
POOL = os.environ["POOL"]

app = Celery("hosts", broker="filesystem://", backend=f"file://{FOLDER}/results")
app.conf.update(
    broker_transport_options={
        "data_folder_in": f"{FOLDER}/queue",
        "data_folder_out": f"{FOLDER}/queue",
        "control_folder": f"{FOLDER}/control",
        "processed_folder": f"{FOLDER}/processed",
        "store_processed": True,
        "polling_interval": 0.05,
    },
    broker_connection_retry_on_startup=False,
    worker_prefetch_multiplier=1,
)

_kept: dict[str, Any] = {}


@contextmanager
def a_pool() -> Iterator[Any]:
    if POOL == "made per task":
        with ProcessPoolExecutor(2) as pool:
            yield pool
    else:
        if "pool" not in _kept:
            _kept["pool"] = ProcessPoolExecutor(2)
        yield _kept["pool"]


if POOL == "made at worker_init":

    @worker_init.connect
    def use_before_the_fork(**_: object) -> None:
        with a_pool() as pool:
            pool.submit(tasks.double, 1).result()


@app.task
def total() -> list[int]:
    """Return a sum that the pool has computed, and the pids of this process and of the pool's worker."""
    with a_pool() as pool:
        return [sum(pool.map(tasks.double, range(20))), os.getpid(), pool.submit(tasks.pid).result()]


@app.task
def crash(code: int) -> str:
    """Have a worker of the pool exit; return the name of the exception that tells."""
    with a_pool() as pool:
        try:
            pool.submit(tasks.leave, code).result()
        except BrokenProcessPool as error:
            return type(error).__name__
    return "nothing"


@app.task
def overrun(path: str) -> list[Any]:
    """Wait for the pool for longer than the soft time limit, then use the pool again."""
    with a_pool() as pool:
        try:
            pool.submit(tasks.touch_and_sleep, path, 600).result()
        except SoftTimeLimitExceeded as error:
            return [type(error).__name__, pool.submit(tasks.double, 21).result()]
    return ["nothing", 0]


@app.task
def overrun_and_end(path: str) -> str:
    """Wait for a pool for longer than the soft time limit, and give the pool up with what it is doing."""
    pool = ProcessPoolExecutor(2)
    try:
        pool.submit(tasks.touch_and_sleep, path, 600).result()
    except SoftTimeLimitExceeded:
        pool.kill_workers()
        pool.shutdown()
        return "ended"
    return "nothing"


@app.task
def wait_for_pool(path: str, seconds: float) -> int:
    """Have the pool write a pid to the path, and sleep."""
    with a_pool() as pool:
        return pool.submit(tasks.touch_and_sleep, path, seconds).result()


@app.task
def keep_swarm(folder: str) -> int:
    """Start a swarm that lives as long as this process, unless there is one; return the pid of this process."""
    if "swarm" not in _kept:
        from tests.hosts.programs.swarms.contender import Swarm

        _kept["swarm"] = Swarm(2, folder)
    return os.getpid()


@app.task
def who() -> dict[str, Any]:
    """Return what a pool's worker is to multiprocessing, and what this process is."""
    with a_pool() as pool:
        return {"pid": os.getpid(), "daemon": multiprocessing.current_process().daemon, **pool.submit(_who).result()}


def _who() -> dict[str, Any]:
    parent = multiprocessing.parent_process()
    return {
        "worker_daemon": multiprocessing.current_process().daemon,
        "worker_parent": parent and parent.pid,
    }
