"""When a web application makes its pool, as POOL_AT says.

"module": at module level, first used by a request; "import": there, and used at once, so that every process that
imports the application has a pool that runs; "request": one for each request.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor


class Pools:
    """The application's pool, or where it gets one for each request."""

    def __init__(self) -> None:
        self._when = os.environ.get("POOL_AT", "module")
        self._pool = None if self._when == "request" else ProcessPoolExecutor(2)
        if self._when == "import":
            assert self._pool.submit(tasks.double, 2).result() == 4

    @contextmanager
    def of_request(self) -> Iterator[Executor]:
        if self._pool is not None:
            yield self._pool
            return
        with ProcessPoolExecutor(2) as pool:
            yield pool
