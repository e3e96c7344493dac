"""The jobs of queues: what web applications answer, written to a file. POOL_AT says when the pool is made.

QUEUE says which queue this is for, and QUEUE_URL where Redis is.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from tests.hosts.programs import tasks
from tests.hosts.programs.pools import Pools
from tests.hosts.programs.web import answer

URL = os.environ["QUEUE_URL"]


_pools = Pools()


def perform(path: str, query: str, file: str) -> None:
    """Do what the path asks for, and write what came of it to the file; beside that, first, who does it."""
    said: Any
    with open(f"{file}-performer", "w") as performer:
        performer.write(str(os.getpid()))
    try:
        with _pools.of_request() as pool:
            said = overrun(pool, query) if path == "/overrun" else answer(pool, path, query)
    except BaseException as error:
        said = {"failed": f"{type(error).__name__}: {error}"}
        raise
    finally:
        with open(f"{file}.part", "w") as out:
            json.dump(said, out)
        os.rename(f"{file}.part", file)


def overrun(pool: Any, path: str) -> list[Any]:
    """Wait for a task that takes longer than the job's time limit, then use the pool again.

    It looks up now and then, because an exception that is raised in a thread from outside is raised only there.
    """
    try:
        future = pool.submit(tasks.touch_and_sleep, path, 8.0)  # on a busy machine the limit may strike here
        while True:
            with suppress(TimeoutError):
                future.result(timeout=0.05)
    except BaseException as error:
        return [type(error).__name__, pool.submit(tasks.double, 21).result()]


if os.environ["QUEUE"] == "RQ":
    from redis import Redis
    from rq import Queue

    def put(limit: float, *arguments: str) -> None:
        queue = Queue(connection=Redis.from_url(URL))
        queue.enqueue("tests.hosts.far.programs.jobs.perform", *arguments, job_timeout=limit or 600)

elif os.environ["QUEUE"] == "Dramatiq":
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    dramatiq.set_broker(RedisBroker(url=URL))
    _actor = dramatiq.actor(perform, max_retries=0, time_limit=600_000)

    def put(limit: float, *arguments: str) -> None:
        _actor.send_with_options(args=arguments, time_limit=int(1000 * (limit or 600)))

else:
    from huey import RedisHuey

    huey = RedisHuey("far", url=URL, immediate=False)
    _task = huey.task(name="perform")(perform)

    def put(limit: float, *arguments: str) -> None:
        _task(*arguments)


def put_all(limit: str, *arguments: str) -> None:
    """Put jobs into the queue: path, query and file of each; limit: how many seconds they may take, or 0."""
    for index in range(0, len(arguments), 3):
        put(float(limit), *arguments[index : index + 3])
