"""A host whose system calls are recorded, from one marker to another: workers end in several ways and are replaced.

A marker is a look for a file that is not there. Arguments: what happens in between, and the two markers.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor


def mark(path: str) -> None:
    assert not os.path.exists(path)


def crash(pool) -> None:
    """Have a worker crash, and go on as a user must: with a new pool, where this one is broken."""
    with suppress(BrokenProcessPool):
        pool.submit(tasks.leave, 3).result()
    try:
        assert pool.submit(tasks.double, 2).result() == 4
    except BrokenProcessPool:
        with ProcessPoolExecutor(2) as other:
            assert other.submit(tasks.double, 2).result() == 4


def kill(pool) -> None:
    """Have a task killed by its future, one by a timeout, and workers replaced after each of their tasks."""
    future = pool.submit(time.sleep, 600)
    while not future.running():
        time.sleep(0.005)
    assert future.kill()
    assert future.exception(20) is not None
    assert pool.options(timeout=0.2).submit(time.sleep, 600).exception(20) is not None
    future = pool.options(timeout=0.2, grace=0.2).submit(tasks.touch_and_spin, os.devnull)
    assert future.exception(20) is not None
    assert pool.submit(tasks.double, 2).result() == 4


def main(what: str, begin: str, end: str) -> None:
    # The first thread of a process is what the C library sets handlers of its own for.
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    if what == "all":
        mark(begin)
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(tasks.double, range(20))) == [2 * number for number in range(20)]
        if what != "all":
            mark(begin)
        if what in ("crash", "all"):
            crash(pool)
        if what in ("kill", "all"):
            kill(pool)
        if what != "all":
            mark(end)
    if what == "all":
        mark(end)


if __name__ == "__main__":
    main(*sys.argv[1:])
